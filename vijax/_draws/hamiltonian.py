"""Draws moved towards the target by trajectories of Hamiltonian Monte Carlo."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._linalg import equilibrated_cholesky
from .._misc import lenient_promotion, map_in_batches, split_key, tree_size
from .._target.target import Target


# Trajectories of a quarter of the period that the target has where it is what the family
# is: one of them forgets where it began.
NUM_TRAJECTORIES = 4
_LENGTH = np.pi / 2
# Steps of this length over the fourth root of the dimension are accepted at .8 then.
_STEP = 1.2
_HALVINGS = 2
# Below, the family's coordinates are not those in which the target is easy.
FEWEST_ACCEPTED = 0.5
# The draws that try a step.
_NUM_TRIED = 32
# Above so many coordinates roots of covariances cost more than they bring.
_DENSE_DIM = 1_000


class Coordinates(NamedTuple):
    """`x = loc + root z`; `root` is a matrix or a vector of scales."""

    loc: Point
    root: Float[Array, "dim dim"] | Float[Array, " dim"]

    def inside(self, x: Point) -> Point:
        """`z` of `x`."""
        moved = x - self.loc
        if self.root.ndim == 1:
            return moved / self.root
        return jsl.solve_triangular(self.root, moved, lower=True)

    def outside(self, z: Point) -> Point:
        """`x` of `z`."""
        return self.loc + (self.root * z if self.root.ndim == 1 else self.root @ z)

    def score(self, score: Point) -> Point:
        """A gradient with respect to `z`, from one with respect to `x`."""
        return self.root * score if self.root.ndim == 1 else self.root.T @ score


def own_coordinates(family: AbstractFamily, x: Float[Array, "draws dim"]) -> Coordinates:
    """Where the family has mean zero and unit covariance: by its own account, or by its
    draws'; unit variances where covariances are too many."""
    if isinstance(family, FullRank):
        return Coordinates(family.loc, family.tril)
    loc = jnp.mean(x, axis=0)
    if family.dim > _DENSE_DIM or len(x) < 2 * family.dim:
        return Coordinates(loc, jnp.std(x, axis=0))
    moved = x - loc[None]
    return Coordinates(loc, equilibrated_cholesky(moved.T @ moved / len(x), 1e-5))


class Carried(NamedTuple):
    """Draws after the last trajectory, their log densities, and the part of the last
    trajectories' ends that was accepted."""

    x: Float[Array, "draws dim"]
    log_p: Float[Array, " draws"]
    acceptance: Float[Array, ""]


@eqx.filter_jit
def _carry(
    target: Target,
    coordinates: Coordinates,
    x: Float[Array, "draws dim"],
    step: Float[Array, ""],
    key: Key,
) -> Carried:
    from numpyro.infer.hmc import hmc

    potential = lambda z: -target.log_density(coordinates.outside(z))

    def one(start_and_key: tuple[Point, Key]) -> tuple[Point, Array, Array]:
        start, key = start_and_key
        begin, go_on = hmc(potential, algo="HMC")
        state = begin(
            coordinates.inside(start),
            num_warmup=0,
            step_size=step,  # pyright: ignore[reportArgumentType]  # Traced is fine.
            trajectory_length=_LENGTH,
            adapt_step_size=False,
            adapt_mass_matrix=False,
            rng_key=key,
        )
        last = jax.lax.fori_loop(0, NUM_TRAJECTORIES, lambda _, s: go_on(s), state)
        return coordinates.outside(last.z), -last.potential_energy, last.accept_prob

    size = tree_size(target.data) + x.shape[1]
    with lenient_promotion():
        carried = map_in_batches(one, (x, jr.split(key, len(x))), size)
    return Carried(carried[0], carried[1], jnp.mean(carried[2]))


def carried(
    target: Target, family: AbstractFamily, x: Float[Array, "draws dim"], key: Key
) -> Carried:
    """Draws of the family, moved by a few trajectories each.

    No divergence from the target grows by that, since the target's is what a trajectory
    leaves as it is (Cover and Thomas, *Elements of Information Theory*, section 4.4).
    """
    try_key, key = split_key(key)
    coordinates = _coordinates(family, x)
    step = _STEP * x.shape[1] ** -0.25
    for _ in range(_HALVINGS):
        few = _carry(target, coordinates, x[:_NUM_TRIED], _as(step, x), try_key)
        if float(few.acceptance) >= FEWEST_ACCEPTED:
            break
        step /= 2
    return _carry(target, coordinates, x, _as(step, x), key)


_coordinates = eqx.filter_jit(own_coordinates)


def _as(number: float, x: Array) -> Array:
    return jax.device_put(np.asarray(number, x.dtype))
