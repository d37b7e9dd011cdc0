"""Globals by importance sampling, the others by Laplace's method given these."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from numpyro.distributions import constraints

import vijax as vi
from vijax._nested import stages


def funnel_log_density(params):
    v, x = params["v"], params["x"]
    return norm.logpdf(v, 0.0, 3.0) + jnp.sum(norm.logpdf(x, 0.0, jnp.exp(v / 2)))


def funnel(num_effects=9):
    params = {"x": vi.Param(num_effects), "v": vi.Param()}
    return vi.from_log_density(funnel_log_density, params)


def two_scales_log_density(params, data):
    """Effects of two kinds of groups on observations, centered, with both scales
    unknown."""
    y, first, second = data
    parts = zip((params["a"], params["b"]), params["scales"], strict=True)
    prior = [jnp.sum(norm.logpdf(x, 0.0, scale)) - scale for x, scale in parts]
    mean = params["mean"] + params["a"][first] + params["b"][second]
    likelihood = jnp.sum(norm.logpdf(y, mean, 0.7))
    return prior[0] + prior[1] + norm.logpdf(params["mean"], 0.0, 3.0) + likelihood


def two_scales():
    rng = np.random.default_rng(0)
    first, second = np.repeat(np.arange(6), 12), np.tile(np.arange(4), 18)
    y = rng.normal(size=72) * 0.7 + rng.normal(size=6)[first]
    y += 0.6 * rng.normal(size=4)[second]
    params = {
        "mean": vi.Param(),
        "a": vi.Param(6),
        "b": vi.Param(4),
        "scales": vi.Param(2, support=constraints.positive),
    }
    return vi.from_log_density(two_scales_log_density, params, (y, first, second))


def moments_given_scales(target):
    """Means and sds of scales and the mean, by a grid over the logarithms of the scales:
    given these all is Gaussian."""
    y, first, second = (np.asarray(x) for x in target.data)
    one, other = np.eye(6)[first], np.eye(4)[second]
    grid = np.linspace(-5.0, 2.5, 121)
    log_p, means, squares = [], [], []
    for log_a in grid:
        for log_b in grid:
            a, b = np.exp(log_a), np.exp(log_b)
            shared = 9 * np.ones((72, 72))
            covariance = shared + a**2 * one @ one.T + b**2 * other @ other.T
            covariance += 0.49 * np.eye(72)
            tril = np.linalg.cholesky(covariance)
            z = np.linalg.solve(tril, y)
            value = -0.5 * z @ z - np.sum(np.log(np.diagonal(tril)))
            log_p.append(value - a - b + log_a + log_b)
            gain = 9 * np.linalg.solve(covariance, np.ones(72))
            means.append([gain @ y, a, b])
            within = 9 - 9 * np.sum(gain)
            squares.append([within + (gain @ y) ** 2, a**2, b**2])
    weights = np.exp(np.array(log_p) - np.max(log_p))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    return mean, np.sqrt(weights @ np.array(squares) - mean**2)


def test_a_funnel_in_closed_form(getkey):
    target = funnel()
    fit = vi.fit(target, vi.Nested(), key=getkey(), progress=False)
    assert fit.result == vi.RESULTS.converged
    assert isinstance(fit.family, vi.NestedGaussian)
    assert fit.globals == ("v",)
    report = vi.report(fit, key=getkey())
    assert report.effective > 0.7
    assert report.khat < 0.6
    assert report.globals == ("v",)
    assert "Given `v` the other coordinates are nearly Gaussian." in repr(report)
    # It integrates to one.
    assert abs(float(report.log_evidence.mean)) < 0.05
    draws = fit.draw(20_000, key=getkey())
    v, x = (np.asarray(draws.params[name]) for name in ("v", "x"))
    assert abs(np.mean(v)) < 0.12
    assert np.std(v) == pytest.approx(3, rel=0.04)
    z = x / np.exp(v / 2)[:, None]
    assert np.all(np.abs(np.mean(z, axis=0)) < 0.05)
    assert np.allclose(np.std(z, axis=0), 1, atol=0.04)
    # Its own moments, and those of its plain draws, are as good as the family.
    assert float(fit.std["v"]) == pytest.approx(3, rel=0.1)


@pytest.mark.slow
def test_two_scales_against_a_grid(getkey):
    target = two_scales()
    fit = vi.fit(target, "nested", key=getkey(), progress=False)
    assert fit.globals == ("scales",)
    mean, std = moments_given_scales(target)
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert report.effective > 0.5
    draws = fit.draw(20_000, key=getkey()).params
    found = np.column_stack([draws["mean"], draws["scales"]])
    assert np.all(np.abs(np.mean(found, axis=0) - mean) < 0.05 * std)
    assert np.all(np.abs(np.log(np.std(found, axis=0) / std)) < 0.05)
    # As many gradients as a few hundred steps of NUTS take.
    assert report.num_evaluations is not None
    assert report.num_evaluations < 40_000


def test_the_default_goes_on_with_it(getkey):
    fit = vi.fit(funnel(), key=getkey(), progress=False)
    assert fit.globals == ("v",)
    assert fit.before is None
    # With nothing left, nothing follows.
    again = fit.resume(progress=False)
    assert jnp.array_equal(again.losses, fit.losses)


@pytest.mark.parametrize("num_steps", [pytest.param(5, marks=pytest.mark.slow), 1_000])
def test_resuming_is_going_on(num_steps, getkey, tmp_path):
    target, key = funnel(4), getkey()
    method = vi.Nested(num_starts=4)
    whole = vi.fit(target, method, key=key, progress=False)
    # Within the search, or two steps before the end.
    num_steps = min(num_steps, int(whole.num_steps) - 2)
    part = vi.fit(target, method, key=key, max_steps=num_steps, progress=False)
    like = vi.fit(target, method, key=key, max_steps=0, progress=False)
    vi.save(tmp_path / "fit.npz", part)
    for fit in (part, vi.load(tmp_path / "fit.npz", like=like)):
        resumed = fit.resume(progress=False)
        assert resumed.num_steps == whole.num_steps
        assert jnp.array_equal(resumed.losses, whole.losses)
        assert eqx.tree_equal(resumed.family, whole.family)


@pytest.mark.slow
def test_globals_that_are_named(getkey):
    target = two_scales()
    method = vi.Nested(globals=["mean", "scales"])
    fit = vi.fit(target, method, key=getkey(), progress=False)
    assert fit.globals == ("mean", "scales")
    assert vi.report(fit, key=getkey()).effective > 0.4
    # All of them: nothing but importance sampling.
    method = vi.Nested(globals=["v", "x"])
    fit = vi.fit(funnel(1), method, key=getkey(), progress=False)
    assert isinstance(fit.family, vi.Mixture)
    assert fit.globals == ("x", "v")
    assert vi.report(fit, key=getkey()).effective > 0.1
    with pytest.raises(ValueError, match="`globals` names `tau`, but the parameters are"):
        vi.fit(target, vi.Nested(globals=["tau"]), key=getkey(), progress=False)
    with pytest.raises(ValueError, match="`globals` must be a list of names"):
        vi.Nested(globals="tau")


def test_without_globals_it_is_the_gaussian(getkey):
    log_density = lambda params: -0.5 * jnp.sum((params["x"] - 1.0) ** 2)
    target = vi.from_log_density(log_density, {"x": vi.Param(5)})
    fit = vi.fit(target, vi.Nested(), key=getkey(), progress=False)
    assert isinstance(fit.family, vi.FullRank)
    assert fit.globals == ()
    assert jnp.allclose(fit.family.mean, 1.0, atol=1e-6)


def test_locals_with_two_modes_are_none(getkey):
    # Given `b` the other coordinate is at plus or minus a root: Laplace would see one.
    def log_density(params):
        a, b = params["a"], params["b"]
        return norm.logpdf(a, 0.0, 2.0) + norm.logpdf(b, 0.5 * a**2, 0.4)

    target = vi.from_log_density(log_density, {"a": vi.Param(), "b": vi.Param()})
    fit = vi.fit(target, vi.Nested(globals=["b"]), key=getkey(), progress=False)
    assert not isinstance(fit.family, vi.NestedGaussian)
    assert not stages.has_answer(fit.state)


def test_a_mode_that_is_known_of_is_not_left_out(getkey):
    # Two branches, each found by some of the starts: given `y` there is one `x`.
    def log_density(params):
        x, y = params["x"], params["y"]
        return norm.logpdf(4.0, x * y, 0.3) + norm.logpdf(x, 0, 2) + norm.logpdf(y, 0, 2)

    target = vi.from_log_density(log_density, {"x": vi.Param(), "y": vi.Param()})
    fit = vi.fit(target, key=getkey(), progress=False)
    x = np.asarray(fit.draw(4_000, key=getkey()).params["x"])
    has_both = 0.35 < np.mean(x > 0) < 0.65
    assert has_both or not vi.report(fit, key=getkey()).trustworthy


def test_inside_jit_there_is_the_default(getkey):
    target, key = funnel(2), getkey()
    run = lambda method: jax.jit(
        lambda key: vi.fit(target, method, key=key, max_steps=5).family.mean
    )
    with pytest.raises(ValueError, match='`vi.Nested` needs the host.*"auto" can'):
        run(vi.Nested())(key)


def test_a_budget_ends_it(getkey):
    method = vi.Nested(num_starts=4, max_evaluations=3_000)
    fit = vi.fit(funnel(), method, key=getkey(), progress=False)
    assert fit.result == vi.RESULTS.converged
    made = fit.state.before.num_evaluations + fit.state.num_evaluations
    assert made < 6_000
