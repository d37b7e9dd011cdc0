import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import vijax as vi

from ..helpers import diagonal_target


NEVER = -1


@eqx.filter_jit
def first_stop(stop, losses):
    """The number of steps after which a rule first fires on a series of losses."""
    family = vi.MeanField(jnp.zeros(1), scale=1.0)

    def step(state, loss_and_step):
        loss, num_steps = loss_and_step
        return stop.update(state, num_steps, loss, family)

    steps = jnp.arange(1, losses.size + 1, dtype=jnp.int32)
    _, met = lax.scan(step, stop.init(family), (losses, steps))
    return jnp.where(jnp.any(met), jnp.argmax(met) + 1, NEVER)


def many(stop, make, getkey, num_series=100):
    keys = jr.split(getkey(), num_series)
    return np.asarray(jax.vmap(lambda key: first_stop(stop, make(key)))(keys))


# The slowest improves by 0.22 noise standard deviations a window, 0.1 being none.
@pytest.mark.parametrize("slope", [1.0, 0.01, 0.001, 2.2e-4])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["improving", "diverging"])
def test_loss_convergence_never_fires_on_a_steady_trend(slope, sign, getkey):
    t = jnp.arange(20_000.0)
    series = lambda key: -sign * slope * t + jr.normal(key, t.shape)
    assert np.all(many(vi.LossConvergence(), series, getkey) == NEVER)


def test_loss_convergence_never_fires_on_a_slowing_improvement(getkey):
    # Each doubling of the time improves the loss by ten noise standard deviations: over
    # a window of 1,000 at the end, by 0.7 of one.
    t = jnp.arange(1.0, 20_001.0)
    series = lambda key: -10 * jnp.log2(t) + jr.normal(key, t.shape)
    assert np.all(many(vi.LossConvergence(), series, getkey) == NEVER)


def test_loss_convergence_fires_soon_after_a_plateau(getkey):
    # The improvement goes on for 3,000 steps; two windows must pass after that.
    t = jnp.arange(20_000.0)
    trend = 0.05 * jnp.maximum(3_000 - t, 0.0)
    series = lambda key: trend + jr.normal(key, t.shape)
    fired = many(vi.LossConvergence(), series, getkey)
    assert np.all(fired >= 4_500)
    assert np.median(fired) < 5_500
    assert np.all((fired != NEVER) & (fired < 9_000))


def test_loss_convergence_does_not_depend_on_scale_and_shift(getkey):
    t = jnp.arange(10_000.0)
    losses = 5 * jnp.exp(-t / 800) + jr.normal(getkey(), t.shape)
    fired = int(first_stop(vi.LossConvergence(), losses))
    assert fired > 0
    for scale, shift in [(1e6, 0.0), (1e-6, 0.0), (1.0, 1e6), (1e3, -1e5)]:
        assert int(first_stop(vi.LossConvergence(), scale * losses + shift)) == fired


def test_loss_convergence_in_float32_on_a_large_loss(getkey):
    t = jnp.arange(10_000)
    noise = jr.normal(getkey(), t.shape, jnp.float32)
    losses = jnp.float32(1.5e5) + 1e3 * noise
    fired = int(first_stop(vi.LossConvergence(), losses))
    assert 2_000 <= fired < 5_000


@pytest.mark.slow
def test_loss_convergence_with_heavy_tails_does_not_stop_an_improvement(getkey):
    t = jnp.arange(20_000.0)
    series = lambda key: -0.01 * t + jr.t(key, 2.0, t.shape)
    assert np.all(many(vi.LossConvergence(), series, getkey) == NEVER)


def test_loss_convergence_on_losses_without_noise(getkey):
    stop = vi.LossConvergence()
    t = jnp.arange(10_000.0)
    assert int(first_stop(stop, jnp.exp(-t / 5_000))) == NEVER
    assert int(first_stop(stop, jnp.full(5_000, 3.0))) == 2_000


def test_loss_convergence_waits_for_two_windows(getkey):
    stop = vi.LossConvergence(window=2_000, tolerance=0.2)
    fired = many(stop, lambda key: jr.normal(key, (10_000,)), getkey)
    assert np.min(fired) == 4_000


def _series_of_parameters(stop, locs):
    """Where a rule fires on a sequence of families."""
    state = stop.init(vi.MeanField(jnp.array(locs[0]), scale=1.0))
    for num_steps, loc in enumerate(locs[1:], start=1):
        family = vi.MeanField(jnp.array(loc), scale=1.0)
        state, met = stop.update(state, jnp.int32(num_steps), jnp.array(0.0), family)
        if met:
            return num_steps
    return NEVER


def test_parameter_convergence_is_pymc_s_formula():
    # The parameters are (loc, log scale = 0). Absolute: 1, .5, .05 at steps 2, 4, 6.
    locs = [[9.0], [2.0], [1.0], [7.0], [1.5], [7.0], [1.55]]
    rule = lambda **kwargs: vi.ParameterConvergence(every=2, **kwargs)
    assert _series_of_parameters(rule(diff="absolute", tolerance=0.06), locs) == 6
    assert _series_of_parameters(rule(diff="absolute", tolerance=0.51), locs) == 4
    # As PyMC, the first comparison is with the parameters after the first step: |1 - 2|.
    assert _series_of_parameters(rule(diff="absolute", tolerance=1.01), locs) == 2
    assert _series_of_parameters(rule(diff="absolute", tolerance=0.04), locs) == NEVER
    # Relative: log scale stays at zero, where (0 + 1e-6) / (0 + 1e-6) = 1.
    assert _series_of_parameters(rule(tolerance=0.99), locs) == NEVER
    assert _series_of_parameters(rule(tolerance=1.01), locs) == 2
    # ... and |1.05 - 1.5| / 1.5 is 1/30 for the location: norms of (1/30, 1).
    two = lambda tol: _series_of_parameters(rule(tolerance=tol, ord=1), locs)
    assert two(1 + 1 / 30 + 1e-3) == 6
    assert two(1 + 1 / 30 - 1e-3) == NEVER


@pytest.mark.parametrize(
    "stop",
    [
        vi.ParameterConvergence(tolerance=0.02, diff="absolute"),
        vi.LossConvergence(window=500, tolerance=0.2),
    ],
    ids=["parameters", "loss"],
)
def test_a_rule_ends_a_fit(stop, getkey):
    method = vi.Descent(vi.StickTheLanding(), optax.adam(0.02))
    fit = vi.fit(diagonal_target(), method, key=getkey(), stop=stop, progress=False)
    assert fit.result == vi.RESULTS.converged
    assert 100 <= fit.num_steps < 10_000
    assert len(fit.losses) == fit.num_steps
    without = vi.fit(
        diagonal_target(),
        method,
        key=getkey(),
        stop=vi.ParameterConvergence(),
        max_steps=500,
        progress=False,
    )
    assert without.result == vi.RESULTS.max_steps
