"""A target that is the same with other signs, and an answer on one side."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.stats import norm

import vijax as vi
from vijax._report.mirror_images import missing_image
from vijax._target.probe import HostProbe


def product(params):
    # Two branches, which mirror each other.
    x, y = params["x"], params["y"]
    prior = norm.logpdf(x, 0.0, 2.0) + norm.logpdf(y, 0.0, 2.0)
    return norm.logpdf(4.0, x * y, 0.3) + prior + norm.logpdf(params["z"], 1.0)


def target_of(log_density, *names):
    return vi.from_log_density(log_density, {name: vi.Param() for name in names})


def found(target, family):
    x = np.asarray(vi.draw(family, target, 64, key=jr.key(0)).x, np.float64)
    return missing_image(HostProbe(target), family.on_host(), x)


def test_the_parameters_whose_signs_go_together_are_named():
    target = target_of(product, "x", "y", "z")
    one_side = vi.FullRank(jnp.array([2.0, 2.0, 1.0]), scale=0.2)
    assert found(target, one_side) == ("x", "y")
    both = vi.Mixture([one_side, vi.FullRank(jnp.array([-2.0, -2.0, 1.0]), scale=0.2)])
    assert found(target, both) == ()


def test_the_sign_of_one_label():
    # Two factors, each with a sign of its own.
    def log_density(params):
        load, z = params["load"], params["z"]
        near = jnp.sum(norm.logpdf(load * z[None], 2.0, 0.1))
        return near + jnp.sum(norm.logpdf(load)) + jnp.sum(norm.logpdf(z))

    params = {"load": vi.Param((3, 2)), "z": vi.Param(2)}
    target = vi.from_log_density(log_density, params)
    # On both sides of all signs together, and not of one factor's alone.
    ends = jnp.full(8, 2**0.5), jnp.full(8, -(2**0.5))
    family = vi.Mixture([vi.FullRank(end, scale=0.05) for end in ends])
    names = found(target, family)
    assert names == ("load[0, 0]", "load[1, 0]", "load[2, 0]", "z[0]")


def test_a_target_without_that_symmetry_has_none():
    nearly = lambda params: product(params) + 0.05 * params["x"]
    target = target_of(nearly, "x", "y", "z")
    assert found(target, vi.FullRank(jnp.array([2.0, 2.0, 1.0]), scale=0.2)) == ()
    # One that is, and whose answer is where it is.
    gaussian = target_of(lambda params: -0.5 * params["x"] ** 2, "x")
    assert found(gaussian, vi.FullRank(jnp.array([0.1]), scale=1.0)) == ()


@pytest.mark.parametrize(
    ("method", "max_steps"), [("auto", 10_000), ("fullrank_advi", 3_000)]
)
def test_half_of_a_factor_model_is_not_trusted(method, max_steps, getkey):
    rng = np.random.default_rng(0)
    loadings, noise = np.array([1.2, -0.8, 0.9]), 0.5
    y = rng.normal(size=(30, 1)) * loadings + noise * rng.normal(size=(30, 3))

    def log_density(params, y):  # The factors are integrated out.
        load = params["load"]
        covariance = jnp.outer(load, load) + 0.25 * jnp.eye(3)
        tril = jnp.linalg.cholesky(covariance)
        z = jnp.linalg.solve(tril, y.T)
        log_det = jnp.sum(jnp.log(jnp.diagonal(tril)))
        prior = jnp.sum(norm.logpdf(load))
        return prior - 0.5 * jnp.sum(z**2) - len(y) * log_det

    target = vi.from_log_density(log_density, {"load": vi.Param(3)}, y)
    fit = vi.fit(target, method, key=getkey(), max_steps=max_steps, progress=False)
    first = np.asarray(fit.draw(2_000, key=getkey()).params["load"])[:, 0]
    has_both = 0.2 < np.mean(first > 0) < 0.8
    report = vi.report(fit, key=getkey())
    assert has_both or "other sign of `load`" in repr(report)
    assert has_both or not report.trustworthy
    if method != "auto":
        assert not has_both
