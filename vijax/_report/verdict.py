"""Whether a fit can be trusted: what speaks against it, in words."""

import dataclasses

import numpy as np

from .._draws.diagnosis import columns, Diagnosis, Quantity
from .._draws.draws import Draws


ADVICE = (
    "Reparameterize (e.g. a non-centered hierarchy, or a bounded parameter on another "
    "scale), try a richer family, or run NUTS from here with `vi.to_nuts`."
)


# A mode with more of the mass than this moves means and standard deviations.
_SHARE = 0.01
# A kernel Stein discrepancy that independent draws exceed so rarely is too large.
_PVALUE = 0.002


def with_own_moments(
    quantities: tuple[Quantity, ...], plain: Draws
) -> tuple[Quantity, ...]:
    """The quantities, and how far the family's own moments are from these."""
    names, values = columns(plain)
    own = dict(zip(names, values.T, strict=True))
    out = []
    for q in quantities:
        column = own[q.name]
        with np.errstate(all="ignore"):
            mean_error = (np.mean(column) - q.mean) / q.std
            std_error = np.log(np.std(column) / q.std)
        errors = {"mean_error": float(mean_error), "std_error": float(std_error)}
        out.append(dataclasses.replace(q, **errors))
    return tuple(out)


def _listed(quantities: tuple[Quantity, ...]) -> str:
    names = [f"`{q.name}`" for q in quantities[:4]]
    more = len(quantities) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def problems_of(
    diagnosis: Diagnosis,
    *,
    failed: bool,
    agreeing: tuple[int, int] | None,
    num_left: int,
    other_share: float,
    pvalue: float | None,
) -> list[str]:
    """What speaks against a fit.

    **Arguments:**

    - `diagnosis`: of its draws.
    - `failed`: whether its steps were not finite. Keyword only.
    - `agreeing`: how many starts came to rest at the answer, and elsewhere; `None` if
        there was one. Keyword only.
    - `num_left`: how many modes with mass were found, but not followed. Keyword only.
    - `other_share`: the part of the mass at a mode that the report found, and that the
        family has not. Keyword only.
    - `pvalue`: of the kernel Stein discrepancy of particles; `None` for another
        family. Keyword only.
    """
    out = []
    if failed:
        out.append("The run failed: its steps were not finite.")
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
            if pvalue is None
            else "Particles find unequal scales and correlations easier in "
            "`vi.Whitened(method, rough)`."
        )
        out.append(
            f"The family's own mean or standard deviation of {_listed(off)} is off, by "
            f"importance weights that are sound. {better}"
        )
    if agreeing is not None and agreeing[1] > 0 and agreeing[0] < 2:
        out.append(
            f"{agreeing[1]} starts came to rest elsewhere, and {agreeing[0]} where the "
            "answer is: there may be a better mode that none has found."
        )
    if other_share > _SHARE:
        out.append(
            f"Starts of the report came to rest at another mode, which holds about "
            f"{100 * other_share:.0f} % of the mass by Laplace's approximation. "
            '`method="auto"` follows the modes that it finds.'
        )
    if pvalue is not None and pvalue < _PVALUE:
        out.append(
            "The particles are further from the target than as many independent draws "
            "would be, by their kernel Stein discrepancy."
        )
    if num_left > 0:
        out.append(
            f"A part of the rows has {num_left + 1} modes with mass, of which one was "
            "followed. Without batches, `target.with_batch_size(None)`, all are."
        )
    return out
