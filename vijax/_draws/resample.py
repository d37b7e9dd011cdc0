"""Resampling: choosing among weighted draws."""

import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from .._custom_types import Key


def with_replacement(
    key: Key, log_weights: Float[Array, " draws"], num_draws: int
) -> Int[Array, " chosen"]:
    """Systematic resampling: each draw is as likely as by independent choices, but there
    is less noise in what is computed from all of them.

    In random order, so that a part of them is a sample too.
    """
    place_key, shuffle_key = jr.split(key)
    ends = jnp.cumsum(jax.nn.softmax(log_weights))
    start = jr.uniform(place_key, (), ends.dtype)
    places = (jnp.arange(num_draws, dtype=ends.dtype) + start) / num_draws * ends[-1]
    chosen = jnp.minimum(jnp.searchsorted(ends, places), log_weights.size - 1)
    return jr.permutation(shuffle_key, chosen)


def without_replacement(
    key: Key, log_weights: Float[Array, " draws"], num_draws: int
) -> Int[Array, " chosen"]:
    """The draws with the largest log weights after Gumbel noise (Efraimidis and Spirakis,
    2006)."""
    noise = jr.gumbel(key, log_weights.shape, log_weights.dtype)
    return lax.top_k(log_weights + noise, num_draws)[1]
