import numpy as np
import pytest

from vijax._factors import Factors


def factors(name, rng):
    dim = 7
    below = {
        "none": [],
        "dense": [(i, j) for i in range(dim) for j in range(i)],
        "chain": [(i + 1, i) for i in range(dim - 1)],
        "arrow": [(dim - 1, j) for j in range(dim - 1)],
        # Rows in no order, and one that rests on two which rest on others.
        "mixed": [(6, 2), (3, 1), (6, 3), (2, 0), (4, 3)],
    }[name]
    diagonal = np.exp(rng.normal(size=(5, dim)))
    found = Factors(diagonal, rng.normal(size=(len(below), 5)), tuple(below))
    dense = np.zeros((5, dim, dim))
    dense[:, np.arange(dim), np.arange(dim)] = 1.0
    for place, (i, j) in enumerate(below):
        dense[:, i, j] = found.below[place]
    return found, dense * diagonal[:, None, :]


@pytest.mark.parametrize("name", ["none", "dense", "chain", "arrow", "mixed"])
def test_as_dense_matrices(name):
    rng = np.random.default_rng(0)
    found, dense = factors(name, rng)
    v, transposed = rng.normal(size=(5, 7)), dense.swapaxes(1, 2)
    product = lambda matrix: np.einsum("nij,nj->ni", matrix, v)
    np.testing.assert_allclose(found.times(v), product(dense), rtol=1e-12)
    np.testing.assert_allclose(found.transposed_times(v), product(transposed), rtol=1e-12)
    np.testing.assert_allclose(found.solve(v), product(np.linalg.inv(dense)), rtol=1e-9)
    np.testing.assert_allclose(
        found.transposed_solve(v), product(np.linalg.inv(transposed)), rtol=1e-9
    )
    np.testing.assert_allclose(found.log_det, np.linalg.slogdet(dense)[1], rtol=1e-12)
