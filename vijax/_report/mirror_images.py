"""Whether the target is the same with other signs, and the answer is not."""

import itertools

import numpy as np
from jaxtyping import Float

from .._host_distributions import AbstractHostDistribution
from .._nested.coordinates import numbers_of
from .._target.probe import HostProbe


# Images that are tried: as many as one block of points takes, with the point itself.
_MOST = 63
# Draws whose images are looked at.
_NUM_DRAWS = 16
# Log densities of a point and its image are the same to this, and to rounding.
_SAME, _ROUNDING = 1e-3, 64
# So many nats below a draw's, the family's density at its image is another.
_MISSED = 5.0


def missing_image(
    probe: HostProbe, family: AbstractHostDistribution, x: Float[np.ndarray, "draws dim"]
) -> tuple[str, ...]:
    """Parameters whose signs, changed together, leave the target as it is, but not the
    family: half of the mass is missing. None of such.

    Tried are all parameters together, each alone, and each pair, on the unconstrained
    scale: a symmetry costs one evaluation, and no draw of one side sees the other.
    """
    x, numbers = x[:_NUM_DRAWS], numbers_of(probe.target)
    names = tuple(numbers)
    several = [(name,) for name in names] + [*itertools.combinations(names, 2)]
    tried = [names, *several][:_MOST]
    signs = np.ones((len(tried), x.shape[1]))
    for row, chosen in zip(signs, tried, strict=True):
        for name in chosen:
            row[numbers[name].ravel()] = -1
    known = probe.raw(x)[1]
    first = probe.raw(x[:1] * signs)[1]
    for row in signs[_are_same(first, known[0])]:
        if np.all(_are_same(probe.raw(x * row)[1], known)):
            gap = np.median(family.log_prob(x) - family.log_prob(x * row))
            if gap > _MISSED:
                return tuple(n for n in names if np.all(row[numbers[n].ravel()] < 0))
    return ()


def _are_same(log_p: np.ndarray, known: np.ndarray | float) -> np.ndarray:
    eps = float(np.finfo(np.float32).eps)
    rounding = _ROUNDING * eps * np.maximum(np.abs(known), 1.0)
    with np.errstate(invalid="ignore"):
        return np.abs(log_p - known) < _SAME + rounding
