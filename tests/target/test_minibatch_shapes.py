"""What is in a batch: its shape and entries, which of them belong together, its type."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from .minibatches import decoded, E, encoded, linear_target, log_prior, matrix_data


MORE = (10, 20, 30, 40, 50)


def is_whole(indices, length):
    return np.array_equal(indices, np.arange(length))


@functools.cache
def more_data():
    return jnp.asarray(encoded(*MORE, dtype=np.float32))


@pytest.mark.parametrize(
    ("batch_size", "total_size", "shape"),
    [
        ([2, E, 10], (10, E, 50), (2, 20, 30, 40, 10)),
        ((2, None, 20), [10, None, 30], (2, 20, 20, 40, 50)),
        ([2, None, 20, E, 10], (10, None, 30, E, 50), (2, 20, 20, 40, 10)),
    ],
    ids=str,
)
def test_the_examples_of_the_original(batch_size, total_size, shape, getkey):
    assert more_data().size < 2**24  # Or float32 could not tell the entries apart.
    target = linear_target(more_data(), batch_size, total_size=total_size)
    seen = target.batch(getkey())
    assert seen.data.shape == shape
    assert target.weight == 1.0
    ratio = np.prod(MORE) / np.prod(shape)
    assert seen.weight == pytest.approx(ratio, rel=1e-14)
    for axis, indices in enumerate(decoded(seen.data, MORE)):
        assert np.unique(indices).size == shape[axis]
        assert is_whole(indices, MORE[axis]) == (shape[axis] == MORE[axis])


@pytest.mark.parametrize(
    ("batch_size", "options", "shape"),
    [
        (10, {}, (10, 100)),
        ([(10, 42), (10, 42)], {"dtype": "int32"}, (10, 10)),
        ([10, 10], {"total_size": (100, 100)}, (10, 10)),
    ],
    ids=str,
)
def test_the_matrix_of_the_original(batch_size, options, shape, getkey):
    target = linear_target(encoded(100, 100), vi.Minibatch(batch_size, **options))
    seen = target.batch(getkey())
    assert seen.data.shape == shape
    assert seen.data.dtype == options.get("dtype", "float64")
    rows, columns = decoded(seen.data, (100, 100))
    assert np.unique(rows).size == shape[0]
    assert np.unique(columns).size == shape[1]
    assert not np.array_equal(rows, columns)
    assert target.weight == 1.0
    assert seen.weight == pytest.approx(1e4 / np.prod(shape), rel=1e-14)


@pytest.mark.parametrize(
    ("batch_size", "shape"),
    [
        (3, (3, 8)),
        ((3,), (3, 8)),
        ([3, 4], (3, 4)),
        ((3, 4), (3, 4)),
        ([(3, 42), (4, 42)], (3, 4)),
        (((3, 42), [4, 42]), (3, 4)),
        ((3, (4, 1)), (3, 4)),
        ((None, 4), (9, 4)),
        ((E, 4), (9, 4)),
        ((3, E), (3, 8)),
        ((3, E, 4), (3, 4)),
        ((E, 3, 4), (3, 4)),
        ((3, 4, E), (3, 4)),
        ((3, None), (3, 8)),
        ((None, None), (9, 8)),
        ((None,), (9, 8)),
        (E, (9, 8)),
        (np.int64(3), (3, 8)),
        ((np.int32(3), np.int64(4)), (3, 4)),
    ],
    ids=str,
)
def test_shapes_contents_and_weights_of_a_matrix(batch_size, shape, getkey):
    data, key = encoded(9, 8), getkey()
    target = linear_target(data, batch_size, total_size=(9, 8))
    seen = target.batch(key, 3)
    rows, columns = decoded(seen.data, (9, 8))
    assert (rows.size, columns.size) == shape
    assert np.unique(rows).size == rows.size
    assert np.unique(columns).size == columns.size
    # What is not drawn is as it was.
    assert shape[0] == 3 or is_whole(rows, 9)
    assert shape[1] == 4 or is_whole(columns, 8)
    assert seen.weight == pytest.approx(72 / np.prod(shape), rel=1e-14)
    expected = seen.weight * 2.0 * np.sum(seen.data) - 2.0
    mu = jnp.array([2.0])
    assert np.allclose(seen.log_density(mu), expected, rtol=1e-12)
    assert np.allclose(target.log_density(mu), 2.0 * data.sum() - 2.0, rtol=1e-12)
    # Without a `vi.Minibatch` around it, it means the same.
    plain = linear_target(data).with_batch_size(batch_size).batch(key, 3)
    assert np.array_equal(plain.data, seen.data)
    assert plain.weight == seen.weight


def test_axes_apart_keep_their_places(getkey):
    # Several drawn axes with others before, between and behind them.
    shape = (3, 7, 4, 9, 5, 8)
    target = linear_target(encoded(*shape), (None, 2, None, 3, E, 6))
    seen = target.batch(getkey())
    assert seen.data.shape == (3, 2, 4, 3, 5, 6)
    indices = decoded(seen.data, shape)
    assert [is_whole(i, n) for i, n in zip(indices, shape, strict=True)] == [
        axis in (0, 2, 4) for axis in range(6)
    ]
    assert seen.weight == pytest.approx(7 * 9 * 8 / (2 * 3 * 6), rel=1e-14)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("seed", [None, 3])
def test_arrays_share_their_indices(replace, seed, getkey):
    entry = lambda size: size if seed is None else (size, seed)
    data = {
        "a matrix": encoded(12, 9),
        "deep": [encoded(12, 9, 2), (encoded(12, 9, 2, 3),)],
        "integers": encoded(12, 9, dtype=np.int32),
        "row": np.arange(12),
    }
    sizes = entry(4), entry(5)
    target = linear_target(data, sizes, replace=replace)
    seen = target.batch(getkey(), 2)
    assert jax.tree.structure(seen.data) == jax.tree.structure(data)
    rows, columns = decoded(seen.data["a matrix"], (12, 9))
    take = lambda leaf: leaf[np.ix_(rows, columns)] if leaf.ndim > 1 else leaf[rows]
    expected = jax.tree.map(take, data)
    got = jax.tree.map(np.asarray, seen.data)
    assert eqx.tree_equal(got, expected, typematch=True)
    assert seen.weight == pytest.approx(12 * 9 / 20, rel=1e-14)


def test_the_last_axis_is_shared_whatever_the_number_of_axes(getkey):
    data = {"a": encoded(6, 4, 5), "b": encoded(6, 5), "c": encoded(6, 2, 3, 5)}
    seen = linear_target(data, (2, E, 3)).batch(getkey()).data
    rows, columns = decoded(seen["b"], (6, 5))
    for name, shape in {"a": (6, 4, 5), "c": (6, 2, 3, 5)}.items():
        first, *middle, last = decoded(seen[name], shape)
        assert np.array_equal(first, rows)
        assert np.array_equal(last, columns)
        assert all(map(is_whole, middle, shape[1:-1]))


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("batch_size", [(3, 2), (8, 2), (3, 6), (1, 1), (E, 3, 2)])
def test_index_arrays_say_which_rows_and_columns(batch_size, replace, getkey):
    target = linear_target(matrix_data(), batch_size, replace=replace)
    matrix, rows, columns = target.batch(getkey(), 5).data
    sizes = tuple(e for e in batch_size if e is not E)
    assert matrix.shape == sizes
    assert rows.shape == (sizes[0], 1)
    assert columns.shape == (1, sizes[1])
    first, second = decoded(matrix, (8, 6))
    assert np.array_equal(rows[:, 0], first)
    assert np.array_equal(columns[0], second)


def test_one_row_is_broadcast_only_where_several_axes_are_drawn():
    row = np.ones((1, 6)), np.ones((8, 1))
    target = linear_target((encoded(8, 6), *row), (2, 3))
    assert [x.shape for x in target.batch(jr.key(0)).data] == [(2, 3), (1, 3), (2, 1)]
    for batch_size in (2, (2,), (2, None), (None, 3), (E, 3)):
        with pytest.raises(ValueError, match="must agree in length.*8.*1|.*6.*1"):
            linear_target((encoded(8, 6), *row), batch_size)
    with pytest.raises(ValueError, match="must agree in length"):
        linear_target((np.ones(8), np.ones(1)), 2)
    with pytest.raises(ValueError, match="must agree in length"):
        linear_target((np.ones(8), np.ones(1)), 1)


def test_an_axis_of_length_one_everywhere_is_drawn_whole(getkey):
    seen = linear_target(encoded(8, 1), (2, 1)).batch(getkey())
    assert seen.data.shape == (2, 1)
    assert seen.weight == 4.0


@pytest.mark.parametrize(
    ("dtype", "given", "stored"),
    [
        ("int32", "float64", "int32"),
        (np.int32, "int64", "int32"),
        ("float32", "float64", "float32"),
        (jnp.float32, "float64", "float32"),
        ("float32", "int16", "int16"),
        ("float32", "uint8", "uint8"),
        ("float32", "bool", "bool"),
        ("bfloat16", "float64", "bfloat16"),
        (np.dtype("float64"), "float32", "float64"),
        (None, "float32", "float32"),
        (None, "int8", "int8"),
    ],
    ids=str,
)
def test_dtypes(dtype, given, stored, getkey):
    data = np.array([0, 1, 0, 1, 1, 0, 1], given)
    target = linear_target(data, 3, dtype=dtype)
    assert target.data.dtype == stored
    assert target.batch(getkey()).data.dtype == stored
    assert np.array_equal(np.asarray(target.data).astype(given), data)
    other = target.with_data(data[::-1].copy())
    assert other.data.dtype == stored
    # Of the data as they are, too: they need not come in batches.
    whole = linear_target(data, None, dtype=dtype)
    assert whole.data.dtype == stored


def test_everything_is_as_narrow_as_the_parameters(getkey):
    data = tuple(x.astype(np.float32) for x in matrix_data())
    target = vi.from_likelihood(
        log_prior,
        lambda params, rows: params["mu"] * rows[0],
        {"mu": np.zeros((), np.float32)},
        data,
        batch_size=vi.Minibatch((3, 2), total_size=(16, None)),
    )
    seen = target.batch(getkey(), 1)
    x = jnp.ones(1, jnp.float32)
    assert target.log_density(x).dtype == seen.log_density(x).dtype == np.float32
