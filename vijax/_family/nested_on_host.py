"""The family of nested importance sampling in NumPy: what is interpolated of modes and
precisions of the locals, draws, densities, and coordinates."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int

from .._arrays import namespace
from .._custom_types import AnyArray
from .._factors import Factors
from .._host_distributions import (
    AbstractCoordinates,
    AbstractHostDistribution,
    Back,
    Elliptical,
)
from .._interpolation import Interpolation


# Points whose factors are there at once.
_BLOCK = 256
# The largest logarithm of a precision's root.
_MOST = 40.0


def degrees_of_freedom(num_locals: int) -> int:
    """Of the locals given the globals: tails cost effective draws in many dimensions."""
    return max(30, num_locals)


def standard(num_locals: int) -> Elliptical:
    """The locals given the globals, where they have no mean and unit precisions."""
    df = float(degrees_of_freedom(num_locals))
    return Elliptical(np.zeros(num_locals), np.ones(num_locals), df)


def packed(
    modes: Float[np.ndarray, "points locals"],
    precisions: Float[np.ndarray, "points locals locals"],
    entries: tuple[tuple[int, int], ...],
) -> tuple[np.ndarray, np.ndarray]:
    """What is interpolated of modes and precisions. (On the host.)"""
    trils = np.linalg.cholesky(precisions)
    diagonal = np.einsum("nii->ni", trils)
    rows, columns = _indices(entries)
    below = trils[:, rows, columns] / diagonal[:, columns]
    return modes, np.concatenate([np.log(diagonal), below], axis=1)


def parted(
    values: Float[AnyArray, "points values"], num_locals: int
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Modes of the locals, and of Cholesky factors of their precisions the diagonal, and
    what is below in units of that."""
    xp, dim = namespace(values), num_locals
    diagonal = xp.exp(xp.clip(values[:, dim : 2 * dim], -_MOST, _MOST))
    return values[:, :dim], diagonal, values[:, 2 * dim :]


def unpacked(
    values: Float[AnyArray, "points values"],
    num_locals: int,
    entries: tuple[tuple[int, int], ...],
) -> tuple[AnyArray, AnyArray]:
    """Modes of the locals, and Cholesky factors of their precisions, with all zeros."""
    xp = namespace(values)
    modes, diagonal, below = parted(values, num_locals)
    below = below * diagonal[:, _indices(entries)[1]]
    nothing = xp.zeros((len(values), 1), values.dtype)
    parts = xp.concatenate([nothing, diagonal, below], axis=1)
    return modes, xp.take(parts, _places(num_locals, entries), axis=1)


@functools.lru_cache(maxsize=64)
def _indices(entries: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(entries, int).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


@functools.lru_cache(maxsize=64)
def _places(num_locals: int, entries: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Where each entry of a factor is, of zero, the diagonal, and those below it."""
    places = np.diag(1 + np.arange(num_locals))
    places[_indices(entries)] = 1 + num_locals + np.arange(len(entries))
    return places


@dataclasses.dataclass(frozen=True)
class HostNested(AbstractHostDistribution, AbstractCoordinates):
    """A [`vijax.NestedGaussian`][] in NumPy."""

    of_globals: AbstractHostDistribution
    which: Int[np.ndarray, " globals"]
    others: Int[np.ndarray, " locals"]
    center: Float[np.ndarray, " globals"]
    root: Float[np.ndarray, "globals globals"]
    known: Interpolation
    loc: Float[np.ndarray, " locals"]
    scale: Float[np.ndarray, " locals"]
    entries: tuple[tuple[int, int], ...]

    def given(self, g: Float[np.ndarray, "draws globals"]) -> tuple[np.ndarray, Factors]:
        """Modes of the scaled locals, and Cholesky factors of their precisions."""
        return self._at(self._whitened(g))

    def _whitened(self, g: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self.root, (g - self.center).T).T

    def _at(self, u: np.ndarray) -> tuple[np.ndarray, Factors]:
        modes, diagonal, below = parted(self.known(u), self.loc.size)
        return modes, Factors(diagonal, np.ascontiguousarray(below.T), self.entries)

    def _split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[:, self.which], (x[:, self.others] - self.loc) / self.scale

    def _log_volume(self, factors: Factors) -> np.ndarray:
        return factors.log_det - np.sum(np.log(self.scale))

    def draw(
        self, generator: np.random.Generator, num_draws: int
    ) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, " draws"]]:
        g, log_prob = self.of_globals.draw(generator, num_draws)
        z, log_prob_z = standard(self.loc.size).draw(generator, num_draws)
        x = np.empty((num_draws, len(self.which) + len(self.others)))
        x[:, self.which], log_prob = g, log_prob + log_prob_z
        for i in range(0, num_draws, _BLOCK):
            block = slice(i, i + _BLOCK)
            modes, factors = self.given(g[block])
            y = modes + factors.transposed_solve(z[block])
            x[block, self.others] = self.loc + self.scale * y
            log_prob[block] += self._log_volume(factors)
        return x, log_prob

    def log_prob(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, " draws"]:
        out = np.empty(len(x))
        for i in range(0, len(x), _BLOCK):
            g, y = self._split(x[i : i + _BLOCK])
            modes, factors = self.given(g)
            z = factors.transposed_times(y - modes)
            of_locals = standard(self.loc.size).log_prob(z) + self._log_volume(factors)
            out[i : i + _BLOCK] = self.of_globals.log_prob(g) + of_locals
        return out

    def score(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        out = np.empty(x.shape)
        for i in range(0, len(x), _BLOCK):
            g, y = self._split(x[i : i + _BLOCK])
            u = self._whitened(g)
            modes, factors = self._at(u)
            moved = y - modes
            z = factors.transposed_times(moved)
            inner = standard(self.loc.size).score(z)
            of_locals = factors.times(inner)
            slopes = self._slopes(u, factors, -of_locals, moved, inner, z)
            own = self.of_globals.score(g)
            out[i : i + _BLOCK, self.which] = (
                own + np.linalg.solve(self.root.T, slopes.T).T
            )
            out[i : i + _BLOCK, self.others] = of_locals / self.scale
        return out

    def inside(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        """Where the locals given the globals are standard, and the globals whitened."""
        z = np.empty(x.shape)
        for i in range(0, len(x), _BLOCK):
            g, y = self._split(x[i : i + _BLOCK])
            u = self._whitened(g)
            modes, factors = self._at(u)
            z[i : i + _BLOCK, self.which] = u
            z[i : i + _BLOCK, self.others] = factors.transposed_times(y - modes)
        return z

    def out_and_back(
        self, z: Float[np.ndarray, "draws dim"]
    ) -> tuple[Float[np.ndarray, "draws dim"], Back]:
        u, of_locals = z[:, self.which], z[:, self.others]
        modes, factors = self._at(u)
        step = factors.transposed_solve(of_locals)
        x = np.empty(z.shape)
        x[:, self.which] = self.center + u @ self.root.T
        x[:, self.others] = self.loc + self.scale * (modes + step)

        def back(log_p: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            inner, scaled = np.empty(z.shape), score[:, self.others] * self.scale
            inner[:, self.others] = factors.solve(scaled)
            slopes = self._slopes(
                u, factors, -scaled, step, inner[:, self.others], of_locals
            )
            inner[:, self.which] = score[:, self.which] @ self.root - slopes
            return log_p - self._log_volume(factors), inner

        return x, back

    def _slopes(
        self,
        u: np.ndarray,
        factors: Factors,
        of_modes: np.ndarray,
        left: np.ndarray,
        right: np.ndarray,
        of_left: np.ndarray,
    ) -> np.ndarray:
        """Gradients with respect to the whitened globals of `of_modes` times the modes,
        plus `left^T L right`, plus the log-determinant of `L`; `of_left` is `L^T left`.
        """
        rows, columns = _indices(self.entries)
        of_below = left.T.copy()[rows] * (right * factors.diagonal).T.copy()[columns]
        of_diagonal = 1 + right * of_left
        cotangents = np.concatenate([of_modes.T, of_diagonal.T, of_below])
        return self.known.pulled_back(u, cotangents.T)
