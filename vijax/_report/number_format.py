"""Whether floating-point numbers are fine enough for a posterior."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .._target.coordinates import names_of
from .._target.probe import HostProbe


# Draws that are looked at.
_NUM_DRAWS = 64
# Neighboring numbers may be so much of a standard deviation apart.
_COARSE = 0.05


class Rounding(NamedTuple):
    """Coordinates whose standard deviations are too near to the spacing of their numbers,
    and the standard deviation of the log density between numbers next to each other, in
    nats, without what its gradient tells."""

    coarse: tuple[str, ...]
    noise: float


def rounding(probe: HostProbe, x: Float[np.ndarray, "draws dim"]) -> Rounding:
    """How the target's numbers are rounded at draws `x`."""
    sds = np.std(x, axis=0)
    here = x[:_NUM_DRAWS].astype(probe.dtype)
    spacing = np.max(np.spacing(np.abs(here)), axis=0)
    coarse = np.flatnonzero(spacing > _COARSE * sds)
    signs = np.where(np.random.default_rng(0).random(here.shape) < 0.5, -1, 1)
    there = np.nextafter(here, (signs * np.inf).astype(probe.dtype))
    # In another order, so that each is evaluated beside others.
    (_, log_p, score), (_, moved, _) = probe.raw(here), probe.raw(there[::-1])
    with np.errstate(all="ignore"):
        expected = np.sum(score * (there.astype(float) - here.astype(float)), axis=1)
        gaps = moved[::-1] - log_p - expected
    finite = np.isfinite(gaps)
    gaps, log_p = gaps[finite], log_p[finite]
    if gaps.size == 0:
        return Rounding(names_of(probe.target, coarse.tolist()), 0.0)
    # What is rounded on the way, and the last rounding.
    last = np.spacing(np.max(np.abs(log_p)).astype(probe.dtype)) / np.sqrt(12)
    noise = max(float(np.std(gaps) / np.sqrt(2)), float(last))
    return Rounding(names_of(probe.target, coarse.tolist()), noise)
