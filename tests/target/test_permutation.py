"""Whether shuffling without writing a permutation down is shuffling."""

import itertools as it

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from vijax._target.permutation import permuted


@eqx.filter_jit
def one(key, places, length):
    return permuted(key, places, length)


@eqx.filter_jit
def many(keys, places, length):
    """For each of some keys, what stands at the same places."""
    return jax.vmap(lambda key: permuted(key, places, length))(keys)


def everywhere(length):
    return jnp.arange(length, dtype=jnp.int32)


def sigmas(counts, expected):
    """How far a chi-square statistic is above its mean, in standard deviations."""
    counts = np.asarray(counts, float).ravel()
    chi_square, dof = np.sum((counts - expected) ** 2) / expected, counts.size - 1
    return (chi_square - dof) / np.sqrt(2 * dof)


@pytest.mark.parametrize("length", [1, 2, 64])
def test_each_value_comes_once(length, getkey):
    found = np.asarray(many(jr.split(getkey(), 20), everywhere(length), length))
    expected = np.broadcast_to(np.arange(length), (20, length))
    assert np.array_equal(np.sort(found, axis=1), expected)


# Squares and their neighbours; products of neighbours, such as 72, which leave nothing
# to be sent round again; primes; powers of two; lengths with many to be sent round.
LENGTHS = [*range(65, 74), 81, 82, 97, 110, 111, 127, 128, 256, 1009, 1024, 1056, 1057]


def test_each_value_comes_once_whatever_the_length(getkey):
    # Without compiling, which would be for each length anew; always as many places.
    key = getkey()
    with jax.disable_jit():
        for length in LENGTHS:
            places = jnp.minimum(everywhere(LENGTHS[-1]), length - 1)
            found = np.asarray(permuted(key, places, length))[:length]
            assert np.array_equal(np.sort(found), np.arange(length)), length


@pytest.mark.parametrize("length", [40_000, 65_537, 1_000_003])
def test_each_of_many_values_comes_once(length, getkey):
    found = np.asarray(one(getkey(), everywhere(length), length))
    assert np.array_equal(np.sort(found), np.arange(length))
    # Nor are they nearly in order: neighbours are as far apart as strangers.
    steps, values = np.abs(np.diff(found)) / length, found / length
    assert abs(np.mean(steps) - 1 / 3) < 5 * np.sqrt(1 / 18 / length)
    # What stands where says nothing of the value.
    r = np.corrcoef(np.arange(length), values)[0, 1]
    assert abs(r) < 5 / np.sqrt(length)
    assert np.mean(found == np.arange(length)) < 10 / length


@pytest.mark.parametrize("length", [2**24 + 1, 2**31 - 1])
def test_lengths_up_to_the_largest_integer(length, getkey):
    # All of them are too many; then at least none twice, and all inside.
    places = np.unique(np.linspace(0, length - 1, 200_000).astype(np.int32))
    places = np.union1d(places, np.arange(2_000, dtype=np.int32))
    places = np.union1d(places, length - 1 - np.arange(2_000, dtype=np.int32))
    places = places.astype(np.int32)
    found = np.asarray(one(getkey(), jnp.asarray(places), length))
    assert found.dtype == np.int32
    assert found.min() >= 0
    assert found.max() < length
    assert np.unique(found).size == places.size
    # As many in each part of the range as elsewhere, and in each class of remainders.
    n = places.size
    tenths, rests = (found / length * 10).astype(int), found % 16
    assert sigmas(np.bincount(tenths, minlength=10), n / 10) < 5
    assert sigmas(np.bincount(rests, minlength=16), n / 16) < 5


NUM_KEYS = 100_000


@pytest.mark.parametrize("length", [5, 67, 1009])
def test_places_have_all_values_as_often_alone_and_in_pairs(length, getkey):
    # Places next to each other, at the ends, and in a row or column of a square.
    row = int(np.ceil(np.sqrt(length)))
    pairs = [(0, 1), (1, 0), (0, length - 1), (2, 2 + row), (2, 1 + row), (7, 3)]
    places = np.array(pairs, np.int32).ravel() % length
    keys = jr.split(getkey(), NUM_KEYS)
    found = np.asarray(many(keys, jnp.asarray(places), length))
    for i in range(places.size):
        counts = np.bincount(found[:, i], minlength=length)
        assert sigmas(counts, NUM_KEYS / length) < 5
    off_diagonal = ~np.eye(length, dtype=bool)
    for i in range(0, places.size, 2):
        first, second = found[:, i], found[:, i + 1]
        counts = np.bincount(first * length + second, minlength=length**2)
        counts = counts.reshape(length, length)[off_diagonal]
        assert counts.sum() == NUM_KEYS
        assert sigmas(counts, NUM_KEYS / counts.size) < 5


def test_all_orders_of_few_values_come_as_often(getkey):
    found = np.asarray(many(jr.split(getkey(), NUM_KEYS), everywhere(6), 6))
    codes = found @ 6 ** np.arange(6)
    _, counts = np.unique(codes, return_counts=True)
    assert counts.size == 720
    assert sigmas(counts, NUM_KEYS / 720) < 5


@pytest.mark.parametrize("length", [64, 100])
def test_other_keys_other_permutations(length, getkey):
    # Keys as alike as those of one epoch and the next.
    key = getkey()
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(50))
    found = np.asarray(many(keys, everywhere(length), length))
    agree = [np.sum(x == y) for x, y in it.combinations(found, 2)]
    # Two permutations agree at one place in the mean, with a variance of one.
    assert abs(np.mean(agree) - 1) < 5 / np.sqrt(len(agree))
    assert np.max(agree) < 20
    # And one is not another one moved on, or turned round.
    for shift in (1, 2, -1):
        agree = [
            np.sum(x == np.roll(y, shift)) for x, y in it.pairwise(found[:, : length - 1])
        ]
        assert np.mean(agree) < 3
    agree = [np.sum(x == y[::-1]) for x, y in it.pairwise(found)]
    assert np.mean(agree) < 3


@pytest.mark.parametrize("length", [64, 100])
def test_a_place_does_not_depend_on_the_others(length, getkey):
    key = getkey()
    whole = np.asarray(one(key, everywhere(length), length))
    some = np.array([length - 1, 0, 3, 3, length // 2], np.int32)
    found = one(key, jnp.asarray(some), length)
    assert np.array_equal(found, whole[some])
    assert found.dtype == np.int32
    # The dtype is that of the places.
    for place in some.astype(np.int64):
        alone = one(key, jnp.array([place]), length)
        assert np.array_equal(alone, whole[[place]])
        assert alone.dtype == np.int64


def test_it_is_the_same_under_transformations(getkey):
    keys = jr.split(getkey(), 3)
    places = jr.randint(getkey(), (3, 7), 0, 100, jnp.int32)
    alone = [np.asarray(one(k, p, 100)) for k, p in zip(keys, places, strict=True)]
    # Keys and places that are batched, or only the keys; or nothing compiled.
    together = jax.jit(jax.vmap(lambda k, p: permuted(k, p, 100)))(keys, places)
    assert np.array_equal(together, np.stack(alone))
    with jax.disable_jit():
        assert np.array_equal(permuted(keys[0], places[0], 100), alone[0])
    assert np.array_equal(many(keys, places[0], 100)[0], alone[0])


def sizes(jaxpr):
    """How many numbers each value in a jaxpr holds, those of inner jaxprs included."""
    for equation in jaxpr.eqns:
        for var in equation.outvars:
            yield int(np.prod(getattr(var.aval, "shape", ())))
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


@pytest.mark.parametrize("length", [65, 1_000_003, 2**31 - 1])
def test_nothing_grows_with_the_length(length, getkey):
    key, places = getkey(), everywhere(7)
    jaxpr = jax.make_jaxpr(lambda key, p: permuted(key, p, length))(key, places)
    assert max(sizes(jaxpr.jaxpr)) < 65
    assert max(np.size(const) for const in [0, *jaxpr.consts]) < 65


def test_the_watch_for_sizes_sees_one(getkey):
    # Or the test above would test nothing.
    inside = lambda key: jax.lax.cond(
        jr.bernoulli(key), lambda: jr.permutation(key, 1_000)[0], lambda: jnp.array(0)
    )
    jaxpr = jax.make_jaxpr(jax.jit(inside))(getkey())
    assert max(sizes(jaxpr.jaxpr)) >= 1_000
