"""Distributions in NumPy, with 64 bits: what the host draws from and weighs. Gaussians,
Student t's and mixtures of them compile nothing."""

import abc
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy.special as ss
from jaxtyping import Float

from ._arrays import solve_lower, solve_upper


class AbstractHostDistribution(abc.ABC):
    """A distribution on the host."""

    @abc.abstractmethod
    def draw(
        self, generator: np.random.Generator, num_draws: int
    ) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, " draws"]]:
        """Draws and the log density there."""

    @abc.abstractmethod
    def log_prob(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, " draws"]:
        """The log density at each point."""

    @abc.abstractmethod
    def score(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        """The gradient of the log density at each point."""


# Makes a log density with respect to `z`, up to a constant, and its gradient, of those
# with respect to `x`.
Back = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class AbstractCoordinates(abc.ABC):
    """Coordinates `z` of points `x`, in which a distribution is nearly standard."""

    @abc.abstractmethod
    def inside(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        """`z` of each `x`."""

    @abc.abstractmethod
    def out_and_back(
        self, z: Float[np.ndarray, "draws dim"]
    ) -> tuple[Float[np.ndarray, "draws dim"], Back]:
        """`x` of each `z`, and what takes a log density there back."""


@dataclasses.dataclass(frozen=True)
class Elliptical(AbstractHostDistribution, AbstractCoordinates):
    """`loc + root z`, with `z` a standard normal, or a Student t of `df` degrees of
    freedom; `root` is a Cholesky factor or a vector of scales."""

    loc: Float[np.ndarray, " dim"]
    root: Float[np.ndarray, "dim dim"] | Float[np.ndarray, " dim"]
    df: float | None = None

    def inside(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        """`z` of each `x`."""
        moved = x - self.loc
        if self.root.ndim == 1:
            return moved / self.root
        return solve_lower(self.root, moved.T).T

    def outside(
        self, z: Float[np.ndarray, "draws dim"]
    ) -> Float[np.ndarray, "draws dim"]:
        """`x` of each `z`."""
        return self.loc + (z * self.root if self.root.ndim == 1 else z @ self.root.T)

    @property
    def log_constant(self) -> float:
        """The log density at the center."""
        dim, df = self.loc.size, self.df
        scales = self.root if self.root.ndim == 1 else np.diagonal(self.root)
        log_det = float(np.sum(np.log(scales)))
        if df is None:
            return -0.5 * dim * np.log(2 * np.pi).item() - log_det
        ratio = float(ss.gammaln((df + dim) / 2) - ss.gammaln(df / 2))
        return ratio - 0.5 * dim * np.log(np.pi * df).item() - log_det

    def _of(self, z: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, " draws"]:
        dim, squares = z.shape[1], np.sum(z**2, axis=1)
        if self.df is None:
            return self.log_constant - 0.5 * squares
        return self.log_constant - (self.df + dim) / 2 * np.log1p(squares / self.df)

    def draw(
        self, generator: np.random.Generator, num_draws: int
    ) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, " draws"]]:
        z = generator.standard_normal((num_draws, self.loc.size))
        if self.df is not None:
            mean_square = generator.chisquare(self.df, num_draws) / self.df
            z = z / np.sqrt(mean_square)[:, None]
        return self.outside(z), self._of(z)

    def log_prob(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, " draws"]:
        return self._of(self.inside(x))

    def score(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        z, dim = self.inside(x), self.loc.size
        if self.df is not None:
            squares = np.sum(z**2, axis=1, keepdims=True)
            z = z * (self.df + dim) / (self.df + squares)
        return -self.score_outside(z)

    def score_outside(self, score: Float[np.ndarray, "draws dim"]) -> np.ndarray:
        """Gradients with respect to `x`, from those with respect to `z`."""
        if self.root.ndim == 1:
            return score / self.root
        return solve_upper(self.root, score.T).T

    def score_inside(self, score: Float[np.ndarray, "draws dim"]) -> np.ndarray:
        """Gradients with respect to `z`, from those with respect to `x`."""
        return score * self.root if self.root.ndim == 1 else score @ self.root

    def out_and_back(
        self, z: Float[np.ndarray, "draws dim"]
    ) -> tuple[Float[np.ndarray, "draws dim"], Back]:
        return self.outside(z), lambda log_p, score: (log_p, self.score_inside(score))


@dataclasses.dataclass(frozen=True)
class HostAffine(AbstractHostDistribution):
    """Another distribution's draws `u`, seen as `x = loc + tril u`."""

    inner: AbstractHostDistribution
    outer: Elliptical

    def draw(
        self, generator: np.random.Generator, num_draws: int
    ) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, " draws"]]:
        u, log_prob = self.inner.draw(generator, num_draws)
        return self.outer.outside(u), log_prob - self._log_det()

    def _log_det(self) -> float:
        return float(np.sum(np.log(np.diagonal(self.outer.root))))

    def log_prob(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, " draws"]:
        return self.inner.log_prob(self.outer.inside(x)) - self._log_det()

    def score(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        return self.outer.score_outside(self.inner.score(self.outer.inside(x)))


def host_affine(
    inner: AbstractHostDistribution,
    loc: Float[np.ndarray, " dim"],
    tril: Float[np.ndarray, "dim dim"],
) -> AbstractHostDistribution:
    """That of `loc + tril u`."""
    if not isinstance(inner, Elliptical):
        return HostAffine(inner, Elliptical(loc, tril))
    root = tril * inner.root if inner.root.ndim == 1 else tril @ inner.root
    return Elliptical(loc + tril @ inner.loc, root, inner.df)


@dataclasses.dataclass(frozen=True)
class HostMixture(AbstractHostDistribution):
    """A mixture of others."""

    parts: Sequence[AbstractHostDistribution]
    weights: Float[np.ndarray, " parts"]

    def draw(
        self, generator: np.random.Generator, num_draws: int
    ) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, " draws"]]:
        which = generator.choice(len(self.parts), num_draws, p=self.weights)
        counts = np.bincount(which, minlength=len(self.parts))
        pairs = zip(self.parts, counts, strict=True)
        parts = [part.draw(generator, int(count))[0] for part, count in pairs]
        # In the random order of `which`, so that some of the draws are a sample too.
        x = np.concatenate(parts)[np.argsort(np.argsort(which, kind="stable"))]
        return x, self.log_prob(x)

    def _each(self, x: Float[np.ndarray, "draws dim"]) -> np.ndarray:
        log_weights = np.log(self.weights)[:, None]
        return np.stack([part.log_prob(x) for part in self.parts]) + log_weights

    def log_prob(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, " draws"]:
        return np.logaddexp.reduce(self._each(x), axis=0)

    def score(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        shares = ss.softmax(self._each(x), axis=0)[:, :, None]
        return np.sum(shares * np.stack([part.score(x) for part in self.parts]), axis=0)
