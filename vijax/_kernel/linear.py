import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from .._custom_types import Point
from .base import AbstractKernel, Positions


class LinearKernel(AbstractKernel):
    r"""The linear kernel, $k(x, y) = x^\top y + 1$.

    On a Gaussian posterior the particles get its mean and covariance exactly; elsewhere
    it sees no more than these.

    **Reference:** Liu and Wang (2018), *Stein variational gradient descent as moment
    matching*, [arXiv:1810.11693](https://arxiv.org/abs/1810.11693), section 3.2.

    !!! Example

        ```python
        import vijax as vi

        method = vi.SVGD(kernel=vi.LinearKernel())
        ```
    """

    def __call__(self, x: Point, y: Point) -> Scalar:
        return jnp.dot(x, y) + 1

    def values_and_repulsion(
        self, x: Positions, y: Point
    ) -> tuple[Float[Array, " particles"], Point]:
        return jnp.dot(x, y) + 1, x.shape[0] * y
