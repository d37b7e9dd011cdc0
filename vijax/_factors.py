"""Many triangular matrices with entries in the same places, in NumPy."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class _Sums(NamedTuple):
    """To each of some coordinates, the products of entries, at these places, and what is
    at their sources; those of one coordinate are neighbors."""

    of: Int[np.ndarray, " some"]
    places: Int[np.ndarray, " products"]
    sources: Int[np.ndarray, " products"]
    starts: Int[np.ndarray, " some"]

    def __call__(self, below: np.ndarray, v: np.ndarray) -> np.ndarray:
        products = below[self.places] * v[self.sources]
        return np.add.reduceat(products, self.starts, axis=0)


@dataclasses.dataclass(frozen=True)
class Factors:
    """Lower triangular matrices `L`, one a point: unit ones times diagonal ones.

    What has zeros in the same places of all is never multiplied, and coordinates that do
    not rest on each other are solved for at once.

    **Reference:** Anderson and Saad (1989), *Solving sparse triangular linear systems on
    parallel computers*, International Journal of High Speed Computing 1(1): levels.

    **Attributes:**

    - `diagonal`: of each.
    - `below`: the entries below the diagonal, in units of that of their column. Points
        are neighbors, since what is done with an entry is done at all of them.
    - `entries`: the row and the column of each of these.
    """

    diagonal: Float[np.ndarray, "points dim"]
    below: Float[np.ndarray, "entries points"]
    entries: tuple[tuple[int, int], ...]

    @property
    def log_det(self) -> Float[np.ndarray, " points"]:
        """The logarithms of the determinants."""
        return np.sum(np.log(self.diagonal), axis=1)

    def times(self, v: Float[np.ndarray, "points dim"]) -> np.ndarray:
        """`L v`."""
        return self._times(self.diagonal * v, is_transposed=False)

    def transposed_times(self, v: Float[np.ndarray, "points dim"]) -> np.ndarray:
        """`L^T v`."""
        return self.diagonal * self._times(v, is_transposed=True)

    def solve(self, v: Float[np.ndarray, "points dim"]) -> np.ndarray:
        """`L^-1 v`."""
        return self._solve(v, is_transposed=False) / self.diagonal

    def transposed_solve(self, v: Float[np.ndarray, "points dim"]) -> np.ndarray:
        """`L^-T v`."""
        return self._solve(v / self.diagonal, is_transposed=True)

    def _levels(self, *, is_transposed: bool) -> tuple[_Sums, ...]:
        dim = self.diagonal.shape[1]
        return _levels(self.entries, dim, is_transposed=is_transposed)

    def _times(self, v: np.ndarray, *, is_transposed: bool) -> np.ndarray:
        v = v.T.copy()
        out = v.copy()
        for sums in self._levels(is_transposed=is_transposed):
            out[sums.of] += sums(self.below, v)
        return out.T

    def _solve(self, v: np.ndarray, *, is_transposed: bool) -> np.ndarray:
        out = v.T.copy()
        for sums in self._levels(is_transposed=is_transposed):
            out[sums.of] -= sums(self.below, out)
        return out.T


@functools.lru_cache(maxsize=64)
def _levels(
    entries: tuple[tuple[int, int], ...], dim: int, *, is_transposed: bool
) -> tuple[_Sums, ...]:
    """Coordinates that rest on others, after all of these."""
    pairs = np.array(entries, int).reshape(-1, 2)
    rows, sources = pairs.T[::-1] if is_transposed else pairs.T
    level = np.zeros(dim, int)
    # From the first row down, or from the last one up, where sources are known already.
    order = np.argsort(-rows if is_transposed else rows, kind="stable")
    for i in order:
        level[rows[i]] = max(level[rows[i]], level[sources[i]] + 1)
    out = []
    for number in range(1, level.max(initial=0) + 1):
        places = order[level[rows[order]] == number]
        of, starts = np.unique(rows[places], return_index=True)
        by_start = np.argsort(starts)
        out.append(_Sums(of[by_start], places, sources[places], starts[by_start]))
    return tuple(out)
