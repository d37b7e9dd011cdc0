import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._custom_types import Point
from .._misc import as_real
from .base import (
    AbstractKernel,
    as_bandwidth,
    bandwidth_at,
    median_squared_distance,
    Positions,
    squared_distances,
    weighted_differences,
)


class IMQ(AbstractKernel):
    r"""The inverse multiquadric, $k(x, y) = (1 + \lVert x - y\rVert^2 / h^2)^\beta$.

    Its tails are heavy, so that far particles still feel each other. Without a bandwidth
    $h$ it follows the particles: $h^2$ is the median of their squared distances,
    estimated from a thousand pairs.

    **Reference:** Gorham and Mackey (2017), *Measuring sample quality with kernels*,
    [arXiv:1703.01717](https://arxiv.org/abs/1703.01717), section 4.

    !!! Example

        ```python
        import vijax as vi

        method = vi.SVGD(kernel=vi.IMQ(exponent=-0.5))
        ```
    """

    bandwidth: Scalar | None
    exponent: float

    def __init__(self, bandwidth: ArrayLike | None = None, exponent: float = -0.5):
        r"""**Arguments:**

        - `bandwidth`: $h$. Default: it follows the particles.
        - `exponent`: $\beta$, between -1 and 0.

        **Raises:** `ValueError` if either is not of that kind.
        """
        if not -1 < as_real(exponent) < 0:
            raise ValueError(
                f"`exponent` must be between -1 and 0, but it is {exponent!r}."
            )
        self.bandwidth = as_bandwidth(bandwidth)
        self.exponent = exponent

    def fitted(self, x: Positions) -> "IMQ":
        if self.bandwidth is not None:
            return self
        return IMQ(jnp.sqrt(median_squared_distance(x)), self.exponent)

    def __call__(self, x: Point, y: Point) -> Scalar:
        squared = jnp.sum((x - y) ** 2) / bandwidth_at(self.bandwidth, x) ** 2
        return (1 + squared) ** self.exponent

    def values_and_repulsion(
        self, x: Positions, y: Point
    ) -> tuple[Float[Array, " particles"], Point]:
        precision = bandwidth_at(self.bandwidth, x) ** -2
        base = 1 + precision * squared_distances(x, y)
        values = base**self.exponent
        slope = -2 * self.exponent * precision * values / base
        return values, weighted_differences(slope, x, y)
