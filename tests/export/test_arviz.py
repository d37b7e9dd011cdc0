import sys
import warnings
from typing import Any

import arviz_stats
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from numpyro.distributions import constraints

import vijax as vi


def log_prior(params):
    return jnp.sum(-0.5 * params["beta"] ** 2) - params["sigma"]


def log_likelihood(params, rows):
    z = (rows["y"] - rows["x"] @ params["beta"]) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"])


@pytest.fixture
def fit(getkey):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    data = {"x": x, "y": x @ [1.0, -2.0] + rng.normal(size=60)}
    params = {"beta": vi.Param(2), "sigma": vi.Param(support=constraints.positive)}
    target = vi.from_likelihood(log_prior, log_likelihood, params, data)
    method = vi.Descent(vi.ELBO(4), optax.adam(0.02))
    return vi.fit(target, method, key=getkey(), max_steps=1_500, progress=False)


def test_groups_and_attributes(fit, getkey):
    draws = fit.draw(300, key=getkey())
    tree = vi.to_arviz(draws, coords={"term": ["a", "b"]}, dims={"beta": ["term"]})
    assert tree.posterior["beta"].dims == ("chain", "draw", "term")
    assert tree.posterior["beta"].shape == (1, 300, 2)
    assert np.array_equal(tree.posterior["sigma"][0], draws.params["sigma"])
    assert np.array_equal(tree.sample_stats["log_p"][0], draws.log_p)
    assert np.array_equal(tree.sample_stats["log_q"][0], draws.log_q)
    assert np.array_equal(tree.observed_data["x"], fit.target.data["x"])
    assert tree.observed_data["y"].shape == (60,)
    attributes = tree.attrs
    assert attributes["method"] == "Descent(ELBO)"
    assert attributes["family"] == "MeanField"
    assert attributes["num_steps"] == 1_500
    assert attributes["result"] == "max_steps"
    assert attributes["elbo"] == float(vi.elbo(draws).mean)
    assert attributes["elbo_stderr"] == float(vi.elbo(draws).stderr)


def test_arviz_works_on_it(fit, getkey, tmp_path):
    tree = vi.to_arviz(fit.draw(2_000, key=getkey()))
    summary = arviz_stats.summary(  # pyright: ignore[reportPrivateImportUsage]
        tree, kind="stats"
    )
    assert abs(float(summary.loc["beta[1]", "mean"]) + 2) < 0.5
    tree.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    again = xarray.open_datatree(tmp_path / "fit.nc", engine="h5netcdf")
    assert again.attrs["num_steps"] == 1_500
    assert np.array_equal(again.posterior["beta"], tree.posterior["beta"])


def test_draws_of_a_family_alone_and_no_data(getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
    )
    draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 20, key=getkey())
    tree = vi.to_arviz(draws)
    assert set(tree.children) == {"posterior", "sample_stats"}
    assert set(tree.attrs) >= {"elbo", "elbo_stderr"}
    assert "method" not in tree.attrs


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="ArviZ 1.x takes the tree")
def test_the_older_umbrella_package_converts_it(fit, getkey):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It announces its own refactoring.
        import arviz
    tree = vi.to_arviz(fit.draw(50, key=getkey()))
    data: Any = arviz.InferenceData.from_datatree(tree)
    assert data.posterior["beta"].shape == (1, 50, 2)
    assert data.sample_stats["log_p"].shape == (1, 50)
