"""Sites of a NumPyro model that are estimated by a number each."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.module import eqx_module
from numpyro.distributions import constraints
from scipy import optimize, stats

import vijax as vi


rng = np.random.default_rng(5)
Y = 2.0 + 1.7 * rng.normal(size=40)


def groups(y, *, points="sample", sd=2.0):
    """Means of groups, integrated out, of a normal whose parameters are estimated."""
    if points == "sample":
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        tau = numpyro.sample("tau", dist.HalfNormal(sd))
    else:
        mu = numpyro.param("mu", 0.5)
        tau = numpyro.param("tau", 1.5, constraint=constraints.positive)
    with numpyro.plate("groups", y.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def by_hand(prior):
    """The maximum of the marginal likelihood, times the prior, over (mu, tau)."""

    def loss(params):
        mu, tau = params
        return -stats.norm.logpdf(Y, mu, np.hypot(1.0, tau)).sum() - prior(mu, tau)

    return optimize.minimize(loss, [1.0, 1.0], bounds=[(None, None), (1e-3, None)]).x


FLAT = lambda mu, tau: 0.0
NORMAL = lambda mu, tau: stats.norm.logpdf(mu) + stats.halfnorm.logpdf(tau, scale=2.0)


@pytest.mark.parametrize(
    ("points", "prior"),
    [pytest.param("sample", NORMAL, marks=pytest.mark.slow), ("param", FLAT)],
    ids=["sample", "param"],
)
def test_estimates_are_the_marginal_maximum(points, prior, getkey):
    target = vi.from_numpyro(groups, Y, points=points, point=("mu", "tau"))
    fit = vi.fit(target, "advi", key=getkey(), max_steps=6_000, progress=False)
    draws = fit.draw(500, key=getkey())
    mu, tau = draws.params["mu"], draws.params["tau"]
    assert np.ptp(mu) == np.ptp(tau) == 0.0
    right = by_hand(prior)
    np.testing.assert_allclose([mu[0], tau[0]], right, atol=0.02)
    # The others have the posterior given these.
    precision = 1 + 1 / right[1] ** 2
    mean = (Y + right[0] / right[1] ** 2) / precision
    np.testing.assert_allclose(fit.mean["theta"], mean, atol=0.1)
    np.testing.assert_allclose(fit.std["theta"], precision**-0.5, rtol=0.05)
    assert np.all(fit.std["mu"] == 0)


def test_a_param_site_starts_where_it_says(getkey):
    target = vi.from_numpyro(groups, Y, points="param", point=["mu", "tau"])
    params = target.constrain(target.model.initial())
    np.testing.assert_allclose([params["mu"], params["tau"]], [0.5, 1.5])


def test_a_scale_does_not_matter_and_so_has_no_jacobian(getkey):
    target = vi.from_numpyro(groups, Y, point="tau")
    x = 0.3 * jax.random.normal(getkey(), (target.dim,))
    params = target.constrain(x)
    expected = stats.norm.logpdf(params["mu"])
    expected += stats.halfnorm.logpdf(params["tau"], scale=2.0)
    expected += stats.norm.logpdf(params["theta"], params["mu"], params["tau"]).sum()
    expected += stats.norm.logpdf(Y, params["theta"]).sum()
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-10)


@pytest.mark.slow
def test_the_default_fits_and_reports_the_rest(getkey):
    target = vi.from_numpyro(groups, Y, point=("mu", "tau"))
    fit = vi.fit(target, key=getkey(), progress=False)
    assert isinstance(fit.family, vi.PointEstimates)
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert report.estimates == ("mu", "tau")
    assert "given the point estimates of `mu`, `tau`" in repr(report)
    names = {q.name for q in report.quantities}
    assert names == {f"theta[{i}]" for i in range(40)}
    # The ELBO is that of the marginal likelihood at the estimates, which is known.
    params = fit.draw(1, key=getkey()).params
    mu, tau = float(params["mu"][0]), float(params["tau"][0])
    expected = stats.norm.logpdf(Y, mu, np.hypot(1.0, tau)).sum() + NORMAL(mu, tau)
    np.testing.assert_allclose(report.log_evidence.mean, expected, atol=0.2)


@pytest.mark.slow
def test_inside_jit_and_with_other_data(getkey):
    target = vi.from_numpyro(groups, Y, points="param", point=("mu", "tau"))

    @jax.jit
    def run(key, y):
        new = target.with_data({"y": y})
        fit = vi.fit(new, "advi", key=key, max_steps=3_000, progress=False)
        return fit.family.mean[:2]

    mu = run(getkey(), jnp.asarray(Y + 3.0))[0]
    np.testing.assert_allclose(mu, Y.mean() + 3.0, atol=0.1)


def test_an_estimate_beside_a_sum_over_classes(getkey):
    def mixture(y):
        weight = numpyro.sample("weight", dist.Beta(2.0, 2.0))
        centers: Any = numpyro.sample(
            "centers", dist.Normal(0.0, 2.0).expand([2]).to_event(1)
        )
        with numpyro.plate("rows", y.shape[0]):
            classes = dist.Bernoulli(weight)
            k: Any = numpyro.sample("k", classes, infer={"enumerate": "parallel"})
            center = jnp.where(k == 1, centers[1], centers[0])
            numpyro.sample("y", dist.Normal(center, 1.0), obs=y)

    target = vi.from_numpyro(mixture, Y[:8], point="weight")
    x = jax.random.normal(getkey(), (3,))
    params = target.constrain(x)
    weight, centers = float(params["weight"]), np.asarray(params["centers"])
    parts = stats.norm.logpdf(Y[:8, None], centers)
    expected = np.logaddexp(
        np.log1p(-weight) + parts[:, 0], np.log(weight) + parts[:, 1]
    ).sum()
    expected += stats.norm.logpdf(centers, 0.0, 2.0).sum()
    expected += stats.beta.logpdf(weight, 2.0, 2.0)
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ("sigma", "`point` names 'sigma', which is no continuous latent.*'mu', 'tau'"),
        (("mu", "tau", "theta"), "names all the sites"),
        ((1,), "`point` must be a list of names"),
    ],
)
def test_names_are_checked(point, words):
    with pytest.raises(ValueError, match=words):
        vi.from_numpyro(groups, Y, point=point)


def test_a_network_is_no_number():
    def model(y):
        layer = eqx.nn.Linear(1, 1, key=jax.random.key(0))
        net: Any = eqx_module("net", layer)
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(jax.vmap(net)(y[:, None])[:, 0], sigma), obs=y)

    with pytest.raises(ValueError, match="weights of a network"):
        vi.from_numpyro(model, Y, point="net$params")


@pytest.mark.parametrize(
    "method", [vi.Auto(4), vi.Laplace(), vi.Averaging(vi.BaM()), "svgd"], ids=str
)
def test_methods_that_make_no_estimates_say_so(method, getkey):
    target = vi.from_numpyro(groups, Y, point="tau")
    with pytest.raises(ValueError, match="cannot find point estimates, of `tau`"):
        vi.fit(target, method, key=getkey(), progress=False)


def test_what_knows_no_estimates_says_so(getkey):
    target = vi.from_numpyro(groups, Y, point="tau")
    fit = vi.fit(target, "advi", key=getkey(), max_steps=5, progress=False)
    with pytest.raises(ValueError, match="point estimates.*corrected=False"):
        fit.draw(5, key=getkey(), corrected=True)
    with pytest.raises(ValueError, match="NUTS samples every site"):
        vi.to_nuts(fit, key=getkey())
    with pytest.raises(ValueError, match="no posterior to be calibrated"):
        vi.vsbc(target, lambda key: ({}, Y), key=getkey())


def test_a_family_of_the_others_is_put_together_with_them(getkey, tmp_path):
    target = vi.from_numpyro(groups, Y, point="tau")
    inner = vi.FullRank(jnp.zeros(41), scale=0.5)
    for family in (inner, vi.FullRank):
        fit = vi.fit(target, "advi", family, key=getkey(), max_steps=2, progress=False)
        assert isinstance(fit.family, vi.PointEstimates)
        assert isinstance(fit.family.family, vi.FullRank)
        assert fit.family.places == (1,)
    again = fit.resume(2, progress=False)
    assert again.num_steps == 4
    vi.save(tmp_path / "fit", fit)
    loaded = vi.load(tmp_path / "fit", like=fit)
    assert eqx.tree_equal(loaded.family, fit.family)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (vi.FullRank(jnp.zeros(42)), "42 coordinates, but 41 of the target's 42"),
        (
            vi.PointEstimates(vi.MeanField(jnp.zeros(41)), jnp.zeros(1), (0,)),
            r"coordinates \(0,\), but those of the target are \(1,\)",
        ),
    ],
)
def test_a_family_that_does_not_fit_the_estimates_is_refused(family, words, getkey):
    target = vi.from_numpyro(groups, Y, point="tau")
    with pytest.raises(ValueError, match=words):
        vi.fit(target, "advi", family, key=getkey(), max_steps=2, progress=False)
    normal = vi.from_log_density(lambda p: -jnp.sum(p["x"] ** 2), {"x": vi.Param(42)})
    if isinstance(family, vi.PointEstimates):
        with pytest.raises(ValueError, match="those of the target are"):
            vi.fit(normal, "advi", family, key=getkey(), progress=False)


@pytest.mark.slow
def test_a_flow_beside_estimates_is_reported(getkey):
    target = vi.from_numpyro(groups, Y[:3], point="tau")
    flow = lambda loc: vi.Coupling(vi.MeanField(loc), key=jax.random.key(0))
    fit = vi.fit(target, "advi", flow, key=getkey(), max_steps=2_000, progress=False)
    report = vi.report(fit, key=getkey())
    assert report.estimates == ("tau",)
    assert {q.name for q in report.quantities} == {
        "mu",
        "theta[0]",
        "theta[1]",
        "theta[2]",
    }


def test_an_equal_model_compiles_nothing(getkey):
    make = lambda y: vi.from_numpyro(groups, y, points="param", point=("mu", "tau"))
    traces = []

    @eqx.filter_jit
    def density(target, x):
        traces.append(1)
        return target.log_density(x)

    first = density(make(Y), jnp.zeros(42))
    assert density(make(Y + 1.0), jnp.zeros(42)) != first
    assert len(traces) == 1


@pytest.mark.slow
def test_estimates_from_rows_in_batches(getkey):
    x = rng.normal(size=200)
    y = 1.0 + 2.0 * x + 0.7 * rng.normal(size=200)

    def line(x, y):
        sigma = numpyro.param("sigma", 1.0, constraint=constraints.positive)
        slope = numpyro.sample("slope", dist.Normal(0.0, 100.0))
        level = numpyro.sample("level", dist.Normal(0.0, 100.0))
        with numpyro.plate("rows", 200, subsample_size=50) as i:
            numpyro.sample("y", dist.Normal(level + slope * x[i], sigma), obs=y[i])

    target = vi.from_numpyro(line, x, y, point="sigma")
    fit = vi.fit(target, "fullrank_advi", key=getkey(), progress=False)
    # With flat priors the marginal likelihood has its maximum at the residual variance
    # by the degrees of freedom.
    design = np.stack([np.ones(200), x], axis=1)
    solution, squares, *_ = np.linalg.lstsq(design, y)
    draws = fit.draw(10, key=getkey())
    np.testing.assert_allclose(
        draws.params["sigma"], (squares[0] / 198) ** 0.5, rtol=0.01
    )
    np.testing.assert_allclose(fit.mean["slope"], solution[1], atol=0.02)
    assert vi.report(fit, key=getkey()).trustworthy
