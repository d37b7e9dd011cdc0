"""PyMC models: their data are arguments, whole or in batches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vijax as vi
from vijax._frontend.pymc import from_pymc

from ..helpers import tree_allclose
from .pymc_models import minibatched, near_start, pm, regression, rng, X, Y


# PyTensor's own compilation warns where there is no BLAS, or of how others set it up.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytensor")


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
