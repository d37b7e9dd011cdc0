"""What is promised of batches, whatever draws them."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are among what is tried here.

import functools
import itertools as it
import logging

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import vijax as vi

from ..helpers import same


@pytest.fixture
def as_for_users():
    """Without the type checker of our tests, which would speak up first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def log_prior(params):
    return -0.5 * jnp.sum(params["mu"] ** 2)


def linear(params, rows):
    """A likelihood that says what its weight is: linear in the first array."""
    return params["mu"] * jax.tree.leaves(rows)[0].astype(float)


def linear_target(data, batch_size=None, **options):
    if options:
        batch_size = vi.Minibatch(batch_size, **options)
    params = {"mu": vi.Param()}
    return vi.from_likelihood(log_prior, linear, params, data, batch_size=batch_size)


def encoded(*shape, dtype=float):
    """An array whose entries say where they are."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def decoded(batch, shape):
    """From where along each axis a batch of `encoded(*shape)` was taken. Fails unless it
    is what `np.ix_` takes of that array there."""
    batch = np.asarray(batch)
    assert np.all((batch >= 0) & (batch < np.prod(shape)))
    positions = np.unravel_index(batch.astype(int), shape)
    indices = []
    for axis, position in enumerate(positions):
        first = tuple(slice(None) if i == axis else 0 for i in range(batch.ndim))
        indices.append(position[first])
    assert np.array_equal(encoded(*shape)[np.ix_(*indices)], batch)
    return indices


@eqx.filter_jit
def over_steps(target, key, steps):
    """The batches of one run at some steps."""
    return jax.vmap(lambda step: target.batch(key, step).data)(steps)


@eqx.filter_jit
def over_keys(target, keys, step=0):
    """The batches of many runs at the same step."""
    return jax.vmap(lambda key: target.batch(key, step).data)(keys)


def steps(number, first=0):
    return jnp.arange(first, first + number, dtype=jnp.int32)


def is_whole(indices, length):
    return np.array_equal(indices, np.arange(length))


def sigmas(counts, expected):
    """How far a chi-square statistic is above its mean, in standard deviations."""
    counts = np.asarray(counts, float).ravel()
    chi_square, dof = np.sum((counts - expected) ** 2) / expected, counts.size - 1
    return (chi_square - dof) / np.sqrt(2 * dof)


# Shapes and contents.


MORE = (10, 20, 30, 40, 50)
E = Ellipsis
slow = lambda *case: pytest.param(*case, marks=pytest.mark.slow)


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


def matrix_data(n=8, m=6):
    """A matrix, and for each entry which row and column it is in."""
    return encoded(n, m), np.arange(n)[:, None], np.arange(m)[None, :]


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


# Weights.


@pytest.mark.parametrize(
    ("total_size", "whole"),
    [
        (None, 1.0),
        (80, 10.0),
        ((80,), 10.0),
        ([80, 12], 20.0),
        ((80, None), 10.0),
        ((None, 12), 2.0),
        ((80, E), 10.0),
        ((E, 12), 2.0),
        ((80, E, 12), 20.0),
        ((8, 6), 1.0),
        ((9, 7), 9 * 7 / 48),
        ((np.int64(80), None), 10.0),
    ],
    ids=str,
)
def test_total_size_scales_batches_and_the_whole(total_size, whole, getkey):
    data, mu, key = matrix_data(), jnp.array([3.0]), getkey()
    for batch_size, part in {(3, 2): 8.0, 4: 2.0, None: 1.0, (E, 4): 1.5}.items():
        # Broadcasting is for two axes.
        given = data if batch_size == (3, 2) else data[0]
        target = linear_target(given, batch_size, total_size=total_size)
        assert target.weight == pytest.approx(whole, rel=1e-14)
        expected = whole * 3.0 * np.sum(encoded(8, 6)) - 4.5
        assert np.allclose(target.log_density(mu), expected, rtol=1e-12)
        seen = target.batch(key)
        assert seen.weight == pytest.approx(whole * part, rel=1e-14)
        values = np.sum(jax.tree.leaves(seen.data)[0])
        expected = whole * part * 3.0 * values - 4.5
        assert np.allclose(seen.log_density(mu), expected, rtol=1e-12)


def test_total_size_goes_with_new_data():
    target = linear_target(np.ones(10), 5, total_size=100)
    assert target.with_data(np.ones(50)).weight == 2.0
    assert target.with_data(np.ones(100)).weight == 1.0
    with pytest.raises(ValueError, match="`total_size` is 100.*101"):
        target.with_data(np.ones(101))


def test_total_size_needs_no_batches():
    target = linear_target(np.ones(10), None, total_size=100)
    assert target.batch(jr.key(0)).weight == target.weight == 10.0
    mu = jnp.ones(1)
    assert np.allclose(target.log_density(mu), 99.5, rtol=1e-12)
    assert np.allclose(target.batch(jr.key(0)).log_density(mu), 99.5, rtol=1e-12)


def test_total_size_is_refused_where_arrays_have_different_lengths_there():
    # Which of 6 and 8 columns are a part of 12? Either weight would be a guess.
    data = {"matrix": np.ones((10, 6)), "features": np.ones((10, 8))}
    assert linear_target(data, 2, total_size=20).weight == 2.0
    with pytest.raises(ValueError, match="total_size"):
        linear_target(data, 2, total_size=(20, 12))
    data = {"matrix": np.ones((10, 6)), "features": np.ones((10, 3, 3))}
    with pytest.raises(ValueError, match="total_size"):
        linear_target(data, 2, total_size=(20, 12))


# Expectations.


def regression_target(batch_size):
    """Independent rows, in no way alike: only the right weights make this unbiased."""
    rng = np.random.default_rng(0)
    data = {"x": np.arange(7.0) ** 2 - 9.0, "y": rng.normal(size=(7, 3)) * [1.0, 5.0, 9]}

    def log_likelihood(params, rows):
        mean = params["mu"] * rows["x"][:, None] + params["offset"][None]
        return -0.01 * (rows["y"] - mean) ** 2

    prior = lambda params: log_prior(params) - jnp.sum(params["offset"] ** 2)
    params = {"mu": vi.Param(), "offset": vi.Param(3)}
    return vi.from_likelihood(prior, log_likelihood, params, data, batch_size=batch_size)


def factorization_target(batch_size):
    """A matrix as a product of factors, of which rows and columns are drawn."""
    rng = np.random.default_rng(1)
    matrix = 3 * rng.normal(size=(6, 5)) + np.arange(6)[:, None]
    data = matrix, np.arange(6)[:, None], np.arange(5)[None, :]

    def log_likelihood(params, data):
        matrix, rows, columns = data
        found = params["u"][rows[:, 0]] @ params["v"][columns[0]].T
        return -0.5 * (matrix - found) ** 2

    prior = lambda params: -0.5 * sum(jnp.sum(p**2) for p in params.values())
    params = {"u": vi.Param((6, 2)), "v": vi.Param((5, 2))}
    return vi.from_likelihood(prior, log_likelihood, params, data, batch_size=batch_size)


@eqx.filter_jit
def estimates(target, keys, steps, x):
    """Values and gradients for each of some pairs of a key and a step."""
    fn = lambda key, step: jax.value_and_grad(target.batch(key, step).log_density)(x)
    value, grad = jax.vmap(fn)(keys, steps)
    return jnp.concatenate([value[:, None], grad], axis=1)


def check_unbiased(found, target, x):
    value, grad = jax.value_and_grad(target.log_density)(x)
    expected = np.concatenate([np.asarray(value)[None], grad])
    stderr = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 5 * stderr + 1e-9)
    # Weights that are wrong by a tenth would show.
    assert 5 * stderr[0] < 0.1 * np.abs(expected[0])


makers = {"one axis": regression_target, "two axes": factorization_target}
cases = [
    ("two axes", (4, 2), {"total_size": (60, 50)}),
    slow("one axis", 2, {"total_size": (21, E)}),
    slow("one axis", 3, {}),
    slow("one axis", 3, {"replace": True}),
    slow("two axes", (4, 2), {"replace": True}),
    slow("two axes", (2, 3), {}),
    slow("two axes", ((6, 3), (2, 7)), {}),
]
NUM = 12_000


@pytest.mark.parametrize(("name", "batch_size", "options"), cases, ids=str)
def test_unbiased_over_keys_and_over_steps(name, batch_size, options, getkey):
    target = makers[name](vi.Minibatch(batch_size, **options))
    x = jr.normal(getkey(), (target.dim,)) + 1
    # Six steps are whole epochs of either axis: what comes after is shuffled anew.
    one_run = jnp.broadcast_to(getkey(), (NUM,))
    found = np.asarray(estimates(target, one_run, steps(NUM), x))
    check_unbiased(found.reshape(NUM // 6, 6, -1).mean(axis=1), target, x)
    if "7" in str(batch_size):  # A seed: all runs are one.
        return
    when = jr.randint(getkey(), (NUM,), 0, 4, jnp.int32)
    found = np.asarray(estimates(target, jr.split(getkey(), NUM), when, x))
    check_unbiased(found, target, x)
    for step in range(4):
        check_unbiased(found[when == step], target, x)


@pytest.mark.parametrize(
    ("length", "replace"), [(100, False), slow(20, False), slow(100, True)], ids=str
)
def test_the_variance_is_that_of_a_simple_random_sample(length, replace, getkey):
    # Of data in order, for which a shuffle that keeps neighbours together would show.
    size = length // 4
    target = linear_target(np.arange(length), size, replace=replace)
    rows = np.asarray(over_keys(target, jr.split(getkey(), 20_000), jnp.int32(2)))
    for values in (rows, rows % 10, rows < length // 2, rows % 2, rows // 10):
        one_of_each = dict(zip(rows.ravel(), values.ravel(), strict=True))
        variance = np.var(list(one_of_each.values())) / size
        if not replace:
            variance *= (length - size) / (length - 1)
        found = np.var(np.mean(values, axis=1), ddof=1)
        assert abs(found / variance - 1) < 5 * np.sqrt(2 / 20_000)


# Shuffled epochs, and draws with replacement.


@pytest.mark.parametrize(
    ("length", "size"), [(120, 30), slow(12, 4), slow(70, 70)], ids=str
)
def test_an_epoch_is_each_row_once(length, size, getkey):
    target = linear_target(np.arange(length), size)
    batches = length // size
    seen = np.asarray(over_steps(target, getkey(), steps(30 * batches)))
    epochs = seen.reshape(30, length)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(length), (30, 1)))
    # Each in an order of its own: two agree at one place in the mean.
    agree = [np.sum(x == y) for x, y in it.combinations(epochs, 2)]
    assert abs(np.mean(agree) - 1) < 5 / np.sqrt(30)


@pytest.mark.parametrize(("length", "size"), [(10, 3), slow(100, 33)])
def test_what_is_left_of_an_epoch_is_skipped(length, size, getkey):
    target = linear_target(np.arange(length), size)
    batches = length // size
    seen = np.asarray(over_steps(target, getkey(), steps(2_000 * batches)))
    epochs = np.sort(seen.reshape(2_000, batches * size), axis=1)
    assert np.all(np.diff(epochs, axis=1) > 0)  # No row twice.
    # Every row is left out as often as the others.
    left_out = 2_000 - np.bincount(epochs.ravel(), minlength=length)
    expected = 2_000 * (length - batches * size) / length
    assert sigmas(left_out, expected) < 5
    assert left_out.sum() == pytest.approx(expected * length)


def test_epochs_of_rows_and_of_columns_go_each_at_their_pace(getkey):
    target, key = linear_target(matrix_data(9, 8), (3, 4)), getkey()
    seen = [target.batch(key, step).data for step in range(12)]
    rows = np.reshape([rows for _, rows, _ in seen], (4, 9))
    columns = np.reshape([columns for *_, columns in seen], (6, 8))
    assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(9), (4, 1)))
    assert np.array_equal(np.sort(columns, axis=1), np.tile(np.arange(8), (6, 1)))


def test_a_linear_statistic_of_an_epoch_has_no_variance(getkey):
    y = np.random.default_rng(0).normal(size=(9, 8))
    target, mu = linear_target(y, 3, total_size=90), jnp.ones(1)
    for _ in range(3):
        key = getkey()
        values = [target.batch(key, 6 + step).log_density(mu) for step in range(3)]
        assert np.allclose(np.mean(values), target.log_density(mu), rtol=1e-12)
        assert np.std(values) > 1  # While a batch alone has some.


def test_draws_with_replacement_are_even_and_independent(getkey):
    target = linear_target(np.arange(5), 2, replace=True)
    seen = np.asarray(over_steps(target, getkey(), steps(25_000))).astype(int)
    # Within a step, and from one step to the next.
    for first, second in ((seen[:, 0], seen[:, 1]), (seen[:-1, 1], seen[1:, 0])):
        counts = np.bincount(5 * first + second, minlength=25)
        assert sigmas(counts, len(first) / 25) < 5
        assert np.all(counts[::6] > 0)


@pytest.mark.parametrize(
    ("entry", "replace"), [(1, False), ((1, 42), False), slow(1, True)], ids=str
)
def test_two_axes_are_not_locked_together(entry, replace, getkey):
    # As long as each other, with as many at a time, and with the same seed.
    target = linear_target(encoded(4, 4), (entry, entry), replace=replace)
    over = [over_steps(target, getkey(), steps(8_000))]
    if entry == 1:
        over += [over_keys(target, jr.split(getkey(), 8_000), jnp.int32(1))]
    for seen in over:
        cells = np.asarray(seen).astype(int).ravel()
        assert sigmas(np.bincount(cells, minlength=16), 500) < 5


@pytest.mark.parametrize("replace", [False, True])
def test_seeds_alone_decide(replace, getkey):
    first, second = getkey(), getkey()

    def seen(key, *batch_size):
        target = linear_target(encoded(9, 8), batch_size, replace=replace)
        return [target.batch(key, step).data.tolist() for step in range(6)]

    def columns(batches):
        return [(np.array(batch)[0] % 8).tolist() for batch in batches]

    both = seen(first, (3, 7), (4, 9))
    assert both == seen(second, (3, 7), (4, 9))
    # What a step sees changes from step to step.
    assert len({str(batch) for batch in both}) > 3
    # Another seed for the rows are other rows; the columns are as they were.
    other = seen(first, (3, 8), (4, 9))
    assert both != other
    assert columns(both) == columns(other)
    # With a seed on one axis only, the other one follows the key.
    mixed, moved = seen(first, 3, (4, 9)), seen(second, 3, (4, 9))
    assert mixed != moved
    assert columns(mixed) == columns(moved) == columns(both)
    # Without any, both do.
    assert columns(seen(first, 3, 4)) != columns(seen(second, 3, 4)) != columns(both)


@pytest.mark.parametrize("replace", [False, slow(True)])
def test_a_batch_is_the_same_however_it_is_asked_for(replace, getkey):
    target = linear_target(encoded(9, 8), (3, 4), replace=replace)
    key = getkey()
    expected = [target.batch(key, step).data for step in range(4)]
    closed = jax.jit(lambda key, step: target.batch(key, step).data)
    for step in range(4):
        assert np.array_equal(target.batch(key, jnp.asarray(step)).data, expected[step])
        assert np.array_equal(closed(key, step), expected[step])
    if replace:  # This compiles for long.
        assert np.array_equal(over_steps(target, key, steps(4)), expected)
        over = over_keys(target, jr.split(key, 2), jnp.int32(3))
        assert np.array_equal(over[1], target.batch(jr.split(key, 2)[1], 3).data)
    assert np.array_equal(target.batch(key).data, expected[0])
    # A batch is all that there is: it has no batches of its own.
    seen = target.batch(key, 11)
    assert seen.batch(getkey(), 3) is seen


def sizes(jaxpr):
    """How many numbers each value in a jaxpr holds, those of inner jaxprs included."""
    for equation in jaxpr.eqns:
        for var in equation.outvars:
            yield int(np.prod(getattr(var.aval, "shape", ())))
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("batch_size", [10, (10, 3)], ids=str)
def test_a_batch_costs_what_it_holds(batch_size, replace, getkey):
    data = jnp.zeros((100_003, 70)), jnp.zeros((100_003, 70), jnp.int32)
    target = linear_target(data, batch_size, replace=replace)
    fn = lambda key, step, x: jax.value_and_grad(target.batch(key, step).log_density)(x)
    jaxpr = jax.make_jaxpr(fn)(getkey(), jnp.int32(3), jnp.ones(1))
    assert 30 <= max(sizes(jaxpr.jaxpr)) <= 700


# Fits.


class Recorder(vi.AbstractMethod):
    """Fits nothing, but writes down what each step saw. Of some row it is afraid."""

    room: int = eqx.field(static=True)
    afraid_of: int = eqx.field(static=True, default=-1)

    def init(self, key, family, target):
        shape = jax.eval_shape(lambda: target.batch(key).data).shape
        return jnp.full((self.room, *shape), -1.0), jnp.zeros((), jnp.int32)

    def step(self, key, family, target, state):
        seen, count = state
        is_bad = jnp.any(target.data == self.afraid_of)
        state = seen.at[count].set(target.data), count + 1
        return family, state, jnp.where(is_bad, jnp.nan, 0.0)


def record(target, key, max_steps, *, room=60, afraid_of=-1, **options):
    method = Recorder(room, afraid_of)
    options = {"progress": False, "family": vi.MeanField} | options
    return vi.fit(target, method, key=key, max_steps=max_steps, **options)


def recorded(fit):
    return np.asarray(fit.state[0])


def test_the_epochs_of_a_fit_go_on(getkey, tmp_path):
    target, key = linear_target(np.arange(10.0), 3), getkey()
    whole = record(target, key, 60)
    epochs = np.sort(recorded(whole).reshape(20, 9), axis=1)
    assert np.all(epochs >= 0)
    assert np.all(np.diff(epochs, axis=1) > 0)
    assert len({epoch.tobytes() for epoch in recorded(whole).reshape(20, 9)}) == 20
    # Wherever it is cut, by whatever: bit for bit the same.
    resume = lambda fit, number: fit.resume(number, progress=False)
    assert same(resume(record(target, key, 25), 35), whole)
    assert same(resume(resume(record(target, key, 1), 2), 57), whole)
    assert same(
        record(target, key, 60, callbacks=lambda fit: None, callback_every=7), whole
    )
    path = tmp_path / "fit"
    vi.save(path, record(target, key, 31))
    loaded = vi.load(path, like=record(target, getkey(), 0))
    assert same(resume(loaded, 29), whole)
    # The same key, the same batches; another one, others.
    assert same(record(target, key, 60), whole)
    other = record(target, getkey(), 60)
    assert not np.array_equal(recorded(other), recorded(whole))


def test_a_fit_with_seeds_sees_what_the_seeds_say(getkey):
    target = linear_target(encoded(9, 8), ((3, 1), (4, 2)))
    seen = recorded(record(target, getkey(), 30, room=30))
    key = getkey()
    expected = [target.batch(key, step).data for step in range(30)]
    assert np.array_equal(seen, expected)


def test_skipped_steps_have_their_turn_too(getkey):
    target, key = linear_target(np.arange(10.0), 3), getkey()
    expected = recorded(record(target, key, 60))
    with pytest.warns(UserWarning, match="of 60 steps were not finite"):
        fit = record(target, key, 60, afraid_of=4)
    kept = [rows for rows in expected if 4 not in rows]
    assert 5 < fit.num_skipped == 60 - len(kept) <= 20
    assert np.array_equal(recorded(fit)[: len(kept)], kept)


@pytest.mark.slow
def test_many_fits_at_once_have_batches_of_their_own(getkey):
    target, keys = linear_target(np.arange(10.0), 3), jr.split(getkey(), 5)
    many = eqx.filter_vmap(lambda key: record(target, key, 60, throw=False))(keys)
    seen = recorded(many)
    assert seen.shape == (5, 60, 3)
    assert len({run.tobytes() for run in seen}) == 5
    assert np.array_equal(seen[3], recorded(record(target, keys[3], 60)))
    assert many.target.data.shape == (10,)  # Not there five times.


@pytest.mark.slow
@pytest.mark.parametrize("replace", [False, True])
def test_resuming_a_factorization_is_going_on(replace, getkey, tmp_path):
    minibatch = vi.Minibatch((4, (2, 3)), replace=replace, total_size=(12, None))
    run = functools.partial(
        vi.fit, factorization_target(minibatch), "advi", progress=False
    )
    key, path = getkey(), tmp_path / "fit"
    whole = run(key=key, max_steps=50)
    assert np.all(np.isfinite(whole.losses))
    vi.save(path, run(key=key, max_steps=19))
    like = run(key=getkey(), max_steps=0)
    assert same(vi.load(path, like=like).resume(31, progress=False), whole)


@pytest.mark.slow
def test_a_file_of_other_batches_is_refused(getkey, tmp_path):
    path, y = tmp_path / "fit", np.arange(10.0)
    vi.save(path, record(linear_target(y, 3, total_size=100), getkey(), 2))
    others = {"total_size": 200}, {"total_size": 100, "replace": True}
    for options in others:
        like = record(linear_target(y, 3, **options), getkey(), 0)
        with pytest.raises(ValueError, match="batch size"):
            vi.load(path, like=like)


def normal_target(y, batch_size, log_likelihood=None):
    """The mean of a normal of standard deviation three, whose own prior is N(0, 1)."""
    default = lambda params, y: -0.5 * ((y - params["mu"]) / 3.0) ** 2
    params = {"mu": vi.Param()}
    log_likelihood = log_likelihood or default
    return vi.from_likelihood(log_prior, log_likelihood, params, y, batch_size=batch_size)


def posterior(y):
    precision = 1 + len(y) / 9
    return np.sum(y) / 9 / precision, precision**-0.5


def test_new_data_by_a_callback_do_not_compile_again(getkey):
    traces = 0

    def log_likelihood(params, y):
        nonlocal traces
        traces += 1
        return -0.5 * ((y - params["mu"]) / 3.0) ** 2

    chunks = [np.arange(50.0) + i for i in range(5)]
    stream = iter(chunks)
    minibatch = vi.Minibatch(10, total_size=1_000)
    target = normal_target(next(stream), minibatch, log_likelihood)
    seen = []

    def following(fit):
        seen.append(np.asarray(fit.target.data))
        return fit.target.with_data(next(stream))

    settings = {"key": getkey(), "progress": False, "callback_every": 20}
    vi.fit(target, "advi", max_steps=20, **settings)
    before = traces
    fit = vi.fit(target, "advi", max_steps=80, callbacks=following, **settings)
    assert traces == before
    assert fit.num_steps == len(fit.losses) == 80
    # Each callback saw what the steps before it saw, and the fit ends with the last one.
    assert np.array_equal(seen, chunks[:4])
    assert np.array_equal(fit.target.data, chunks[4])
    assert fit.target.weight == 20.0
    draws = fit.draw(3, key=getkey())
    expected = [fit.target.log_density(x) for x in draws.x]
    assert np.allclose(draws.log_p, expected, rtol=1e-10)


@pytest.mark.slow
def test_a_stream_of_chunks_has_the_posterior_of_all(getkey):
    y = 2.0 + 3.0 * np.asarray(jr.normal(getkey(), (1_000,)))
    chunks = list(y.reshape(4, 250) + np.array([1.0, -1.0, -1.0, 1.0])[:, None])
    mean, std = posterior(np.concatenate(chunks))
    stream = it.cycle(chunks)
    target = normal_target(next(stream), vi.Minibatch(100, total_size=1_000))
    fit = vi.fit(
        target,
        "advi",
        key=getkey(),
        max_steps=5_000,
        callbacks=lambda fit: fit.target.with_data(next(stream)),
        callback_every=20,
        progress=False,
    )
    assert abs(fit.mean["mu"] - mean) < 0.4 * std
    assert abs(fit.std["mu"] / std - 1) < 0.1
    # A chunk alone, or one that is not scaled, has another posterior by far.
    assert all(abs(posterior(chunk)[0] - mean) > 5 * std for chunk in chunks)
    assert all(posterior(chunk)[1] > 1.9 * std for chunk in chunks)


def test_a_target_from_a_callback_is_one_from_resume(getkey):
    target, key = linear_target(np.arange(10.0), 3), getkey()
    new = target.with_data(100 + np.arange(10.0))
    first = record(target, key, 25)
    resumed = first.resume(35, target=new, progress=False)
    seen = recorded(resumed)
    # The epoch goes on where it was, with other rows.
    whole = recorded(record(target, key, 60))
    assert np.array_equal(seen[:25], whole[:25])
    assert np.array_equal(seen[25:], 100 + whole[25:])
    assert resumed.target.data[0] == 100
    assert first.target.data[0] == 0
    # Of several callbacks' answers those that are no target are no matter.
    give = lambda fit: new if fit.num_steps == 25 else "nothing"
    callbacks = [lambda fit: 1.0, give, lambda fit: None]
    called = record(target, key, 60, callbacks=callbacks, callback_every=5)
    assert same(called, resumed)
    assert called.target.data[0] == 100
    # On the last step it counts too, for what comes next.
    last = record(target, key, 25, callbacks=give, callback_every=5)
    assert same(last, first)
    assert same(last.resume(35, progress=False), resumed)


@pytest.mark.slow
def test_resuming_with_other_data_finds_their_posterior(getkey):
    target = normal_target(2.0 + np.arange(100.0) / 50, vi.Minibatch(20, total_size=400))
    fit = vi.fit(target, "advi", key=getkey(), max_steps=40, progress=False)
    y = -5.0 - np.arange(100.0) / 50
    fit = fit.resume(3_000, target=target.with_data(y), progress=False)
    mean, std = posterior(np.tile(y, 4))
    assert abs(fit.mean["mu"] - mean) < 0.4 * std
    assert abs(fit.std["mu"] / std - 1) < 0.1
    # Other batches, and more rows, are another target too.
    wider = fit.target.with_data(np.tile(y, 3)).with_batch_size(50)
    wider = fit.resume(10, target=wider, progress=False)
    assert wider.num_steps == len(wider.losses) == 3_050
    assert wider.target.batch(getkey()).data.shape == (50,)


def other_target(dim):
    return vi.from_log_density(lambda params: log_prior(params), {"mu": vi.Param(dim)})


@pytest.mark.usefixtures("as_for_users")
def test_a_target_of_another_dimension_is_refused(getkey):
    target, key = linear_target(np.arange(10.0), 3), getkey()
    wrong = lambda fit: other_target(3) if fit.num_steps == 20 else None
    with pytest.raises(vi.FitError, match="3 coordinates.*the run has 1") as info:
        record(target, key, 60, callbacks=wrong, callback_every=10)
    fit = info.value.fit
    assert isinstance(info.value.__cause__, ValueError)
    assert fit.num_steps == len(fit.losses) == 20
    assert fit.target.data.shape == (10,)
    assert same(fit.resume(40, progress=False), record(target, key, 60))
    with pytest.raises(ValueError, match="3 coordinates.*the run has 1"):
        fit.resume(40, target=other_target(3), progress=False)


# Changing what is seen.


def test_with_batch_size_takes_all_that_a_front_end_takes(getkey):
    data, key = encoded(9, 8), getkey()
    target = linear_target(data, 5)
    forms = [
        (4, (4, 8)),
        ((4,), (4, 8)),
        ([4, 3], (4, 3)),
        ((E, 3), (9, 3)),
        ((None, 3), (9, 3)),
        (((4, 1), 3), (4, 3)),
        (vi.Minibatch((4, 3), replace=True), (4, 3)),
        (None, (9, 8)),
    ]
    for form, shape in forms:
        other = target.with_batch_size(form)
        assert other.batch(key).data.shape == shape
        assert other.weight == 1.0
        assert np.array_equal(other.data, data)
        made = linear_target(data, form)
        assert np.array_equal(made.batch(key, 1).data, other.batch(key, 1).data)
    assert target.with_batch_size(None).minibatch is None


@pytest.mark.parametrize("batch_size", [None, vi.Minibatch((None, None))], ids=str)
def test_a_matrix_with_its_rows_and_columns_can_be_seen_whole(batch_size, getkey):
    # These are the data that the documentation names.
    target, x = factorization_target((4, 2)), jr.normal(getkey(), (22,))
    whole = target.with_batch_size(batch_size)
    assert np.allclose(whole.log_density(x), target.log_density(x), rtol=1e-12)
    assert np.allclose(whole.batch(getkey()).log_density(x), target.log_density(x))


@pytest.mark.parametrize("batch_size", [5, None])
def test_with_batch_size_changes_no_density(batch_size):
    # "The same model and data, seen in other batches."
    target = linear_target(np.arange(1.0, 11.0), 3, total_size=100)
    other = target.with_batch_size(batch_size)
    mu = jnp.ones(1)
    assert np.allclose(other.log_density(mu), target.log_density(mu), rtol=1e-12)


def test_with_data_of_other_lengths(getkey):
    target = linear_target(encoded(9, 8), ((3, 1), 4))
    other = target.with_data(encoded(12, 6))
    seen = other.batch(getkey())
    assert seen.data.shape == (3, 4)
    assert seen.weight == pytest.approx(12 * 6 / 12)
    decoded(seen.data, (12, 6))
    with pytest.raises(ValueError, match="`batch_size` is 4.*length 3"):
        target.with_data(encoded(12, 3))


# Errors, before anything compiles.


M = encoded(10, 6)
y = np.arange(10.0)
whole_number = "`batch_size` must be a whole number of at least 1"
at_once = {
    "two ellipses": (lambda: vi.Minibatch((E, 2, E)), r"`batch_size`.*two `\.\.\.`"),
    "two ellipses, plain": (lambda: linear_target(M, (E, E)), r"two `\.\.\.`"),
    "zero": (lambda: vi.Minibatch(0), f"{whole_number}.*it is 0"),
    "zero on an axis": (lambda: linear_target(M, (2, 0)), f"{whole_number}.*it is 0"),
    "zero with a seed": (lambda: linear_target(M, [(0, 1)]), f"{whole_number}.*it is 0"),
    "negative": (lambda: vi.Minibatch((2, -3)), f"{whole_number}.*it is -3"),
    "float": (lambda: vi.Minibatch((2, 3.0)), f"{whole_number}.*it is 3.0"),
    "float array": (lambda: vi.Minibatch(np.ones(2)), f"{whole_number}.*1\\."),
    "boolean": (lambda: vi.Minibatch(True), f"{whole_number}.*it is True"),
    "boolean on an axis": (lambda: vi.Minibatch((2, True)), f"{whole_number}.*is True"),
    "NumPy boolean": (lambda: vi.Minibatch(np.bool_(1)), f"{whole_number}.*True"),
    "string": (lambda: vi.Minibatch("10"), f"{whole_number}.*it is '10'"),
    "string on an axis": (lambda: vi.Minibatch((2, "3")), f"{whole_number}.*it is '3'"),
    "bytes": (lambda: vi.Minibatch(b"10"), f"{whole_number}.*it is b'10'"),
    "dictionary": (lambda: vi.Minibatch({2: 3}), f"{whole_number}.*it is {{2: 3}}"),
    "set": (lambda: vi.Minibatch({2, 3}), f"{whole_number}.*it is {{2, 3}}"),
    "a class": (lambda: linear_target(M, vi.Minibatch), whole_number),
    "a triple": (lambda: vi.Minibatch([(2, 3, 4)]), rf"{whole_number}.*\(2, 3, 4\)"),
    "nested": (lambda: vi.Minibatch([((2, 3), 4)]), rf"{whole_number}.*\(2, 3\)"),
    "seed: negative": (lambda: vi.Minibatch([(2, -1)]), "seed.*at least 0.*-1"),
    "seed: float": (lambda: vi.Minibatch([(2, 0.5)]), "seed.*whole number.*0.5"),
    "seed: boolean": (lambda: vi.Minibatch([(2, True)]), "seed.*whole number.*True"),
    "seed: string": (lambda: vi.Minibatch([(2, "a")]), "seed.*whole number.*'a'"),
    "seed: None": (lambda: vi.Minibatch([(2, None)]), "seed.*whole number.*None"),
    "seed: key": (lambda: vi.Minibatch([(2, np.ones(2))]), "seed.*whole number"),
    "seed: huge": (lambda: linear_target(y, [(2, 2**70)]), "seed"),
    "seed alone": (lambda: vi.Minibatch([(None, 2)]), f"{whole_number}.*None"),
    "too large": (lambda: linear_target(y, 11), "`batch_size` is 11.*10.*from 1 to 10"),
    "too large, columns": (
        lambda: linear_target(M, (2, 7)),
        "`batch_size` is 7.*length 6.*from 1 to 6",
    ),
    "too large, replaced": (
        lambda: linear_target(y, 11, replace=True),
        "`batch_size` is 11.*10",
    ),
    "too large, seed": (lambda: linear_target(y, [(11, 3)]), "`batch_size` is 11.*10"),
    "with_batch_size: too large": (
        lambda: linear_target(M).with_batch_size((E, 7)),
        "`batch_size` is 7.*length 6",
    ),
    "lengths, rows": (
        lambda: linear_target({"a": y, "b": np.ones(9)}, 2),
        r"lengths are \{.*'a'.*10.*'b'.*9",
    ),
    "lengths, columns": (
        lambda: linear_target({"a": M, "b": np.ones((10, 5))}, (2, 3)),
        r"must agree.*entry 1.*'a'\] axis 1.: 6.*'b'\] axis 1.: 5",
    ),
    "lengths, last axis": (
        lambda: linear_target({"a": M, "b": np.ones((10, 5, 4))}, (E, 3)),
        r"must agree.*'a'\] axis 1.: 6.*'b'\] axis 2.: 4",
    ),
    "lengths, one and two": (
        lambda: linear_target((M, np.ones((2, 1))), (3, 2)),
        "10.*2",
    ),
    "too many entries": (
        lambda: linear_target({"a": y, "b": M}, (2, 3, 4)),
        r"`batch_size` is 4.*no array.*\(10,\).*\(10, 6\)",
    ),
    "too few axes for the ellipsis": (
        lambda: linear_target({"a": M, "b": y}, (2, E, 3)),
        r"2 axes besides `\.\.\.`.*'b'.*has 1.*\(10,\)",
    ),
    "total_size: too small": (
        lambda: linear_target(y, 2, total_size=9),
        "`total_size` is 9.*10",
    ),
    "total_size: that of the batch": (
        lambda: linear_target(y, 2, total_size=2),
        "`total_size` is 2.*10",
    ),
    "total_size: too few columns": (
        lambda: linear_target(M, 2, total_size=(None, 5)),
        "`total_size` is 5 along axis 1.*6",
    ),
    "total_size: too many axes": (
        lambda: linear_target(y, 2, total_size=(10, 6)),
        "`total_size` speaks of 2 axes, but the data have 1",
    ),
    "total_size: too many axes, ellipsis": (
        lambda: linear_target(M, 2, total_size=(10, E, 6, 6)),
        "`total_size` speaks of 3 axes, but the data have 2",
    ),
    "total_size: of no columns": (
        lambda: linear_target(np.ones((10, 0)), 2, total_size=(20, 5)),
        "`total_size`.*5",
    ),
    "total_size: two ellipses": (
        lambda: vi.Minibatch(2, total_size=(E, 2, E)),
        r"`total_size`.*two `\.\.\.`",
    ),
    "total_size: zero": (
        lambda: vi.Minibatch(2, total_size=0),
        "`total_size` must be a whole number of at least 1.*it is 0",
    ),
    "total_size: float": (
        lambda: vi.Minibatch(2, total_size=1e6),
        "`total_size` must be a whole number.*1000000.0",
    ),
    "total_size: boolean": (
        lambda: vi.Minibatch(2, total_size=True),
        "`total_size` must be a whole number.*True",
    ),
    "total_size: string": (
        lambda: vi.Minibatch(2, total_size="auto"),
        "`total_size` must be a whole number.*'auto'",
    ),
    "total_size: seeds": (
        lambda: vi.Minibatch(2, total_size=[(20, 42)]),
        r"`total_size` must be a whole number.*\(20, 42\)",
    ),
    "dtype: unknown": (lambda: vi.Minibatch(2, dtype="int33"), "`dtype`.*'int33'"),
    "dtype: number": (lambda: vi.Minibatch(2, dtype=32), "`dtype`.*32"),
    "dtype: object": (lambda: linear_target(y, 2, dtype=object), "`dtype`.*object"),
    "dtype: string": (lambda: linear_target(y, 2, dtype="U3"), "`dtype`.*U3"),
    "dtype: time": (lambda: linear_target(y, 2, dtype="M8[s]"), "`dtype`.*M8"),
    "replace: string": (lambda: vi.Minibatch(2, replace="yes"), "`replace`.*'yes'"),
    "replace: number": (lambda: vi.Minibatch(2, replace=1), "`replace`.*1"),
    "replace: None": (lambda: vi.Minibatch(2, replace=None), "`replace`.*None"),
    "all rows, hard-coded": (
        lambda: normal_target(y, 3, lambda params, y: y * params["mu"] + np.ones(10)),
        r"`log_likelihood`.*\(3,\).*\(10,\)",
    ),
    "all rows, a parameter each": (
        lambda: vi.from_likelihood(
            log_prior, linear, {"mu": vi.Param(10)}, y, batch_size=3
        ),
        r"`log_likelihood`.*\(10,\).*\(3,\)|`log_likelihood`.*\(3,\).*\(10,\)",
    ),
    "all columns, hard-coded": (
        lambda: normal_target(
            M, (3, 2), lambda params, y: y * params["mu"] + np.ones((1, 6))
        ),
        r"`log_likelihood`.*\(3, 2\).*\(1, 6\)",
    ),
    "all rows, whatever it is given": (
        lambda: normal_target(y, 3, lambda params, y: np.ones(10) * params["mu"]),
        r"`log_likelihood`.*\(3,\).*\(10,\)",
    ),
    "added up": (
        lambda: normal_target(y, 3, lambda params, y: jnp.sum(y * params["mu"])),
        r"`log_likelihood`.*one value a row.*shape \(\)",
    ),
    "NaN": (lambda: linear_target(np.full(10, np.nan), 3), "`data` has 10 NaN"),
    "NaN, to be integers": (
        lambda: linear_target(np.full(10, np.nan), 3, dtype="int32"),
        "`data` has 10 NaN",
    ),
    "with_data: NaN": (
        lambda: linear_target(M, (2, 3)).with_data(np.where(M == 7, np.nan, M)),
        "`data` has 1 NaN",
    ),
    "a log density as a whole": (
        lambda: other_target(1).with_batch_size((2, 3)),
        "from_likelihood|no data",
    ),
}


@pytest.mark.usefixtures("as_for_users")
@pytest.mark.parametrize("name", at_once)
def test_fails_before_anything_compiles(name, caplog):
    act, match = at_once[name]
    with caplog.at_level(logging.DEBUG), jax.log_compiles():
        with pytest.raises(ValueError, match=f"(?s){match}"):
            act()
        compiled = [r.getMessage() for r in caplog.records if "XLA" in r.getMessage()]
    assert compiled == []
