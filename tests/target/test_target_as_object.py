"""Targets, fits and draws as objects: what they print, and as functions for `jax.jit`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vijax as vi


def _many():
    params = {f"coefficient_{i}": vi.Param(3) for i in range(40)}
    data = {f"column_{i}": np.ones(20) for i in range(40)}
    return vi.from_likelihood(
        lambda params: -0.5 * optax.tree.norm(params, squared=True),
        lambda params, rows: rows["column_0"] * params["coefficient_0"][0],
        params,
        data,
        batch_size=5,
    )


def test_what_is_printed_is_short(getkey):
    target = _many()
    fit = vi.fit(target, "advi", key=getkey(), max_steps=3, progress=False)
    draws = fit.draw(5, key=getkey(), corrected=False)
    for thing in (target, target.batch(getkey()), fit, draws):
        text = repr(thing)
        assert len(text.splitlines()) <= 10
        assert len(text) < 1_000
    assert "ParamModel of dim 120" in repr(target)
    assert "coefficient_0 (3,)" in repr(target)
    assert "and 32 more" in repr(target)
    assert "batches of 5" in repr(target)
    assert "5 draws" in repr(draws)


def test_what_is_printed_under_a_trace(getkey):
    @jax.jit
    def run(x, key):
        target = vi.from_log_density(
            lambda p, y: -jnp.sum((p["x"] - y) ** 2), {"x": 0.0}, x
        )
        draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 3, key=key)
        assert "data (4,)" in repr(target)
        assert "3 draws" in repr(draws)
        return draws.x

    run(jnp.ones(4), getkey())


@pytest.mark.parametrize("name", ["log_density", "constrain", "unravel"])
def test_methods_of_a_target_go_into_jit(name, getkey):
    target, x = _many(), jax.random.normal(getkey(), (120,))
    method = getattr(target, name)
    expected, found = method(x), jax.jit(method)(x)
    assert jax.tree.all(jax.tree.map(jnp.allclose, found, expected))


def test_jit_tells_targets_apart(getkey):
    target, x = _many(), jnp.ones(120)
    other = target.with_data(jax.tree.map(lambda leaf: 2.0 * leaf, target.data))
    first, second = jax.jit(target.log_density)(x), jax.jit(other.log_density)(x)
    np.testing.assert_allclose(second - first, 20.0, rtol=1e-9)


def test_methods_go_into_jit_under_a_trace():
    @jax.jit
    def run(y):
        target = vi.from_log_density(
            lambda p, y: -jnp.sum((p["x"] - y) ** 2), {"x": 0.0}, y
        )
        first = jax.jit(target.log_density)(jnp.zeros(1))
        return first + jax.jit(target.log_density)(jnp.ones(1))

    np.testing.assert_allclose(run(jnp.ones(4)), -4.0)


def test_a_method_of_a_target_is_a_pytree_of_its_data():
    traces = 0

    def log_density(params, y):
        nonlocal traces
        traces += 1
        return -jnp.sum((params["x"] - y) ** 2)

    target = vi.from_log_density(log_density, {"x": 0.0}, np.ones(3))
    run = eqx.filter_jit(lambda method, x: method(x))
    assert run(target.log_density, jnp.zeros(1)) == -3.0
    before = traces
    other = target.with_data(np.full(3, 2.0))
    assert run(other.log_density, jnp.zeros(1)) == -12.0
    assert traces == before


def test_methods_of_a_family_go_into_jit(getkey):
    family = vi.FullRank(jnp.zeros(3))
    x = jax.jit(family.sample)(getkey())
    np.testing.assert_allclose(jax.jit(family.log_prob)(x), family.log_prob(x))
