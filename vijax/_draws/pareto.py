"""Tails of importance weights, smoothed by a generalized Pareto distribution."""

import numpy as np
from jaxtyping import Float


# The tail: three roots of the number of draws, but no larger part of them.
_ROOTS, _LARGEST_PART = 3.0, 0.2
# With fewer in the tail nothing is fitted.
_FEWEST = 5
# The shape of a tail that ends at once, as a uniform's does.
_BOUNDED = -1.0
# Candidates for a fit, beside as many as the root of the tail; and what their prior is in
# units of the first quartile.
_CANDIDATES, _PRIOR = 30, 3.0
# The shape is drawn towards one half, as by so many draws more.
_SHAPE, _PRIOR_DRAWS = 0.5, 10
# Candidates of a smaller weight do not count.
_NEGLIGIBLE = 10 * np.finfo(np.float64).eps


def pareto_smoothed(
    log_weights: Float[np.ndarray, " draws"],
) -> tuple[Float[np.ndarray, " draws"], float]:
    """Normalized log weights, the largest of them replaced by quantiles of a generalized
    Pareto distribution, and its shape, the k-hat; as they are, with an infinite one,
    where the tail is too short, or one draw has all the weight.

    What ArviZ does too; but that takes longer to import than most fits.

    **Reference:** Vehtari, Simpson, Gelman, Yao and Gabry (2024), *Pareto smoothed
    importance sampling*, JMLR 25(72), sections 2 and 3.
    """
    count = len(log_weights)
    plain = log_weights - np.max(log_weights)
    size = int(min(_LARGEST_PART * count, _ROOTS * count**0.5))
    if size < _FEWEST:
        return plain - np.logaddexp.reduce(plain), np.inf
    first = count - size - 1
    largest = np.argpartition(plain, first)[first:]
    largest = largest[np.argsort(plain[largest], kind="stable")]
    tail, cutoff = largest[1:], plain[largest[0]]
    if plain[tail[0]] == 0:
        # All of the tail is as large as the largest.
        return plain - np.logaddexp.reduce(plain), _BOUNDED
    least, out = np.exp(cutoff), plain.copy()
    # Where one draw has all the weight, or many have equal ones, this divides by zero.
    with np.errstate(all="ignore"):
        shape, scale = _fitted(np.exp(plain[tail]) - least)
        places = (np.arange(size) + 0.5) / size
        smooth = np.log(least + _quantiles(places, shape, scale))
    if np.any(np.isnan(smooth)):
        return plain - np.logaddexp.reduce(plain), np.inf
    # None is larger than the largest was.
    out[tail] = np.minimum(smooth, 0)
    return out - np.logaddexp.reduce(out), shape


def _fitted(excess: Float[np.ndarray, " tail"]) -> tuple[float, float]:
    """The shape and the scale of a generalized Pareto distribution, of increasing draws.

    **Reference:** Zhang and Stephens (2009), *A new and efficient estimation method for
    the generalized Pareto distribution*, Technometrics 51(3).
    """
    count = len(excess)
    number = _CANDIDATES + int(count**0.5)
    quartile = excess[int(count / 4 + 0.5) - 1]
    spread = 1 - np.sqrt(number / (np.arange(number) + 0.5))
    candidates = 1 / excess[-1] + spread / (_PRIOR * quartile)
    shapes = np.mean(np.log1p(-candidates[:, None] * excess), axis=1)
    profile = count * (np.log(-candidates / shapes) - shapes - 1)
    weights = np.exp(profile - np.logaddexp.reduce(profile))
    weights = np.where(weights < _NEGLIGIBLE, 0, weights)
    chosen = float(weights @ candidates / np.sum(weights))
    shape = float(np.mean(np.log1p(-chosen * excess)))
    drawn = (count * shape + _PRIOR_DRAWS * _SHAPE) / (count + _PRIOR_DRAWS)
    return drawn, -shape / chosen


def _quantiles(
    places: Float[np.ndarray, " tail"], shape: float, scale: float
) -> Float[np.ndarray, " tail"]:
    if not scale > 0:
        return np.full_like(places, np.nan)
    if shape == 0:
        return -scale * np.log1p(-places)
    return scale * np.expm1(-shape * np.log1p(-places)) / shape
