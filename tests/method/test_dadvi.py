"""DADVI against closed forms: its optimum, its doubling, and its errors."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import vijax as vi

from ..helpers import correlated_target, drivers


PRECISION = jnp.array([[2.0, 0.9, 0.0], [0.9, 1.0, 0.2], [0.0, 0.2, 3.0]])
LOC = jnp.array([1.0, -1.0, 0.5])


def skewed_target():
    return vi.from_log_density(
        lambda params: 2.0 * params["x"] - jnp.exp(params["x"]), {"x": vi.Param()}
    )


def fitted(target, key, *args, **kwargs):
    return vi.fit(target, vi.DADVI(*args, **kwargs), key=key, progress=False)


@pytest.mark.parametrize("driver", drivers)
def test_a_gaussian_is_exact_but_for_its_scales(driver, getkey):
    target = correlated_target(LOC, PRECISION)
    method = vi.DADVI(tolerance=0.02, max_draws=8_192)
    fit = drivers[driver](target, method, key=getkey(), max_steps=500)
    assert fit.result == vi.RESULTS.converged
    # By symmetry of the pairs the mean has no Monte Carlo error.
    assert jnp.allclose(fit.family.mean, LOC, atol=1e-3)
    # The mean-field optimum: conditional standard deviations.
    best = 1 / jnp.sqrt(jnp.diagonal(PRECISION))
    assert jnp.allclose(fit.family.std, best, rtol=0.06)
    response = vi.linear_response(fit)
    assert jnp.allclose(response.covariance, jnp.linalg.inv(PRECISION), rtol=1e-6)
    assert response.decrement < 1e-5


def test_the_optimum_is_that_of_its_own_draws(getkey):
    fit = fitted(skewed_target(), getkey(), 16, 16)
    assert fit.state.num_draws == 16
    e = np.asarray(fit.state.noise[:, 0])

    def gradient(flat):
        x = flat[0] + np.exp(flat[1]) * e
        slope = 2.0 - np.exp(x)
        return np.array([np.mean(slope), np.mean(slope * e) * np.exp(flat[1]) + 1])

    at = np.concatenate([fit.family.loc, fit.family.log_scale])
    assert np.all(np.abs(gradient(at)) < 5e-3)
    # And not by chance: elsewhere it is not flat.
    assert np.any(np.abs(gradient(at + 0.1)) > 0.1)


def test_draws_are_doubled_until_the_answer_is_stable(getkey):
    rough = fitted(skewed_target(), getkey(), tolerance=0.5)
    sharp = fitted(skewed_target(), getkey(), 8, 2**16, tolerance=0.01)
    assert rough.state.num_draws == 64  # Doubled once, to compare.
    assert sharp.state.num_draws > 256
    assert sharp.state.error < 0.01
    # E exp(x) = 2 and Var exp-weighted 1 / s**2: m = log 2 - s**2 / 2, s**2 = 1 / 2.
    assert sharp.family.mean[0] == pytest.approx(np.log(2) - 0.25, abs=0.03)
    assert sharp.family.std[0] == pytest.approx(np.sqrt(0.5), rel=0.03)


def test_it_stops_at_the_most_draws(getkey):
    fit = fitted(skewed_target(), getkey(), 4, 40, tolerance=1e-9)
    assert fit.state.num_draws == 32  # 64 would be too many.
    assert fit.result == vi.RESULTS.converged


@pytest.mark.slow
def test_the_standard_error_is_the_spread_over_keys(getkey):
    means, errors = [], []
    for _ in range(24):
        response = vi.linear_response(fitted(skewed_target(), getkey(), 32, 32))
        means.append(float(response.mean[0]))
        errors.append(float(response.mean_stderr[0]))
    # The standard deviation of 24 values is known to 15 %.
    assert abs(np.log(np.std(means, ddof=1) / np.mean(errors))) < 0.6


@pytest.mark.slow
def test_same_optimum_as_lbfgs_on_fixed_draws(getkey):
    # Both with many draws, so that they agree up to Monte Carlo error.
    target = correlated_target(LOC, PRECISION)
    ours = fitted(target, getkey(), 4_096, 4_096)
    objective = vi.FixedDraws(vi.ELBO(4_096, antithetic=True), getkey())
    method = vi.Descent(objective, optax.lbfgs())
    theirs = vi.fit(target, method, key=getkey(), max_steps=100, progress=False)
    assert jnp.allclose(ours.family.std, theirs.family.std, rtol=0.06)
    assert ours.losses[-1] == pytest.approx(float(theirs.losses[-1]), abs=0.1)


def test_errors(getkey):
    with pytest.raises(ValueError, match="`num_draws` must be even"):
        vi.DADVI(7)
    with pytest.raises(ValueError, match="`max_draws` must be a whole number"):
        vi.DADVI(8, 4)
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        vi.DADVI(tolerance=0.0)
    target = correlated_target(LOC, PRECISION)
    with pytest.raises(ValueError, match="`vi.DADVI` moves a `vi.MeanField`"):
        vi.fit(target, vi.DADVI(), vi.FullRank, key=jr.key(0), progress=False)
    rows = vi.from_likelihood(
        lambda params: -0.5 * params["x"] ** 2,
        lambda params, y: -0.5 * (y - params["x"]) ** 2,
        {"x": vi.Param()},
        jnp.arange(8.0),
        batch_size=2,
    )
    with pytest.raises(ValueError, match="needs all of the data"):
        vi.fit(rows, vi.DADVI(), key=jr.key(0), progress=False)
