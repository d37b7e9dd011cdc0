"""PyMC models: the log density is that of PyMC itself, and its data are arguments."""

import functools
import sys
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import vijax as vi
from vijax._frontend.pymc import from_pymc
from vijax._target.target import named_arrays

from ..helpers import tree_allclose


pm = pytest.importorskip("pymc")
pt = pytest.importorskip("pytensor.tensor")

# PyTensor's own compilation warns where there is no BLAS, or of how others set it up.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytensor")

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


@pytest.fixture(params=models, ids=lambda name: name)
def pair(request):
    return built(request.param)


def values_of(model, target, x):
    parts = target.unravel(x)
    return {
        model.rvs_to_values[rv].name: np.asarray(parts[rv.name]) for rv in model.free_RVs
    }


def near_start(target, key):
    return target.model.initial() + 0.3 * jr.normal(key, (target.dim,))


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


def test_unconstrain_says_what_is_missing():
    with pytest.raises(ValueError, match="sigma"):
        from_pymc(regression()).unconstrain({"beta": jnp.zeros(3)})


def test_data_are_leaves_and_new_ones_are_seen(getkey):
    model = regression()
    target = from_pymc(model)
    assert {name: value.shape for name, value in target.data.items()} == {
        "X": (20, 3),
        "y": (20,),
    }
    new = target.with_data({"X": 2.0 * X, "y": -Y})
    x = near_start(target, getkey())
    expected = from_pymc(_regression_of(2.0 * X, -Y)).log_density(x)
    np.testing.assert_allclose(new.log_density(x), expected, rtol=1e-9)
    assert new.log_density(x) != target.log_density(x)


def _regression_of(x, y):
    with pm.Model() as model:
        beta = pm.Normal("beta", 0.0, 1.0, shape=3)
        sigma = pm.HalfNormal("sigma", 1.0)
        pm.Normal("y", x @ beta, sigma, observed=y)
    return model


def test_new_data_do_not_trace_again(getkey):
    target, traces = from_pymc(regression()), 0

    @eqx.filter_jit
    def log_density(target, x):
        nonlocal traces
        traces += 1
        return target.log_density(x)

    x = near_start(target, getkey())
    log_density(target, x)
    log_density(target.with_data({"X": 2.0 * X}), x)
    log_density(target.with_data({"y": -Y}), x)
    assert traces == 1


def test_data_of_another_length(getkey):
    with pm.Model(coords={"row": list("abcde")}) as model:
        x = pm.Data("X", X[:5], dims=("row", "coef"))
        y = pm.Data("Y", Y[:5], dims="row")
        beta = pm.Normal("beta", 0.0, 1.0, shape=3)
        local = pm.Normal("local", 0.0, 1.0, dims="row")
        pm.Normal("y", x @ beta + local, 1.0, observed=y, dims="row")
    target = from_pymc(model)
    longer = target.with_data({"X": X, "Y": Y})
    assert target.dim == 8
    assert longer.dim == 23
    point = near_start(longer, getkey())
    params = longer.constrain(point)
    expected = -0.5 * (
        jnp.sum((Y - X @ params["beta"] - params["local"]) ** 2)
        + jnp.sum(params["beta"] ** 2)
        + jnp.sum(params["local"] ** 2)
        + 43 * np.log(2 * np.pi)
    )
    np.testing.assert_allclose(longer.log_density(point), expected, rtol=1e-9)
    labels = target.model.labels(target.data)
    assert labels.coords["row"] == list("abcde")
    assert longer.model.labels(longer.data).coords["row"] == list(range(20))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"z": Y}, "'y', 'X'"),
        (Y, "dictionary"),
        ({"X": Y}, "2 axes"),
        ({"y": Y[:5]}, "constant of the model"),
        ({"X": np.zeros((7, 3))}, "fit together"),
        ({"X": np.full((20, 3), np.nan)}, "NaN"),
    ],
)
def test_wrong_data(data, message):
    with pytest.raises(ValueError, match=message):
        from_pymc(regression()).with_data(data)


def test_large_constants_are_data():
    big = rng.normal(size=(2_000, 2))
    with pm.Model() as model:
        beta = pm.Normal("beta", 0.0, 1.0, shape=2)
        group = np.repeat(np.arange(2), 1_000)
        pm.Normal("y", big @ beta + beta[group], 1.0, observed=big[:, 0])
    target = from_pymc(model)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(target.data)) == [
        (2_000,),
        (2_000,),
        (2_000, 2),
    ]
    program = jax.make_jaxpr(lambda t, x: t.model.log_density(x, t.data, 1.0))(
        target, jnp.zeros(2)
    )
    assert all(np.size(const) < 1_000 for const in program.consts)


def minibatched(batch_size=10, total_size: int | None = 20):
    with pm.Model() as model:
        x = pm.Data("X", X)
        some_x, some_y = pm.Minibatch(x, Y, batch_size=batch_size)
        beta = pm.Normal("beta", 0.0, 1.0, shape=3)
        sigma = pm.HalfNormal("sigma", 1.0)
        pm.Normal("y", some_x @ beta, sigma, observed=some_y, total_size=total_size)
    return model


def test_batches_average_to_the_whole(getkey):
    target = from_pymc(minibatched(5))
    assert target.data.keys() == {"X", "y"}
    key, x = getkey(), near_start(target, getkey())
    whole = from_pymc(_regression_of(X, Y)).log_density(x)
    np.testing.assert_allclose(target.log_density(x), whole, rtol=1e-9)
    of_step = jax.jit(lambda target, i: target.batch(key, i).log_density(x))
    batches = np.array([of_step(target, i) for i in range(4)])
    assert np.ptp(batches) > 0.1
    np.testing.assert_allclose(batches.mean(), whole, rtol=1e-9)
    again = target.with_batch_size(10)
    batches = np.array([of_step(again, i) for i in range(2)])
    np.testing.assert_allclose(batches.mean(), whole, rtol=1e-9)
    assert target.with_batch_size(None).minibatch is None
    moved = target.with_data({"X": 2.0 * X})
    batches = np.array([of_step(moved, i) for i in range(4)])
    expected = from_pymc(_regression_of(2.0 * X, Y)).log_density(x)
    np.testing.assert_allclose(batches.mean(), expected, rtol=1e-9)


def test_rows_of_a_minibatch_are_not_scaled(getkey):
    target = from_pymc(minibatched(5, total_size=2_000))
    plain = from_pymc(_regression_of(X, Y))
    params = plain.constrain(near_start(plain, getkey()))
    found = target.model.log_likelihood(params, target.data)
    expected = plain.model.log_likelihood(params, plain.data)
    assert tree_allclose(found, expected)


def test_batches_of_other_lengths():
    with pm.Model() as model:
        x = pm.Minibatch(pm.Data("x", Y), batch_size=5)
        pm.Normal("y", pm.Normal("mu", 0.0, 1.0), 1.0, observed=x, total_size=20)
    with pytest.raises(ValueError, match="20 rows.* have 7 now"):
        from_pymc(model).with_data({"x": Y[:7]})


@pytest.mark.slow
def test_fits_of_new_data_do_not_compile_again(getkey):
    target = from_pymc(minibatched(5))
    method = vi.Descent(vi.ELBO(num_draws=4), optax.adam(1e-2))
    key = getkey()
    run = lambda target: vi.fit(target, method, vi.MeanField, key=key, max_steps=20)
    run(target)
    other = target.with_data({"X": 2.0 * X})
    assert _count_compiles(lambda: run(other)) == 0


def _count_compiles(fn):
    """How often XLA is called."""
    events = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        fn()
    finally:
        jax.monitoring.clear_event_listeners()
    return sum("backend_compile" in name for name in events)


def test_minibatch_without_total_size():
    with pytest.warns(UserWarning, match="total_size"):
        model = minibatched(total_size=None)
    with pytest.raises(ValueError, match="total_size"):
        from_pymc(model)


def test_batches_of_a_model_without_them():
    with pytest.raises(ValueError, match="pm.Minibatch"):
        from_pymc(regression()).with_batch_size(5)


def test_local_variables_cannot_be_in_batches():
    with pm.Model() as model:
        y = pm.Minibatch(Y, batch_size=5)
        local = pm.Normal("local", 0.0, 1.0, shape=5)
        pm.Normal("y", local, 1.0, observed=y, total_size=20)
    with pytest.raises(ValueError, match="free variable cannot belong"):
        from_pymc(model)


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
