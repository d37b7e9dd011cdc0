"""PyMC models: densities, starts and transforms are those of PyMC itself."""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vijax._frontend.pymc import from_pymc

from .pymc_models import (
    built,
    intervals,
    mixture,
    models,
    near_start,
    pm,
    regression,
    values_of,
)


pt = pytest.importorskip("pytensor.tensor")

# PyTensor's own compilation warns where there is no BLAS, or of how others set it up.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytensor")


@pytest.fixture(params=models, ids=lambda name: name)
def pair(request):
    return built(request.param)


def by_pymc(model):
    """The log density and its gradient, as PyMC computes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = model.compile_logp(mode="FAST_COMPILE")
        gradient = model.compile_dlogp(mode="FAST_COMPILE")

    def both(point):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return value(point), gradient(point)

    return both


def test_log_density_and_gradient_are_those_of_pymc(pair, getkey):
    model, target = pair
    ours = jax.jit(jax.value_and_grad(target.log_density))
    theirs = by_pymc(model)
    for _ in range(3):
        x = near_start(target, getkey())
        value, gradient = ours(x)
        expected, expected_gradient = theirs(values_of(model, target, x))
        assert np.isfinite(expected)
        np.testing.assert_allclose(value, expected, rtol=1e-8)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_float32(pair, getkey):
    model, target = pair
    x = near_start(target, getkey())
    expected = jax.jit(lambda x: target.log_density(x))(x)
    with jax.enable_x64(False):
        narrow = from_pymc(model)
        x = x.astype(jnp.float32)
        value, gradient = jax.jit(jax.value_and_grad(narrow.log_density))(x)
        params = jax.jit(lambda x: narrow.constrain(x))(x)
    assert value.dtype == gradient.dtype == jnp.float32
    assert all(leaf.dtype != jnp.float64 for leaf in jax.tree.leaves(params))
    np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.slow
def test_compiled_gradient_of_a_gaussian_process(getkey):
    """XLA clips squared distances in some fusions but not in others."""
    _, target = built("gaussian process")
    gradient = jax.grad(lambda x: target.log_density(x))
    compiled = jax.jit(gradient)
    for _ in range(5):
        x = near_start(target, getkey())
        np.testing.assert_allclose(compiled(x), gradient(x), rtol=1e-6, atol=1e-8)


def test_clips_of_others_keep_their_derivatives():
    with pm.Model() as model:
        x = pm.Normal("x", 0.0, 1.0, shape=(2, 2))
        pm.Potential("positive", pm.math.clip(x, 0.0, np.inf).sum())
    target = from_pymc(model)
    x = jnp.array([-1.0, 2.0, 0.5, -0.1])
    expected = -x + (x > 0).astype(x.dtype)
    np.testing.assert_allclose(jax.grad(target.log_density)(x), expected)


def test_x64_stays_as_it_was():
    with jax.enable_x64(False):
        from_pymc(regression())
        assert jnp.zeros(()).dtype == jnp.float32


def test_start_is_that_of_pymc(pair):
    model, target = pair
    found = values_of(model, target, target.model.initial())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model.initial_point()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value)


def test_unconstrain_undoes_constrain(pair, getkey):
    model, target = pair
    x = near_start(target, getkey())
    params = jax.jit(lambda x: target.constrain(x))(x)
    assert params.keys() == {var.name for var in model.free_RVs + model.deterministics}
    back = jax.jit(lambda params: target.unconstrain(params))(params)
    assert jnp.allclose(back, x, rtol=1e-6, atol=1e-8)


def test_constrained_values_are_those_of_pymc(pair, getkey):
    model, target = pair
    x = near_start(target, getkey())
    params = jax.jit(lambda x: target.constrain(x))(x)
    variables = model.free_RVs + model.deterministics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fn = model.compile_fn(
            model.replace_rvs_by_values(variables),
            inputs=model.value_vars,
            mode="FAST_COMPILE",
        )
        expected = fn(values_of(model, target, x))
    for var, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(params[var.name], value, rtol=1e-7)


def test_outside_of_a_support_is_not_finite():
    target = from_pymc(intervals())
    params = target.constrain(target.model.initial())
    assert jnp.all(jnp.isfinite(target.unconstrain(params)))
    for name, value in {"low": 1.0, "half": 0.2, "p": 1.5}.items():
        outside = params | {name: jnp.array(value)}
        assert not jnp.all(jnp.isfinite(target.unconstrain(outside))), name
    target = from_pymc(mixture())
    params = target.constrain(target.model.initial())
    outside = params | {"weights": jnp.array([0.5, 0.6, 0.7])}
    assert not jnp.all(jnp.isfinite(target.unconstrain(outside)))


def test_parameters_that_make_no_sense_have_no_density():
    with pm.Model() as model:
        sigma = pm.Normal("sigma", 1.0, 1.0)
        pm.Normal("y", 0.0, sigma, observed=np.ones(3))
    target = from_pymc(model)
    for x in (jnp.array([0.7]), jnp.array([-0.7])):
        expected = by_pymc(model)({"sigma": x[0]})[0]
        np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-9)
    assert expected == -np.inf


def test_what_a_switch_does_not_take_has_no_slope():
    with pm.Model() as model:
        x = pm.Normal("x", 0.0, 1.0, shape=3)
        pm.Potential("root", pt.switch(x > 0, pt.sqrt(x) + pt.log(x), 0.0).sum())
    target = from_pymc(model)
    x = jnp.array([-1.0, 0.0, 4.0])
    expected = -x + jnp.array([0.0, 0.0, 0.5])
    np.testing.assert_allclose(jax.grad(target.log_density)(x), expected, rtol=1e-12)


def test_roots_of_whole_numbers_are_taken_in_float64():
    with pm.Model() as model:
        x = pm.Normal("x", 0.0, 1.0)
        counts = pm.Data("counts", np.array([3, 70_001, 123_456_789]))
        pm.Potential("sum", x * (counts**0.5).sum())
    target = from_pymc(model)
    expected = by_pymc(model)({"x": 0.7})[0]
    np.testing.assert_allclose(target.log_density(jnp.array([0.7])), expected, rtol=1e-12)


def test_unconstrain_says_what_is_missing():
    with pytest.raises(ValueError, match="sigma"):
        from_pymc(regression()).unconstrain({"beta": jnp.zeros(3)})


def test_what_is_no_target():
    with pytest.raises(ValueError, match="must be a `pm.Model`"):
        from_pymc(lambda: None)
    with pm.Model() as model:
        pass
    with pytest.raises(ValueError, match="no free variables"):
        from_pymc(model)
    with model:
        rate = pm.Normal("rate", 0.0, 1.0)
        pm.Bernoulli("switch", logit_p=rate)
    with pytest.raises(ValueError, match="'switch' is discrete.*pm.Mixture"):
        from_pymc(model)


def test_without_pymc(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymc", None)
    with pytest.raises(ImportError, match=r"vijax\[pymc\]"):
        from_pymc(None)


def test_what_jax_does_not_know():
    from pytensor.compile.ops import wrap_py

    @wrap_py(itypes=[pt.dscalar], otypes=[pt.dscalar])
    def opaque(x):
        return np.asarray(x)

    with pm.Model() as model:
        pm.Potential("opaque", opaque(pm.Normal("mu", 0.0, 1.0)))
    with pytest.raises(ValueError, match="JAX backend"):
        from_pymc(model)
