"""Bad input to draws, and to what is estimated from them."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from ..bad_input import at_once_tests, fit, on_the_way_tests, target


pytestmark = pytest.mark.usefixtures("as_for_users")


at_once = {
    "expectation: no draws": (
        lambda key: vi.expectation({"x": np.ones(3)}, lambda params: params["x"]),
        r"`draws` must be a `vi\.Draws`.*dict",
    ),
}


test_fails_before_anything_compiles = at_once_tests(at_once)


on_the_way = {
    "expectation: one draw": (
        lambda key: vi.expectation(
            vi.draw(vi.MeanField(jnp.zeros(2)), target(), 1, key=key),
            lambda params: params["x"],
        ),
        "at least 2 draws.*only 1",
    ),
    "draw: dim": (
        lambda key: vi.draw(vi.MeanField(jnp.zeros(3)), target(), 10, key=key),
        "`family` has 3 coordinates but `target` has 2",
    ),
    "draw: none": (
        lambda key: vi.draw(vi.MeanField(jnp.zeros(2)), target(), 0, key=key),
        "`num_draws` must be a whole number of at least 1.*0",
    ),
    "draw: float": (
        lambda key: vi.draw(vi.MeanField(jnp.zeros(2)), target(), 10.0, key=key),
        "`num_draws` must be a whole number of at least 1.*10.0",
    ),
    "draw: key is an integer": (
        lambda key: vi.draw(vi.MeanField(jnp.zeros(2)), target(), 10, key=0),
        "`key` must be a JAX random key",
    ),
    "draw: key is an array of keys": (
        lambda key: vi.draw(
            vi.MeanField(jnp.zeros(2)), target(), 10, key=jr.split(key, 2)
        ),
        "`key` must be one key",
    ),
}


test_fails_in_words = on_the_way_tests(on_the_way)


def test_khat_of_weights_that_are_not_finite(getkey):
    half = vi.from_log_density(lambda params: jnp.log(params["x"]), {"x": vi.Param()})
    draws = vi.draw(vi.MeanField(jnp.zeros(1)), half, 100, key=getkey())
    with pytest.raises(ValueError, match=r"of 100 log weights are NaN.*supports"):
        vi.pareto_khat(draws)


first_mean = lambda draws: vi.expectation(draws, lambda params: params["x"])


@pytest.mark.parametrize("use", [vi.elbo, vi.pareto_khat, vi.to_arviz, first_mean])
def test_a_fit_is_not_draws(use, getkey):
    run = fit(getkey(), max_steps=0)
    with pytest.raises(ValueError, match="must be a `vi.Draws`, but it is a Fit"):
        use(run)
