"""Importance weights, smoothed by Pareto tails (PSIS)."""

import numpy as np
from jaxtyping import Array, Float

from .._misc import is_traced


# The fewest draws for which the tail has the five that a fit needs.
FEWEST_DRAWS = 25
# So many nats below the smallest weight, one counts as zero.
_NOTHING = 100.0
# The k-hat of a tail that ends at once, as a uniform's does.
_BOUNDED = -1.0
# With fewer the weights of a proposal are not judged or used here.
NUM_DRAWS = 4_096


def check_log_weights(
    log_p: Float[Array, " draws"], log_q: Float[Array, " draws"]
) -> np.ndarray:
    """The log weights on the host, or an error if importance says nothing. Where the
    target has no density they are very small."""
    if is_traced(log_p, log_q):
        raise ValueError(
            "Pareto smoothing calls ArviZ, on the host: not inside `jax.jit`, `jax.vmap` "
            "or the like. Hand the draws out, and call it on them."
        )
    count = log_p.shape[0]
    if count < FEWEST_DRAWS:
        raise ValueError(
            f"The tail of {count} weights is too short for a k-hat. Draw at least "
            f"{FEWEST_DRAWS}, better 1,000 or more."
        )
    log_weights = (np.asarray(log_p) - np.asarray(log_q)).astype(np.float64)
    bad = int(np.sum(np.isnan(log_weights) | (log_weights == np.inf)))
    if bad or not np.any(np.isfinite(log_weights)):
        bad = bad or count
        raise ValueError(
            f"{bad} of {count} log weights are NaN or infinite: the target has no "
            "finite log density where the family draws. The fit is far off, or the "
            "supports of the parameters are wrong."
        )
    return _with_floor(log_weights)


def _with_floor(log_weights: np.ndarray) -> np.ndarray:
    """The log weights, with very small ones in place of those that are not finite."""
    finite = np.isfinite(log_weights)
    return np.where(finite, log_weights, np.min(log_weights[finite]) - _NOTHING)


def proposal_log_weights(
    log_p: Float[Array, " draws"], log_q: Float[Array, " draws"]
) -> np.ndarray:
    """The log weights on the host of draws from a heavy-tailed proposal.

    Such a proposal reaches on purpose to where the target has no density: there the
    weight is very small, while `check_log_weights` takes it for a mistake.
    """
    log_weights = np.asarray(log_p, np.float64) - np.asarray(log_q, np.float64)
    finite = np.isfinite(log_weights)
    if not finite.any():
        raise ValueError(
            "None of the draws has a finite log density: the fit is far off, or the "
            "supports of the parameters are wrong."
        )
    return _with_floor(log_weights)


def is_constant(
    log_p: Float[Array, " draws"], log_q: Float[Array, " draws"], log_weights: np.ndarray
) -> bool:
    """Whether the log weights differ by no more than rounding."""
    # A difference of two rounded numbers is known no better than this.
    sizes = np.abs(np.asarray([log_p, log_q]))
    size = max(np.max(sizes, where=np.isfinite(sizes), initial=0.0), 1.0)
    rounding = 16 * float(np.finfo(np.asarray(log_p).dtype).eps * size)
    return bool(np.ptp(log_weights) <= rounding)


def smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """ArviZ's Pareto-smoothed log weights, normalized, and their k-hat: infinite where
    one draw has all the weight."""
    from arviz_stats.base.array import array_stats

    plain = log_weights - np.logaddexp.reduce(log_weights)
    try:
        # ArviZ wants log ratios of the other sign. Where one draw has all the weight it
        # divides by zero.
        with np.errstate(all="ignore"):
            smooth, khat = array_stats.psislw(-log_weights)
    except ValueError:
        # All weights of the tail are equal, which ArviZ refuses.
        return plain, _BOUNDED
    if np.isnan(smooth).any() or np.isnan(khat):
        return plain, np.inf
    return np.asarray(smooth), float(khat)


def smoothed_log_weights(
    log_p: Float[Array, " draws"], log_q: Float[Array, " draws"]
) -> np.ndarray:
    """Pareto-smoothed log importance weights; equal ones where only rounding differs."""
    log_weights = check_log_weights(log_p, log_q)
    if is_constant(log_p, log_q, log_weights):
        return np.zeros_like(log_weights)
    return smoothed(log_weights)[0]
