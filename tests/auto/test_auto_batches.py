"""The default where steps see batches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import vijax as vi

from ..helpers import same


NUM_ROWS, DIM, NOISE = 20_000, 8, 2.0


def regression(batch_size, **options):
    """A linear regression on correlated predictors of very unequal scales, with the
    exact mean and covariance of its posterior."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(NUM_ROWS, 1)) + 0.3 * rng.normal(size=(NUM_ROWS, DIM))
    x = base * np.logspace(-1, 1, DIM)
    y = x @ (1 / np.logspace(-1, 1, DIM)) + NOISE * rng.normal(size=NUM_ROWS)
    scale = 10 / np.logspace(-1, 1, DIM)
    precision = x.T @ x / NOISE**2 + np.diag(scale**-2)
    covariance = np.linalg.inv(precision)
    mean = covariance @ (x.T @ y) / NOISE**2

    def log_prior(params):
        return jnp.sum(-0.5 * (params["beta"] / scale) ** 2)

    def log_likelihood(params, rows):
        x, y = rows
        return -0.5 * ((y - x @ params["beta"]) / NOISE) ** 2

    if options:
        batch_size = vi.Minibatch(batch_size, **options)
    params = {"beta": vi.Param(DIM)}
    data = x, y
    target = vi.from_likelihood(
        log_prior, log_likelihood, params, data, batch_size=batch_size
    )
    return target, mean, covariance


def errors(x, mean, covariance):
    """The worst error of a mean, in standard deviations, and of a log deviation."""
    std = np.sqrt(np.diagonal(covariance))
    z = np.abs(np.mean(x, axis=0) - mean) / std
    r = np.abs(np.log(np.std(x, axis=0) / std))
    return z.max(), r.max()


@pytest.fixture(scope="module")
def fitted():
    target, mean, covariance = regression(200)
    fit = vi.fit(target, key=jr.key(0), progress=False)
    return fit, mean, covariance


def test_it_is_accurate_and_ends_by_itself(fitted, getkey):
    fit, mean, covariance = fitted
    assert fit.result == vi.RESULTS.converged
    assert fit.num_steps < 10_000
    assert isinstance(fit.family, vi.FullRank)
    z, r = errors(fit.draw(20_000, key=getkey()).x, mean, covariance)
    assert z < 0.06
    assert r < 0.05
    # The family itself, without the correction.
    std = np.sqrt(np.diagonal(covariance))
    assert np.max(np.abs(fit.family.mean - mean) / std) < 0.25
    assert np.max(np.abs(np.log(fit.family.std / std))) < 0.15


@pytest.mark.slow
def test_a_part_of_the_rows_alone_is_not_enough(getkey):
    # What the second stage is for: the first is off by many standard deviations.
    target, mean, covariance = regression(200)
    fit = vi.fit(target, key=jr.key(0), max_steps=0, progress=False)
    std = np.sqrt(np.diagonal(covariance))
    off = np.abs(fit.family.mean - mean) / std
    assert np.max(off) > 1.0


@pytest.mark.slow
def test_its_report(fitted, getkey):
    report = vi.report(fitted[0], key=getkey())
    assert report.trustworthy
    assert report.corrected
    assert report.num_apart == 0
    assert report.num_modes == 1
    assert report.num_evaluations is None  # Most gradients were not of all the data.
    assert report.khat < 0.5


@pytest.mark.slow
def test_the_same_key_gives_the_same_fit_in_parts(getkey):
    target, _, _ = regression(200)
    once = vi.fit(target, key=jr.key(3), max_steps=300, progress=False)
    half = vi.fit(target, key=jr.key(3), max_steps=100, progress=False)
    assert same(once, half.resume(200, progress=False))


def test_save_and_load(fitted, tmp_path, getkey):
    fit, _, _ = fitted
    vi.save(tmp_path / "fit", fit)
    like = vi.fit(fit.target, key=getkey(), max_steps=0, progress=False)
    loaded = vi.load(tmp_path / "fit", like=like)
    assert same(loaded, fit)
    key = getkey()
    assert repr(vi.report(loaded, key=key)) == repr(vi.report(fit, key=key))


@pytest.mark.slow
def test_inside_jit(fitted):
    target, mean, covariance = regression(200)
    inside = eqx.filter_jit(lambda t, key: vi.fit(t, key=key).family.mean)
    # What ends it is the same rule.
    np.testing.assert_allclose(
        (inside(target, jr.key(0)) - mean) / np.sqrt(np.diagonal(covariance)),
        (fitted[0].family.mean - mean) / np.sqrt(np.diagonal(covariance)),
        atol=1e-3,
    )


@pytest.mark.slow
def test_rows_that_are_a_part_do_not_correct(getkey):
    target, _, _ = regression(200, total_size=100 * NUM_ROWS)
    fit = vi.fit(target, key=jr.key(0), max_steps=300, progress=False)
    assert fit.result == vi.RESULTS.max_steps  # More rows may come.
    assert fit.problem.stop is None
    assert fit.proposal is None
    assert fit.draw(10, key=getkey()).proposal is None


@pytest.mark.slow
def test_callbacks_see_batches_only(getkey):
    target, _, _ = regression(200)
    seen = []
    vi.fit(target, key=getkey(), max_steps=200, progress=False, callbacks=seen.append)
    assert [int(fit.num_steps) for fit in seen] == [100, 200]
    assert all(fit.target.minibatch is not None for fit in seen)


@pytest.mark.slow
def test_plates(getkey):
    y = np.random.default_rng(1).normal(3.0, 2.0, 4_000)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 100.0))
        with numpyro.plate("rows", 4_000, subsample_size=50) as i:
            numpyro.sample("y", dist.Normal(mu, 2.0), obs=y[i])

    target = vi.from_numpyro(model, y).with_batch_size(50)
    fit = vi.fit(target, key=getkey(), progress=False)
    draws = fit.draw(20_000, key=getkey()).params["mu"]
    std = 2 / 4_000**0.5
    assert abs(np.mean(draws) - np.mean(y)) < 0.06 * std
    assert abs(np.log(np.std(draws) / std)) < 0.05


@pytest.mark.slow
def test_two_axes(getkey):
    table = np.random.default_rng(1).normal(3.0, 2.0, (200, 300))
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2 / 100**2,
        lambda params, y: -0.5 * ((y - params["mu"]) / 2.0) ** 2,
        {"mu": vi.Param()},
        table,
        batch_size=vi.Minibatch((20, 20)),
    )
    fit = vi.fit(target, key=getkey(), progress=False)
    draws = fit.draw(20_000, key=getkey()).params["mu"]
    std = 2 / table.size**0.5
    assert abs(np.mean(draws) - np.mean(table)) < 0.06 * std


@pytest.mark.slow
def test_modes_that_are_left_are_reported(getkey):
    # The sign of the slope is not known.
    x = np.random.default_rng(2).normal(size=2_000)
    y = np.abs(x) + 0.5 * np.random.default_rng(3).normal(size=2_000)
    target = vi.from_likelihood(
        lambda params: -0.5 * params["slope"] ** 2,
        lambda params, r: -0.5 * ((r[1] - params["slope"] ** 2 * abs(r[0])) / 0.5) ** 2,
        {"slope": vi.Param()},
        (x, y),
        batch_size=100,
    )
    report = vi.report(vi.fit(target, key=getkey(), progress=False), key=getkey())
    assert not report.trustworthy
    assert any("2 modes" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("batch_size", "factor", "wanted"),
    [
        (10, 5.0, (50,)),
        (10, 1e6, (2_000,)),
        (10, 0.1, (10,)),
        (vi.Minibatch((10, ..., 20)), 4.0, (20, ..., 40)),
        (vi.Minibatch([(10, 42)]), 2.0, ((20, 42),)),
    ],
)
def test_larger_batches(batch_size, factor, wanted):
    shape = (2_000, 100) if isinstance(wanted[-1], int) and len(wanted) > 1 else (2_000,)
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, y: params["mu"] * y,
        {"mu": vi.Param()},
        np.ones(shape),
        batch_size=batch_size,
    )
    assert target.minibatch is not None
    larger = target.minibatch.larger(factor, target.data)
    assert larger.batch_size == vi.Minibatch(wanted).batch_size  # pyright: ignore


def test_many_coordinates_end_by_themselves(getkey):
    scale = jnp.logspace(-1, 1, 1_200)
    target = vi.from_log_density(
        lambda params: jnp.sum(-0.5 * ((params["x"] - 1.0) / scale) ** 2),
        {"x": vi.Param(1_200)},
    )
    fit = vi.fit(target, key=getkey(), progress=False)
    assert fit.result == vi.RESULTS.converged
    assert isinstance(fit.family, vi.MeanField)
    assert np.max(np.abs(fit.family.mean - 1.0) / scale) < 0.01
    assert np.max(np.abs(np.log(fit.family.std / scale))) < 0.01


def averages(getkey, noise, drift, num=4_000):
    """When the rule ends runs of a family whose mean jitters and drifts."""
    rule = vi.MomentConvergence(first=100)
    family = vi.MeanField(jnp.zeros(5), scale=1.0)

    def one(key):
        loc = noise * jr.normal(key, (num, 5)) + drift * jnp.arange(float(num))[:, None]

        def step(state, inputs):
            i, loc = inputs
            moved = eqx.tree_at(lambda f: f.loc, family, loc)
            state, met = rule.update(state, i, jnp.zeros(()), moved)
            return state, met

        count = jnp.arange(1, num + 1, dtype=jnp.int32)
        _, met = jax.lax.scan(step, rule.init(family), (count, loc))
        return jnp.where(jnp.any(met), jnp.argmax(met) + 1, num + 1)

    return np.asarray(jax.jit(jax.vmap(one))(jr.split(getkey(), 50)))


def test_the_rule_ends_what_stands_still(getkey):
    # Looks after 100, 150, 225 steps: two of them agree with the one before.
    assert np.all(averages(getkey, 0.0, 0.0) == 225)
    assert np.all(averages(getkey, 0.005, 0.0) == 225)


def test_the_rule_lets_noise_and_drift_go_on(getkey):
    assert np.all(averages(getkey, 0.2, 0.0) > 4_000)
    # From 0.05 standard deviations per half as long again.
    assert np.all(averages(getkey, 0.0, 0.002) > 4_000)


def test_the_rule_needs_moments(getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(2)}
    )
    with pytest.raises(ValueError, match="does not know"):
        vi.fit(
            target,
            vi.Descent(vi.ELBO(), optax.adam(1e-2)),
            vi.Coupling(vi.MeanField(jnp.zeros(2)), key=getkey()),
            key=getkey(),
            stop=vi.MomentConvergence(),
        )


@pytest.mark.parametrize("arguments", [{"tolerance": 0.0}, {"first": 0}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="must be"):
        vi.MomentConvergence(**arguments)
