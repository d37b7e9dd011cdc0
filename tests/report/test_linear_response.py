"""Linear response against closed forms."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import vijax as vi

from ..helpers import correlated_target


PRECISION = jnp.array([[2.0, 0.9, 0.0], [0.9, 1.0, 0.2], [0.0, 0.2, 3.0]])
LOC = jnp.array([1.0, -1.0, 0.5])


def fitted(target, objective, key, num_steps=200):
    method = vi.Descent(objective, optax.lbfgs())
    return vi.fit(target, method, key=key, max_steps=num_steps, progress=False)


def test_a_gaussian_gets_its_exact_covariance(getkey):
    objective = vi.FixedDraws(vi.ELBO(16, antithetic=True), getkey())
    fit = fitted(correlated_target(LOC, PRECISION), objective, getkey())
    response = vi.linear_response(fit)
    covariance = jnp.linalg.inv(PRECISION)
    assert jnp.allclose(response.covariance, covariance, rtol=1e-6)
    assert jnp.allclose(response.std, jnp.sqrt(jnp.diagonal(covariance)), rtol=1e-6)
    assert jnp.allclose(response.mean, LOC, atol=1e-6)
    assert response.decrement < 1e-10
    # The family's own is too narrow.
    assert jnp.all(fit.family.std[:2] < 0.9 * response.std[:2])


@pytest.mark.slow
def test_the_standard_error_is_the_spread_over_draws(getkey):
    # A skewed density, so that fixed draws do move the means.
    target = vi.from_log_density(
        lambda params: 2.0 * params["x"] - jnp.exp(params["x"]), {"x": vi.Param()}
    )
    means, errors = [], []
    for _ in range(24):
        objective = vi.FixedDraws(vi.ELBO(64), getkey())
        response = vi.linear_response(fitted(target, objective, getkey(), 40))
        means.append(float(response.mean[0]))
        errors.append(float(response.mean_stderr[0]))
    # The standard deviation of 24 values is known to 15 %.
    assert abs(np.log(np.std(means, ddof=1) / np.mean(errors))) < 0.6


def test_errors(getkey):
    target = correlated_target(LOC, PRECISION)
    fit = vi.fit(target, "advi", key=getkey(), max_steps=2, progress=False)
    with pytest.raises(ValueError, match="fitted with fixed draws.*`MeanField` by"):
        vi.linear_response(fit)
    fixed = vi.FixedDraws(vi.ELBO(4), getkey())
    method = vi.Descent(fixed, optax.adam(0.1))
    full = vi.fit(target, method, vi.FullRank, key=jr.key(0), max_steps=2, progress=False)
    with pytest.raises(ValueError, match="`FullRank` by"):
        vi.linear_response(full)
