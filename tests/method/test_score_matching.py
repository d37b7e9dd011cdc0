"""Methods that fit a Gaussian from scores or curvature, against closed forms."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest
from numpyro.distributions import constraints

import vijax as vi

from ..helpers import correlated_target, drivers


LOC = jnp.array([1.0, -1.0, 0.5])
PRECISION = jnp.array([[2.0, 0.9, 0.0], [0.9, 1.0, 0.2], [0.0, 0.2, 3.0]])
methods = {
    "NaturalGradient": (vi.NaturalGradient(), 200),
    "BaM": (vi.BaM(), 60),
    "GSM": (vi.GSM(), 300),
    "Laplace": (vi.Laplace(), 300),
}


both_ways = pytest.mark.parametrize("driver", drivers)


@both_ways
@pytest.mark.parametrize("name", methods)
def test_a_gaussian_is_reached_to_rounding(name, driver, getkey):
    method, max_steps = methods[name]
    target = correlated_target(LOC, PRECISION)
    key = getkey()
    fit = drivers[driver](target, method, key=key, max_steps=max_steps)
    assert isinstance(fit.family, vi.FullRank)
    assert jnp.allclose(fit.family.mean, LOC, atol=1e-6)
    assert jnp.allclose(fit.family.covariance, jnp.linalg.inv(PRECISION), atol=1e-6)
    if driver == "host":
        again = drivers[driver](target, method, key=key, max_steps=max_steps)
        assert jnp.array_equal(fit.family.loc, again.family.loc)


@both_ways
@pytest.mark.parametrize("name", ["NaturalGradient", "Laplace"])
def test_methods_that_know_when_they_are_done(name, driver, getkey):
    target = correlated_target(LOC, PRECISION)
    fit = drivers[driver](target, methods[name][0], key=getkey(), max_steps=200)
    assert fit.result == vi.RESULTS.converged
    assert fit.num_steps < 50


@pytest.mark.parametrize("name", methods)
def test_what_is_no_gaussian_or_comes_in_batches(name, getkey):
    target, method = correlated_target(LOC, PRECISION), methods[name][0]
    with pytest.raises(ValueError, match=f"`vi.{name}` moves a `vi.FullRank`.*MeanField"):
        vi.fit(target, method, vi.MeanField, key=getkey(), progress=False)
    batched = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, y: -0.5 * (y - params["mu"]) ** 2,
        {"mu": vi.Param()},
        jnp.arange(10.0),
        batch_size=2,
    )
    with pytest.raises(ValueError, match="needs all of the data"):
        vi.fit(batched, method, key=getkey(), progress=False)


@both_ways
def test_laplace_includes_the_jacobian(driver, getkey):
    # Gamma(4, 1): log x has the density exp(4 log x - x), whose mode is log 4, where the
    # second derivative is -4.
    target = vi.from_log_density(
        lambda params: 3 * jnp.log(params["x"]) - params["x"],
        {"x": vi.Param(support=constraints.positive)},
    )
    fit = drivers[driver](target, vi.Laplace(), key=getkey(), max_steps=200)
    assert jnp.allclose(fit.mean["x"], jnp.log(4.0), rtol=1e-10)
    assert jnp.allclose(fit.std["x"] ** 2, 0.25, rtol=1e-6)
    assert fit.state.num_repaired == 0


def test_laplace_finds_the_higher_of_two_modes(getkey):
    def log_density(params):
        first = -2.0 - 0.5 * ((params["x"] + 1.5) / 0.2) ** 2
        return jnp.logaddexp(first, -0.5 * ((params["x"] - 1.5) / 0.2) ** 2)

    target = vi.from_log_density(log_density, {"x": vi.Param()})
    fit = vi.fit(target, vi.Laplace(16), key=getkey(), progress=False)
    assert jnp.allclose(fit.mean["x"], 1.5, atol=1e-5)
    assert jnp.allclose(fit.std["x"], 0.2, rtol=1e-4)


@both_ways
def test_laplace_repairs_a_curvature_that_is_not_positive(driver, getkey):
    # At the mode the quartic has no curvature at all.
    target = vi.from_log_density(
        lambda params: -0.5 * params["x"] ** 2 - params["y"] ** 4,
        {"x": vi.Param(), "y": vi.Param()},
    )
    fit = drivers[driver](target, vi.Laplace(), key=getkey(), max_steps=200)
    assert fit.state.num_repaired <= 1
    assert jnp.allclose(fit.std["x"], 1.0, rtol=1e-4)
    assert jnp.isfinite(fit.std["y"])


@both_ways
def test_natural_gradient_is_the_best_gaussian(driver, getkey):
    # Of exp(x - exp(x)), the log of an exponential: with mean m and variance v the ELBO
    # is m - exp(m + v / 2) + log(v) / 2 + ..., whose optimum is v = 1, m = -1 / 2.
    target = vi.from_log_density(
        lambda params: params["x"] - jnp.exp(params["x"]), {"x": vi.Param()}
    )
    fit = drivers[driver](target, vi.NaturalGradient(), key=getkey(), max_steps=2_000)
    assert abs(fit.mean["x"] + 0.5) < 0.06
    assert abs(jnp.log(fit.std["x"])) < 0.06


def test_bam_on_a_target_that_is_not_gaussian(getkey):
    target = vi.from_log_density(
        lambda params: params["x"] - jnp.exp(params["x"]), {"x": vi.Param()}
    )
    fit = vi.fit(target, vi.BaM(), key=getkey(), max_steps=500, progress=False)
    assert abs(fit.mean["x"] + 0.5772) < 0.2  # The posterior mean is -0.577.
    assert 0.7 < fit.std["x"] < 1.4


@pytest.mark.slow
def test_many_at_once(getkey):
    @eqx.filter_vmap
    def fit(shift, key):
        target = correlated_target(LOC + shift, PRECISION)
        return vi.fit(target, vi.BaM(), key=key, max_steps=60, progress=False).family.loc

    locs = fit(jnp.array([0.0, 1.0]), jr.split(getkey(), 2))
    assert jnp.allclose(locs, jnp.stack([LOC, LOC + 1.0]), atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="`num_draws` must be a whole number"):
        vi.BaM(1)
    with pytest.raises(ValueError, match="`num_draws` must be a whole number"):
        vi.GSM(0)
    with pytest.raises(ValueError, match="`num_starts` must be a whole number"):
        vi.Laplace(0)


@pytest.mark.slow
def test_laplace_where_only_reverse_mode_works(getkey):
    # As solvers of differential equations: a rule of reverse mode, to be used once.
    @jax.custom_vjp
    def log_density(x):
        return -0.5 * jnp.dot(x - LOC, PRECISION @ (x - LOC)) - 0.1 * jnp.sum(x**4)

    def backward(x, g):
        slope = lambda x: -PRECISION @ (x - LOC) - 0.4 * x**3
        # A loop that cannot be differentiated itself.
        once: Any = (jnp.zeros((), jnp.int32), x)
        loop = jax.lax.while_loop(
            lambda c: c[0] < 1, lambda c: (c[0] + 1, slope(x)), once
        )
        return (g * loop[1],)

    log_density.defvjp(lambda x: (log_density(x), x), backward)
    hidden = vi.from_log_density(lambda p: log_density(p["x"]), {"x": vi.Param(3)})
    plain = vi.from_log_density(
        lambda p: (
            -0.5 * jnp.dot(p["x"] - LOC, PRECISION @ (p["x"] - LOC))
            - 0.1 * jnp.sum(p["x"] ** 4)
        ),
        {"x": vi.Param(3)},
    )
    key = getkey()
    fits = [vi.fit(t, vi.Laplace(), key=key, progress=False) for t in (hidden, plain)]
    assert jnp.allclose(fits[0].family.mean, fits[1].family.mean, atol=1e-6)
    ratio = fits[0].family.covariance / fits[1].family.covariance
    assert jnp.allclose(ratio, 1, atol=1e-5)
