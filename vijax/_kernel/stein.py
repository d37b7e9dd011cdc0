"""The force that draws particles to a target and holds them apart."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from .._custom_types import Point
from .._misc import as_real, map_in_batches, tree_size
from .._target.target import Target
from .base import AbstractKernel, Positions


def stein_force(
    kernel: AbstractKernel, x: Positions, target: Target, temperature: Scalar | float
) -> Float[Array, "particles dim"]:
    r"""Where each particle is drawn to: uphill, and away from the others,

    $$\phi(x_i) = \frac{1}{n} \sum_j
      k(x_j, x_i) \nabla \log p(x_j) / T + \nabla_{x_j} k(x_j, x_i).$$

    The matrix of all pairs is made in blocks, so that it need not fit in memory.
    """
    look = jax.value_and_grad(target.log_density)
    log_p, scores = map_in_batches(look, x, tree_size(target.data))
    # Where the density is zero throughout, gradients may be zero and say nothing of it.
    somewhere = jnp.any(jnp.isfinite(log_p))
    scores = jnp.where(somewhere, scores / temperature, jnp.nan)
    kernel = kernel.fitted(x)

    def force(y: Point) -> Point:
        values, repulsion = kernel.values_and_repulsion(x, y)
        return (jnp.dot(values, scores, precision="highest") + repulsion) / x.shape[0]

    return map_in_batches(force, x, 2 * x.shape[0])


def squared_norm(force: Float[Array, "particles dim"]) -> Scalar:
    """The mean over the particles of the squared length of the force."""
    return jnp.mean(jnp.sum(force**2, axis=1))


def check_temperature(temperature: Any) -> float:
    """A temperature as a positive number."""
    if not 0 < as_real(temperature) < float("inf"):
        raise ValueError(
            f"`temperature` must be positive and finite, but it is {temperature!r}."
        )
    return float(temperature)
