import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import pytest

import vijax as vi

from ..helpers import diagonal_target


NEVER = -1


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


# Each parameter in its own unit.


SIZES = jnp.array([[1e-6, 1.0, 1e6]])


@eqx.filter_jit
def stopped(stop, locs):
    """Where a rule fires on the locations of a family, the first being the start."""
    family = lambda loc: vi.MeanField(loc, scale=1.0)

    def step(state, inputs):
        num_steps, loc = inputs
        return stop.update(state, num_steps, jnp.array(0.0), family(loc))

    steps = jnp.arange(1, len(locs), dtype=jnp.int32)
    _, met = jax.lax.scan(step, stop.init(family(locs[0])), (steps, locs[1:]))
    return jnp.where(jnp.any(met), jnp.argmax(met) + 1, NEVER)


def _approach(key, num_steps=8_000):
    """From one to zero within 2,000 steps, with a jitter as that of an optimizer."""
    noise = lambda old, new: (0.9 * old + new, 0.9 * old + new)
    shocks = jr.normal(key, (num_steps, 3))
    _, jitter = jax.lax.scan(noise, jnp.zeros(3), shocks)
    time = jnp.arange(float(num_steps))[:, None]
    return jnp.maximum(1 - time / 2_000, 0.0) + 0.01 * jitter


def test_a_scaled_change_has_no_units(getkey):
    scaled = vi.ParameterConvergence(every=500, tolerance=0.5, diff="scaled")
    locs = _approach(getkey())
    found = int(stopped(scaled, locs))
    assert 3_000 <= found <= 4_500
    assert int(stopped(scaled, SIZES * locs)) == found
    assert int(stopped(scaled, -1e3 * locs)) == found
    # One is near zero, and one is large.
    relative = vi.ParameterConvergence(every=500, tolerance=0.5)
    assert int(stopped(relative, SIZES * locs)) == NEVER
    absolute = vi.ParameterConvergence(every=500, tolerance=0.5, diff="absolute")
    assert int(stopped(absolute, SIZES * locs)) == NEVER


def test_a_scaled_change_sees_a_drift_and_an_end_without_jitter(getkey):
    scaled = vi.ParameterConvergence(every=100, tolerance=0.5, diff="scaled")
    time = jnp.arange(5_000.0)[:, None]
    assert int(stopped(scaled, 1e-9 * time + jnp.zeros((1, 3)))) == NEVER
    drift = 0.03 * time + jr.normal(getkey(), (5_000, 3))
    assert int(stopped(scaled, drift)) == NEVER
    assert int(stopped(scaled, jnp.zeros((500, 3)))) == 200
    # To six digits, or to zero.
    assert (
        1_000 < int(stopped(scaled, 1 + jnp.exp(-time / 100) + jnp.zeros((1, 3)))) < 2_000
    )
    with pytest.raises(ValueError, match="`every` must be a whole number of at least 2"):
        vi.ParameterConvergence(every=1, diff="scaled")


def test_a_scaled_rule_ends_a_fit(getkey):
    method = vi.Descent(vi.ELBO(), optax.adam(0.02))
    stop = vi.ParameterConvergence(every=500, tolerance=1.0, diff="scaled")
    fit = vi.fit(diagonal_target(), method, key=getkey(), stop=stop, progress=False)
    assert fit.result == vi.RESULTS.converged


def test_moments_of_point_estimates_settle_by_a_part_of_themselves():
    stop = vi.MomentConvergence(tolerance=0.05, first=1)
    family = lambda value: vi.PointEstimates(
        vi.MeanField(jnp.zeros(2)), jnp.array([value]), (1,)
    )

    def met(values):
        state, done = stop.init(family(values[0])), False
        for value, step in zip(values, (1, 2, 3), strict=True):
            step = jnp.array(step, jnp.int32)
            state, done = stop.update(state, step, jnp.zeros(()), family(value))
        return bool(done)

    # Within a twentieth of a tenth of the estimate, or of one where it is small.
    assert met([20.0, 20.09, 20.0])
    assert not met([20.0, 20.11, 20.0])
    assert met([0.1, 0.1045, 0.1])
    assert not met([0.1, 0.1055, 0.1])
