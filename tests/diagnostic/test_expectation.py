import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro.distributions import constraints

import vijax as vi

from ..helpers import diagonal_target, DIM, LOC, SCALE


def exact_draws(num_draws, key):
    family = vi.MeanField(jnp.array(LOC), jnp.array(SCALE))
    return vi.draw(family, diagonal_target(), num_draws, key=key)


def test_mean_and_standard_error(getkey):
    draws = exact_draws(200, getkey())
    x = np.asarray(draws.params["x"])
    got = vi.expectation(draws, lambda params: params["x"] ** 2)
    assert isinstance(got, vi.Estimate)
    assert got.mean.shape == got.stderr.shape == (DIM,)
    assert np.allclose(got.mean, np.mean(x**2, axis=0), rtol=1e-12)
    stderr = np.sqrt(np.sum((x**2 - np.mean(x**2, axis=0)) ** 2, axis=0) / 199 / 200)
    assert np.allclose(got.stderr, stderr, rtol=1e-12)


def test_it_is_of_the_parameters_inside_their_supports(getkey):
    target = vi.from_log_density(
        lambda params: -params["rate"], {"rate": vi.Param((), constraints.positive)}
    )
    draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 100, key=getkey())
    got = vi.expectation(draws, lambda params: params["rate"])
    assert np.allclose(got.mean, np.mean(np.exp(draws.x[:, 0])), rtol=1e-12)


def test_any_pytree_and_dtype(getkey):
    draws = exact_draws(500, getkey())
    x = np.asarray(draws.params["x"])
    got = vi.expectation(
        draws,
        lambda params: {
            "is positive": params["x"] > 0,
            "rounded": (jnp.round(params["x"][0]).astype(jnp.int32), params["x"][1:]),
            "outer": params["x"][:, None] * params["x"][None],
            "small": params["x"].astype(jnp.float32),
        },
    )
    assert jax.tree.structure(got.mean) == jax.tree.structure(got.stderr)
    share = np.mean(x > 0, axis=0)
    assert got.mean["is positive"].dtype == jnp.float64
    assert np.allclose(got.mean["is positive"], share)
    binomial = np.sqrt(share * (1 - share) / 499)
    assert np.allclose(got.stderr["is positive"], binomial, rtol=1e-10)
    rounded, rest = got.mean["rounded"]
    assert rounded.shape == ()
    assert np.allclose(rounded, np.mean(np.round(x[:, 0])))
    assert rest.shape == (DIM - 1,)
    assert got.mean["outer"].shape == got.stderr["outer"].shape == (DIM, DIM)
    assert np.allclose(got.mean["outer"], x.T @ x / 500)
    assert got.mean["small"].dtype == got.stderr["small"].dtype == jnp.float32
    assert np.allclose(got.mean["small"], np.mean(x, axis=0), atol=1e-5)


def test_other_data_are_swapped_in_without_another_trace(getkey):
    draws, traces = exact_draws(40, getkey()), 0

    def predict(params, inputs, power):
        nonlocal traces
        traces += 1
        return (inputs @ params["x"]) ** power

    for rows in (jnp.ones((5, DIM)), jnp.arange(15.0).reshape(5, DIM)):
        got = vi.expectation(draws, predict, rows, 2)
        x = np.asarray(draws.x)
        assert np.allclose(got.mean, np.mean((x @ np.asarray(rows).T) ** 2, axis=0))
    assert traces == 1


def test_the_truth_is_within_two_standard_errors(getkey):
    # 95.4 % of the time; of 200 x 3 estimates 5 standard errors of that are 4 points.
    def errors(key):
        got = vi.expectation(exact_draws(400, key), lambda params: params["x"])
        return (got.mean - jnp.array(LOC)) / got.stderr

    z = jax.vmap(errors)(jr.split(getkey(), 200))
    covered = jnp.mean(jnp.abs(z) < 2)
    assert 0.91 < covered < 0.99
    assert 0.85 < jnp.std(z) < 1.15


def test_a_probability_of_one_has_no_error(getkey):
    got = vi.expectation(exact_draws(50, getkey()), lambda params: params["x"][0] < 1e9)
    assert got.mean == 1
    assert got.stderr == 0


def test_of_particles(getkey):
    particles = vi.Particles(jr.normal(getkey(), (30, DIM)))
    draws = vi.draw(particles, diagonal_target(), 20_000, key=getkey())
    got = vi.expectation(draws, lambda params: params["x"])
    assert jnp.all(jnp.abs(got.mean - particles.mean) < 5 * got.stderr)
    assert jnp.allclose(got.stderr, particles.std / 20_000**0.5, rtol=0.05)


def test_inside_jit(getkey):
    draws = exact_draws(100, getkey())
    fn = lambda params: params["x"]
    got = eqx.filter_jit(lambda draws: vi.expectation(draws, fn))(draws)
    want = vi.expectation(draws, fn)
    assert np.allclose(got.mean, want.mean, rtol=1e-12)
    assert np.allclose(got.stderr, want.stderr, rtol=1e-12)


def test_too_few_draws(getkey):
    draws = exact_draws(1, getkey())
    with pytest.raises(ValueError, match="at least 2 draws.*only 1.*fit.draw"):
        vi.expectation(draws, lambda params: params["x"])
    two = vi.expectation(exact_draws(2, getkey()), lambda params: params["x"])
    assert jnp.all(jnp.isfinite(two.stderr) & (two.stderr > 0))
