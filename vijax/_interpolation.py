"""Values between scattered points: a cubic spline, and what that is in several
dimensions."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ._arrays import namespace
from ._custom_types import AnyArray


# So many times as far from the origin as the points, values are those of the edge.
_REACH = 1.5
# What keeps nearly equal points apart, of a kernel that is one at the farthest.
_RIDGE = 1e-8


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """Kernels `|u - point|^3` and a linear function: through all values, and linear far
    away from them.

    **Reference:** Wendland (2005), *Scattered Data Approximation*, sections 8.3 and 8.5:
    the smoothest such function, in one dimension the natural cubic spline.
    """

    points: Float[AnyArray, "points dim"]
    radius: Float[AnyArray, ""] | float
    coefficients: Float[AnyArray, "terms values"]

    def __call__(self, at: Float[AnyArray, "many dim"]) -> Float[AnyArray, "many values"]:
        xp = namespace(at)
        # The root has no slope at zero.
        squares = xp.maximum(xp.sum(at**2, axis=1, keepdims=True), 1e-30)
        inside = xp.minimum(1, _REACH * self.radius / xp.sqrt(squares))
        return _terms(at * inside / self.radius, self.points) @ self.coefficients

    def pulled_back(
        self, at: Float[np.ndarray, "many dim"], slopes: Float[np.ndarray, "many values"]
    ) -> Float[np.ndarray, "many dim"]:
        """Gradients with respect to `at`, from those with respect to the values. (On the
        host.)"""
        size = np.sqrt(np.maximum(np.sum(at**2, axis=1, keepdims=True), 1e-30))
        inside = np.minimum(1, _REACH * self.radius / size)
        of_terms, count = slopes @ self.coefficients.T, len(self.points)
        gaps = (at * inside / self.radius)[:, None] - self.points
        lengths = np.sqrt(np.sum(gaps**2, axis=2))
        of_kernels = 3 * of_terms[:, :count] * lengths
        out = np.einsum("np,npd->nd", of_kernels, gaps) + of_terms[:, count + 1 :]
        # At the edge nothing changes outward.
        unit = at / size
        outward = unit * np.sum(unit * out, axis=1, keepdims=True)
        return (out - np.where(inside < 1, outward, 0)) * inside / self.radius


def fewest_points(dim: int) -> int:
    """How many points a linear function takes, and one more."""
    return dim + 2


def interpolate(
    points: Float[AnyArray, "points dim"], values: Float[AnyArray, "points values"]
) -> Interpolation:
    """The interpolation of `values` at `points`, which lie around the origin and span all
    dimensions."""
    xp, (count, dim) = namespace(points), points.shape
    radius = xp.max(xp.sqrt(xp.sum(points**2, axis=1)))
    unit = points / radius
    terms = _terms(unit, unit)
    zeros = xp.zeros((dim + 1, dim + 1), points.dtype)
    ridge = _RIDGE * xp.eye(count, dtype=points.dtype)
    linear = terms[:, count:]
    kernel = terms[:, :count] + ridge
    top = xp.concatenate([kernel, linear], axis=1)
    bottom = xp.concatenate([linear.T, zeros], axis=1)
    right = xp.concatenate(
        [values, xp.zeros((dim + 1, values.shape[1]), values.dtype)], axis=0
    )
    coefficients = xp.linalg.solve(xp.concatenate([top, bottom], axis=0), right)
    return Interpolation(unit, radius, coefficients)


def _terms(
    at: Float[AnyArray, "many dim"], points: Float[AnyArray, "points dim"]
) -> Float[AnyArray, "many terms"]:
    xp = namespace(at)
    squares = xp.sum((at[:, None, :] - points[None]) ** 2, axis=2)
    ones = xp.ones((len(at), 1), at.dtype)
    return xp.concatenate([squares**1.5, ones, at], axis=1)
