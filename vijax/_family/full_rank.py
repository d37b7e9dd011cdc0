import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._custom_types import Key, Point
from .._misc import is_traced, standard_normal_log_prob
from .base import AbstractFamily, check_loc, check_scale


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
        self.loc = check_loc(loc)
        shape = jnp.shape(scale)
        if len(shape) == 2:
            if shape != (self.dim, self.dim):
                raise ValueError(
                    f"`scale` has shape {shape}, but a Cholesky factor for `loc` has "
                    f"shape {(self.dim, self.dim)}."
                )
            tril = jnp.asarray(scale, self.loc.dtype)
            check_scale(jnp.diagonal(tril), self.dim)
            if not is_traced(tril) and np.any(np.triu(tril, 1)):
                raise ValueError(
                    "`scale` has entries above its diagonal, but a Cholesky factor is "
                    "lower triangular. Pass e.g. `jnp.linalg.cholesky(covariance)`."
                )
            self.log_diag = jnp.log(jnp.diagonal(tril))
            self.below = jnp.tril(tril / jnp.diagonal(tril)[:, None], -1)
        else:
            check_scale(scale, self.dim)
            scale = jnp.asarray(scale, self.loc.dtype)
            self.log_diag = jnp.broadcast_to(jnp.log(scale), self.loc.shape)
            self.below = jnp.zeros((self.dim, self.dim), self.loc.dtype)

    @property
    def dim(self) -> int:
        return self.loc.size

    @property
    def tril(self) -> Float[Array, "dim dim"]:
        """The Cholesky factor of the covariance, of shape `(dim, dim)`."""
        unit = jnp.tril(self.below, -1) + jnp.eye(self.dim, dtype=self.loc.dtype)
        return jnp.exp(self.log_diag)[:, None] * unit

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

    def log_prob(self, x: Point) -> Scalar:
        z = jsl.solve_triangular(self.tril, x - self.loc, lower=True)
        return standard_normal_log_prob(z) - jnp.sum(self.log_diag)

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        z = jr.normal(key, self.loc.shape, self.loc.dtype)
        x = self.loc + self.tril @ z
        return x, standard_normal_log_prob(z) - jnp.sum(self.log_diag)
