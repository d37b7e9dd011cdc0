import jax.lax as lax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._custom_types import Key, Point
from .._host_distributions import AbstractHostDistribution, host_affine
from .base import (
    AbstractFamily,
    check_family,
    check_loc,
    tril_parts,
    unit_tril,
    wide,
    wide_tril,
)


class Affine(AbstractFamily):
    r"""Another family seen through $x = \text{loc} + \text{tril}\,u$: whitening.

    With the location and the Cholesky factor of a rough fit, the family inside works
    where the target is nearly a standard normal, and one learning rate suits all its
    coordinates. The map itself is not trained. It is how any method that moves a family
    can run in whitened coordinates.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi

        rough = vi.FullRank(jnp.array([100.0, -3.0]), jnp.array([10.0, 0.1]))
        inner = vi.MeanField(jnp.zeros(2), scale=1.0)
        family = vi.Affine(inner, rough.loc, rough.tril)
        family.mean, family.covariance
        ```
    """

    family: AbstractFamily
    loc: Point
    log_diag: Point
    below: Float[Array, "dim dim"]

    def __init__(self, family: AbstractFamily, loc: ArrayLike, tril: ArrayLike):
        """**Arguments:**

        - `family`: the family of $u$.
        - `loc`: where its origin lies, of shape `(dim,)`.
        - `tril`: a Cholesky factor of shape `(dim, dim)`, or scales of shape `(dim,)`.

        **Raises:** `ValueError` as [`vijax.FullRank`][], or if the dimensions differ.
        """
        check_family("family", family)
        self.family, loc = family, check_loc(loc)
        if family.dim != loc.size:
            raise ValueError(
                f"`family` has {family.dim} coordinates but `loc` has {loc.size}."
            )
        self.loc, self.log_diag, self.below = tril_parts(loc, tril, "tril")

    @property
    def dim(self) -> int:
        return self.loc.size

    @property
    def tril(self) -> Float[Array, "dim dim"]:
        """The Cholesky factor of the map, of shape `(dim, dim)`."""
        return unit_tril(*lax.stop_gradient((self.log_diag, self.below)))

    def _out(self, u: Point) -> Point:
        return lax.stop_gradient(self.loc) + self.tril @ u

    def _log_det(self) -> Scalar:
        return jnp.sum(lax.stop_gradient(self.log_diag))

    @property
    def mean(self) -> Point:
        """The mean, of shape `(dim,)`, where the family inside has one."""
        return self._out(self.family.mean)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def std(self) -> Point:
        """The standard deviations, of shape `(dim,)`."""
        return jnp.sqrt(jnp.diagonal(self.covariance))

    @property
    def covariance(self) -> Array:
        """The covariance, of shape `(dim, dim)`."""
        inner = self.family.covariance  # pyright: ignore[reportAttributeAccessIssue]
        return self.tril @ inner @ self.tril.T

    @property
    def has_density(self) -> bool:
        return self.family.has_density

    def on_host(self) -> AbstractHostDistribution | None:
        inner = self.family.on_host()
        if inner is None:
            return None
        return host_affine(inner, wide(self.loc), wide_tril(self))

    def mirror(self, x: Point) -> Point:
        return self._out(self.family.mirror(self._in(x)))

    def _in(self, x: Point) -> Point:
        moved = x - lax.stop_gradient(self.loc)
        return jsl.solve_triangular(self.tril, moved, lower=True)

    def outward(self, z: Point) -> tuple[Point, Scalar]:
        u, log_det = self.family.outward(z)
        return self._out(u), log_det + self._log_det()

    def inward(self, x: Point) -> Point:
        return self.family.inward(self._in(x))

    def log_prob(self, x: Point) -> Scalar:
        return self.family.log_prob(self._in(x)) - self._log_det()

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        u, log_q = self.family.sample_and_log_prob(key)
        return self._out(u), log_q - self._log_det()

    def sample(self, key: Key) -> Point:
        return self._out(self.family.sample(key))
