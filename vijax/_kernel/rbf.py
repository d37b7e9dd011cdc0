import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._custom_types import Point
from .base import (
    AbstractKernel,
    as_bandwidth,
    bandwidth_at,
    median_squared_distance,
    Positions,
    squared_distances,
    weighted_differences,
)


class RBF(AbstractKernel):
    r"""The Gaussian kernel, $k(x, y) = \exp(-\lVert x - y\rVert^2 / (2 h^2))$.

    Without a bandwidth $h$ it follows the particles by the median heuristic,
    $h^2 = \text{med} / (2 \log(n + 1))$ for $n$ particles, where med is the median of
    their squared distances, estimated from a thousand pairs.

    **Reference:** Liu and Wang (2016), *Stein variational gradient descent*,
    [arXiv:1608.04471](https://arxiv.org/abs/1608.04471), section 5.

    !!! Example

        ```python
        import vijax as vi

        method = vi.SVGD(kernel=vi.RBF(bandwidth=0.5))
        ```
    """

    bandwidth: Scalar | None

    def __init__(self, bandwidth: ArrayLike | None = None):
        """**Arguments:**

        - `bandwidth`: $h$. Default: it follows the particles.

        **Raises:** `ValueError` if it is not a positive number.
        """
        self.bandwidth = as_bandwidth(bandwidth)

    def fitted(self, x: Positions) -> "RBF":
        if self.bandwidth is not None:
            return self
        scale = 2 * np.log(x.shape[0] + 1).item()
        return RBF(jnp.sqrt(median_squared_distance(x) / scale))

    def __call__(self, x: Point, y: Point) -> Scalar:
        return jnp.exp(
            -0.5 * jnp.sum((x - y) ** 2) / bandwidth_at(self.bandwidth, x) ** 2
        )

    def values_and_repulsion(
        self, x: Positions, y: Point
    ) -> tuple[Float[Array, " particles"], Point]:
        precision = bandwidth_at(self.bandwidth, x) ** -2
        values = jnp.exp(-0.5 * precision * squared_distances(x, y))
        return values, precision * weighted_differences(values, x, y)
