"""The verdict: what speaks against a fit, as a pure function of the evidence."""

import dataclasses

from .._draws.diagnosis import Diagnosis, Quantity
from .._misc import listed
from .._survey.survey import UNSEEN
from .evidence import Evidence


_ADVICE = (
    "Reparameterize (e.g. a non-centered hierarchy, or a bounded parameter on another "
    "scale), try a richer family, or run NUTS from here with `vi.to_nuts` (for an answer "
    "that is nested or a flow in its own coordinates, with `neutra=True`)."
)
# A mode with more of the mass than this moves means and standard deviations.
_SHARE = 0.01
# Rounding of the log density that costs draws, in nats.
_NOISE = 0.5
# A kernel Stein discrepancy that independent draws exceed so rarely is too large.
_PVALUE = 0.002


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What speaks against a fit.

    **Attributes:**

    - `problems`: in sentences; none if nothing does.
    - `diagnosis`: what the verdict rests on: the weights, or where these are too few and
        trajectories leave the draws where they are, the draws at their ends.
    """

    problems: tuple[str, ...]
    diagnosis: Diagnosis

    @property
    def advice(self) -> str:
        """What to do."""
        return _ADVICE if self.problems else ""


def judge(evidence: Evidence) -> Verdict:
    """Weigh what was gathered."""
    diagnosis = _sounder(evidence)
    return Verdict(tuple(_problems(evidence, diagnosis)), diagnosis)


def _sounder(evidence: Evidence) -> Diagnosis:
    """The diagnosis to rely on."""
    moved = evidence.moved
    if moved is None or any(q.is_off or not q.is_fine for q in moved.quantities):
        return evidence.weights
    return dataclasses.replace(
        evidence.weights, quantities=moved.quantities, acceptance=moved.acceptance
    )


def _listed(quantities: tuple[Quantity, ...]) -> str:
    return listed((f"`{q.name}`" for q in quantities), most=4)


def _problems(evidence: Evidence, diagnosis: Diagnosis) -> list[str]:
    out = []
    if evidence.result == "nonfinite":
        out.append("The run failed: its steps were not finite.")
    out += _of_quantities(evidence, diagnosis)
    out += _of_numbers(evidence, diagnosis)
    out += _of_modes(evidence)
    ksd = evidence.kernel_stein_discrepancy
    if ksd is not None and float(ksd.pvalue) < _PVALUE:
        out.append(
            "The particles are further from the target than as many independent draws "
            "would be, by their kernel Stein discrepancy."
        )
    if evidence.mirrored:
        names = listed(f"`{name}`" for name in evidence.mirrored)
        out.append(
            f"With the other sign of {names} the target is the same, but the answer is "
            "on one side only: half of the mass or more is missing. If both sides mean "
            "the same, constrain a sign, e.g. by a positive support."
        )
    if evidence.num_left > 0:
        out.append(
            f"A part of the rows has {evidence.num_left + 1} modes with mass, of which "
            "one was followed. Without batches, `target.with_batch_size(None)`, all are."
        )
    return out


def _of_quantities(evidence: Evidence, diagnosis: Diagnosis) -> list[str]:
    out = []
    if diagnosis.has_few:
        out.append(
            f"The draws are worth {100 * diagnosis.effective:.1f} % of their number: the "
            "family is far from the target."
        )
    failing = diagnosis.failing
    if failing:
        out.append(
            f"What the weights say of {_listed(failing)} has no reliable error: the "
            "family does not cover where the posterior has its mass, or its tails are "
            "so heavy that the variance may not exist (quantiles do)."
        )
    off = tuple(q for q in diagnosis.quantities if q.is_off)
    if off and not failing:
        better = (
            "Draws with `corrected=True` are better."
            if evidence.kernel_stein_discrepancy is None
            else "Particles find unequal scales and correlations easier in "
            "`vi.Whitened(method, rough)`."
        )
        out.append(
            f"The family's own mean or standard deviation of {_listed(off)} is off, by "
            f"importance weights that are sound. {better}"
        )
    return out


def _of_numbers(evidence: Evidence, diagnosis: Diagnosis) -> list[str]:
    coarse, noise = evidence.rounding
    cure = '`jax.config.update("jax_enable_x64", True)` before the model is made'
    if coarse:
        names = listed((f"`{name}`" for name in coarse), most=4)
        return [
            f"The numbers are too coarse for {names}: neighboring ones are a good part "
            f"of a standard deviation apart. Subtract a constant, or {cure} helps."
        ]
    if noise > _NOISE and (diagnosis.has_few or diagnosis.failing):
        return [
            f"The log density is rounded to about {noise:.1g} nats, which alone makes "
            f"weights uneven: {cure} helps."
        ]
    return []


def _of_modes(evidence: Evidence) -> list[str]:
    out = []
    own, found = evidence.own_starts, evidence.found_starts
    if own is not None and own.num_apart > 0 and own.num_near < 2:
        out.append(
            f"{own.num_apart} starts came to rest elsewhere, and {own.num_near} where "
            "the answer is: there may be a better mode that none has found."
        )
    known = [starts for starts in (own, found) if starts is not None]
    # Where others are given globals the density need not have a maximum at all.
    if (
        known
        and not evidence.globals
        and not any(starts.num_near + starts.num_apart for starts in known)
    ):
        out.append(
            "No start came to rest: nothing is known of modes that may be missing."
        )
    if own is not None and own.other_share > _SHARE:
        out.append(
            f"Modes that were found, but not followed, hold about "
            f"{100 * own.other_share:.0f} % of the mass, by their rough Gaussians. "
            "`vi.Auto(max_evaluations=...)` may be too small."
        )
    if own is not None and own.unseen > UNSEEN:
        out.append(
            f"About {100 * own.unseen:.0f} % of the starts led to modes that no other "
            "start led to: most likely there are more, which none has found."
        )
    if found is not None and found.other_share > _SHARE:
        out.append(
            f"Starts of the report came to rest at another mode, which holds about "
            f"{100 * found.other_share:.0f} % of the mass by Laplace's approximation. "
            '`method="auto"` follows the modes that it finds.'
        )
    return out
