import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpyro.distributions import constraints

import vijax as vi


def without_data(params):
    return -0.5 * jnp.sum(params["x"] ** 2)


def with_data(params, data):
    return -0.5 * jnp.sum(((params["x"] - data["loc"]) / data["scale"]) ** 2)


def example_data():
    return {"loc": np.array([1.0, -1.0, 0.0]), "scale": np.array([1.0, 2.0, 0.5])}


def fit(target, key):
    method = vi.Descent(vi.ELBO(), optax.adam(0.05))
    return vi.fit(target, method, key=key, max_steps=3, progress=False)


def test_without_data():
    target = vi.from_log_density(without_data, {"x": vi.Param(3)})
    assert target.dim == 3
    assert target.data is None
    assert target.log_density(jnp.array([1.0, 2.0, 3.0])) == -7.0


def test_with_data():
    data = example_data()
    target = vi.from_log_density(with_data, {"x": vi.Param(3)}, data)
    assert target.dim == 3
    assert np.allclose(target.log_density(jnp.zeros(3)), -0.5 * (1 + 0.25), rtol=1e-12)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(target.data))
    assert eqx.tree_equal(jax.tree.map(np.asarray, target.data), data)


def test_data_of_any_shape():
    # There are no rows here: scalars, and leaves of different lengths, are welcome.
    fn = lambda params, data: -(params["x"] ** 2) * data[0] + jnp.sum(data[1])
    target = vi.from_log_density(fn, {"x": vi.Param()}, (2.0, np.ones((3, 2)), None))
    assert target.log_density(jnp.array([3.0])) == -12.0


def test_a_batch_of_no_minibatch_is_the_target(getkey):
    target = vi.from_log_density(with_data, {"x": vi.Param(3)}, example_data())
    assert eqx.tree_equal(target.batch(getkey()), target)


# {name: (an example, where the run starts)}.
examples = {
    "python float": (2.5, [2.5]),
    "list": ([1.0, 2.0], [1.0, 2.0]),
    "numpy scalar": (np.float64(2.5), [2.5]),
    "numpy": (np.array([1.0, 2.0]), [1.0, 2.0]),
    "jax": (jnp.array([1.0, 2.0]), [1.0, 2.0]),
    "matrix": (np.array([[1.0, 2.0], [3.0, 4.0]]), [1.0, 2.0, 3.0, 4.0]),
}


@pytest.mark.parametrize("name", examples)
def test_an_example_array_is_a_start(name):
    example, start = examples[name]
    target = vi.from_log_density(without_data, {"x": example})
    assert target.dim == len(start)
    assert target.model.initial().dtype == jnp.float64
    assert np.array_equal(target.model.initial(), start)
    values = target.constrain(target.model.initial())["x"]
    assert values.shape == np.shape(example)
    assert np.array_equal(values, example)
    # On all of the reals: no Jacobian.
    x = jnp.asarray(start)
    assert np.allclose(target.log_density(-x), -0.5 * jnp.sum(x**2), rtol=1e-12)


def test_examples_and_params_mix():
    fn = lambda params: params["b"] * params["a"][0] - params["c"] ** 2
    params = {
        "c": 0.5,
        "a": np.array([1.0, 2.0]),
        "b": vi.Param(support=constraints.positive),
    }
    target = vi.from_log_density(fn, params)
    x = target.model.initial()
    assert np.array_equal(x, [0.5, 1.0, 2.0, 0.0])
    assert np.allclose(target.log_density(x), 0.75, rtol=1e-12)


# {name: (parameters, the dtype of the model)}.
dtypes = {
    "params": (lambda: {"x": vi.Param(2)}, np.float64),
    "python floats": (lambda: {"x": 1.0}, np.float64),
    "float32": (lambda: {"x": np.ones(2, np.float32)}, np.float32),
    "float32 of jax": (lambda: {"x": jnp.ones(2, jnp.float32)}, np.float32),
    "float32 and param": (
        lambda: {"x": np.ones(2, np.float32), "y": vi.Param()},
        np.float32,
    ),
    "float32 and python float": (
        lambda: {"x": np.ones(2, np.float32), "y": 1.0},
        np.float32,
    ),
    "float32 and float64": (
        lambda: {"x": np.ones(2, np.float32), "y": np.ones(2)},
        np.float64,
    ),
    "float64": (lambda: {"x": np.ones(2)}, np.float64),
}


@pytest.mark.parametrize("name", dtypes)
def test_dtypes(name):
    make, dtype = dtypes[name]
    seen = []

    def log_density(params):
        seen.extend(leaf.dtype for leaf in jax.tree.leaves(params))
        squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)]
        return -functools.reduce(jnp.add, squares)

    target = vi.from_log_density(log_density, make())
    x = target.model.initial()
    assert x.dtype == dtype
    value, grad = jax.value_and_grad(target.log_density)(x)
    assert value.dtype == grad.dtype == dtype
    # The function is checked with the dtype that it is called with.
    assert set(seen) == {np.dtype(dtype)}
    assert all(v.dtype == dtype for v in jax.tree.leaves(target.constrain(x)))


def test_a_fit_has_the_dtype_of_its_target(getkey):
    target = vi.from_log_density(without_data, {"x": np.ones(2, np.float32)})
    run = fit(target, getkey())
    assert run.family.mean.dtype == run.losses.dtype == jnp.float32
    draws = run.draw(5, key=getkey())
    assert draws.x.dtype == draws.log_p.dtype == draws.params["x"].dtype == jnp.float32


def test_a_fit_starts_at_the_example(getkey):
    target = vi.from_log_density(without_data, {"x": np.array([3.0, -4.0])})
    run = vi.fit(target, key=getkey(), max_steps=0, progress=False)
    assert np.array_equal(run.mean["x"], [3.0, -4.0])


def test_with_new_data():
    target = vi.from_log_density(with_data, {"x": vi.Param(3)}, example_data())
    new = {"loc": np.full(3, 2.0), "scale": np.ones(3)}
    other = target.with_data(new)
    assert np.allclose(other.log_density(jnp.zeros(3)), -6.0, rtol=1e-12)
    assert np.allclose(target.log_density(jnp.zeros(3)), -0.625, rtol=1e-12)
    # Of other shapes too, where the function takes them.
    scalars = target.with_data({"loc": 2.0, "scale": 1.0})
    assert np.allclose(scalars.log_density(jnp.zeros(3)), -6.0, rtol=1e-12)


def test_a_target_is_a_pytree_whose_leaves_include_the_data():
    target = vi.from_log_density(with_data, {"x": vi.Param(3)}, example_data())
    arrays = [leaf for leaf in jax.tree.leaves(target) if eqx.is_array(leaf)]
    for leaf in jax.tree.leaves(target.data):
        assert any(leaf is other for other in arrays)
    doubled = eqx.tree_at(
        lambda target: target.data["loc"], target, replace_fn=lambda loc: 2 * loc
    )
    expected = -0.5 * (4.0 + 1.0)
    assert np.allclose(doubled.log_density(jnp.zeros(3)), expected, rtol=1e-12)


def test_through_jit():
    target = vi.from_log_density(with_data, {"x": vi.Param(3)}, example_data())
    num_traces = 0

    @eqx.filter_jit
    def evaluate(target, x):
        nonlocal num_traces
        num_traces += 1
        return target.log_density(x)

    x = jnp.arange(3.0)
    new = target.with_data({"loc": np.zeros(3), "scale": np.ones(3)})
    assert np.allclose(evaluate(target, x), target.log_density(x), rtol=1e-12)
    # Data are arguments, no constants.
    assert np.allclose(evaluate(new, x), -2.5, rtol=1e-12)
    assert num_traces == 1


def test_through_vmap_and_grad(getkey):
    target = vi.from_log_density(with_data, {"x": vi.Param(3)}, example_data())
    x = jr.normal(getkey(), (4, 3))
    values = jax.vmap(target.log_density)(x)
    assert np.allclose(values, [target.log_density(row) for row in x], rtol=1e-12)
    loc, scale = example_data()["loc"], example_data()["scale"]
    grads = jax.vmap(jax.grad(target.log_density))(x)
    assert np.allclose(grads, (loc - np.asarray(x)) / scale**2, rtol=1e-12)
    # Over data, and with respect to them.
    locs = jr.normal(getkey(), (4, 3))
    of_loc = lambda loc: target.with_data({"loc": loc, "scale": scale}).log_density(x[0])
    expected = [of_loc(loc) for loc in locs]
    assert np.allclose(jax.vmap(of_loc)(locs), expected, rtol=1e-12)
    by_loc = jax.grad(of_loc)(jnp.asarray(loc))
    assert np.allclose(by_loc, (x[0] - loc) / scale**2, rtol=1e-12)


def test_stacked_targets_through_filter_vmap(getkey):
    locs = jr.normal(getkey(), (4, 3))
    make = lambda loc: vi.from_log_density(
        with_data, {"x": vi.Param(3)}, {"loc": loc, "scale": jnp.ones(3)}
    )
    stacked = eqx.filter_vmap(make)(locs)
    values = eqx.filter_vmap(lambda target: target.log_density(jnp.zeros(3)))(stacked)
    assert np.allclose(values, -0.5 * np.sum(np.asarray(locs) ** 2, axis=1), rtol=1e-12)


# Fresh parameters each time, as from two calls of a user's own function.
parameters = {
    "interval": lambda: {
        "x": vi.Param(3, constraints.interval(-9.0, 9.0), initial=np.ones(3))
    },
    "array bounds": lambda: {
        "x": vi.Param(3, constraints.interval(-9.0 * np.ones(3), 9.0 * np.ones(3)))
    },
}


@pytest.mark.parametrize("name", parameters)
def test_new_data_are_not_traced_again(name, getkey):
    num_traces = 0

    def log_density(params, data):
        nonlocal num_traces
        num_traces += 1
        return with_data(params, data)

    target = vi.from_log_density(log_density, parameters[name](), example_data())
    first = fit(target, getkey())
    traces_of_first = num_traces
    assert traces_of_first >= 1
    # By either way to new data.
    new = {"loc": np.full(3, 2.0), "scale": np.ones(3)}
    second = fit(target.with_data(new), getkey())
    assert num_traces == traces_of_first
    newer = {"loc": np.full(3, -2.0), "scale": np.ones(3)}
    target = vi.from_log_density(log_density, parameters[name](), newer)
    third = fit(target, getkey())
    assert num_traces == traces_of_first
    assert not np.array_equal(first.losses, second.losses)
    assert not np.array_equal(second.losses, third.losses)


def test_new_data_are_seen_by_the_second_fit(getkey):
    # The counterpart of the test above: nothing of the first data is left over.
    key = getkey()
    old = vi.from_log_density(with_data, {"x": vi.Param(3)}, example_data())
    new = {"loc": np.full(3, 2.0), "scale": np.ones(3)}
    reused = fit(old.with_data(new), key)
    fresh = fit(vi.from_log_density(with_data, {"x": vi.Param(3)}, new), key)
    assert np.array_equal(reused.losses, fresh.losses)
    assert not np.array_equal(reused.losses, fit(old, key).losses)


def test_a_constant_log_density_is_taken():
    # A flat one, which a fit then finds to be improper.
    constant: Any = lambda params: 0.0
    target = vi.from_log_density(constant, {"x": vi.Param()})
    assert target.log_density(jnp.ones(1)) == 0
