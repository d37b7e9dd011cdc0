"""Resampling: choosing among weighted draws, on the host."""

import numpy as np
from jaxtyping import Float, Int


def with_replacement(
    generator: np.random.Generator,
    log_weights: Float[np.ndarray, " draws"],
    num_draws: int,
) -> Int[np.ndarray, " chosen"]:
    """Systematic resampling: each draw is as likely as by independent choices, but there
    is less noise in what is computed from all of them.

    In random order, so that a part of them is a sample too.
    """
    ends = np.cumsum(np.exp(log_weights - np.max(log_weights)))
    places = (np.arange(num_draws) + generator.uniform()) / num_draws * ends[-1]
    chosen = np.minimum(np.searchsorted(ends, places), log_weights.size - 1)
    return generator.permutation(chosen)


def without_replacement(
    generator: np.random.Generator,
    log_weights: Float[np.ndarray, " draws"],
    num_draws: int,
) -> Int[np.ndarray, " chosen"]:
    """The draws with the largest log weights after Gumbel noise (Efraimidis and Spirakis,
    2006)."""
    noisy = log_weights + generator.gumbel(size=log_weights.size)
    return np.argsort(-noisy, kind="stable")[:num_draws]
