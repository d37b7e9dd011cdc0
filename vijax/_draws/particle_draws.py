"""Particles as draws: each of them once, and the Gaussian of their moments."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._family.particles import Particles
from .._linalg import equilibrated_cholesky
from .._misc import map_in_batches, tree_size
from .._target.target import Target
from .draws import Draws


# What is added to correlations, lest a few particles have none of full rank.
_JITTER = 1e-4


@eqx.filter_jit
def _gaussian(x: Float[Array, "particles dim"]) -> FullRank:
    moved = x - jnp.mean(x, axis=0, keepdims=True)
    covariance = moved.T @ moved / (len(x) - 1)
    if len(x) < 2 * x.shape[1]:
        covariance = jnp.diag(jnp.diagonal(covariance))
    return FullRank(jnp.mean(x, axis=0), equilibrated_cholesky(covariance, _JITTER))


def check_particles(family: AbstractFamily) -> FullRank:
    """The Gaussian with the moments of some particles."""
    if not isinstance(family, Particles):
        raise ValueError(
            f"`{type(family).__name__}` has no density, so that nothing can be weighed."
        )
    if family.num_particles < 2:
        raise ValueError("A report needs two particles at least, but there is only one.")
    return _gaussian(family.x)


@eqx.filter_jit
def _log_p(target: Target, x: Array) -> Array:
    return map_in_batches(target.log_density, x, tree_size(target.data))


def each_particle(family: Any, target: Target) -> Draws:
    """Draws that are each of the particles once."""
    return Draws(family.x, None, _log_p(target, family.x), target, {})
