import jax.numpy as jnp
import jax.random as jr
import jax.scipy as jsp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._custom_types import Key, Point
from .._misc import as_numbers
from .base import AbstractFamily, check_scale


class Particles(AbstractFamily):
    """An empirical distribution: a draw is one of the particles, each as likely.

    What [`vijax.SVGD`][] moves, and what draws of other samplers become with
    [`vijax.to_particles`][]. It has no density, so that nothing that needs one (the
    ELBO, importance weights) can be had, unless `bandwidth` puts a Gaussian around each
    particle.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi

        particles = vi.Particles(jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]]))
        particles.mean, particles.std, particles.covariance
        smooth = vi.Particles(particles.x, bandwidth=0.5)
        smooth.log_prob(jnp.zeros(2))
        ```
    """

    x: Float[Array, "particles dim"]
    log_bandwidth: Point | None

    def __init__(self, x: ArrayLike, bandwidth: ArrayLike | None = None):
        """**Arguments:**

        - `x`: the particles, of shape `(particles, dim)`.
        - `bandwidth`: the standard deviations of a Gaussian around each particle:
            positive, broadcast to `(dim,)`. Default: none, and no density.

        **Raises:** `ValueError` if `x` is no matrix of floating-point numbers, or
        `bandwidth` is not positive or of another shape.
        """
        self.x = jnp.asarray(as_numbers("x", x))
        is_floating = jnp.issubdtype(self.x.dtype, jnp.floating)
        if self.x.ndim != 2 or 0 in self.x.shape or not is_floating:
            raise ValueError(
                "`x` must be a matrix of floating-point numbers of shape (particles, "
                f"dim), but it has shape {self.x.shape} and dtype {self.x.dtype}. To "
                "start from a single location pass no family: `vi.SVGD(num_particles=100,"
                " jitter=1.0)` puts the particles around it."
            )
        self.log_bandwidth = None
        if bandwidth is not None:
            check_scale(bandwidth, self.dim, "bandwidth")
            log_bandwidth = jnp.log(jnp.asarray(bandwidth, self.x.dtype))
            self.log_bandwidth = jnp.broadcast_to(log_bandwidth, (self.dim,))

    @property
    def dim(self) -> int:
        return self.x.shape[1]

    @property
    def has_density(self) -> bool:
        return self.log_bandwidth is not None

    @property
    def bandwidth(self) -> Point | None:
        """The standard deviations of the Gaussian around each particle, if any."""
        return None if self.log_bandwidth is None else jnp.exp(self.log_bandwidth)

    @property
    def num_particles(self) -> int:
        """How many particles there are."""
        return self.x.shape[0]

    @property
    def mean(self) -> Point:
        """The mean, of shape `(dim,)`."""
        return jnp.mean(self.x, axis=0)

    @property
    def std(self) -> Point:
        """The standard deviations, of shape `(dim,)`."""
        return jnp.sqrt(jnp.diagonal(self.covariance))

    @property
    def covariance(self) -> Float[Array, "dim dim"]:
        """The covariance, of shape `(dim, dim)`: that of the distribution, divided by
        the number of particles and not by one less."""
        centered = self.x - self.mean[None]
        covariance = centered.T @ centered / self.num_particles
        if self.bandwidth is None:
            return covariance
        return covariance + jnp.diag(self.bandwidth**2)

    def log_prob(self, x: Point) -> Scalar:
        bandwidth = self._need_bandwidth()
        z = (x[None] - self.x) / bandwidth[None]
        normalizer = (
            jnp.sum(jnp.log(bandwidth)) + 0.5 * self.dim * np.log(2 * np.pi).item()
        )
        log_probs = -0.5 * jnp.sum(z**2, axis=1) - normalizer
        return jsp.special.logsumexp(log_probs) - np.log(self.num_particles).item()

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        self._need_bandwidth()
        x = self.sample(key)
        return x, self.log_prob(x)

    def sample(self, key: Key) -> Point:
        """One of the particles; with a bandwidth, a draw from the Gaussian around it."""
        index_key, key = jr.split(key)
        x = self.x[jr.randint(index_key, (), 0, self.num_particles)]
        if self.bandwidth is None:
            return x
        return x + self.bandwidth * jr.normal(key, x.shape, x.dtype)

    def _need_bandwidth(self) -> Point:
        bandwidth = self.bandwidth
        if bandwidth is None:
            raise ValueError(
                "Particles have no density. What moves them is a method of their own, "
                "such as `vi.SVGD()`; where a density is needed, put a Gaussian around "
                "each: `vi.Particles(family.x, bandwidth=0.1)`."
            )
        return bandwidth
