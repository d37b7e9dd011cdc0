"""PyMC models: likelihoods, predictions, prior draws and labels, and a whole fit."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi
from vijax._frontend.pymc import from_pymc
from vijax._target.data import named_arrays

from ..helpers import tree_allclose
from .pymc_models import (
    built,
    intervals,
    minibatched,
    near_start,
    pm,
    regression,
    rng,
    values_of,
    X,
    Y,
)


# PyTensor's own compilation warns where there is no BLAS, or of how others set it up.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytensor")


@pytest.mark.parametrize("name", ["counts", "mixture", "non-centred", "correlated"])
def test_log_likelihood_is_that_of_pymc(name, getkey):
    model, target = built(name)
    x = near_start(target, getkey())
    params = target.constrain(x)
    found = target.model.log_likelihood(params, target.data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model.compile_fn(
            model.logp(model.observed_RVs, sum=False),
            inputs=model.value_vars,
            mode="FAST_COMPILE",
        )(values_of(model, target, x))
    assert list(found) == [rv.name for rv in model.observed_RVs]
    for value, other in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-9)


def test_log_likelihood_of_draws_and_of_new_data(getkey):
    target = from_pymc(regression())
    draws = vi.draw(vi.MeanField(jnp.zeros(4), 0.1), target, 6, key=getkey())
    rows = draws.log_likelihood()["y"]
    assert rows.shape == (6, 20)
    other = draws.log_likelihood({"X": np.zeros((20, 3))})["y"]
    sigma = draws.params["sigma"][:, None]
    expected = jax.scipy.stats.norm.logpdf(Y[None], jnp.zeros(()), sigma)
    np.testing.assert_allclose(other, expected, rtol=1e-6)


def test_log_likelihood_needs_observations():
    target = from_pymc(intervals())
    params = target.constrain(target.model.initial())
    with pytest.raises(ValueError, match="no observed variables"):
        target.model.log_likelihood(params, target.data)


@pytest.mark.slow
def test_predictions_have_the_right_moments(getkey):
    model = regression()
    target = from_pymc(model)
    point = jnp.array([1.0, -1.0, 0.5, jnp.log(0.5)])
    params = eqx.filter_vmap(lambda _: target.constrain(point))(jnp.arange(2_000))
    y = target.model.predict(getkey(), params, target.data, None)["y"]
    assert y.shape == (2_000, 20)
    error = 0.5 / np.sqrt(2_000)
    np.testing.assert_allclose(y.mean(0), X @ point[:3], atol=5 * error)
    np.testing.assert_allclose(y.std(0), 0.5, atol=5 * error / np.sqrt(2))


def test_predictions_at_new_data_follow_each_draw(getkey):
    model = regression()
    before = {name: var.get_value() for name, var in _shared(model).items()}
    target = from_pymc(model)
    draws = vi.draw(vi.MeanField(jnp.zeros(4), 0.3), target, 10, key=getkey())
    new, key = rng.normal(size=(7, 3)), getkey()
    out = draws.predict({"X": new}, key=key, names=["mu", "y", "beta"])
    assert {name: value.shape for name, value in out.items()} == {
        "mu": (10, 7),
        "y": (10, 7),
        "beta": (10, 3),
    }
    np.testing.assert_allclose(out["mu"], draws.params["beta"] @ new.T, rtol=1e-6)
    again = draws.predict({"X": new}, key=key, names=["y"])
    assert tree_allclose(again["y"], out["y"])
    other = draws.predict({"X": new}, key=getkey(), names=["y"])
    assert not np.allclose(other["y"], out["y"])
    for name, var in _shared(model).items():
        np.testing.assert_array_equal(var.get_value(), before[name])
    assert model.coords["coef"] == ("a", "b", "c")
    with pytest.raises(ValueError, match="no variable 'z'"):
        draws.predict(key=key, names=["z"])


def _shared(model):
    return {var.name: var for var in model.data_vars if hasattr(var, "get_value")}


def test_predictions_of_a_minibatched_model_are_whole(getkey):
    target = from_pymc(minibatched())
    draws = vi.draw(vi.MeanField(jnp.zeros(4), 0.3), target, 5, key=getkey())
    assert draws.predict(key=getkey())["y"].shape == (5, 20)


def test_predictions_that_cannot_be(getkey):
    with pm.Model() as model:
        x = pm.Data("X", X)
        beta = pm.Normal("beta", 0.0, 1.0, shape=3)
        pm.Normal("y", x @ beta, 1.0, observed=Y)
    target = from_pymc(model)
    draws = vi.draw(vi.MeanField(jnp.zeros(3)), target, 5, key=getkey())
    with pytest.raises(ValueError, match=r"shape=mu\.shape"):
        draws.predict({"X": X[:7]}, key=getkey())


def test_prior_draws(getkey):
    target = from_pymc(regression())
    params, data = target.model.sample_prior(getkey(), 2_000, target.data)
    assert {name: value.shape for name, value in (params | data).items()} == {
        "beta": (2_000, 3),
        "sigma": (2_000,),
        "mu": (2_000, 20),
        "y": (2_000, 20),
    }
    np.testing.assert_allclose(params["beta"].std(0), 1.0, atol=0.1)
    np.testing.assert_allclose(params["mu"], params["beta"] @ X.T, rtol=1e-6, atol=1e-6)


def test_labels():
    target = from_pymc(regression())
    labels = target.model.labels(target.data)
    assert labels.observed.keys() == {"y"}
    assert labels.constants.keys() == {"X"}
    np.testing.assert_array_equal(labels.constants["X"], X)
    assert labels.coords == {"coef": ["a", "b", "c"], "row": list(range(20))}
    assert labels.dims == {"X": ["row", "coef"], "beta": ["coef"], "mu": ["row"]}


@pytest.mark.slow
def test_a_fit_finds_a_conjugate_posterior(getkey):
    with pm.Model() as model:
        x = pm.Data("X", X)
        beta = pm.Normal("beta", 0.0, 1.0, shape=3)
        pm.Normal("y", x @ beta, 1.0, observed=Y)
    target = from_pymc(model)
    fit = vi.fit(target, key=getkey())
    covariance = np.linalg.inv(X.T @ X + np.eye(3))
    draws = fit.draw(4_000, key=getkey())
    mean = covariance @ X.T @ Y
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(draws.params["beta"].mean(0), mean, atol=0.1 * scale.max())
    assert named_arrays(target.data).keys() == {"X", "y"}
