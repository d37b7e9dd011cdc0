"""A few coordinates of any shape, and the others Gaussian, or nearly, given these."""

from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float, Scalar

from .._custom_types import Key, Point
from .._interpolation import interpolate, Interpolation
from .base import AbstractFamily, wide
from .nested_on_host import degrees_of_freedom, HostNested, standard, unpacked


# Draws of the globals that tell moments, and their key.
_MOMENT_DRAWS, _MOMENT_KEY = 4_096, 0


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

    def _whitened(self, g: Float[Array, " globals"]) -> Array:
        return jsl.solve_triangular(self.root, g - self.center, lower=True)

    def _given(self, known: Interpolation, u: Float[Array, " globals"]):
        modes, trils = unpacked(known(u[None]), len(self.others), self.entries)
        return modes[0], trils[0]

    def _in_order(self, of_globals: Array, of_locals: Array) -> Point:
        order = np.argsort(np.array([*self.which, *self.others]))
        return jnp.concatenate([of_globals, of_locals])[order]

    def _together(self, g: Array, y: Array) -> Point:
        return self._in_order(g, self.loc + self.scale * y)

    def _parts(self, x: Point) -> tuple[Array, Array]:
        return x[np.array(self.which)], x[np.array(self.others)]

    def _of(self, x: Point) -> tuple[Array, Array, Array, Array]:
        """The globals of a point, whitened ones, standard locals, and their factor."""
        g, rest = self._parts(x)
        u = self._whitened(g)
        mode, tril = self._given(self._known(), u)
        return g, u, tril.T @ ((rest - self.loc) / self.scale - mode), tril

    def outward(self, z: Point) -> tuple[Point, Scalar]:
        u, of_locals = self._parts(z)
        mode, tril = self._given(self._known(), u)
        y = mode + jsl.solve_triangular(tril, of_locals, lower=True, trans=1)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.root))) - self._log_det(tril)
        return self._together(self.center + self.root @ u, y), log_det

    def inward(self, x: Point) -> Point:
        _, u, of_locals, _ = self._of(x)
        return self._in_order(u, of_locals)

    def _log_det(self, tril: Array) -> Scalar:
        return jnp.sum(jnp.log(jnp.diagonal(tril))) - jnp.sum(jnp.log(self.scale))

    def log_prob(self, x: Point) -> Scalar:
        g, _, z, tril = self._of(x)
        return self.globals_family.log_prob(g) + self._of_locals(z, tril)

    def _of_locals(self, z: Array, tril: Array) -> Scalar:
        df, dim = self.df, z.size
        constant = standard(dim).log_constant
        log_prob = constant - (df + dim) / 2 * jnp.log1p(z @ z / df)
        return log_prob + self._log_det(tril)

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        global_key, normal_key, square_key = jr.split(key, 3)
        g, log_q = self.globals_family.sample_and_log_prob(global_key)
        mode, tril = self._given(self._known(), self._whitened(g))
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
            mode, tril = self._given(known, self._whitened(g))
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

    def on_host(self) -> HostNested | None:
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
