"""Simulation-based calibration: what it lets pass, and what it sees."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm

import vijax as vi


NUM_ROWS = 4


def simulate(key):
    keys = jr.split(key)
    mu = jr.normal(keys[0])
    return {"mu": mu}, mu + jr.normal(keys[1], (NUM_ROWS,))


def log_density(params, y):
    return norm.logpdf(params["mu"]) + jnp.sum(norm.logpdf(y, params["mu"]))


def target(log_density=log_density):
    return vi.from_log_density(log_density, {"mu": vi.Param()}, jnp.zeros(NUM_ROWS))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("fullrank_advi", marks=pytest.mark.slow),
        pytest.param(vi.GSM(), marks=pytest.mark.slow),
        vi.NaturalGradient(),
    ],
)
def test_exact_fits_are_calibrated(method, getkey):
    out = vi.vsbc(target(), simulate, method, key=getkey(), max_steps=600)
    assert out.is_calibrated
    assert out.ranks.shape == (200, 1)
    assert out.names == ("mu",)
    assert out.num_failed == 0
    assert abs(jnp.mean(out.ranks) - 0.5) < 0.1
    assert repr(out).startswith("Calibrated")


@pytest.mark.slow
def test_wrong_spread_without_bias_is_seen(getkey):
    # N(m, 0.1) for N(m, 1), so to say: the mean is right, the spread a tenth.
    def narrow(params, y):
        exact = jnp.sum(y) / (NUM_ROWS + 1)
        return 100 * (NUM_ROWS + 1) * norm.logpdf(params["mu"], exact, 1.0)

    out = vi.vsbc(target(narrow), simulate, vi.GSM(), key=getkey(), max_steps=100)
    assert not out.is_calibrated
    assert np.all(out.spread > 10)
    assert np.all(np.abs(out.bias) < 4)

    def wide(params, y):
        exact = jnp.sum(y) / (NUM_ROWS + 1)
        return 0.1 * (NUM_ROWS + 1) * norm.logpdf(params["mu"], exact, 1.0)

    out = vi.vsbc(target(wide), simulate, vi.GSM(), key=getkey(), max_steps=100)
    assert np.all(out.spread < -6)


def test_bias_is_seen(getkey):
    shifted = lambda params, y: log_density(params, y - 1.0)
    out = vi.vsbc(target(shifted), simulate, vi.GSM(), key=getkey(), max_steps=100)
    assert not out.is_calibrated
    assert np.all(out.bias > 6)
    assert "Not calibrated" in repr(out)


def test_fits_that_fail_are_counted(getkey):
    broken = lambda params, y: jnp.where(y[0] > 0.5, jnp.nan, log_density(params, y))
    method = vi.Descent(vi.ELBO(), optax.adam(0.1))
    start = vi.MeanField(jnp.zeros(1))
    out = vi.vsbc(target(broken), simulate, method, start, key=getkey(), max_steps=200)
    # `y[0]` is N(0, 2) and above .5 in 36 % of 200 data sets, give or take 3.4 %.
    assert abs(out.num_failed - 72.5) < 28
    assert out.ranks.shape == (200 - out.num_failed, 1)
    assert not out.is_calibrated


def test_errors(getkey):
    with pytest.raises(ValueError, match="`num_simulations` must be a whole number"):
        vi.vsbc(target(), simulate, key=getkey(), num_simulations=1)
    with pytest.raises(ValueError, match="`num_draws` must be a whole number"):
        vi.vsbc(target(), simulate, key=getkey(), num_draws=0)
