"""What a kernel is, and what kernels share: bandwidths and distances."""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from .._closures import same_function
from .._custom_types import Point
from .._misc import as_real, check_function, is_traced


Positions: TypeAlias = Float[Array, "particles dim"]

# How many pairs of particles a bandwidth is estimated from, however many there are.
_PAIRS = 1024


class AbstractKernel(eqx.Module):
    """A positive-definite kernel over $\\mathbb{R}^{dim}$.

    To add a kernel implement `__call__`; `fitted`, where it has a bandwidth that should
    follow the particles; and `values_and_repulsion`, where there is a quicker form than
    differentiating `__call__` at each pair of particles.
    """

    @abc.abstractmethod
    def __call__(self, x: Point, y: Point) -> Scalar:
        """The kernel at two points of shape `(dim,)`."""

    def fitted(self, x: Positions) -> "AbstractKernel":
        """The kernel with a bandwidth that suits these particles."""
        del x
        return self

    def values_and_repulsion(
        self, x: Positions, y: Point
    ) -> tuple[Float[Array, " particles"], Point]:
        """The kernel between each particle and `y`, and the sum over the particles of
        its derivatives with respect to them."""
        values, grads = jax.vmap(jax.value_and_grad(self), in_axes=(0, None))(x, y)
        return values, jnp.sum(grads, axis=0)


class _Function(AbstractKernel):
    fn: Callable[[Point, Point], Scalar]

    def __call__(self, x: Point, y: Point) -> Scalar:
        value = jnp.asarray(self.fn(x, y))
        if value.shape != ():
            raise ValueError(
                "`kernel` must return a scalar for two points, but it returned shape "
                f"{value.shape}. Add up over the coordinates."
            )
        return value


def as_kernel(kernel: Any) -> AbstractKernel:
    """A kernel, from one or from a function of two points."""
    if isinstance(kernel, AbstractKernel):
        return kernel
    if callable(kernel) and not isinstance(kernel, type):
        check_function("kernel", kernel, "kernel(x, y)", 2)
    else:
        raise ValueError(
            "`kernel` must be a kernel such as `vi.RBF()`, or a function `kernel(x, y)` "
            f"of two points that returns a scalar, but it is {kernel!r}."
        )
    return _Function(same_function(kernel))


def as_bandwidth(bandwidth: Any) -> Scalar | None:
    """A bandwidth as an array, or `None` for one that follows the particles."""
    if bandwidth is None:
        return None
    if is_traced(bandwidth):
        return jnp.asarray(bandwidth)
    array = np.asarray(bandwidth)
    if array.shape != () or not 0 < as_real(array.item()) < np.inf:
        raise ValueError(
            "`bandwidth` must be a positive number, or `None` for one that follows the "
            f"particles, but it is {bandwidth!r}."
        )
    return jnp.asarray(array, jnp.result_type(float))


def bandwidth_at(bandwidth: Scalar | None, x: Array) -> Scalar:
    """The bandwidth in the dtype of some points; one if it follows particles that are not
    known, since a single pair of points says nothing of how far apart points are."""
    one = jnp.ones((), x.dtype)
    return one if bandwidth is None else bandwidth.astype(x.dtype)


def _some_pairs(num_particles: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of pairs of different particles: all of them, or the same random ones."""
    if num_particles * (num_particles - 1) <= 2 * _PAIRS:
        return np.triu_indices(num_particles, k=1)
    rng = np.random.default_rng(0)
    one = rng.integers(num_particles, size=_PAIRS)
    other = (one + rng.integers(1, num_particles, size=_PAIRS)) % num_particles
    return one, other


def median_squared_distance(x: Positions) -> Scalar:
    """About the median of the squared distances between the particles.

    From a fixed number of pairs, so that the cost does not grow with the square of the
    number of particles. One if there are no two different particles.
    """
    one, other = _some_pairs(x.shape[0])
    if one.size == 0:
        return jnp.ones((), x.dtype)
    median = jnp.median(jnp.sum((x[one] - x[other]) ** 2, axis=1))
    return jnp.where(median > 0, median, 1.0)


def squared_distances(x: Positions, y: Point) -> Float[Array, " particles"]:
    """From each particle to `y`. Over many `y` the work is one matrix product."""
    # Near the origin, or rounding would swallow the distances between far particles.
    center = jnp.mean(x, axis=0)
    x, y = x - center[None], y - center
    product = jnp.dot(x, y, precision="highest")
    return jnp.maximum(jnp.sum(x**2, axis=1) + jnp.sum(y**2) - 2 * product, 0.0)


def weighted_differences(
    weights: Float[Array, " particles"], x: Positions, y: Point
) -> Point:
    """The sum of the weighted differences `y - x`."""
    center = jnp.mean(x, axis=0)
    x, y = x - center[None], y - center
    return jnp.sum(weights) * y - jnp.dot(weights, x, precision="highest")
