"""Trajectories that carry draws to the target, and verdicts where weights are too few."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.stats import norm, t as student_t

import vijax as vi
from vijax._draws.hamiltonian import carried, own_coordinates
from vijax._target.probe import HostProbe


def logistic(params):
    # The variance of a logistic distribution is pi**2 / 3.
    x = params["x"] - 1.0
    return jnp.sum(-x - 2 * jnp.logaddexp(0.0, -x))


@pytest.mark.parametrize(
    "name", [pytest.param("full rank", marks=pytest.mark.slow), "mean field", "its draws"]
)
def test_trajectories_arrive_at_the_target(name, getkey):
    dim, num_draws = 20, 2_048
    target = vi.from_log_density(logistic, {"x": vi.Param(dim)})
    loc = jnp.full(dim, 1.5)
    family = vi.FullRank(loc, scale=1.5)
    if name == "mean field":
        family = vi.MeanField(loc, scale=1.5)
    if name == "its draws":
        family = vi.StudentT(loc, 1.5, 20)
    x = vi.draw(family, target, num_draws, key=getkey()).x
    moved = carried(HostProbe(target), family, np.asarray(x), getkey())
    assert 0.7 < moved.acceptance <= 1
    assert jnp.allclose(
        moved.log_p[3], target.log_density(jnp.asarray(moved.x[3])), rtol=1e-5
    )
    std = np.pi / 3**0.5
    # Standard errors: s / sqrt(n), and sqrt((kurtosis - 1) / 4n) = .894 / sqrt(n).
    off = (jnp.mean(moved.x, axis=0) - 1.0) / std * num_draws**0.5
    assert jnp.max(jnp.abs(off)) < 4.5
    assert abs(jnp.mean(off)) < 4 / dim**0.5
    off = jnp.log(jnp.std(moved.x, axis=0) / std) * num_draws**0.5 / 0.894
    assert jnp.max(jnp.abs(off)) < 4.5
    assert abs(jnp.mean(off)) < 4 / dim**0.5


def test_coordinates_are_those_of_the_family(getkey):
    tril = jnp.array([[2.0, 0.0], [1.5, 0.5]])
    family = vi.FullRank(jnp.array([3.0, -1.0]), tril)
    x = vi.draw(
        family,
        vi.from_log_density(logistic, {"x": vi.Param(2)}),
        20_000,
        key=getkey(),
    ).x
    x = np.asarray(x)
    mine = own_coordinates(family, x)
    assert jnp.allclose(mine.root, tril)
    z = np.array([[0.3, -0.7]])
    assert jnp.allclose(mine.inside(mine.outside(z)), z, atol=1e-5)
    assert jnp.allclose(mine.score_inside(z), z @ tril)
    seen = own_coordinates(vi.StudentT(family.loc, tril, 50), x)
    assert jnp.allclose(seen.root, tril, atol=0.1)
    few = own_coordinates(vi.StudentT(family.loc, tril, 50), x[:3])
    assert few.root.shape == (2,)
    assert jnp.allclose(few.inside(few.outside(z)), z, atol=1e-5)
    assert jnp.allclose(few.score_inside(z), few.root * z)


@pytest.mark.slow
def test_few_weights_but_a_close_family_are_trusted(getkey):
    # A Gaussian is close to t(12) in each of 400 coordinates, but of the weights of all
    # of them together little is left.
    target = vi.from_log_density(
        lambda params: jnp.sum(student_t.logpdf(params["x"], 12.0)),
        {"x": vi.Param(400)},
    )
    std = (12 / 10) ** 0.5
    fit = vi.fit(target, key=getkey(), progress=False)
    report = vi.report(fit, key=getkey())
    assert report.effective < 0.1
    assert report.trustworthy
    assert report.acceptance is not None
    assert 0.6 < report.acceptance < 1
    assert report.worst_score_discrepancy is not None
    assert report.score_discrepancy is not None
    assert report.score_discrepancy < report.worst_score_discrepancy < 0.2
    assert "trajectories" in repr(report)
    assert all(abs(np.log(q.std / std)) < 0.15 for q in report.quantities)
    draws = fit.draw(4_000, key=getkey())
    assert draws.origin["corrected"] == fit.correction == "resample-move"
    assert draws.proposal is None
    with pytest.raises(ValueError, match="moved by trajectories"):
        _ = draws.log_weights
    off = jnp.log(jnp.std(draws.x, axis=0) / std)
    assert abs(jnp.mean(off)) < 0.01
    assert jnp.max(jnp.abs(off)) < 0.1


def scale_between(params):
    """A centered hierarchy without data: means of no width have no end of mass."""
    log_tau, theta = params["log_tau"], params["theta"]
    between = norm.logpdf(theta, 0.0, jnp.exp(log_tau))
    data = norm.logpdf(jnp.sin(jnp.arange(theta.size)), theta, 1.0)
    return norm.logpdf(log_tau) + jnp.sum(between) + jnp.sum(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("log_density", "params"),
    [
        (scale_between, {"log_tau": vi.Param(), "theta": vi.Param(350)}),
        (
            lambda params: jnp.sum(student_t.logpdf(params["x"], 2.5)),
            {"x": vi.Param(400)},
        ),
    ],
    ids=["funnel", "heavy tails"],
)
def test_few_weights_and_a_family_that_is_off_are_not_trusted(log_density, params):
    target = vi.from_log_density(log_density, params)
    for seed in range(2):
        fit = vi.fit(target, key=jr.key(seed), progress=False)
        report = vi.report(fit, key=jr.key(10 + seed))
        assert report.acceptance is None
        assert not report.trustworthy
        assert any("worth" in problem for problem in report.problems)


def test_trajectories_go_through_a_funnel_in_nested_coordinates(getkey):
    def log_density(params):
        x = norm.logpdf(params["x"], 0.0, jnp.exp(params["v"] / 2))
        return norm.logpdf(params["v"], 0.0, 3.0) + jnp.sum(x)

    target = vi.from_log_density(log_density, {"v": vi.Param(), "x": vi.Param(5)})
    fit = vi.fit(target, "nested", key=getkey(), progress=False)
    assert isinstance(fit.family, vi.NestedGaussian)
    rng, num_draws = np.random.default_rng(0), 2_000
    v = 3 * rng.standard_normal(num_draws)
    x = np.exp(v / 2)[:, None] * rng.standard_normal((num_draws, 5))
    start = np.concatenate([v[:, None], x], axis=1)
    ends = carried(HostProbe(target), fit.family, start, getkey())
    # In linear coordinates hardly a trajectory is accepted, and v stays where it is.
    assert ends.acceptance > 0.9
    assert abs(np.corrcoef(v, ends.x[:, 0])[0, 1]) < 0.1
    # The target is what they leave as it is.
    assert abs(np.mean(ends.x[:, 0])) < 0.3
    assert abs(np.std(ends.x[:, 0]) / 3 - 1) < 0.07
    unit = ends.x[:, 1:] / np.exp(ends.x[:, :1] / 2)
    assert np.all(np.abs(np.std(unit, axis=0) - 1) < 0.07)
    expected = jax.vmap(target.log_density)(jnp.asarray(ends.x))
    np.testing.assert_allclose(ends.log_p, expected, rtol=1e-9)
