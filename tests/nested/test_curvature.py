"""Second derivatives from differences of scores, several columns at once."""

import numpy as np
import pytest

from vijax._nested.curvature import (
    all_columns,
    columns,
    filled_in,
    precisions,
    seen_pattern,
)


def chain(dim):
    i = np.arange(dim)
    return np.abs(i[:, None] - i[None]) < 2


def groups(dim, size):
    i = np.arange(dim) // size
    return i[:, None] == i[None]


def arrow(dim, num_dense):
    pattern = np.eye(dim, dtype=bool)
    pattern[:num_dense] = pattern[:, :num_dense] = True
    return pattern


PATTERNS = {
    "diagonal": (np.eye(9, dtype=bool), 1),
    "a chain": (chain(12), 3),
    "groups of four": (groups(12, 4), 4),
    "two for all, and the others alone": (arrow(15, 2), 3),
    "all": (np.ones((5, 5), bool), 5),
}
every_pattern = pytest.mark.parametrize(
    ("pattern", "count"), PATTERNS.values(), ids=PATTERNS.keys()
)


def matrix_of(pattern, rng):
    half = rng.normal(size=pattern.shape) * pattern
    return half + half.T + 8 * np.eye(len(pattern))


@every_pattern
def test_few_differences_give_all_the_matrix(pattern, count):
    rng = np.random.default_rng(0)
    matrix, seen = matrix_of(pattern, rng), columns(pattern)
    assert seen.num_groups == count
    asked = []

    def scores(x):
        asked.append(x.shape[1])
        return -x @ matrix

    x, scale = rng.normal(size=(3, len(pattern))), rng.uniform(0.5, 2, (3, len(pattern)))
    found = precisions(scores, x, scale, seen)
    assert asked == [2 * count]
    np.testing.assert_allclose(found, np.repeat(matrix[None], 3, axis=0), atol=1e-10)
    every = precisions(scores, x, scale, all_columns(len(pattern)))
    np.testing.assert_allclose(every, found, atol=1e-10)


@every_pattern
def test_a_pattern_is_seen_in_matrices(pattern, count):
    del count
    rng = np.random.default_rng(1)
    matrices = np.stack([matrix_of(pattern, rng) for _ in range(3)])
    # Rounding is no entry.
    noisy = matrices + 1e-5 * rng.normal(size=matrices.shape)
    assert np.array_equal(seen_pattern(noisy), pattern)


@every_pattern
def test_where_a_factor_has_anything(pattern, count):
    del count
    matrix = matrix_of(pattern, np.random.default_rng(2)) + 20 * np.eye(len(pattern))
    tril = np.linalg.cholesky(matrix)
    assert np.array_equal(np.abs(np.tril(tril, -1)) > 1e-14, filled_in(pattern))


def test_it_is_the_curvature_at_the_point():
    # log p = -sum x^4 / 12 has the curvature x^2, whose differences are exact to a step.
    x = np.array([[1.0, 2.0, 3.0]])
    found = precisions(lambda x: -(x**3) / 3, x, np.full((1, 3), 0.01), all_columns(3))
    np.testing.assert_allclose(found[0], np.diag(x[0] ** 2), atol=1e-5)
