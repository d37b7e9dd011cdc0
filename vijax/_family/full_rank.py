import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._custom_types import AnyArray, Key, Point
from .._host_distributions import Elliptical
from .._misc import standard_normal_log_prob
from .base import AbstractFamily, tril_parts, unit_tril, wide, wide_tril


class FullRank(AbstractFamily):
    r"""A Gaussian with any covariance, held by its Cholesky factor.

    It takes `dim**2` numbers and as many operations a draw: for up to some hundreds of
    dimensions.

    **Reference:** Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), *Automatic
    differentiation variational inference*, JMLR 18(14): the full-rank
    Gaussian.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi

        family = vi.FullRank(jnp.array([1.0, 2.0]), scale=0.5)
        family.mean, family.covariance, family.entropy
        ```
    """

    loc: Point
    log_diag: Point
    # In units of the diagonal entry of its row, so that a step of an optimizer means the
    # same on every scale. A matrix, although only what is below the diagonal counts:
    # packing that into a vector costs a scatter at every draw.
    below: Float[Array, "dim dim"]

    def __init__(self, loc: ArrayLike, scale: ArrayLike = 0.1):
        """**Arguments:**

        - `loc`: the mean, of shape `(dim,)`.
        - `scale`: the initial standard deviations: positive, broadcast to `(dim,)`, with
            no correlations; or a Cholesky factor of the covariance, of shape
            `(dim, dim)`.

        **Raises:** `ValueError` if `loc` is no vector of floating-point numbers, or
        `scale` is not positive (on its diagonal) or of another shape.
        """
        self.loc, self.log_diag, self.below = tril_parts(loc, scale)

    @property
    def dim(self) -> int:
        return self.loc.size

    @property
    def tril(self) -> Float[AnyArray, "dim dim"]:
        """The Cholesky factor of the covariance, of shape `(dim, dim)`."""
        return unit_tril(self.log_diag, self.below)

    @property
    def mean(self) -> Point:
        """The mean, of shape `(dim,)`."""
        return self.loc

    @property
    def std(self) -> Point:
        """The standard deviations, of shape `(dim,)`."""
        return jnp.sqrt(jnp.sum(self.tril**2, axis=1))

    @property
    def covariance(self) -> Float[Array, "dim dim"]:
        """The covariance, of shape `(dim, dim)`."""
        return self.tril @ self.tril.T

    @property
    def entropy(self) -> Scalar:
        """The differential entropy, in nats."""
        return jnp.sum(self.log_diag) + 0.5 * self.dim * (1 + np.log(2 * np.pi).item())

    def mirror(self, x: Point) -> Point:
        return 2 * self.loc - x

    def outward(self, z: Point) -> tuple[Point, Scalar]:
        return self.loc + self.tril @ z, jnp.sum(self.log_diag)

    def inward(self, x: Point) -> Point:
        return jsl.solve_triangular(self.tril, x - self.loc, lower=True)

    def on_host(self) -> Elliptical:
        return Elliptical(wide(self.loc), wide_tril(self))

    def log_prob(self, x: Point) -> Scalar:
        return standard_normal_log_prob(self.inward(x)) - jnp.sum(self.log_diag)

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        z = jr.normal(key, self.loc.shape, self.loc.dtype)
        x, log_det = self.outward(z)
        return x, standard_normal_log_prob(z) - log_det
