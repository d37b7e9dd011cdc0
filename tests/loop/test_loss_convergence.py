"""`vi.LossConvergence` on losses of a known end: not before it, and soon after it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from .loss_traces import (
    falling,
    first_stop,
    HELD_OUT,
    NEVER,
    NOISES,
    noisy,
    ONSET,
    stops,
    TUNED,
)


rule = vi.LossConvergence()
slow = pytest.mark.slow


def mostly_slow(values, fast):
    """Parameters of a test, all of them slow but for a few."""
    return [
        value if value in fast else pytest.param(value, marks=slow) for value in values
    ]


def fired(losses, stop=rule):
    return np.asarray(stops(stop, losses))


def one(losses, stop=rule):
    return int(first_stop(stop, jnp.asarray(losses)))


# The default, on falls of many standard deviations. (The rule before this one: after
# 3,650 steps in the median.)


@pytest.mark.parametrize(
    "fall",
    mostly_slow(TUNED | HELD_OUT, {"linear by 15", "exponential by ten million"}),
)
def test_it_stops_within_500_steps_of_the_onset_and_not_before(fall, getkey):
    found = fired(noisy(falling(fall), getkey(), num_series=200))
    assert np.mean(found <= ONSET) <= 0.005
    assert np.mean(found <= ONSET + 500) > 0.55
    assert np.mean(found <= 2 * ONSET) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise", mostly_slow(["skewed", "heavy tails (3)", "heavy tails (2)"], {"skewed"})
)
@pytest.mark.parametrize(
    "fall", mostly_slow(["linear by 30", "exponential by 20"], {"linear by 30"})
)
def test_other_noise_changes_little(fall, noise, getkey):
    found = fired(noisy(falling(fall), getkey(), noise))
    assert np.all(found > ONSET)
    assert np.median(found) <= ONSET + 500
    assert np.all(found < NEVER)


@pytest.mark.parametrize(
    ("noise", "latest"),
    [
        ("autocorrelated (.5)", ONSET + 500),
        pytest.param("autocorrelated (.7)", 2 * ONSET, marks=slow),
        pytest.param("autocorrelated (.9)", 3 * ONSET, marks=slow),
    ],
)
@pytest.mark.parametrize(
    "fall", mostly_slow(["linear by 30", "exponential by 40"], {"linear by 30"})
)
def test_autocorrelated_noise_needs_a_longer_look(fall, noise, latest, getkey):
    found = fired(noisy(falling(fall, 12_000), getkey(), noise))
    assert np.mean(found <= ONSET) <= 0.01
    assert np.median(found) <= latest
    assert np.mean(found < NEVER) > 0.97


@pytest.mark.parametrize("noise", ["falling", "falling to nothing", "none"])
def test_noise_that_goes_away(noise, getkey):
    found = fired(noisy(falling("linear by 30"), getkey(), noise))
    assert np.all(found > ONSET)
    assert np.median(found) <= ONSET + 500
    assert np.all(found < NEVER)


# False stops: in no more than 5 % of runs of 20,000 steps.


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["falling", "rising"])
@pytest.mark.parametrize(
    "slope", mostly_slow([1 / 50, 1e-3, 3e-4, 1e-4, 5e-5, 2e-5], {2e-5})
)
def test_a_steady_slope_of_a_fiftieth_of_the_noise_a_window(slope, sign, getkey):
    trend = -sign * slope * jnp.arange(20_000.0)
    found = fired(noisy(trend, getkey()))
    assert np.mean(found < NEVER) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise", [n for n in NOISES if n[:4] in ("auto", "heav", "skew")]
)
@pytest.mark.parametrize("slope", [1e-3, 2e-5])
def test_a_steady_slope_in_other_noise(slope, noise, getkey):
    # The noise of two degrees of freedom has no variance: the unit is what it has where
    # it is clipped.
    unit = {"heavy tails (2)": 2.0, "heavy tails (3)": 1.73}.get(noise, 1.0)
    trend = -slope * unit * jnp.arange(20_000.0)
    found = fired(noisy(trend, getkey(), noise))
    assert np.mean(found < NEVER) <= 0.05


@pytest.mark.parametrize(
    ("window", "slope"), [(1_000, 2e-3), pytest.param(3_000, 3e-4, marks=slow)]
)
def test_a_slow_fall_after_a_large_one(window, slope, getkey):
    # Half a window has to show it: the more of it, the slower it may be.
    time = jnp.arange(20_000.0)
    losses = noisy(100 * jnp.exp(-time / 50) - slope * time, getkey())
    assert np.mean(fired(losses, vi.LossConvergence(window)) < NEVER) <= 0.05


def test_a_slowing_improvement_is_none_that_has_ended(getkey):
    # Each doubling of the time improves the loss by ten noise standard deviations: over
    # a window of 1,000 at the end, by 0.7 of one.
    trend = -10 * jnp.log2(jnp.arange(1.0, 20_001.0))
    assert np.all(fired(noisy(trend, getkey(), num_series=50)) == NEVER)


@pytest.mark.parametrize("turn", mostly_slow([1_500, 1_550, 2_000], {1_550}))
@pytest.mark.parametrize(
    "noise",
    mostly_slow(["white", "heavy tails (3)", "autocorrelated (.5)"], {"white"}),
)
def test_a_loss_that_turns_and_rises_has_not_converged(noise, turn, getkey):
    # Around the turn it looks level for a while.
    for height in (20, 1_000):
        trend = height * jnp.abs(1 - jnp.arange(8_000.0) / turn)
        assert np.mean(fired(noisy(trend, getkey(), noise)) < NEVER) <= 0.03


# What must make no difference.


@pytest.mark.parametrize(
    "fall", mostly_slow(["linear by 30", "exponential by 20"], {"linear by 30"})
)
def test_scale_and_shift_make_no_difference(fall, getkey):
    losses = noisy(falling(fall), getkey(), num_series=30)
    expected = fired(losses)
    for scale, shift in [(1e6, 0.0), (1e-6, 0.0), (1.0, 1e4), (1e3, -1e5), (1e-6, 1e-3)]:
        assert np.array_equal(fired(scale * losses + shift), expected)
    for scale, shift in [(1.0, 0.0), (1e6, 0.0), (1e-6, 0.0), (1.0, 1e3)]:
        single = (scale * losses + shift).astype(jnp.float32)
        assert np.mean(fired(single) == expected) > 0.9


def test_a_high_start_costs_no_digits(getkey):
    # At 1e8 single precision has steps of eight times the noise.
    losses = noisy(falling("linear by 30"), getkey(), num_series=50)
    losses = losses + 1e8 * jnp.exp(-jnp.arange(4_000.0) / 10)[None, :]
    assert np.mean(fired(losses.astype(jnp.float32)) == fired(losses)) > 0.9


@pytest.mark.parametrize(
    "at", mostly_slow([0, 2, 30, 900, 1_480, 1_510, 1_750, 1_930, 1_999], {2, 1_750})
)
def test_a_spike_makes_no_difference(at, getkey):
    losses = noisy(falling("linear by 30"), getkey(), num_series=200)
    expected, found = fired(losses), fired(losses.at[:, at].set(1e6))
    assert np.all(found > ONSET)
    # It moves the mean of its block by a third of the block's standard error.
    assert np.mean(found == expected) > 0.85
    soon = lambda steps: np.mean(steps <= ONSET + 500)
    assert abs(soon(found) - soon(expected)) < 0.08


def test_many_spikes_make_no_difference(getkey):
    found = fired(noisy(falling("exponential by 20"), getkey(), "spikes"))
    assert np.all((found > ONSET) & (found < NEVER))
    assert np.median(found) <= ONSET + 500
    trend = -1e-3 * jnp.arange(20_000.0)
    assert np.all(fired(noisy(trend, getkey(), "spikes", num_series=20)) == NEVER)


@pytest.mark.parametrize("nothing", [jnp.nan, pytest.param(jnp.inf, marks=slow)])
def test_skipped_steps_do_not_count(nothing, getkey):
    losses = noisy(falling("linear by 30"), getkey(), num_series=30)
    expected = fired(losses)
    found = fired(jnp.insert(losses, jnp.array([700, 1_800]), nothing, axis=1))
    assert np.array_equal(found, np.where(expected > 1_800, expected + 2, expected + 1))


# Windows, tolerances, ends.


@pytest.mark.parametrize(
    ("noise", "latest"),
    [
        ("white", 10_000),
        pytest.param("heavy tails (2)", 11_000, marks=slow),
        pytest.param("autocorrelated (.5)", 15_000, marks=slow),
        pytest.param("autocorrelated (.9)", 26_000, marks=slow),
    ],
)
def test_a_run_that_begins_level_ends_too(noise, latest, getkey):
    # With no fall before it. No rule with the two errors above could tell level losses
    # from a slope of 2e-5 in much less than 5,000 steps.
    found = fired(noisy(jnp.zeros(3 * latest // 2), getkey(), noise))
    assert np.mean(found < NEVER) > 0.9
    assert np.median(found) < latest


@pytest.mark.parametrize("height", mostly_slow([1, 2, 5], {2}))
def test_a_small_fall_at_the_start_is_soon_forgotten(height, getkey):
    # It is too small to say that it has slowed, but it tilts a line through all blocks.
    trend = height * jnp.exp(-jnp.arange(20_000.0) / 100)
    found = fired(noisy(trend, getkey()))
    assert np.mean(found < NEVER) > 0.95
    assert np.quantile(found, 0.9) < 16_000


@pytest.mark.parametrize("tolerance", mostly_slow([0.1, 0.2, 0.5, 5.0], {0.5}))
def test_the_shortest_window_stops_on_white_noise(tolerance, getkey):
    accepted = []
    for window in range(10, 900, 10):
        try:
            accepted.append(vi.LossConvergence(window, tolerance))
        except ValueError:
            continue
    shortest = accepted[0]
    found = fired(noisy(jnp.zeros(25 * shortest.window), getkey()), shortest)
    assert np.all(found >= shortest.window)
    assert np.mean(found < NEVER) > 0.95


def test_it_waits_for_a_window(getkey):
    losses = noisy(20 * jnp.exp(-jnp.arange(6_000.0) / 30), getkey())
    found = fired(losses, vi.LossConvergence(window=2_000, tolerance=0.5))
    assert np.min(found) == 2_000
    assert np.median(found) < 3_000


def test_a_loss_without_noise():
    time = np.arange(20_000.0)
    assert one(np.full(5_000, 3.0)) == rule.window
    assert one(np.zeros(5_000)) == rule.window
    assert one(np.full(5_000, 1e-30, np.float32)) == rule.window
    assert one(np.exp(-time / 5_000)[:10_000]) == NEVER
    assert one(-1e-9 * time) == NEVER
    # The loss no longer changes after 36 * 200 steps, in single precision 17 * 100.
    assert 4_000 < one(3 + np.exp(-time / 200)) < 12_000
    assert 1_200 < one((3 + np.exp(-time / 100)).astype(np.float32)) < 3_000
    # A step down is no spike.
    assert 1_000 < one(np.where(time < 500, 2.0, 1.0)) < 2_500


def test_it_follows_a_sudden_fall(getkey):
    # What is faster than before is believed with a delay, not taken for spikes.
    time = jnp.arange(8_000.0)
    trend = -1e4 * jnp.clip((time - 900) / 100, 0, 1) - 0.01 * time
    assert np.all(fired(noisy(trend, getkey())) == NEVER)


def test_blocks_are_joined_in_pairs(getkey):
    # Twenty of the first length make ten of twice that, and so on.
    stop = vi.LossConvergence(window=200, tolerance=1.0)
    family = vi.MeanField(jnp.zeros(1), scale=1.0)
    losses = jr.uniform(getkey(), (1_280,))

    @eqx.filter_jit
    def after(num):
        step = lambda i, memory: stop.update(memory, i + 1, losses[i], family)[0]
        return jax.lax.fori_loop(0, num, step, stop.init(family))

    for num, length in [(380, 20), (400, 40), (720, 40), (800, 80), (1_280, 80)]:
        memory = after(num)
        means = np.asarray(losses[:num]).reshape(-1, length).mean(axis=1)
        found = np.asarray(memory.means + memory.first)[-len(means) :]
        # Not to the last digit: some losses are clipped.
        assert np.allclose(found, means, atol=0.02)
