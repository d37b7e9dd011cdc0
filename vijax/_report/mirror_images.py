"""Whether the target is the same with other signs, and the answer is not."""

import numpy as np
from jaxtyping import Float

from .._host_distributions import AbstractHostDistribution
from .._survey.starts import images
from .._target.coordinates import names_of, numbers_of
from .._target.probe import HostProbe


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

    Tried are all parameters together, each alone, each pair, and what belongs to one
    label in all of them, on the unconstrained scale: a symmetry costs one evaluation, and
    no draw of one side sees the other.
    """
    x, (places, signs) = x[:_NUM_DRAWS], images(numbers_of(probe.target))
    signs = signs[np.all(places == np.arange(x.shape[1]), axis=1)]
    known = probe.raw(x)[1]
    first = probe.raw(x[:1] * signs)[1]
    for row in signs[_are_same(first, known[0])]:
        if np.all(_are_same(probe.raw(x * row)[1], known)):
            gap = np.median(family.log_prob(x) - family.log_prob(x * row))
            if gap > _MISSED:
                return names_of(probe.target, np.flatnonzero(row < 0).tolist())
    return ()


def _are_same(log_p: np.ndarray, known: np.ndarray | float) -> np.ndarray:
    eps = float(np.finfo(np.float32).eps)
    rounding = _ROUNDING * eps * np.maximum(np.abs(known), 1.0)
    with np.errstate(invalid="ignore"):
        return np.abs(log_p - known) < _SAME + rounding
