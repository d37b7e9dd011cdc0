from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from .._custom_types import Point
from .._misc import as_real
from .base import AbstractKernel, as_kernel, Positions


class MixtureKernel(AbstractKernel):
    r"""A weighted sum of kernels, $\sum_i w_i k_i(x, y)$.

    Several bandwidths at once serve particles whose distances differ, as in far modes.

    !!! Example

        ```python
        import vijax as vi

        kernel = vi.MixtureKernel([vi.RBF(), vi.IMQ()], weights=[0.7, 0.3])
        method = vi.SVGD(kernel=kernel)
        ```
    """

    kernels: tuple[AbstractKernel, ...]
    weights: tuple[float, ...]

    def __init__(
        self,
        kernels: Sequence[AbstractKernel | Callable],
        weights: Sequence[float] | None = None,
    ):
        """**Arguments:**

        - `kernels`: kernels, or functions of two points.
        - `weights`: one positive number each. Default: equal ones, of sum one.

        **Raises:** `ValueError` if there is no kernel, or not one weight for each.
        """
        if not isinstance(kernels, Sequence) or isinstance(kernels, str | bytes):
            raise ValueError(
                f"`kernels` must be a list of kernels, but it is {kernels!r}."
            )
        self.kernels = tuple(as_kernel(kernel) for kernel in kernels)
        if weights is None:
            weights = [1 / max(len(self.kernels), 1)] * len(self.kernels)
        if not isinstance(weights, Sequence | np.ndarray | jax.Array):
            raise ValueError(
                f"`weights` must be a list of numbers, but it is {weights!r}."
            )
        self.weights = tuple(weights)
        if not self.kernels or len(self.weights) != len(self.kernels):
            raise ValueError(
                f"`kernels` and `weights` are not one for each: there are "
                f"{len(self.kernels)} kernels and {len(self.weights)} weights. Give "
                "at least one kernel, and one weight for each."
            )
        if not all(0 < as_real(weight) < float("inf") for weight in self.weights):
            raise ValueError(f"`weights` must be positive, but they are {weights}.")

    def fitted(self, x: Positions) -> "MixtureKernel":
        kernels = [kernel.fitted(x) for kernel in self.kernels]
        return MixtureKernel(kernels, self.weights)

    def __call__(self, x: Point, y: Point) -> Scalar:
        parts = [kernel(x, y) for kernel in self.kernels]
        return sum(
            (w * k for w, k in zip(self.weights, parts, strict=True)),
            jnp.zeros((), x.dtype),
        )

    def values_and_repulsion(
        self, x: Positions, y: Point
    ) -> tuple[Float[Array, " particles"], Point]:
        values, repulsion = jnp.zeros(x.shape[0], x.dtype), jnp.zeros_like(y)
        for weight, kernel in zip(self.weights, self.kernels, strict=True):
            more_values, more_repulsion = kernel.values_and_repulsion(x, y)
            values = values + weight * more_values
            repulsion = repulsion + weight * more_repulsion
        return values, repulsion
