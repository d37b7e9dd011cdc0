"""PyMC models of which PyTensor itself computes a part, for want of a form in JAX."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from .pymc_models import pm, values_of


pytensor: Any = pytest.importorskip("pytensor")
pt: Any = pytest.importorskip("pytensor.tensor")

# PyTensor's own compilation warns where there is no BLAS, or of how others set it up.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytensor")

rng = np.random.default_rng(1)
X = np.linspace(0.0, 9.0, 10)
Y = 0.4 * X + 3.0 + rng.normal(size=10)
TIMES = np.linspace(0.5, 3.0, 6)
DECAY = 2.0 * np.exp(-0.7 * TIMES) + 0.1 * rng.normal(size=6)


class Gradient(pytensor.graph.op.Op):
    """The gradient of the one below: as a black box, too."""

    def make_node(self, slope, level, x, y):
        inputs = [pt.as_tensor(v) for v in (slope, level, x, y)]
        return pytensor.graph.basic.Apply(self, inputs, [y.type(), y.type()])

    def perform(self, node, inputs, outputs):
        slope, level, x, y = inputs
        outputs[0][0] = (y - slope * x - level) * x
        outputs[1][0] = np.asarray(y - slope * x - level)


class LogLike(pytensor.graph.op.Op):
    """A normal likelihood of a line, as in PyMC's gallery of black boxes."""

    def make_node(self, slope, level, x, y):
        inputs = [pt.as_tensor(v) for v in (slope, level, x, y)]
        return pytensor.graph.basic.Apply(self, inputs, [inputs[-1].type()])

    def perform(self, node, inputs, outputs):
        slope, level, x, y = inputs
        apart = y - slope * x - level
        outputs[0][0] = np.asarray(-0.5 * apart**2 - 0.5 * np.log(2 * np.pi))

    def grad(self, inputs, output_grads):
        unknown = pytensor.gradient.grad_not_implemented
        parts = zip(inputs, Gradient()(*inputs), strict=False)
        known = [(g * output_grads[0]).sum().reshape(v.shape) for v, g in parts]
        return [*known, *(unknown(self, i, inputs[i]) for i in (2, 3))]

    def pullback(self, inputs, outputs, cotangents):
        return self.grad(inputs, cotangents)


log_like = LogLike()


def line(how, x=X, y=Y, **kwargs):
    with pm.Model(coords={"row": range(10)}) as model:
        slope = pm.Normal("slope", 0.0, 2.0)
        level = pm.Uniform("level", -10.0, 10.0)
        if how == "custom":
            x = x if kwargs else pm.Data("x", x)
            logp = lambda y, slope, level, x: log_like(slope, level, x, y)
            pm.CustomDist("y", slope, level, x, observed=y, logp=logp, **kwargs)
        elif how == "potential":
            rows = log_like(slope, level, pt.constant(x), pt.constant(y))
            pm.Potential("y", rows.sum())
            pm.Deterministic("rows", rows, dims="row")
        else:
            pm.Normal("y", slope * x + level, 1.0, observed=y)
        pm.Deterministic("top", slope * 9.0 + level)
    return model


def decay(how):
    with pm.Model() as model:
        rate = pm.LogNormal("rate", -0.5, 0.5)
        start = pm.LogNormal("start", 0.5, 0.5)
        if how == "native":
            curve = start * pt.exp(-rate * TIMES)
        else:
            solve = pm.ode.DifferentialEquation(
                func=lambda y, t, p: [-p[0] * y[0]],
                times=TIMES,
                n_states=1,
                n_theta=1,
                t0=0,
            )
            curve = solve(y0=[start], theta=[rate])[:, 0]
        pm.Deterministic("curve", curve)
        pm.Normal("y", curve, 0.1, observed=DECAY)
    return model


def on_host(target, x):
    call = target.model.on_host
    assert call is not None
    return call(x, target.data)


@functools.cache
def built(make, how):
    """A target, with what was warned of when it was made."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        target = vi.from_pymc(make(how))
    return target, [str(w.message) for w in told if w.category is UserWarning]


CASES = {
    "custom": (line, "custom", "'y' is computed with `LogLike`"),
    "potential": (line, "potential", "'y' is computed with `LogLike`"),
    "ode": (decay, "ode", "'y' is computed with `DifferentialEquation`"),
}
cases = pytest.mark.parametrize("case", CASES)


@cases
def test_one_warning_says_why_and_what_it_costs(case):
    make, how, words = CASES[case]
    _, told = built(make, how)
    assert len(told) == 1
    assert told[0].startswith(words)
    assert "one point after another, on the host" in told[0]
    assert "\n" not in told[0]
    assert built(make, "native")[1] == []


@cases
def test_density_and_gradient_are_those_of_the_native_model(case, getkey):
    make, how, _ = CASES[case]
    target, native = built(make, how)[0], built(make, "native")[0]
    x = 0.5 * jr.normal(getkey(), (5, 2))
    both = lambda t: jax.jit(jax.vmap(jax.value_and_grad(t.log_density)))(x)
    direct = on_host(target, np.asarray(x))
    assert native.model.on_host is None
    for right, ours, theirs in zip(both(native), both(target), direct, strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-6)
        np.testing.assert_allclose(theirs, right, rtol=1e-6)
        assert theirs.dtype == np.float64


@cases
def test_parameters_and_deterministics_are_those_of_the_native_model(case, getkey):
    make, how, _ = CASES[case]
    target, native = built(make, how)[0], built(make, "native")[0]
    x = 0.5 * jr.normal(getkey(), (5, 2))
    found, right = jax.vmap(target.constrain)(x), jax.vmap(native.constrain)(x)
    assert found.keys() - right.keys() == ({"rows"} if case == "potential" else set())
    for name, value in right.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-8)
    back = jax.vmap(target.unconstrain)(found)
    np.testing.assert_allclose(back, x, rtol=1e-6)


def test_a_deterministic_of_the_op_has_labels(getkey):
    target = built(line, "potential")[0]
    draws = vi.draw(vi.MeanField(jnp.zeros(2), 0.1), target, 6, key=getkey())
    rows = vi.to_arviz(draws).posterior["rows"]
    assert rows.dims == ("chain", "draw", "row")
    slope, level = (np.asarray(draws.params[name]) for name in ("slope", "level"))
    mean = slope[:, None] * X + level[:, None]
    right = jax.scipy.stats.norm.logpdf(Y[None], mean)
    np.testing.assert_allclose(rows.values[0], right, rtol=1e-6)


@pytest.mark.parametrize("case", ["custom", "ode"])
def test_log_likelihood_is_that_of_the_native_model(case, getkey):
    make, how, _ = CASES[case]
    target, native = built(make, how)[0], built(make, "native")[0]
    params = native.constrain(0.5 * jr.normal(getkey(), (2,)))
    found = target.model.log_likelihood(params, target.data)["y"]
    right = native.model.log_likelihood(params, native.data)["y"]
    np.testing.assert_allclose(found, right, rtol=1e-6)


def test_predictions_are_drawn_by_pymc(getkey):
    target = built(decay, "ode")[0]
    draws = vi.draw(vi.MeanField(jnp.array([-0.3, 0.7]), 0.05), target, 40, key=getkey())
    y = draws.predict(key=getkey())["y"]
    assert y.shape == (40, 6)
    assert np.std(y - draws.params["curve"]) == pytest.approx(0.1, rel=0.3)


def test_a_custom_density_says_that_it_cannot_predict(getkey):
    target = built(line, "custom")[0]
    draws = vi.draw(vi.MeanField(jnp.zeros(2), 0.1), target, 3, key=getkey())
    with pytest.raises(ValueError, match=r"PyMC could not draw \['y'\]"):
        draws.predict(key=getkey())


def test_new_data_are_seen(getkey):
    target = built(line, "custom")[0]
    native = vi.from_pymc(line("native", 2.0 * X, Y + 1.0))
    new = target.with_data({"x": 2.0 * X, "y": Y + 1.0})
    x = jr.normal(getkey(), (3, 2))
    right = jax.vmap(jax.value_and_grad(native.log_density))(x)
    found = jax.vmap(jax.value_and_grad(new.log_density))(x)
    direct = on_host(new, np.asarray(x))
    for correct, ours, theirs in zip(right, found, direct, strict=True):
        np.testing.assert_allclose(ours, correct, rtol=1e-9)
        np.testing.assert_allclose(theirs, correct, rtol=1e-9)


def test_data_are_seen_under_vmap_but_not_differentiated():
    target = built(line, "custom")[0]
    x = jnp.array([0.3, 0.1])
    value = lambda y: target.model.log_density(x, target.data | {"y": y}, 1.0)
    many = jax.vmap(value)(jnp.stack([Y, Y + 1.0]))
    np.testing.assert_allclose(many, [value(jnp.array(Y)), value(jnp.array(Y + 1.0))])
    assert many[0] != many[1]
    assert np.all(np.isnan(jax.grad(value)(jnp.array(Y))))


@pytest.mark.parametrize(
    "method", ["fullrank_advi", pytest.param("auto", marks=pytest.mark.slow)]
)
def test_fits_find_what_the_native_model_has(method, getkey):
    x = np.stack([X, np.ones(10)], axis=1)
    covariance = np.linalg.inv(x.T @ x + np.diag([0.25, 0.0]))
    means, stds = covariance @ x.T @ Y, np.sqrt(np.diag(covariance))
    steps: dict[str, Any] = {} if method == "auto" else {"max_steps": 1_500}
    target = built(line, "custom")[0]
    fit = vi.fit(target, method, key=getkey(), progress=False, **steps)
    params = fit.draw(2_000, key=getkey()).params
    for name, mean, std in zip(("slope", "level"), means, stds, strict=True):
        assert np.mean(params[name]) == pytest.approx(mean, abs=0.15 * std)
        assert np.std(params[name]) == pytest.approx(std, rel=0.1)
    assert vi.report(fit, key=getkey()).trustworthy


@pytest.mark.slow
def test_an_ode_is_fitted(getkey):
    fits = []
    for how in ("ode", "native"):
        target, key = built(decay, how)[0], jr.key(3)
        fits.append(
            vi.fit(target, "fullrank_advi", key=key, max_steps=300, progress=False)
        )
    for name in ("rate", "start"):
        ours, right = (fit.mean[name] for fit in fits)
        assert ours == pytest.approx(float(right), abs=1e-4)


# What is refused ------------------------------------------------------------------------


def _in_batches():
    x, y = pm.Minibatch(X, Y, batch_size=5)
    logp = lambda y, slope, level, x: log_like(slope, level, x, y)
    slope, level = pm.Normal("slope"), pm.Normal("level")
    pm.CustomDist("y", slope, level, x, observed=y, logp=logp, total_size=10)


def _without_gradient():
    from pytensor.compile.ops import wrap_py

    @wrap_py(itypes=[pt.dvector], otypes=[pt.dvector])
    def opaque(x):
        return np.asarray(x)

    slope = pm.Normal("slope")
    pm.Normal("y", opaque(slope * X), 1.0, observed=Y)


REFUSED = {
    "batches": (_in_batches, "'y' is computed with `LogLike`.*without `pm.Minibatch`"),
    "no gradient": (
        _without_gradient,
        r"'y' is computed with `FromFunctionOp\{opaque\}`.*cannot differentiate it",
    ),
}


@pytest.mark.parametrize(("write", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_has_its_cause(write, words):
    with pm.Model() as model:
        write()
    with pytest.raises(ValueError, match=words) as caught:
        vi.from_pymc(model)
    assert len(str(caught.value)) < 600


def test_a_deterministic_needs_no_gradient():
    from pytensor.compile.ops import wrap_py

    @wrap_py(itypes=[pt.dvector], otypes=[pt.dvector])
    def doubled(x):
        return 2.0 * x

    with pm.Model() as model:
        slope = pm.Normal("slope")
        pm.Normal("y", slope * X, 1.0, observed=Y)
        pm.Deterministic("twice", doubled(slope * X))
    target = vi.from_pymc(model)
    assert target.model.on_host is None
    found = jax.vmap(target.constrain)(jnp.array([[1.0], [3.0]]))
    np.testing.assert_allclose(found["twice"], [2.0 * X, 6.0 * X], rtol=1e-9)


def test_an_exception_in_an_op_is_told():
    class Breaks(LogLike):
        def perform(self, node, inputs, outputs):
            raise KeyError("my own words")

    with pm.Model() as model:
        slope = pm.Normal("slope")
        rows = Breaks()(slope, pt.constant(0.0), pt.constant(X), pt.constant(Y))
        pm.Potential("y", rows.sum())
    with pytest.warns(UserWarning, match="Breaks"):
        target = vi.from_pymc(model)
    with pytest.raises(Exception, match="my own words"):
        jax.jit(target.log_density)(jnp.zeros(1)).block_until_ready()
    with pytest.raises(KeyError, match="my own words"):
        on_host(target, np.zeros((1, 1)))


def test_bounds_are_those_of_pymc():
    with pm.Model() as model:
        slope = pm.Normal("slope")
        rows = log_like(slope, pt.constant(0.0), pt.constant(X), pt.constant(Y))
        pm.Potential("y", rows.sum())
        pm.Normal("z", 0.0, slope, observed=1.0)
    with pytest.warns(UserWarning, match="LogLike"):
        target = vi.from_pymc(model)
    values, _ = on_host(target, np.array([[-1.0], [1.0]]))
    assert np.isneginf(values[0])
    point = values_of(model, target, jnp.ones(1))
    right = model.compile_logp(mode="FAST_COMPILE")(point)
    assert values[1] == pytest.approx(float(right))
