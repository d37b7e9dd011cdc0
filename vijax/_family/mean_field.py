import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._custom_types import Key, Point
from .._host_distributions import Elliptical
from .._misc import eager, standard_normal_log_prob
from .base import AbstractFamily, check_loc, check_scale, wide


class MeanField(AbstractFamily):
    r"""Independent Gaussians, $N(\text{loc}, \text{diag}(\text{scale}^2))$.

    It costs `2 * dim` numbers, so it serves in thousands of dimensions. It has no
    correlations: on a correlated posterior the means are good, and the standard
    deviations too small (for $N(m, P^{-1})$ they are $P_{ii}^{-1/2}$).

    **Reference:** Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), *Automatic
    differentiation variational inference*, JMLR 18(14): the mean-field
    Gaussian.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi

        family = vi.MeanField(jnp.array([1.0, 2.0]), scale=0.5)
        family.mean, family.std, family.entropy
        ```
    """

    loc: Point
    log_scale: Point

    def __init__(self, loc: ArrayLike, scale: ArrayLike = 0.1):
        """**Arguments:**

        - `loc`: the mean, of shape `(dim,)`.
        - `scale`: the standard deviations: positive, broadcast to `(dim,)`. The default
            is small, since a wide start sees the density where it may be extreme.

        **Raises:** `ValueError` if `loc` is no vector of floating-point numbers, or
        `scale` is not positive or of another shape.
        """
        self.loc = check_loc(loc)
        check_scale(scale, self.dim)
        xp, done = eager(scale, self.loc)
        scale = xp.asarray(scale, self.loc.dtype)
        self.log_scale = done(xp.broadcast_to(xp.log(scale), self.loc.shape))

    @property
    def dim(self) -> int:
        return self.loc.size

    @property
    def mean(self) -> Point:
        """The mean, of shape `(dim,)`."""
        return self.loc

    @property
    def std(self) -> Point:
        """The standard deviations, of shape `(dim,)`."""
        return jnp.exp(self.log_scale)

    @property
    def covariance(self) -> Float[Array, "dim dim"]:
        """The covariance, of shape `(dim, dim)`."""
        return jnp.diag(jnp.exp(2 * self.log_scale))

    @property
    def entropy(self) -> Scalar:
        """The differential entropy, in nats."""
        return jnp.sum(self.log_scale) + 0.5 * self.dim * (1 + np.log(2 * np.pi).item())

    def mirror(self, x: Point) -> Point:
        return 2 * self.loc - x

    def outward(self, z: Point) -> tuple[Point, Scalar]:
        return self.loc + jnp.exp(self.log_scale) * z, jnp.sum(self.log_scale)

    def inward(self, x: Point) -> Point:
        return (x - self.loc) * jnp.exp(-self.log_scale)

    def on_host(self) -> Elliptical:
        return Elliptical(wide(self.loc), np.exp(wide(self.log_scale)))

    def log_prob(self, x: Point) -> Scalar:
        return standard_normal_log_prob(self.inward(x)) - jnp.sum(self.log_scale)

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        z = jr.normal(key, self.loc.shape, self.loc.dtype)
        x, log_det = self.outward(z)
        return x, standard_normal_log_prob(z) - log_det
