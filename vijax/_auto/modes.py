"""Gaussians at several places, and the modes that [`vijax.Auto`][] has found."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .._arrays import choose, namespace, one_by_one, set_at, solve_lower
from .._custom_types import AnyArray
from .._family.full_rank import FullRank
from .._family.mixture import Mixture


# The most modes that are looked into at first, and in the end; and numbers of these.
_FIRST_MODES, _MAX_MODES, _MOST_NUMBERS = 4, 64, 2_000_000
# After so many that turned out to be known ones, no others are expected.
_MAX_MERGED = 2
# A mode with a smaller part of the mass than this is left out of the answer.
_SMALLEST_PART = 1e-4
# The smallest weight in a mixture: fewer draws would say nothing of the component.
_SMALLEST_WEIGHT = 0.05


def squared_radius(dim: int) -> float:
    """The squared distance, in standard deviations, within which a Gaussian's mass is."""
    return dim + 4 * (2 * dim) ** 0.5 + 8


def most_modes(dim: int) -> int:
    """The most modes that are kept in so many dimensions."""
    return max(_FIRST_MODES, min(_MAX_MODES, _MOST_NUMBERS // dim**2))


class Gaussians(NamedTuple):
    """Some Gaussians and their ELBO, which is minus infinity where there is none."""

    loc: Float[AnyArray, "count dim"]
    tril: Float[AnyArray, "count dim dim"]
    elbo: Float[AnyArray, " count"]


def no_gaussians(count: int, loc: Float[AnyArray, " dim"]) -> Gaussians:
    """Room for some, of the dimension and dtype of `loc`."""
    xp = namespace(loc)
    return Gaussians(
        xp.zeros((count, loc.size), loc.dtype),
        xp.zeros((count, loc.size, loc.size), loc.dtype),
        xp.full(count, -xp.inf, loc.dtype),
    )


class Modes(NamedTuple):
    """Gaussians at the modes found so far, how many, and how often one was met again."""

    gaussians: Gaussians
    num_modes: Int[AnyArray, ""]
    num_merged: Int[AnyArray, ""]

    @property
    def _room(self) -> int:
        return self.gaussians.loc.shape[0]

    @property
    def known(self) -> Bool[AnyArray, " modes"]:
        """Which of the places hold a mode."""
        xp = namespace(self.gaussians.loc)
        return xp.arange(self._room, dtype=xp.int32) < self.num_modes

    @property
    def wants_more(self) -> Bool[AnyArray, ""]:
        """Whether another one may be looked for."""
        return (self.num_modes < self._room) & (self.num_merged < _MAX_MERGED)

    def coordinates(
        self, x: Float[AnyArray, "points dim"]
    ) -> Float[AnyArray, "modes points dim"]:
        """Points where each mode has mean zero and unit covariance."""

        def one(mode):
            loc, tril = mode
            return solve_lower(tril, (x - loc[None]).T).T

        return one_by_one(one, (self.gaussians.loc, self._trils()))

    def _squared_distances(
        self, x: Float[AnyArray, "points dim"]
    ) -> Float[AnyArray, "modes points"]:
        return namespace(x).sum(self.coordinates(x) ** 2, axis=2)

    def _trils(self) -> Float[AnyArray, "modes dim dim"]:
        tril = self.gaussians.tril
        xp = namespace(tril)
        eye = xp.eye(tril.shape[1], dtype=tril.dtype)
        return xp.where(self.known[:, None, None], tril, eye)

    def are_near(self, x: Float[AnyArray, "points dim"]) -> Bool[AnyArray, " points"]:
        """Which of some points are where a mode has its mass."""
        xp, dim = namespace(x), x.shape[1]
        near = self._squared_distances(x) < squared_radius(dim)
        return xp.any(near & self.known[:, None], axis=0)

    def are_others(
        self, x: Float[AnyArray, "points dim"], score: Float[AnyArray, "points dim"]
    ) -> Bool[AnyArray, " points"]:
        """Which of some points are at rest, in the scale of a mode, and near none."""
        xp = namespace(x)
        pull = xp.sum(xp.einsum("kji,nj->kni", self._trils(), score) ** 2, axis=2)
        at_rest = pull < 1 + 1e-3 * self._squared_distances(x)
        return xp.any(at_rest & self.known[:, None], axis=0) & ~self.are_near(x)

    def are_same(
        self, loc: AnyArray, tril: AnyArray, *, both: bool = True
    ) -> Bool[AnyArray, " modes"]:
        """Which modes a Gaussian is near to that are near to it, since a narrow one may
        be where a wide one has its mass; or if not `both`, one of the two."""
        xp, dim = namespace(loc), loc.size
        theirs = self._squared_distances(loc[None])[:, 0]
        own = xp.sum(solve_lower(tril, (self.gaussians.loc - loc[None]).T) ** 2, axis=0)
        worst = xp.maximum(theirs, own) if both else xp.minimum(theirs, own)
        return (worst < squared_radius(dim)) & self.known

    def trimmed(self) -> "Modes":
        """The same without room for more. (On the host.)"""
        known = Gaussians(*(part[: int(self.num_modes)] for part in self.gaussians))
        return self._replace(gaussians=known)

    def appended(self, loc: AnyArray, tril: AnyArray, elbo: AnyArray) -> "Modes":
        """With one more than there is room for. (On the host.)"""
        pairs = zip(self.gaussians, (loc, tril, elbo), strict=True)
        grown = Gaussians(*(np.append(old, new[None], axis=0) for old, new in pairs))
        return self._replace(gaussians=grown, num_modes=self.num_modes + np.int32(1))

    def including(self, loc: AnyArray, tril: AnyArray, elbo: AnyArray) -> "Modes":
        """With one more, unless it is the same as a known one."""
        xp, old = namespace(loc), self.gaussians
        place = xp.minimum(self.num_modes, self._room - 1)
        added = Gaussians(
            set_at(old.loc, place, loc),
            set_at(old.tril, place, tril),
            set_at(old.elbo, place, elbo),
        )
        is_new = ~xp.any(self.are_same(loc, tril))
        return Modes(
            choose(is_new, added, old),
            self.num_modes + is_new.astype(xp.int32),
            self.num_merged + (~is_new).astype(xp.int32),
        )

    def weighty(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of those that hold some mass, and their weights. (On the host.)"""
        elbo = np.asarray(self.gaussians.elbo)[: int(self.num_modes)]
        if elbo.size == 0:
            return np.zeros(0, int), np.zeros(0)
        weights = np.exp(elbo - np.max(elbo))
        kept = np.flatnonzero(weights > _SMALLEST_PART)
        weights = weights[kept] / np.sum(weights[kept])
        return kept, np.maximum(weights, min(_SMALLEST_WEIGHT, 0.2 / len(kept)))


def no_modes(loc: Float[AnyArray, " dim"]) -> Modes:
    """None found yet."""
    zero = namespace(loc).zeros((), np.int32)
    return Modes(no_gaussians(_FIRST_MODES, loc), zero, zero)


def as_mixture(
    gaussians: Gaussians, kept: tuple[int, ...], weights: np.ndarray, dtype: np.dtype
) -> Mixture:
    """Those of the numbers `kept`, as a family. (On the host.)"""
    loc, tril = np.asarray(gaussians.loc, dtype), np.asarray(gaussians.tril, dtype)
    return Mixture([FullRank(loc[i], tril[i]) for i in kept], weights)
