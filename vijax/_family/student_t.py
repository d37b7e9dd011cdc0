import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._custom_types import AnyArray, Key, Point
from .._host_distributions import Elliptical
from .._misc import as_numbers, as_real, is_traced
from .base import AbstractFamily, tril_parts, unit_tril, wide, wide_tril


class StudentT(AbstractFamily):
    r"""A multivariate Student t with any scale matrix: a Gaussian with heavy tails.

    For posteriors with heavy tails; and as a proposal for importance sampling, whose
    weights stay bounded where a Gaussian's do not.

    **Reference:** Lange, Little and Taylor (1989), *Robust statistical modeling using the
    t distribution*, JASA 84(408): a Gaussian divided by the root of an independent
    chi-squared over its degrees of freedom.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi

        family = vi.StudentT(jnp.array([1.0, 2.0]), scale=0.5, df=5.0)
        family.mean, family.covariance
        ```
    """

    loc: Point
    log_diag: Point
    below: Float[Array, "dim dim"]
    log_df: Float[Array, ""] | None
    whole_df: int | None = eqx.field(static=True)

    def __init__(self, loc: ArrayLike, scale: ArrayLike = 0.1, df: ArrayLike = 10.0):
        """**Arguments:**

        - `loc`: the center, of shape `(dim,)`.
        - `scale`: scales: positive, broadcast to `(dim,)`, with no correlations; or a
            Cholesky factor of the scale matrix, of shape `(dim, dim)`.
        - `df`: the degrees of freedom: positive. A Python `int` stays as it is, and draws
            are cheaper; anything else is trained with the other parameters.

        **Raises:** `ValueError` as [`vijax.FullRank`][], or if `df` is not positive.
        """
        self.loc, self.log_diag, self.below = tril_parts(loc, scale)
        is_number = jnp.shape(as_numbers("df", df)) == ()
        if not is_number or not (is_traced(df) or 0 < as_real(df) < np.inf):
            raise ValueError(
                f"`df` must be positive, finite and a single number, but it is {df}. For "
                "infinitely many degrees of freedom use `vi.FullRank`."
            )
        self.whole_df = df if isinstance(df, int) else None
        log_df = lambda: jnp.log(jnp.asarray(df, self.loc.dtype))
        self.log_df = log_df() if self.whole_df is None else None

    @property
    def dim(self) -> int:
        return self.loc.size

    @property
    def df(self) -> Scalar:
        """The degrees of freedom."""
        if self.log_df is None:
            return jnp.asarray(self.whole_df, self.loc.dtype)
        return jnp.exp(self.log_df)

    @property
    def tril(self) -> Float[AnyArray, "dim dim"]:
        """The Cholesky factor of the scale matrix, of shape `(dim, dim)`."""
        return unit_tril(self.log_diag, self.below)

    @property
    def mean(self) -> Point:
        """The mean, of shape `(dim,)`; NaN up to one degree of freedom."""
        return jnp.where(self.df > 1, self.loc, jnp.nan)

    @property
    def std(self) -> Point:
        """The standard deviations, of shape `(dim,)`."""
        return jnp.sqrt(jnp.diagonal(self.covariance))

    @property
    def covariance(self) -> Float[Array, "dim dim"]:
        """The covariance, of shape `(dim, dim)`; infinite up to `df` of two."""
        df = self.df
        factor = jnp.where(df > 2, df / jnp.where(df > 2, df - 2, 1), jnp.inf)
        return factor * (self.tril @ self.tril.T)

    def mirror(self, x: Point) -> Point:
        return 2 * self.loc - x

    def outward(self, z: Point) -> tuple[Point, Scalar]:
        return self.loc + self.tril @ z, jnp.sum(self.log_diag)

    def inward(self, x: Point) -> Point:
        return jsl.solve_triangular(self.tril, x - self.loc, lower=True)

    def on_host(self) -> Elliptical:
        df = self.whole_df if self.log_df is None else np.exp(wide(self.log_df))
        return Elliptical(wide(self.loc), wide_tril(self), float(df))  # pyright: ignore[reportArgumentType]

    def log_prob(self, x: Point) -> Scalar:
        return self._log_prob(self.inward(x))

    def _log_prob(self, z: Point) -> Scalar:
        df, dim = self.df, self.dim
        constant = gammaln((df + dim) / 2) - gammaln(df / 2)
        constant -= 0.5 * dim * jnp.log(np.pi * df) + jnp.sum(self.log_diag)
        return constant - (df + dim) / 2 * jnp.log1p(jnp.sum(z**2) / df)

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        normal_key, gamma_key = jr.split(key)
        z = jr.normal(normal_key, self.loc.shape, self.loc.dtype)
        if self.whole_df is None:
            half = self.df / 2
            mean_square = jr.gamma(gamma_key, half, dtype=self.loc.dtype) / half
        else:
            # By its definition, since a gamma's rejection sampler compiles for a second.
            others = jr.normal(gamma_key, (self.whole_df,), self.loc.dtype)
            mean_square = jnp.mean(others**2)
        z = z / jnp.sqrt(mean_square)
        return self.outward(z)[0], self._log_prob(z)
