"""Pathfinder against closed forms: what its paths find, and what their mixture holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import vijax as vi

from ..helpers import correlated_target, drivers


PRECISION = jnp.array([[20.0, 9.0, 0.0], [9.0, 10.0, 1.0], [0.0, 1.0, 0.3]])
LOC = jnp.array([3.0, -1.0, 0.5])


def fitted(target, key, *args):
    return vi.fit(target, vi.Pathfinder(*args), key=key, progress=False)


@pytest.mark.parametrize("driver", drivers)
def test_a_gaussian_is_found_from_any_start(driver, getkey):
    target = correlated_target(LOC, PRECISION)
    fit = drivers[driver](target, vi.Pathfinder(), key=getkey(), max_steps=200)
    assert fit.result == vi.RESULTS.converged
    assert isinstance(fit.family, vi.Mixture)
    assert fit.state.num_failed == 0
    covariance = jnp.linalg.inv(PRECISION)
    sds = jnp.sqrt(jnp.diagonal(covariance))
    # BFGS has the curvature only where its path went; importance does the rest.
    off = jnp.abs(fit.state.best.loc - LOC[None, :]) / sds[None, :]
    assert jnp.all(off < 0.5)
    assert jnp.median(off) < 0.2
    x = fit.draw(20_000, key=getkey()).x
    assert jnp.all(jnp.abs(jnp.mean(x, axis=0) - LOC) < 0.06 * sds)
    assert jnp.allclose(jnp.std(x, axis=0), sds, rtol=0.06)
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert report.num_evaluations == int(fit.state.num_evaluations)


def test_one_path_is_a_gaussian(getkey):
    fit = fitted(correlated_target(LOC, PRECISION), getkey(), 1)
    assert isinstance(fit.family, vi.FullRank)
    sds = jnp.sqrt(jnp.diagonal(jnp.linalg.inv(PRECISION)))
    assert jnp.all(jnp.abs(fit.family.mean - LOC) < 0.2 * sds)


@pytest.mark.slow
def test_the_best_gaussian_of_a_path_is_not_that_of_its_end(getkey):
    # A funnel's density has no mode: it rises without bound where no mass is.
    def log_density(params):
        x = params["x"]
        return norm.logpdf(x[0], 0.0, 3.0) + jnp.sum(norm.logpdf(x[1:], 0, jnp.exp(x[0])))

    target = vi.from_log_density(log_density, {"x": vi.Param(10)})
    fit = fitted(target, getkey(), 1, 20_000)
    plain = fit.draw(4_000, key=getkey(), corrected=False)
    # The best one of several noisy figures, so a little too good.
    assert float(-fit.losses[-1]) == pytest.approx(float(vi.elbo(plain).mean), abs=4)
    # The end of the path lies in the neck: a scale of exp(-81) at the mode.
    assert fit.family.mean[0] > fit.state.paths.x[0, 0] + 3


@pytest.mark.slow
def test_weights_are_those_of_the_mixture(getkey):
    # Two modes with weights of 1/4 and 3/4; the paths share them as they fall. With each
    # draw weighed by its own path's density the modes would count by numbers of paths.
    def log_density(params):
        parts = norm.logpdf(params["x"], jnp.array([-1.5, 1.5]), jnp.array([0.2, 0.2]))
        return jax.nn.logsumexp(parts, b=jnp.array([0.25, 0.75]))

    target = vi.from_log_density(log_density, {"x": vi.Param()})
    fit = fitted(target, getkey(), 16)
    on_the_right = jnp.mean(fit.state.best.loc > 0)
    assert 0 < on_the_right < 1
    x = fit.draw(40_000, key=getkey()).params["x"]
    assert jnp.mean(x > 0) == pytest.approx(0.75, abs=0.02)
    assert jnp.std(x[x > 0]) == pytest.approx(0.2, rel=0.05)


@pytest.mark.slow
def test_failing_paths_are_left_out_and_counted(getkey):
    # No density beyond 1: starts there are drawn anew, and a wall is no place of rest.
    def log_density(params):
        x = params["x"]
        steep = jnp.where(x > -1.0, -jnp.inf, -0.5 * (x + 3.0) ** 2 / 0.01)
        return jnp.where(x > 1.0, jnp.nan, steep)

    target = vi.from_log_density(log_density, {"x": vi.Param(initial=-1.5)})
    fit = fitted(target, getkey(), 8)
    num_failed = int(fit.state.num_failed)
    kept = 1 if isinstance(fit.family, vi.FullRank) else fit.family.logits.size
    assert kept == 8 - num_failed
    x = fit.draw(20_000, key=getkey()).params["x"]
    assert jnp.mean(x) == pytest.approx(-3.0, abs=0.01)
    assert jnp.std(x) == pytest.approx(0.1, rel=0.05)


def test_every_gradient_is_counted(getkey):
    calls = []

    def log_density(params):
        jax.debug.callback(lambda x: calls.append(x), params["x"])
        return -0.5 * params["x"] ** 2

    target = vi.from_log_density(log_density, {"x": vi.Param()})
    method = vi.Pathfinder(2, 6)
    fit = vi.fit(target, method, key=getkey(), progress=False)
    jax.effects_barrier()
    num_evaluations = int(fit.state.num_evaluations)
    assert num_evaluations == 14 * int(fit.num_steps)
    # Points come in blocks of eight, of which 14 make two.
    assert len(calls) == 16 * int(fit.num_steps)


def test_errors(getkey):
    target = correlated_target(LOC, PRECISION)
    with pytest.raises(ValueError, match="`num_paths` must be a whole number"):
        vi.Pathfinder(0)
    with pytest.raises(ValueError, match="`num_elbo_draws` must be a whole number"):
        vi.Pathfinder(num_elbo_draws=0)
    with pytest.raises(ValueError, match="`vi.Pathfinder` moves a `vi.FullRank`"):
        vi.fit(target, vi.Pathfinder(), vi.MeanField, key=getkey(), progress=False)
    assert np.isfinite(fitted(target, getkey()).losses).all()
