"""A few coordinates of any shape, and the others Gaussian, or nearly, given these."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from .._arrays import namespace
from .._custom_types import AnyArray, Key, Point
from .._host_distributions import AbstractHostDistribution, Elliptical
from .._interpolation import interpolate, Interpolation
from .base import AbstractFamily, wide


# Draws of the globals that tell moments, and their key.
_MOMENT_DRAWS, _MOMENT_KEY = 4_096, 0
# Points whose factors are there at once. (On the host.)
_BLOCK = 256
# The largest logarithm of a precision's root.
_MOST = 40.0
# What gradients with respect to the globals are differences over, in whitened units.
_STEP = 1e-3


class NestedGaussian(AbstractFamily):
    r"""A few *globals* of any shape, and the other coordinates, *locals*, nearly Gaussian
    given these: what [`vijax.Nested`][] fits.

    $q(g, l) = q(g)\, t(l \mid m(g), (L(g) L(g)^T)^{-1})$, where $m$ and the entries of
    $L$ are interpolated between points of the globals, and $t$ has as many degrees of
    freedom as there are locals, at least 30.

    Moments are means over 4,096 fixed draws of the globals, whose own are exact.

    **Reference:** Rue, Martino and Chopin (2009), *Approximate Bayesian inference for
    latent Gaussian models by using integrated nested Laplace approximations*, JRSS B
    71(2), whose two levels these are.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        def log_density(params):  # Effects, and the logarithm of their scale.
            log_scale, effects = params["log_scale"], params["effects"]
            prior = -0.5 * log_scale**2 - 8 * log_scale
            far = jnp.sum(effects**2) * jnp.exp(-2 * log_scale)
            return prior - 0.5 * far - 0.5 * jnp.sum((effects - 1.0) ** 2)

        params = {"log_scale": vi.Param(), "effects": vi.Param((8,))}
        target = vi.from_log_density(log_density, params)
        family = vi.fit(target, "nested", key=jax.random.key(0)).family
        family.which, family.sample(jax.random.key(1))
        ```

    **Attributes:**

    - `globals_family`: the family of the globals.
    - `which`: the numbers of the globals, in the order that `globals_family` has.
    - `others`: those of the locals, in the order of `loc`, `scale`, `modes`, `factors`.
    - `center`, `root`: what whitens the globals.
    - `points`: whitened globals where the locals are known, of shape `(points, globals)`.
    - `modes`: of the locals there, in units of `scale` from `loc`, of shape `(points,
        locals)`.
    - `factors`: logarithms of the diagonal of $L$ there, and then its `entries` below, in
        units of the diagonal of their column.
    """

    globals_family: AbstractFamily
    center: Float[Array, " globals"]
    root: Float[Array, "globals globals"]
    points: Float[Array, "points globals"]
    modes: Float[Array, "points locals"]
    factors: Float[Array, "points entries"]
    loc: Float[Array, " locals"]
    scale: Float[Array, " locals"]
    which: tuple[int, ...] = eqx.field(static=True)
    others: tuple[int, ...] = eqx.field(static=True)
    entries: tuple[tuple[int, int], ...] = eqx.field(static=True)

    @property
    def dim(self) -> int:
        return len(self.which) + len(self.others)

    @property
    def df(self) -> int:
        """The degrees of freedom of the locals given the globals."""
        return degrees_of_freedom(len(self.others))

    def _known(self) -> Interpolation:
        values = jnp.concatenate([self.modes, self.factors], axis=1)
        return interpolate(self.points, values)

    def _given(self, known: Interpolation, g: Float[Array, " globals"]):
        u = jsl.solve_triangular(self.root, g - self.center, lower=True)
        modes, trils = unpacked(known(u[None]), len(self.others), self.entries)
        return modes[0], trils[0]

    def _together(self, g: Array, y: Array) -> Point:
        order = np.argsort(np.array([*self.which, *self.others]))
        return jnp.concatenate([g, self.loc + self.scale * y])[order]

    def log_prob(self, x: Point) -> Scalar:
        g, rest = x[np.array(self.which)], x[np.array(self.others)]
        mode, tril = self._given(self._known(), g)
        z = tril.T @ ((rest - self.loc) / self.scale - mode)
        return self.globals_family.log_prob(g) + self._of_locals(z, tril)

    def _of_locals(self, z: Array, tril: Array) -> Scalar:
        df, dim = self.df, z.size
        constant = _standard(dim).log_constant
        log_det = jnp.sum(jnp.log(jnp.diagonal(tril))) - jnp.sum(jnp.log(self.scale))
        return constant - (df + dim) / 2 * jnp.log1p(z @ z / df) + log_det

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        global_key, normal_key, square_key = jr.split(key, 3)
        g, log_q = self.globals_family.sample_and_log_prob(global_key)
        mode, tril = self._given(self._known(), g)
        z = jr.normal(normal_key, self.loc.shape, self.loc.dtype)
        mean_square = 2 * jr.gamma(square_key, self.df / 2, dtype=z.dtype) / self.df
        z = z / jnp.sqrt(mean_square)
        y = mode + jsl.solve_triangular(tril, z, lower=True, trans=1)
        return self._together(g, y), log_q + self._of_locals(z, tril)

    def _matched(self, g: Float[Array, "draws globals"]) -> Array:
        """The draws, moved so that their first moments are those of the globals."""
        family: Any = self.globals_family
        moved = g - jnp.mean(g, axis=0, keepdims=True)
        own = jnp.linalg.cholesky(moved.T @ moved / len(g))
        unit = jsl.solve_triangular(own, moved.T, lower=True)
        return family.mean[None] + (jnp.linalg.cholesky(family.covariance) @ unit).T

    def _moments(self) -> tuple[Point, Float[Array, "dim dim"]]:
        known, keys = self._known(), jr.split(jr.key(_MOMENT_KEY), _MOMENT_DRAWS)
        g = self._matched(jax.vmap(self.globals_family.sample)(keys))
        dim, num_globals = self.dim, len(self.which)

        def add(sums: tuple[Array, Array], g: Array) -> tuple[tuple[Array, Array], None]:
            mode, tril = self._given(known, g)
            x = self._together(g, mode)
            eye = jnp.eye(len(self.others), dtype=x.dtype)
            half = jsl.solve_triangular(tril, eye, lower=True) * self.scale[None]
            within = half.T @ half * self.df / (self.df - 2)
            whole = jnp.zeros((dim, dim), x.dtype)
            whole = whole.at[num_globals:, num_globals:].set(within)
            order = np.argsort(np.array([*self.which, *self.others]))
            moved = x - center
            product = jnp.outer(moved, moved) + whole[order][:, order]
            return (sums[0] + moved, sums[1] + product), None

        # Around a point in their midst, since squares of large numbers have no digits.
        center = self._together(self.center, self.modes[0])
        zeros = jnp.zeros((dim,), g.dtype), jnp.zeros((dim, dim), g.dtype)
        sums, _ = lax.scan(add, zeros, g)
        moved, product = sums[0] / _MOMENT_DRAWS, sums[1] / _MOMENT_DRAWS
        return center + moved, product - jnp.outer(moved, moved)

    @property
    def mean(self) -> Point:
        """The mean, of shape `(dim,)`."""
        return self._moments()[0]

    @property
    def std(self) -> Point:
        """The standard deviations, of shape `(dim,)`."""
        return jnp.sqrt(jnp.diagonal(self.covariance))

    @property
    def covariance(self) -> Float[Array, "dim dim"]:
        """The covariance, of shape `(dim, dim)`."""
        return self._moments()[1]

    def on_host(self) -> "HostNested | None":
        of_globals = self.globals_family.on_host()
        if of_globals is None:
            return None
        values = np.concatenate([wide(self.modes), wide(self.factors)], axis=1)
        return HostNested(
            of_globals,
            np.array(self.which, int),
            np.array(self.others, int),
            wide(self.center),
            wide(self.root),
            interpolate(wide(self.points), values),
            wide(self.loc),
            wide(self.scale),
            self.entries,
        )


def degrees_of_freedom(num_locals: int) -> int:
    """Of the locals given the globals: tails cost effective draws in many dimensions."""
    return max(30, num_locals)


def _standard(num_locals: int) -> Elliptical:
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


def unpacked(
    values: Float[AnyArray, "points values"],
    num_locals: int,
    entries: tuple[tuple[int, int], ...],
) -> tuple[AnyArray, AnyArray]:
    """Modes of the locals, and Cholesky factors of their precisions."""
    xp, dim = namespace(values), num_locals
    modes, log_diagonal = values[:, :dim], values[:, dim : 2 * dim]
    diagonal = xp.exp(xp.clip(log_diagonal, -_MOST, _MOST))
    columns = _indices(entries)[1]
    nothing = xp.zeros((len(values), 1), values.dtype)
    below = values[:, 2 * dim :] * diagonal[:, columns]
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
class HostNested(AbstractHostDistribution):
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

    def given(
        self, g: Float[np.ndarray, "draws globals"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Modes of the scaled locals, and Cholesky factors of their precisions."""
        u = np.linalg.solve(self.root, (g - self.center).T).T
        return unpacked(self.known(u), self.loc.size, self.entries)

    def _split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[:, self.which], (x[:, self.others] - self.loc) / self.scale

    def _log_volume(self, trils: np.ndarray) -> np.ndarray:
        log_diagonal = np.log(np.einsum("nii->ni", trils))
        return np.sum(log_diagonal, axis=1) - np.sum(np.log(self.scale))

    def draw(
        self, generator: np.random.Generator, num_draws: int
    ) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, " draws"]]:
        g, log_prob = self.of_globals.draw(generator, num_draws)
        z, log_prob_z = _standard(self.loc.size).draw(generator, num_draws)
        x = np.empty((num_draws, len(self.which) + len(self.others)))
        x[:, self.which], log_prob = g, log_prob + log_prob_z
        for i in range(0, num_draws, _BLOCK):
            block = slice(i, i + _BLOCK)
            modes, trils = self.given(g[block])
            y = modes + outward(trils, z[block])
            x[block, self.others] = self.loc + self.scale * y
            log_prob[block] += self._log_volume(trils)
        return x, log_prob

    def log_prob(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, " draws"]:
        out = np.empty(len(x))
        for i in range(0, len(x), _BLOCK):
            g, y = self._split(x[i : i + _BLOCK])
            modes, trils = self.given(g)
            z = np.einsum("nij,ni->nj", trils, y - modes)
            of_locals = _standard(self.loc.size).log_prob(z) + self._log_volume(trils)
            out[i : i + _BLOCK] = self.of_globals.log_prob(g) + of_locals
        return out

    def score(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        out = np.empty(x.shape)
        for i in range(0, len(x), _BLOCK):
            g, y = self._split(x[i : i + _BLOCK])
            modes, trils = self.given(g)
            inner = _standard(self.loc.size).score(
                np.einsum("nij,ni->nj", trils, y - modes)
            )
            of_locals = np.einsum("nij,nj->ni", trils, inner) / self.scale
            out[i : i + _BLOCK, self.others] = of_locals
        # Through modes and factors, whose own gradients would be as long as this file.
        slopes = np.stack([self._slope(x, column) for column in self.root.T])
        out[:, self.which] = np.linalg.solve(self.root.T, slopes).T
        return out

    def _slope(self, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Of the log density along a direction of the globals, to the fourth order."""
        moved = np.zeros(x.shape[1])
        moved[self.which] = _STEP * direction
        differences = [
            self.log_prob(x + count * moved) - self.log_prob(x - count * moved)
            for count in (1, 2)
        ]
        return (8 * differences[0] - differences[1]) / (12 * _STEP)


def outward(
    trils: Float[np.ndarray, "draws locals locals"], z: Float[np.ndarray, "draws locals"]
) -> Float[np.ndarray, "draws locals"]:
    """What has these factors of its precisions, of standard draws. (On the host.)"""
    return np.linalg.solve(trils.swapaxes(1, 2), z[:, :, None])[:, :, 0]
