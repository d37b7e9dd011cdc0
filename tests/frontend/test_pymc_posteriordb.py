"""Posteriors of the database, written in PyMC, against the NumPyro models."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from ..posteriordb import module, ROOT


pm = pytest.importorskip("pymc")
pytestmark = [
    pytest.mark.skipif(
        not (ROOT / "models.py").exists(), reason="POSTERIORDB names no database"
    ),
    pytest.mark.filterwarnings("default"),
]


def regression(*, X, y, half_cauchy=False):
    beta = pm.Flat("beta", shape=X.shape[1])
    sigma = pm.HalfCauchy("sigma", 2.5) if half_cauchy else pm.HalfFlat("sigma")
    pm.Normal("y", X @ beta, sigma, observed=y)


def with_half_cauchy(**data):
    regression(**data, half_cauchy=True)


def blr(*, X, y):
    beta = pm.Normal("beta", 0.0, 10.0, shape=X.shape[1])
    sigma = pm.HalfNormal("sigma", 10.0)
    pm.Normal("y", X @ beta, sigma, observed=y)


def kilpisjarvi(*, x, y, pmualpha, psalpha, pmubeta, psbeta):
    alpha = pm.Normal("alpha", pmualpha, psalpha)
    beta = pm.Normal("beta", pmubeta, psbeta)
    sigma = pm.HalfFlat("sigma")
    pm.Normal("y", alpha + beta * x, sigma, observed=y)


def diamonds(*, X, Y):
    b = pm.Normal("b", 0.0, 1.0, shape=X.shape[1])
    intercept = pm.StudentT("Intercept", nu=3, mu=8, sigma=10)
    sigma = pm.HalfStudentT("sigma", nu=3, sigma=10)
    pm.Normal("Y", intercept + X @ b, sigma, observed=Y)


def ark(*, lags, y):
    alpha = pm.Normal("alpha", 0.0, 10.0)
    beta = pm.Normal("beta", 0.0, 10.0, shape=lags.shape[1])
    sigma = pm.HalfCauchy("sigma", 2.5)
    pm.Normal("y", alpha + lags @ beta, sigma, observed=y)


def gp_regr(*, x, y):
    rho = pm.Gamma("rho", 25.0, 4.0)
    alpha = pm.HalfNormal("alpha", 2.0)
    sigma = pm.HalfNormal("sigma", 1.0)
    gp = pm.gp.Marginal(cov_func=alpha**2 * pm.gp.cov.ExpQuad(1, ls=rho))
    gp.marginal_likelihood("y", X=x[:, None], y=y, sigma=sigma**0.5, jitter=0.0)


def eight_schools_centered(*, y, sigma):
    mu = pm.Normal("mu", 0.0, 5.0)
    tau = pm.HalfCauchy("tau", 5.0)
    theta = pm.Normal("theta", mu, tau, shape=len(y))
    pm.Normal("y", theta, sigma, observed=y)


def eight_schools_noncentered(*, y, sigma):
    mu = pm.Normal("mu", 0.0, 5.0)
    tau = pm.HalfCauchy("tau", 5.0)
    trans = pm.Normal("theta_trans", 0.0, 1.0, shape=len(y))
    theta = pm.Deterministic("theta", mu + tau * trans)
    pm.Normal("y", theta, sigma, observed=y)


def low_dim_gauss_mix(*, y):
    ordered = pm.distributions.transforms.ordered
    start = np.array([-1.0, 1.0])
    mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=start)
    sigma = pm.HalfNormal("sigma", 2.0, shape=2)
    theta = pm.Beta("theta", 5.0, 5.0)
    weights = pm.math.stack([theta, 1 - theta])
    pm.NormalMixture("y", weights, mu, sigma=sigma, observed=y)


MODELS = {
    "kidiq-kidscore_momiq": with_half_cauchy,
    "kidiq-kidscore_interaction": with_half_cauchy,
    "nes1980-nes": regression,
    "mesquite-logmesquite_logvas": regression,
    "sblrc-blr": blr,
    "kilpisjarvi_mod-kilpisjarvi": kilpisjarvi,
    "diamonds-diamonds": diamonds,
    "arK-arK": ark,
    "gp_pois_regr-gp_regr": gp_regr,
    "eight_schools-eight_schools_centered": eight_schools_centered,
    "eight_schools-eight_schools_noncentered": eight_schools_noncentered,
    "low_dim_gauss_mix-low_dim_gauss_mix": low_dim_gauss_mix,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_density_and_gradient_are_those_of_the_numpyro_model(name, getkey):
    posterior = module("models").POSTERIORS[name]
    data = posterior.data()
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        by_numpyro = vi.from_numpyro(posterior.model, **data)
        with pm.Model() as model:
            MODELS[name](**{k: np.asarray(v) for k, v in data.items()})
        by_pymc = vi.from_pymc(model)
        # Near the posterior, where gradients are of a size that can be compared.
        latents = posterior.latents(module("reference").load(name))
        rows = jr.choice(getkey(), 10_000, (4,), replace=False)
        latents = {k: jnp.asarray(v)[rows] for k, v in latents.items()}
        values = []
        for target in (by_numpyro, by_pymc):
            x = jax.vmap(target.unconstrain)(latents)
            value, grad = jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))(x)
            values.append((value, jax.vmap(target.unravel)(grad)))
        (ours, our_grad), (theirs, their_grad) = values
        np.testing.assert_allclose(jnp.diff(ours), jnp.diff(theirs), rtol=1e-6, atol=1e-6)
        assert set(our_grad) == set(their_grad)
        for site, grad in our_grad.items():
            scale = jnp.max(jnp.abs(grad)) + 1.0
            np.testing.assert_allclose(their_grad[site] / scale, grad / scale, atol=1e-6)
