"""Leave-one-out against its exact value, and against NUTS on hierarchical data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.loo import compare, loo as plain_loo
from jax.scipy.stats import norm

import vijax as vi


sample: Any = numpyro.sample  # Its type is a union that nothing can be done with.
rng = np.random.default_rng(1)
Y = rng.normal(0.3, 1.0, size=40)


def log_prior(params):
    return norm.logpdf(params["mu"], 0.0, 3.0)


def log_likelihood(params, y):
    return norm.logpdf(y, params["mu"], 1.0)


def exact_loo(y):
    """The sum of log N(y_i; m_-i, 1 + v_-i) of the conjugate model."""
    precision = 1 / 9 + len(y) - 1
    means = (y.sum() - y) / precision
    return norm.logpdf(y, means, (1 + 1 / precision) ** 0.5)


@pytest.fixture
def target():
    params = {"mu": vi.Param()}
    return vi.from_likelihood(log_prior, log_likelihood, params, jnp.asarray(Y))


@pytest.mark.parametrize("scale", [0.1581, 0.25])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_a_wrong_family_is_corrected(scale, shift, target, getkey):
    # The posterior is N(Y.sum() / 40.1, 0.1579): shifts and widths are corrected.
    loc = jnp.array([Y.sum() / (40 + 1 / 9) + shift])
    family = vi.MeanField(loc, jnp.array([scale]))
    result = vi.loo(vi.draw(family, target, 20_000, key=getkey()))
    exact = exact_loo(jnp.asarray(Y))
    assert result.n_data_points == 40
    np.testing.assert_allclose(result.elpd, exact.sum(), atol=0.03)
    np.testing.assert_allclose(result.elpd_i.values, exact, atol=0.02)
    assert result.pareto_k.max() < 0.7


def test_without_the_correction_it_would_be_wrong(target, getkey):
    # What the test before this one stands on.
    loc = jnp.array([Y.sum() / (40 + 1 / 9) + 0.1])
    draws = vi.draw(vi.MeanField(loc, jnp.array([0.25])), target, 20_000, key=getkey())
    as_posterior = vi.Draws(draws.x, None, draws.log_p, target)
    error = vi.loo(as_posterior).elpd - float(exact_loo(jnp.asarray(Y)).sum())
    assert abs(error) > 0.2


def test_resampled_draws_are_posterior_draws(target, getkey):
    loc = jnp.array([Y.sum() / (40 + 1 / 9) + 0.1])
    draws = vi.draw(vi.MeanField(loc, jnp.array([0.3])), target, 20_000, key=getkey())
    exact = float(exact_loo(jnp.asarray(Y)).sum())
    resampled = draws.resample(8_000, key=getkey())
    np.testing.assert_allclose(vi.loo(resampled).elpd, exact, atol=0.04)


def test_a_perfect_fit(getkey):
    # Weights that differ by rounding alone have no tail.
    variance = 1 / (40 + 1 / 9)
    family = vi.MeanField(jnp.array([Y.sum() * variance]), jnp.array([variance**0.5]))
    target = vi.from_likelihood(
        log_prior, log_likelihood, {"mu": vi.Param()}, jnp.asarray(Y)
    )
    result = vi.loo(vi.draw(family, target, 10_000, key=getkey()))
    exact = float(exact_loo(jnp.asarray(Y)).sum())
    np.testing.assert_allclose(result.elpd, exact, atol=0.03)


def test_errors(target, getkey):
    family = vi.MeanField(jnp.zeros(1))
    with pytest.raises(ValueError, match="at least 100"):
        vi.loo(vi.draw(family, target, 50, key=getkey()))
    draws = vi.draw(family, target, 100, key=getkey())
    with pytest.raises(ValueError, match=r"no observed 'y'.*rows"):
        vi.loo(draws, "y")
    whole = vi.from_log_density(lambda params: -(params["x"] ** 2), {"x": vi.Param()})
    with pytest.raises(ValueError, match=r"vi\.from_likelihood"):
        vi.loo(vi.draw(family, whole, 100, key=getkey()))

    def two(y):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu, 1.0), obs=y)
        sample("z", dist.Normal(mu, 2.0), obs=y)

    family = vi.MeanField(jnp.array([Y.mean()]), jnp.array([0.14]))
    draws = vi.draw(family, vi.from_numpyro(two, Y), 1_000, key=getkey())
    with pytest.raises(ValueError, match=r"several.*'y', 'z'"):
        vi.loo(draws)
    assert vi.loo(draws, "z").n_data_points == 40


# Radon-like: floors and counties ----------------------------------------------------

COUNTIES = 30


def radon(county, floor, y=None, *, pooled=False):
    slope = sample("slope", dist.Normal(0.0, 2.0))
    sigma = sample("sigma", dist.HalfNormal(2.0))
    mean = sample("mean", dist.Normal(0.0, 2.0))
    if pooled:
        level = mean
    else:
        spread = sample("spread", dist.HalfNormal(1.0))
        with numpyro.plate("counties", COUNTIES):
            level = sample("level", dist.Normal(mean, spread))[county]
    with numpyro.plate("homes", county.shape[0]):
        sample("y", dist.Normal(level + slope * floor, sigma), obs=y)


def radon_data():
    county = rng.integers(0, COUNTIES, size=500)
    floor = rng.integers(0, 2, size=500).astype(float)
    level = rng.normal(1.3, 0.6, size=COUNTIES)
    y = level[county] - 0.7 * floor + rng.normal(0.0, 0.7, size=500)
    return county, floor, y


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Of ArviZ, on tails and on pandas.
def test_loo_and_predictions_are_those_of_nuts(getkey):
    county, floor, y = radon_data()
    target = vi.from_numpyro(radon, county, floor, y)
    draws = vi.fit(target, key=getkey(), progress=False).draw(16_000, key=getkey())
    fitted = vi.loo(draws)

    kernel = numpyro.infer.NUTS(radon)
    mcmc = numpyro.infer.MCMC(
        kernel,
        num_warmup=500,
        num_samples=8_000,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        mcmc.run(getkey(), county, floor, y)
        samples = mcmc.get_samples()
        predictive = numpyro.infer.Predictive(radon, samples)
        theirs = predictive(getkey(), county, floor)["y"]
    # The same draws through our likelihood and ArviZ's ordinary LOO.
    x = jax.vmap(target.unconstrain)(
        {k: samples[k] for k in ("slope", "sigma", "mean", "spread", "level")}
    )
    reference = vi.Draws(x, None, jax.vmap(target.log_density)(x), target)
    nuts = vi.loo(reference)
    assert abs(fitted.elpd - nuts.elpd) < 0.4  # Of about -550, with an se of 16.
    assert abs(fitted.p - nuts.p) < 0.4
    np.testing.assert_allclose(fitted.elpd_i.values, nuts.elpd_i.values, atol=0.05)
    ours = draws.predict(key=getkey())["y"]
    error = ours.mean(axis=0) - theirs.mean(axis=0)
    stderr = (ours.var(axis=0) / 16_000 + theirs.var(axis=0) / 16_000) ** 0.5
    assert jnp.mean((error / stderr) ** 2) < 1.6
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.08)
    # ArviZ's own function works on what is exported.
    tree = vi.to_arviz(draws, log_likelihood=True)
    ordinary: Any = plain_loo(tree)
    assert abs(ordinary.elpd - nuts.elpd) < 1.0

    pooled = vi.from_numpyro(radon, county, floor, y, pooled=True)
    other = vi.fit(pooled, key=getkey(), progress=False).draw(2_000, key=getkey())
    table = compare({"counties": fitted, "pooled": vi.loo(other)})
    assert table.index[0] == "counties"
