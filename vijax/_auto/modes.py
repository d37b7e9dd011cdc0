"""Gaussians at several places, and the modes that [`vijax.Auto`][] has found."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import Point
from .._family.full_rank import FullRank
from .._family.mixture import Mixture
from .._linalg import one_by_one
from .._misc import tree_where


# The most modes that are looked into.
_MAX_MODES = 4
# After so many that turned out to be known ones, no others are expected.
_MAX_MERGED = 2
# A mode with a smaller part of the mass than this is left out of the answer.
_SMALLEST_PART = 1e-4
# The smallest weight in a mixture: fewer draws would say nothing of the component.
_SMALLEST_WEIGHT = 0.05


class Gaussians(NamedTuple):
    """Some Gaussians and their ELBO, which is minus infinity where there is none."""

    loc: Float[Array, "count dim"]
    tril: Float[Array, "count dim dim"]
    elbo: Float[Array, " count"]


def no_gaussians(count: int, loc: Point) -> Gaussians:
    """Room for some, of the dimension and dtype of `loc`."""
    return Gaussians(
        jnp.zeros((count, loc.size), loc.dtype),
        jnp.zeros((count, loc.size, loc.size), loc.dtype),
        jnp.full(count, -jnp.inf, loc.dtype),
    )


class Modes(NamedTuple):
    """Gaussians at the modes found so far, how many, and how often one was met again."""

    gaussians: Gaussians
    num_modes: Int[Array, ""]
    num_merged: Int[Array, ""]

    @property
    def known(self) -> Bool[Array, " modes"]:
        """Which of the places hold a mode."""
        return jnp.arange(_MAX_MODES, dtype=jnp.int32) < self.num_modes

    @property
    def wants_more(self) -> Bool[Array, ""]:
        """Whether another one may be looked for."""
        return (self.num_modes < _MAX_MODES) & (self.num_merged < _MAX_MERGED)

    def coordinates(
        self, x: Float[Array, "points dim"]
    ) -> Float[Array, "modes points dim"]:
        """Points where each mode has mean zero and unit covariance."""

        def one(mode):
            loc, tril = mode
            return jsl.solve_triangular(tril, (x - loc[None]).T, lower=True).T

        return one_by_one(one, (self.gaussians.loc, self._trils()))

    def _squared_distances(self, x: Point) -> Float[Array, " modes"]:
        return jnp.sum(self.coordinates(x[None])[:, 0] ** 2, axis=1)

    def _trils(self) -> Float[Array, "modes dim dim"]:
        tril = self.gaussians.tril
        eye = jnp.eye(tril.shape[1], dtype=tril.dtype)
        return jnp.where(self.known[:, None, None], tril, eye)

    def is_near(self, x: Point) -> Bool[Array, ""]:
        """Whether a point is where some mode has its mass."""
        dim = x.size
        near = self._squared_distances(x) < dim + 4 * (2 * dim) ** 0.5 + 8
        return jnp.any(near & self.known)

    def is_another(self, x: Point, score: Point) -> Bool[Array, ""]:
        """Whether a point is at rest, in the scale of a mode, and near none."""
        pull = jnp.sum(jnp.einsum("kji,j->ki", self._trils(), score) ** 2, axis=1)
        at_rest = pull < 1 + 1e-3 * self._squared_distances(x)
        return jnp.any(at_rest & self.known) & ~self.is_near(x)

    def including(self, loc: Point, tril: Array, elbo: Array) -> "Modes":
        """With one more, unless it is near a known one."""
        place, old = jnp.minimum(self.num_modes, _MAX_MODES - 1), self.gaussians
        added = Gaussians(
            old.loc.at[place].set(loc),
            old.tril.at[place].set(tril),
            old.elbo.at[place].set(elbo),
        )
        is_new = ~self.is_near(loc)
        return Modes(
            tree_where(is_new, added, old),
            self.num_modes + is_new.astype(jnp.int32),
            self.num_merged + (~is_new).astype(jnp.int32),
        )

    def weighty(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of those that hold some mass, and their weights. (On the host.)"""
        elbo = np.asarray(self.gaussians.elbo)[: int(self.num_modes)]
        if elbo.size == 0:
            return np.zeros(0, int), np.zeros(0)
        weights = np.exp(elbo - np.max(elbo))
        kept = np.flatnonzero(weights > _SMALLEST_PART)
        weights = weights[kept] / np.sum(weights[kept])
        return kept, np.maximum(weights, _SMALLEST_WEIGHT)


def no_modes(loc: Point) -> Modes:
    """None found yet."""
    zero = jnp.zeros((), jnp.int32)
    return Modes(no_gaussians(_MAX_MODES, loc), zero, zero)


@eqx.filter_jit
def as_mixture(
    gaussians: Gaussians, kept: tuple[int, ...], weights: np.ndarray | Array
) -> Mixture:
    """Those of the numbers `kept`, as a family."""
    parts = [FullRank(gaussians.loc[i], gaussians.tril[i]) for i in kept]
    return Mixture(parts, weights)
