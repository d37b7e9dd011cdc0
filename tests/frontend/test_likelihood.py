import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.stats as jstats
import numpy as np
import optax
import pytest
from numpyro.distributions import constraints

import vijax as vi


NUM_ROWS = 7


def log_prior(params):
    return jstats.norm.logpdf(params["mu"], 0.5, 2.0) - params["sigma"]


def log_likelihood(params, rows):
    return jstats.norm.logpdf(rows["y"], params["mu"] * rows["x"], params["sigma"])


def params():
    return {"mu": vi.Param(), "sigma": vi.Param(support=constraints.positive)}


def regression(**options):
    data = {
        "x": np.linspace(-1.0, 2.0, NUM_ROWS),
        "y": np.array([0.3, -1.0, 2.0, 0.1, 4.0, -0.5, 1.0]),
    }
    return vi.from_likelihood(log_prior, log_likelihood, params(), data, **options)


def by_hand(x, data, weight=1.0):
    """The log density at unconstrained `x`, in NumPy."""
    mu, sigma = x[0], np.exp(x[1])
    z = (data["y"] - mu * data["x"]) / sigma
    rows = -0.5 * z**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    prior = -0.5 * ((mu - 0.5) / 2.0) ** 2 - np.log(2.0) - 0.5 * np.log(2 * np.pi) - sigma
    return weight * np.sum(rows) + prior + x[1]


NUM_KEYS = 2_000  # Everywhere the same: over_keys compiles for long.


@eqx.filter_jit
def over_keys(target, keys, x):
    """For each key, the batch's rows and its log density."""

    def one(key):
        seen = target.batch(key)
        return seen.data, seen.log_density(x)

    return jax.vmap(one)(keys)


x0 = np.array([0.7, -0.3])


@pytest.mark.parametrize("batch_size", [None, 1, NUM_ROWS])
def test_the_log_density_is_always_the_full_one(batch_size):
    target = regression(batch_size=batch_size)
    expected = by_hand(x0, jax.tree.map(np.asarray, target.data))
    assert np.allclose(target.log_density(jnp.asarray(x0)), expected, rtol=1e-12)


def test_batches_of_one_row_enumerate_the_full_log_density(getkey):
    target = regression(batch_size=1)
    data = jax.tree.map(np.asarray, target.data)
    seen, values = over_keys(target, jr.split(getkey(), NUM_KEYS), jnp.asarray(x0))
    seen, values = jax.tree.map(np.asarray, (seen, values))
    which = np.argmax(seen["x"] == data["x"], axis=1)
    assert np.array_equal(seen["y"][:, 0], data["y"][which])
    # Each of the batches there can be is scaled by exactly the number of rows, ...
    rows = [{"x": data["x"][i : i + 1], "y": data["y"][i : i + 1]} for i in range(7)]
    exact = np.array([by_hand(x0, row, weight=NUM_ROWS) for row in rows])
    assert np.allclose(values, exact[which], rtol=1e-12)
    # ... so that their mean is the full log density, ...
    assert np.allclose(np.mean(exact), by_hand(x0, data), rtol=1e-12)
    # ... and each is as likely as the others.
    share, stderr = 1 / NUM_ROWS, np.sqrt(1 / NUM_ROWS * 6 / NUM_ROWS / NUM_KEYS)
    shares = np.bincount(which, minlength=NUM_ROWS) / NUM_KEYS
    assert np.all(np.abs(shares - share) < 5 * stderr)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_log_density_and_gradient_are_unbiased(batch_size, getkey):
    target = regression(batch_size=batch_size)

    @eqx.filter_jit
    def estimates(target, keys, x):
        fn = lambda key: jax.value_and_grad(target.batch(key).log_density)(x)
        return jax.vmap(fn)(keys), jax.value_and_grad(target.log_density)(x)

    keys = jr.split(getkey(), 4_000)
    # A point far from the mode, where the gradient is large.
    found, expected = estimates(target, keys, jnp.array([-1.0, -0.3]))
    for sample, exact in zip(found, expected, strict=True):
        stderr = np.std(sample, axis=0) / np.sqrt(4_000)
        assert np.all(np.abs(np.mean(sample, axis=0) - exact) < 5 * stderr)
        # Far fewer than five standard errors to a sum that is not scaled.
        assert np.all(5 * stderr < 0.5 * np.abs(exact))


def test_batches_scale_by_a_ratio_that_is_no_whole_number(getkey):
    target = regression(batch_size=3)
    seen, values = over_keys(target, jr.split(getkey(), NUM_KEYS), jnp.asarray(x0))
    seen = jax.tree.map(np.asarray, seen)
    for i in range(20):
        rows = jax.tree.map(lambda leaf, i=i: leaf[i], seen)
        assert rows["x"].shape == (3,)
        expected = by_hand(x0, rows, weight=NUM_ROWS / 3)
        assert np.allclose(values[i], expected, rtol=1e-12)


def test_batches_of_one_run_differ(getkey):
    _, values = over_keys(
        regression(batch_size=3), jr.split(getkey(), NUM_KEYS), jnp.asarray(x0)
    )
    assert np.unique(values).size > 10


def test_the_prior_is_not_scaled(getkey):
    nothing = lambda params, rows: 0.0 * rows["x"] * params["mu"]
    data = regression().data
    target = vi.from_likelihood(log_prior, nothing, params(), data, batch_size=2)
    _, values = over_keys(target, jr.split(getkey(), 20), jnp.asarray(x0))
    alone = vi.from_log_density(log_prior, params()).log_density(jnp.asarray(x0))
    assert np.allclose(values, alone, rtol=1e-12)
    assert abs(alone) > 0.1


def test_the_log_jacobian_is_not_scaled(getkey):
    target = vi.from_likelihood(
        lambda params: 0.0 * params["sigma"],
        lambda params, rows: 0.0 * rows * params["sigma"],
        {"sigma": vi.Param(support=constraints.positive)},
        np.ones(NUM_ROWS),
        batch_size=2,
    )
    _, values = over_keys(target, jr.split(getkey(), 5), jnp.array([0.7]))
    assert np.allclose(values, 0.7, rtol=1e-12)


@pytest.mark.parametrize("trailing", [(1,), (2, 3)], ids=str)
def test_trailing_axes_are_summed(trailing, getkey):
    y = np.arange(5.0 * np.prod(trailing, dtype=int)).reshape(5, *trailing)
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, rows: rows * params["mu"],
        {"mu": vi.Param()},
        y,
        batch_size=2,
    )
    mu = jnp.array([3.0])
    assert np.allclose(target.log_density(mu), -4.5 + 3.0 * y.sum(), rtol=1e-12)
    seen, values = over_keys(target, jr.split(getkey(), 5), mu)
    assert seen.shape == (5, 2, *trailing)
    sums = np.asarray(seen).reshape(5, -1).sum(axis=1)
    assert np.allclose(values, -4.5 + 2.5 * 3.0 * sums, rtol=1e-12)


def test_rows_of_all_leaves_stay_aligned(getkey):
    index = np.arange(50)
    data = {
        "index": index,
        "nested": [index * 2.0, {"wide": np.stack([index, -index, index**2], axis=1)}],
        "deep": (np.ones((50, 2, 2)) * index[:, None, None],),
    }
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, rows: rows["nested"][0] * params["mu"],
        {"mu": vi.Param()},
        data,
        batch_size=8,
    )
    seen = jax.tree.map(np.asarray, target.batch(getkey()).data)
    assert jax.tree.structure(seen) == jax.tree.structure(data)
    rows = seen["index"]
    assert rows.shape == (8,)
    assert np.unique(rows).size > 1
    expected = jax.tree.map(lambda leaf: leaf[rows], data)
    assert eqx.tree_equal(seen, expected, typematch=True)


def test_a_batch_is_final(getkey):
    target = regression(batch_size=2)
    key = getkey()
    seen = target.batch(key)
    again = seen.batch(getkey())
    assert eqx.tree_equal(seen.data, again.data)
    assert seen.log_density(jnp.asarray(x0)) == again.log_density(jnp.asarray(x0))
    # And the same key gives the same batch.
    assert eqx.tree_equal(seen.data, target.batch(key).data)


def test_without_batches_a_step_sees_everything(getkey):
    target = regression()
    assert eqx.tree_equal(target.batch(getkey()), target)


def test_with_data(getkey):
    target = regression(batch_size=4)
    new = {"x": np.ones(5), "y": np.arange(5.0)}
    other = target.with_data(new)
    x = jnp.asarray(x0)
    assert np.allclose(other.log_density(x), by_hand(x0, new), rtol=1e-12)
    # The batches go on, of the new data.
    seen, values = over_keys(other, jr.split(getkey(), 3), x)
    assert seen["y"].shape == (3, 4)
    rows = {"x": np.ones(4), "y": np.asarray(seen["y"])[0]}
    assert np.allclose(values[0], by_hand(x0, rows, weight=5 / 4), rtol=1e-12)
    # The old target is as it was.
    old = jax.tree.map(np.asarray, target.data)
    assert np.allclose(target.log_density(x), by_hand(x0, old), rtol=1e-12)


def test_with_batch_size(getkey):
    target = regression()
    x = jnp.asarray(x0)
    one, three = target.with_batch_size(1), regression(batch_size=1).with_batch_size(3)
    for size, other in ((1, one), (3, three)):
        seen, values = over_keys(other, jr.split(getkey(), NUM_KEYS), x)
        assert seen["x"].shape == (NUM_KEYS, size)
        rows = jax.tree.map(lambda leaf: np.asarray(leaf)[0], seen)
        weight = NUM_ROWS / size
        assert np.allclose(values[0], by_hand(x0, rows, weight=weight), rtol=1e-12)
        assert np.allclose(other.log_density(x), target.log_density(x), rtol=1e-12)
    assert eqx.tree_equal(one.with_batch_size(None), target)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes(dtype, getkey):
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, rows: -0.5 * (rows - params["mu"]) ** 2,
        {"mu": np.zeros((), dtype)},
        np.arange(7, dtype=dtype),
        batch_size=3,
    )
    x = jnp.ones(1, dtype)
    assert target.model.initial().dtype == dtype
    assert target.data.dtype == dtype
    seen = target.batch(getkey())
    assert seen.data.dtype == dtype
    for view in (target, seen):
        value, grad = jax.value_and_grad(view.log_density)(x)
        assert value.dtype == grad.dtype == dtype
    exact = -0.5 - 0.5 * np.sum((np.arange(7) - 1.0) ** 2)
    assert np.allclose(target.log_density(x), exact, rtol=1e-6)


def test_batch_works_under_jit(getkey):
    target = regression(batch_size=3)
    key, x = getkey(), jnp.asarray(x0)
    fn = lambda target, key, x: target.batch(key).log_density(x)
    expected = fn(target, key, x)
    assert np.allclose(eqx.filter_jit(fn)(target, key, x), expected, rtol=1e-12)
    # With the target closed over, too.
    assert np.allclose(jax.jit(lambda key: fn(target, key, x))(key), expected, rtol=1e-12)


def test_the_batch_size_is_that_of_the_likelihood_call(getkey):
    # Never all the rows: a step costs what its rows cost.
    shapes = []

    def spying(params, rows):
        shapes.append(rows["x"].shape)
        return log_likelihood(params, rows)

    data = regression().data
    target = vi.from_likelihood(log_prior, spying, params(), data, batch_size=3)
    shapes.clear()
    target.batch(getkey()).log_density(jnp.asarray(x0))
    assert shapes == [(3,)]


@pytest.mark.parametrize("batch_size", [None, 3])
def test_numpy_and_jax_data_are_the_same(batch_size, getkey):
    ours = regression(batch_size=batch_size)
    data = {"x": jnp.asarray(ours.data["x"]), "y": np.asarray(ours.data["y"])}
    theirs = vi.from_likelihood(
        log_prior, log_likelihood, params(), data, batch_size=batch_size
    )
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(ours.data))
    assert eqx.tree_equal(ours.data, theirs.data, typematch=True)
    key, x = getkey(), jnp.asarray(x0)
    assert ours.batch(key).log_density(x) == theirs.batch(key).log_density(x)


def test_integers_and_booleans_stay_what_they_are():
    data = {"group": np.array([0, 1, 1]), "on": np.array([True, False, True])}
    target = vi.from_likelihood(
        lambda params: -0.5 * jnp.sum(params["mu"] ** 2),
        lambda params, rows: jnp.where(rows["on"], params["mu"][rows["group"]], 0.0),
        {"mu": vi.Param(2)},
        data,
    )
    assert target.data["group"].dtype == np.int64
    assert target.data["on"].dtype == bool
    mu = jnp.array([1.0, 10.0])
    assert np.allclose(target.log_density(mu), 11.0 - 50.5, rtol=1e-12)


def test_a_fit_with_batches_is_judged_against_all_the_rows(getkey):
    target = regression(batch_size=2)
    method = vi.Descent(vi.ELBO(), optax.adam(0.05))
    fit = vi.fit(target, method, key=getkey(), max_steps=3, progress=False)
    draws = fit.draw(10, key=getkey())
    data = jax.tree.map(np.asarray, target.data)
    expected = [by_hand(x, data) for x in np.asarray(draws.x)]
    assert np.allclose(draws.log_p, expected, rtol=1e-10)
    assert draws.target.log_density(draws.x[0]) == pytest.approx(expected[0])
