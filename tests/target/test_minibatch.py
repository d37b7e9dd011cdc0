"""What is promised of batches, whatever draws them."""

import itertools as it

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import vijax as vi

from .minibatches import (
    E,
    encoded,
    factorization_target,
    linear_target,
    log_prior,
    matrix_data,
    slow,
)


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


def sigmas(counts, expected):
    """How far a chi-square statistic is above its mean, in standard deviations."""
    counts = np.asarray(counts, float).ravel()
    chi_square, dof = np.sum((counts - expected) ** 2) / expected, counts.size - 1
    return (chi_square - dof) / np.sqrt(2 * dof)


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
