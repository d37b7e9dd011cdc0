"""Second derivatives of a log density from differences of its scores, several columns at
once where the matrix is sparse."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


# In units of a coordinate's scale: where rounding and third derivatives both are small.
_STEP = 0.1
# Entries that are smaller, in units of the diagonal's roots, are taken for zero.
_NOTHING = 1e-3
# The most columns that are tried as dense ones.
_MOST_DENSE = 24


class Columns(NamedTuple):
    """Which columns of a symmetric matrix are seen at once.

    Columns of a group share no row, but for the rows of `dense` columns, each a group of
    its own: these are known from the columns, by symmetry.

    **Reference:** Curtis, Powell and Reid (1974), *On the estimation of sparse Jacobian
    matrices*, IMA Journal of Applied Mathematics 13(1); Powell and Toint (1979) for
    symmetric ones.
    """

    pattern: Bool[np.ndarray, "dim dim"]
    groups: Int[np.ndarray, " dim"]
    dense: Bool[np.ndarray, " dim"]

    @property
    def num_groups(self) -> int:
        """How many differences a matrix takes."""
        return int(self.groups.max(initial=-1)) + 1


def all_columns(dim: int) -> Columns:
    """Each column by itself."""
    ones = np.ones(dim, bool)
    return Columns(np.ones((dim, dim), bool), np.arange(dim), ones)


def columns(pattern: Bool[np.ndarray, "dim dim"]) -> Columns:
    """The columns of a matrix whose other entries are zero, in few groups."""
    pattern = pattern | pattern.T | np.eye(len(pattern), dtype=bool)
    by_size = np.argsort(-pattern.sum(axis=0), kind="stable")
    best = all_columns(len(pattern))
    for num_dense in range(min(_MOST_DENSE, len(pattern)) + 1):
        dense = np.zeros(len(pattern), bool)
        dense[by_size[:num_dense]] = True
        found = Columns(pattern, _groups(pattern, dense), dense)
        if found.num_groups < best.num_groups:
            best = found
    return best


def _groups(pattern: np.ndarray, dense: np.ndarray) -> np.ndarray:
    groups = np.full(len(pattern), -1)
    groups[dense] = np.arange(dense.sum())
    sparse = pattern & ~dense[:, None] & ~dense[None, :]
    meet = (sparse.astype(np.float32) @ sparse.astype(np.float32)) > 0
    for column in np.flatnonzero(~dense):
        taken = {-1, *groups[meet[column]].tolist()}
        groups[column] = next(
            i for i in range(int(dense.sum()), len(pattern)) if i not in taken
        )
    return groups


def seen_pattern(matrices: Float[np.ndarray, "many dim dim"]) -> np.ndarray:
    """Which entries are anything in any of the matrices."""
    scale = np.sqrt(np.abs(np.einsum("nii->ni", matrices))) + 1e-300
    unit = np.abs(matrices) / scale[:, :, None] / scale[:, None, :]
    return np.any(unit > _NOTHING, axis=0)


def filled_in(pattern: Bool[np.ndarray, "dim dim"]) -> Bool[np.ndarray, "dim dim"]:
    """Which entries a Cholesky factor has below its diagonal."""
    filled = np.tril(pattern | pattern.T, -1)
    for i in range(len(filled)):
        below = np.flatnonzero(filled[:, i])
        filled[np.ix_(below, below)] |= below[:, None] > below[None, :]
    return filled


def precisions(
    scores: Callable[[np.ndarray], np.ndarray],
    x: Float[np.ndarray, "points dim"],
    scale: Float[np.ndarray, "points dim"],
    seen: Columns,
) -> Float[np.ndarray, "points dim dim"]:
    """Minus the second derivatives at each point.

    **Arguments:**

    - `scores`: gives `(points, many, dim)` scores at points of that shape.
    - `x`: the points.
    - `scale`: of each coordinate there.
    - `seen`: which columns are seen at once.
    """
    count, widths = seen.num_groups, _STEP * scale
    chosen = seen.groups == np.arange(count)[:, None]
    steps = widths[:, None, :] * chosen
    found = scores(np.concatenate([x[:, None] + steps, x[:, None] - steps], axis=1))
    falls = 0.5 * (found[:, count:] - found[:, :count])
    # Row i of column j, which its group shows.
    matrix = falls[:, seen.groups, :].swapaxes(1, 2) / widths[:, None, :]
    matrix = np.where(seen.pattern, matrix, 0.0)
    if not seen.dense.all():
        matrix[:, seen.dense] = matrix.swapaxes(1, 2)[:, seen.dense]
    return 0.5 * (matrix + matrix.swapaxes(1, 2))
