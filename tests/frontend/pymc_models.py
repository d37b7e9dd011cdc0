"""Models in PyMC, and how their points are told to PyMC and to us."""

import functools
import warnings

import jax.random as jr
import numpy as np
import pytest

from vijax._frontend.pymc import from_pymc


pm = pytest.importorskip("pymc")

rng = np.random.default_rng(0)
X = rng.normal(size=(20, 3))
Y = X @ np.array([1.0, -0.5, 0.2]) + rng.normal(size=20)
GROUP = np.repeat(np.arange(4), 5)


def regression():
    with pm.Model(coords={"coef": ["a", "b", "c"]}) as model:
        x = pm.Data("X", X, dims=("row", "coef"))
        beta = pm.Normal("beta", 0.0, 1.0, dims="coef")
        sigma = pm.HalfNormal("sigma", 1.0)
        mu = pm.Deterministic("mu", x @ beta, dims="row")
        pm.Normal("y", mu, sigma, shape=mu.shape, observed=Y)
    return model


def non_centred():
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 5.0)
        tau = pm.HalfCauchy("tau", 2.0)
        z = pm.Normal("z", 0.0, 1.0, shape=4)
        theta = pm.Deterministic("theta", mu + tau * z)
        sigma = pm.Exponential("sigma", 1.0)
        pm.StudentT("y", nu=4.0, mu=theta[GROUP], sigma=sigma, observed=Y)
    return model


def counts():
    with pm.Model() as model:
        x = pm.Data("X", X)
        beta = pm.Normal("beta", 0.0, 1.0, shape=3)
        pm.Poisson("y", pm.math.exp(x @ beta), observed=np.arange(20) % 5)
        pm.Bernoulli("b", logit_p=x @ beta, observed=np.arange(20) % 2)
    return model


def gaussian_process():
    with pm.Model() as model:
        scale = pm.Gamma("scale", 2.0, 2.0)
        eta = pm.HalfNormal("eta", 1.0)
        gp = pm.gp.Marginal(cov_func=eta**2 * pm.gp.cov.ExpQuad(1, ls=scale))
        gp.marginal_likelihood("y", X[:, :1], Y, sigma=pm.HalfNormal("sigma", 1.0))
    return model


def mixture():
    with pm.Model() as model:
        weights = pm.Dirichlet("weights", np.ones(3))
        mu = pm.Normal(
            "mu",
            0.0,
            3.0,
            shape=3,
            transform=pm.distributions.transforms.ordered,
            initval=np.array([-1.0, 0.0, 1.0]),
        )
        pm.NormalMixture("y", weights, mu, sigma=0.5, observed=Y)
    return model


def ordered_logistic():
    with pm.Model() as model:
        cuts = pm.Normal(
            "cuts",
            0.0,
            2.0,
            shape=2,
            transform=pm.distributions.transforms.ordered,
            initval=np.array([-1.0, 1.0]),
        )
        beta = pm.Normal("beta", 0.0, 1.0)
        pm.OrderedLogistic("y", beta * X[:, 0], cuts, observed=np.arange(20) % 3)
    return model


def time_series():
    with pm.Model() as model:
        rho = pm.Uniform("rho", -1.0, 1.0)
        pm.AR(
            "ar",
            [0.0, rho],
            sigma=1.0,
            constant=True,
            init_dist=pm.Normal.dist(0, 1),
            observed=Y,
        )
        walk = pm.GaussianRandomWalk(
            "walk", sigma=0.5, init_dist=pm.Normal.dist(0, 1), steps=19
        )
        pm.Normal("y", walk, 1.0, observed=Y)
    return model


def correlated():
    with pm.Model() as model:
        chol, *_ = pm.LKJCholeskyCov(
            "chol", n=3, eta=2.0, sd_dist=pm.Exponential.dist(1.0, size=3)
        )
        pm.MvNormal("y", np.zeros(3), chol=chol, observed=X)
    return model


def intervals():
    with pm.Model() as model:
        low = pm.Uniform("low", -2.0, 0.0)
        high = pm.Uniform("high", low, 3.0)
        half = pm.TruncatedNormal("half", 0.0, 1.0, lower=0.5)
        pm.Beta("p", 2.0, half)
        pm.VonMises("angle", 0.0, 1.0)
        pm.Potential("tie", -((high - low - 1.0) ** 2))
    return model


def imputed():
    y = Y.copy()
    y[[2, 5]] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pm.Model() as model:
            pm.Normal("y", pm.Normal("mu", 0.0, 1.0), 1.0, observed=y)
    return model


def minibatched(batch_size=10, total_size: int | None = 20):
    with pm.Model() as model:
        x = pm.Data("X", X)
        some_x, some_y = pm.Minibatch(x, Y, batch_size=batch_size)
        beta = pm.Normal("beta", 0.0, 1.0, shape=3)
        sigma = pm.HalfNormal("sigma", 1.0)
        pm.Normal("y", some_x @ beta, sigma, observed=some_y, total_size=total_size)
    return model


models = {
    "correlated": correlated,
    "counts": counts,
    "gaussian process": gaussian_process,
    "imputed": imputed,
    "intervals": intervals,
    "mixture": mixture,
    "non-centred": non_centred,
    "ordered logistic": ordered_logistic,
    "regression": regression,
    "time series": time_series,
}


@functools.cache
def built(name):
    """A model and its target, whose programs serve several tests."""
    model = models[name]()
    return model, from_pymc(model)


def values_of(model, target, x):
    parts = target.unravel(x)
    return {
        model.rvs_to_values[rv].name: np.asarray(parts[rv.name]) for rv in model.free_RVs
    }


def near_start(target, key):
    return target.model.initial() + 0.3 * jr.normal(key, (target.dim,))
