"""What algorithms are written with does the same on arrays of NumPy and of JAX."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vijax import _arrays
from vijax._keys import Seed


MATRIX = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -0.2], [0.5, -0.2, 2.0]])
TRIL = np.linalg.cholesky(MATRIX)
B = np.arange(6.0).reshape(3, 2)


def both(fn, *args):
    """What a function makes of NumPy's arrays, and traced, of JAX's."""
    known = fn(*args)
    traced = jax.jit(fn)(*map(jnp.asarray, args))
    for x, y in zip(jax.tree.leaves(known), jax.tree.leaves(traced), strict=True):
        assert not isinstance(x, jax.Array)
        assert np.shape(x) == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    return known


def test_matrices():
    np.testing.assert_allclose(both(_arrays.cholesky, MATRIX), TRIL)
    values, vectors = _arrays.eigh(MATRIX)
    np.testing.assert_allclose(both(lambda x: _arrays.eigh(x)[0], MATRIX), values)
    np.testing.assert_allclose(vectors * values @ vectors.T, MATRIX, rtol=1e-12)
    np.testing.assert_allclose(TRIL @ both(_arrays.solve_lower, TRIL, B), B, atol=1e-12)
    solved = both(_arrays.solve_by_cholesky, TRIL, B)
    np.testing.assert_allclose(MATRIX @ solved, B, atol=1e-12)
    np.testing.assert_allclose(TRIL.T @ _arrays.solve_upper(TRIL, B), B, atol=1e-12)


@pytest.mark.parametrize("fn", [_arrays.cholesky, _arrays.eigh])
def test_what_has_no_root_is_nan(fn):
    bad = np.full((2, 2), np.nan) if fn is _arrays.eigh else np.diag([1.0, -1.0])
    for out in (fn(bad), jax.jit(fn)(jnp.asarray(bad))):
        assert all(np.isnan(x).any() for x in jax.tree.leaves(out))


@pytest.mark.parametrize("wanted", [True, False])
def test_branches(wanted):
    condition = np.bool_(wanted)
    branch = lambda c, x: _arrays.cond(c, lambda x: x + 1, lambda x: x - 1, x)
    np.testing.assert_array_equal(both(branch, condition, B), B + (1 if wanted else -1))
    pick = lambda c, x, y: _arrays.choose(c, (x, y), (y, x))[0]
    np.testing.assert_array_equal(both(pick, condition, B, -B), B if wanted else -B)
    turn = lambda i, x: _arrays.switch(i, [lambda x: x, lambda x: 2 * x], x)
    np.testing.assert_array_equal(both(turn, np.int32(wanted), B), B * (1 + wanted))


def test_points_of_branches_are_filled_up_where_it_is_not_known_which():
    few, many = lambda x: x[:1], lambda x: x
    ask = lambda i, x: _arrays.switch_points(i, (few, many), 4, x)
    x, count = ask(np.int32(0), B)
    assert x.shape == (1, 2)
    assert count == 1
    x, count = jax.jit(ask)(jnp.int32(0), jnp.asarray(B))
    assert x.shape == (4, 2)
    assert count == 1
    np.testing.assert_array_equal(x, np.pad(B[:1], ((0, 3), (0, 0))))


def test_an_entry_is_set_in_a_copy():
    x = B.copy()
    np.testing.assert_array_equal(
        both(lambda x: _arrays.set_at(x, 1, 9.0), x)[1], [9.0, 9.0]
    )
    np.testing.assert_array_equal(x, B)


def test_one_by_one_and_erf():
    both(
        lambda x: _arrays.one_by_one(_arrays.cholesky, x), np.stack([MATRIX, 2 * MATRIX])
    )
    both(_arrays.erf, B)


def test_each_path_of_each_key_is_a_stream_of_its_own():
    paths = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1), (2**31,)]
    keys = jr.key(0), jr.key(1), jr.key(0, impl="rbg")
    draws = [
        Seed(key).generator(*path).standard_normal() for key in keys for path in paths
    ]
    assert len(set(draws)) == len(draws)
    again = Seed(jr.key(1)).generator(0, 1).standard_normal()
    assert again == draws[len(paths) + 3]
