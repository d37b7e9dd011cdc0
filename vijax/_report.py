"""The verdict on a fit."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ._correct import NUM_DRAWS, proposed
from ._custom_types import Key
from ._diagnosis import columns, diagnose, Diagnosis, Quantity
from ._diagnostic.base import Estimate
from ._diagnostic.elbo import elbo
from ._draws import draw, Draws
from ._family.base import AbstractFamily
from ._fit_result import Fit
from ._method.auto import agreement, AutoState
from ._method.auto_flow import AutoFlow, NUM_DRAWS as FLOW_DRAWS
from ._misc import as_key, as_whole
from ._proposal import heavy_tailed
from ._results import name_of, RESULTS
from ._target import Target


# How far a family's own mean may be off, in standard deviations, and its standard
# deviation, in logarithms, where draws are not corrected.
_MEAN_ERROR, _STD_ERROR = 0.2, 0.25
# Draws at which the scores of both densities are compared.
_SCORE_DRAWS = 256
# So many rows of the table are printed.
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Report:
    r"""What is known of how good a fit is. It prints as a verdict in words and a table.

    **Attributes:**

    - `trustworthy`: whether means and standard deviations of all parameters can be
        relied on: those of `fit.draw(n, key=key)`. It is `True` if `problems` is empty.
    - `problems`: what speaks against it, in sentences.
    - `advice`: what to do.
    - `result`: why the run ended: the name of a member of [`vijax.RESULTS`][].
    - `corrected`: whether `fit.draw` corrects its draws by importance, so that the
        verdict is about corrected draws.
    - `elbo`: the ELBO of the family, in nats, and its standard error.
    - `log_evidence`: the importance-weighted estimate of the log evidence, and its
        standard error. The ELBO is below it by the divergence of the family.
    - `khat`: the Pareto k-hat of the weights.
    - `effective`: the effective sample size over the number of draws.
    - `num_draws`: how many draws were weighted.
    - `quantities`: of each number of the posterior its mean, standard deviation and how
        well these are known, worst first: see `name`, `mean`, `std`, `khat`,
        `mean_stderr`, `std_stderr`, `mean_error`, `std_error`.
    - `score_discrepancy`: $\mathbb{E}_q \|\nabla \log p - \nabla \log q\|^2$ in units
        where the family has unit covariance, a coordinate; zero only if the two are the
        same.
    - `num_agreeing`, `num_apart`: how many starts came to rest where the family is, and
        elsewhere; `None` for a method of one start.
    - `num_modes`: how many modes the family has.
    - `num_evaluations`: how many gradients of the log density the method took; `None`
        where it does not count them.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, key=jax.random.key(0))
        report = vi.report(fit, key=jax.random.key(1))
        print(report)
        report.gap, report.quantities[0].mean_stderr
        ```
    """

    trustworthy: bool
    problems: tuple[str, ...]
    advice: str
    result: str
    corrected: bool
    elbo: Estimate
    log_evidence: Estimate
    khat: float
    effective: float
    num_draws: int
    quantities: tuple[Quantity, ...]
    score_discrepancy: float
    num_agreeing: int | None
    num_apart: int | None
    num_modes: int
    num_evaluations: int | None

    @property
    def gap(self) -> float:
        """How far the ELBO is below the log evidence, in nats."""
        return float(self.log_evidence.mean) - float(self.elbo.mean)

    def __repr__(self) -> str:
        return "\n".join([_headline(self), *_lines(self), "", *_table(self)])


def _headline(report: Report) -> str:
    what = (
        "the draws of `fit.draw`, corrected by importance,"
        if report.corrected
        else ("plain draws of the family")
    )
    if report.trustworthy:
        return f"Trustworthy: nothing speaks against {what} among what was looked at."
    return "Not trustworthy. " + " ".join(report.problems) + f" {report.advice}"


def _lines(report: Report) -> list[str]:
    e, z = report.elbo, report.log_evidence
    lines = [
        f"  The run ended: {report.result}."
        + (f" {report.num_evaluations:,} gradients." if report.num_evaluations else ""),
        f"  ELBO {float(e.mean):.2f} ± {float(e.stderr):.2f}, log evidence "
        f"{float(z.mean):.2f} ± {float(z.stderr):.2f}: a gap of {report.gap:.2f} nats.",
        f"  Weights of {report.num_draws:,} draws: k-hat {report.khat:.2f}, effective "
        f"{100 * report.effective:.0f} %. Score discrepancy "
        f"{report.score_discrepancy:.2g} a coordinate.",
    ]
    if report.num_agreeing is not None:
        lines.append(
            f"  Starts that came to rest at the answer: {report.num_agreeing}, "
            f"elsewhere: {report.num_apart}. Modes in the answer: {report.num_modes}."
        )
    return lines


def _table(report: Report) -> list[str]:
    head = (
        f"  {'':20s} {'mean':>10s} {'sd':>10s} {'k-hat':>6s} {'mean ±':>7s} {'sd ±':>7s}"
    )
    if not report.corrected:
        head += f" {'mean off':>9s} {'sd off':>7s}"
    lines = [head]
    for q in report.quantities[:_SHOWN]:
        line = (
            f"  {q.name:20s} {q.mean:10.4g} {q.std:10.4g} {q.khat:6.2f} "
            f"{q.mean_stderr:7.3f} {q.std_stderr:7.3f}"
        )
        if not report.corrected:
            line += f" {q.mean_error:9.2f} {q.std_error:7.2f}"
        lines.append(line)
    rest = len(report.quantities) - _SHOWN
    if rest > 0:
        lines.append(f"  ... and {rest} more, in `.quantities`, worst first.")
    return lines


def _badness(q: Quantity) -> float:
    parts = q.khat / 0.8, q.mean_stderr / 0.15, q.std_stderr / 0.15
    errors = abs(q.mean_error) / _MEAN_ERROR, abs(q.std_error) / _STD_ERROR
    return float(np.nan_to_num(max(*parts, *errors), nan=np.inf))


def _own_moments(diagnosis: Diagnosis, plain: Draws) -> tuple[Quantity, ...]:
    """The quantities with the errors of the family's own moments."""
    names, values = columns(plain)
    own = dict(zip(names, values.T, strict=True))
    out = []
    for q in diagnosis.quantities:
        column = own[q.name]
        with np.errstate(all="ignore"):
            mean_error = (np.mean(column) - q.mean) / q.std
            std_error = np.log(np.std(column) / q.std)
        errors = {"mean_error": float(mean_error), "std_error": float(std_error)}
        out.append(dataclasses.replace(q, **errors))
    return tuple(out)


@eqx.filter_jit
def _discrepancy(family: AbstractFamily, target: Target, x: Any) -> Any:
    """`E |root' (score p - score q)|^2 / dim`, `root` of the draws' covariance."""
    moved = x - jnp.mean(x, axis=0, keepdims=True)
    covariance = moved.T @ moved / len(x)
    scale = jnp.sqrt(jnp.diagonal(covariance))
    unit = covariance / scale[:, None] / scale[None, :]
    unit += 1e-5 * jnp.eye(len(scale), dtype=x.dtype)
    root = scale[:, None] * jnp.linalg.cholesky(unit)
    gap = lambda x: jax.grad(target.log_density)(x) - jax.grad(family.log_prob)(x)
    # One after the other: as much memory as one gradient takes.
    gaps = jax.lax.map(gap, x[:_SCORE_DRAWS], batch_size=16)
    return jnp.mean((gaps @ root) ** 2)


def _history(fit: Fit) -> AutoState | None:
    method = fit.problem.method
    state = method.before if isinstance(method, AutoFlow) else fit.state
    return state if isinstance(state, AutoState) else None


def _named(quantities: tuple[Quantity, ...]) -> str:
    names = [f"`{q.name}`" for q in quantities[:4]]
    more = len(quantities) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _problems(
    fit: Fit,
    diagnosis: Diagnosis,
    quantities: tuple[Quantity, ...],
    *,
    corrected: bool,
    agreeing: tuple[int, int] | None,
) -> list[str]:
    out = []
    if fit.result == RESULTS.nonfinite:
        out.append("The run failed: its steps were not finite.")
    if diagnosis.effective <= 0.1:
        out.append(
            f"The draws are worth {100 * diagnosis.effective:.1f} % of their number: the "
            "family is far from the target."
        )
    failing = tuple(q for q in quantities if not q.is_fine)
    if failing:
        out.append(
            f"What the weights say of {_named(failing)} has no reliable error: the "
            "family does not cover where the posterior has its mass, or its tails are "
            "so heavy that the variance may not exist (quantiles do)."
        )
    if not corrected and not failing:
        off = tuple(
            q
            for q in quantities
            if not (abs(q.mean_error) < _MEAN_ERROR and abs(q.std_error) < _STD_ERROR)
        )
        if off:
            out.append(
                f"The family's own mean or standard deviation of {_named(off)} is off, "
                "by importance weights that are sound. Draws with `corrected=True` are "
                "better."
            )
    if agreeing is not None and agreeing[1] > 0 and agreeing[0] < 2:
        out.append(
            f"{agreeing[1]} starts came to rest elsewhere, and {agreeing[0]} where the "
            "answer is: there may be a better mode that none has found."
        )
    return out


_ADVICE = (
    "Reparameterize (e.g. a non-centered hierarchy, or a bounded parameter on another "
    "scale), try a richer family, or run NUTS from here with `vi.to_nuts`."
)


def report(fit: Fit, *, key: Key, num_draws: int = NUM_DRAWS) -> Report:
    r"""Say how far a fit can be trusted, and why.

    It draws from the family with heavier tails and weighs the draws by the target. The
    verdict is about means and standard deviations of all named parameters. `trustworthy`
    asks that

    - the weighted draws are worth more than a tenth of their number;
    - for every parameter the Pareto $\hat{k}$ of its contributions $w (x - m)^2$ is below
      0.8, and the standard errors of mean and standard deviation below 15 %;
    - where draws are not corrected, as after ADVI, the family's own means are within 0.2
      standard deviations and its standard deviations within 25 % of the weighted ones;
    - not fewer than two starts came to rest at the answer if any did elsewhere.

    The error rates of this rule, on posteriors with reference draws, are in
    `benchmarks/README.md`. Weights are blind to a mode in which no draw lies: there the
    starts are all that is known.

    **Arguments:**

    - `fit`: a [`vijax.Fit`][].
    - `key`: randomness. Keyword only.
    - `num_draws`: how many draws are weighed. Keyword only.

    **Returns:**

    A [`vijax.Report`][], which prints as a verdict.

    **Raises:** `ValueError` for a family without a density, such as particles, or if no
    draw has a finite log density.

    **Reference:** Yao, Vehtari, Simpson and Gelman (2018), *Yes, but did it work?*,
    [arXiv:1802.02538](https://arxiv.org/abs/1802.02538); Vehtari, Simpson, Gelman, Yao
    and Gabry (2024), *Pareto smoothed importance sampling*,
    [arXiv:1507.02646](https://arxiv.org/abs/1507.02646), section 3 on $\hat{k}$ of a
    quantity.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, key=jax.random.key(0))
        report = vi.report(fit, key=jax.random.key(1))
        report.trustworthy, report.khat
        ```
    """
    if not isinstance(fit, Fit):
        raise ValueError(f"`fit` must be a `vi.Fit`, but it is a {type(fit).__name__}.")
    num_draws, key = as_whole("num_draws", num_draws, 100), as_key(key)
    family = fit.family
    if not family.has_density:
        raise ValueError(
            f"`{type(family).__name__}` has no density, so that nothing can be weighed. "
            "Put a Gaussian around each particle, `vi.Particles(fit.family.x, bandwidth="
            "0.1)`, and look at the draws of that; or fit a family with a density."
        )
    proposal = fit.proposal
    corrected = proposal is not None
    proposal = heavy_tailed(family) if proposal is None else proposal
    keys = _keys(key)
    diagnosis = diagnose(proposed(proposal, fit.target, num_draws, keys[0]))
    plain = draw(family, fit.target, num_draws, key=keys[1])
    quantities = diagnosis.quantities
    if not corrected:
        quantities = _own_moments(diagnosis, plain)
    state = _history(fit)
    agreeing = None
    if state is not None:
        near, apart = agreement(state)
        agreeing = int(near), int(apart)
    problems = _problems(
        fit, diagnosis, quantities, corrected=corrected, agreeing=agreeing
    )
    components = getattr(family, "logits", None)
    return Report(
        trustworthy=not problems,
        problems=tuple(problems),
        advice=_ADVICE if problems else "",
        result=name_of(fit.result),
        corrected=corrected,
        elbo=elbo(plain),
        log_evidence=Estimate(
            jnp.asarray(diagnosis.log_evidence),
            jnp.asarray(diagnosis.log_evidence_stderr),
        ),
        khat=diagnosis.khat,
        effective=diagnosis.effective,
        num_draws=diagnosis.num_draws,
        quantities=tuple(sorted(quantities, key=_badness, reverse=True)),
        score_discrepancy=float(_discrepancy(family, fit.target, plain.x)),
        num_agreeing=None if agreeing is None else agreeing[0],
        num_apart=None if agreeing is None else agreeing[1],
        num_modes=1 if components is None else components.size,
        num_evaluations=None if state is None else _evaluations(fit, state),
    )


def _evaluations(fit: Fit, state: AutoState) -> int:
    """Gradients of all stages, and the weighed draws that chose between these."""
    flow = fit.problem.method
    made = int(state.num_evaluations)
    if isinstance(flow, AutoFlow):
        made += FLOW_DRAWS * int(fit.num_steps) + NUM_DRAWS
    return made + NUM_DRAWS


@jax.jit
def _keys(key: Key) -> tuple[Key, Key]:
    first, second = jr.split(key)
    return first, second
