"""What a batch counts for, and the same target with other batches or data."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from .minibatches import (
    decoded,
    E,
    encoded,
    factorization_target,
    linear_target,
    matrix_data,
)


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


def test_a_part_of_the_rows_seen_whole_is_fitted_by_the_default(getkey):
    y = np.arange(30.0)
    target = vi.from_likelihood(
        lambda params: -0.5 * params["x"] ** 2,
        lambda params, y: -0.5 * (y - params["x"]) ** 2,
        {"x": vi.Param()},
        y,
        batch_size=vi.Minibatch(None, total_size=100),
    )
    assert "batches of 30" in repr(target)
    fit = vi.fit(target, key=getkey(), progress=False)
    # A hundred rows of which these are a part: the prior is one more, at zero.
    np.testing.assert_allclose(fit.mean["x"], 100 * y.mean() / 101, atol=0.01)
    np.testing.assert_allclose(fit.std["x"], 101**-0.5, rtol=0.1)
