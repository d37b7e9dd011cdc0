"""The text: a report as it prints, in words and a table."""

from typing import Any

import numpy as np

from .._misc import listed


# So many rows of the table are printed.
_SHOWN = 8


def as_text(report: Any) -> str:
    """A [`vijax.Report`][] as it prints."""
    return "\n".join([_headline(report), *_lines(report), "", *_table(report)])


def _headline(report: Any) -> str:
    how = "importance" if report.acceptance is None else "resample-move"
    what = (
        f"the draws of `fit.draw`, corrected by {how},"
        if report.corrected
        else "plain draws of the family"
    )
    if report.trustworthy:
        return f"Trustworthy: nothing speaks against {what} among what was looked at."
    return "Not trustworthy. " + " ".join(report.problems) + f" {report.advice}"


def _lines(report: Any) -> list[str]:
    z, ksd = report.log_evidence, report.kernel_stein_discrepancy
    ended = f"  The run ended: {report.result}."
    evidence = f"log evidence {float(z.mean):.2f} ± {float(z.stderr):.2f}"
    weights = f"{report.num_draws:,} draws: k-hat {report.khat:.2f}, effective "
    weights += f"{100 * report.effective:.0f} %."
    if report.num_evaluations:
        ended += f" {report.num_evaluations:,} gradients."
    if ksd is None:
        lines = [
            ended,
            f"  {_elbo(report, evidence)}",
            f"  Weights of {weights}{_scores(report)}",
        ]
    else:
        lines = [
            ended,
            f"  Kernel Stein discrepancy {float(ksd.value):.3g} (p = "
            f"{float(ksd.pvalue):.2g} against independent draws), {evidence}.",
            f"  Weights of a Student t with the particles' moments, {weights}",
        ]
    if report.estimates:
        names = listed(f"`{name}`" for name in report.estimates)
        lines.append(
            f"  All this is given the point estimates of {names}, whose own uncertainty "
            "nothing here knows."
        )
    if report.globals:
        names = listed(f"`{name}`" for name in report.globals)
        lines.append(f"  Given {names} the other coordinates are nearly Gaussian.")
    if report.acceptance is not None:
        lines.append(
            "  These weights are too few. But Hamiltonian trajectories "
            f"(accepted: {100 * report.acceptance:.0f} %) end where the family is."
        )
    if report.num_agreeing is not None:
        lines.append(
            f"  Starts that came to rest where the answer is: {report.num_agreeing}, "
            f"elsewhere: {report.num_apart}. Modes in the answer: {report.num_modes}."
        )
    return lines


def _elbo(report: Any, evidence: str) -> str:
    """The ELBO beside the evidence, where there is one: at some draws of a wide family
    the density may not be finite."""
    e = report.elbo
    if not np.isfinite(float(e.mean)):
        return f"No ELBO: the density is not finite at some plain draws; {evidence}."
    known = f"ELBO {float(e.mean):.2f} ± {float(e.stderr):.2f}, {evidence}"
    return f"{known}: a gap of {report.gap:.2f} nats."


def _scores(report: Any) -> str:
    if not np.isfinite(report.score_discrepancy):
        return ""
    return f" Score discrepancy {report.score_discrepancy:.2g} a coordinate."


def _table(report: Any) -> list[str]:
    head = (
        f"  {'':20s} {'mean':>10s} {'sd':>10s} {'k-hat':>6s} {'mean ±':>7s} {'sd ±':>7s}"
    )
    shows_own = not report.corrected or report.acceptance is not None
    if shows_own:
        head += f" {'mean off':>9s} {'sd off':>7s}"
    lines = [head]
    for q in report.quantities[:_SHOWN]:
        line = (
            f"  {q.name:20s} {q.mean:10.4g} {q.std:10.4g} {q.khat:6.2f} "
            f"{q.mean_stderr:7.3f} {q.std_stderr:7.3f}"
        )
        if shows_own:
            line += f" {q.mean_error:9.2f} {q.std_error:7.2f}"
        lines.append(line)
    rest = len(report.quantities) - _SHOWN
    if rest > 0:
        lines.append(f"  ... and {rest} more, in `.quantities`, worst first.")
    return lines
