"""Losses of runs whose end is known, and where a stopping rule ends them."""

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import vijax as vi


ONSET = 1_500  # Where the falling ends. Losses are in standard deviations of the noise.
NEVER = np.iinfo(np.int32).max


@eqx.filter_jit
def first_stop(stop, losses):
    """After how many steps a rule is first met. The loop skips what is not finite."""
    family = vi.MeanField(jnp.zeros(1, losses.dtype), scale=1.0)

    def step(carry, loss_and_step):
        old, at = carry
        loss, num_steps = loss_and_step
        new, met = stop.update(old, num_steps, loss, family)
        finite = jnp.isfinite(loss)
        keep = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
        first = finite & met & (at == NEVER)
        return (keep, jnp.where(first, num_steps, at)), None

    steps = jnp.arange(1, losses.size + 1, dtype=jnp.int32)
    start = stop.init(family), jnp.int32(NEVER)
    (_, at), _ = lax.scan(step, start, (losses, steps))
    return at


@eqx.filter_jit
def stops(stop, losses):
    """The same for many series of losses."""
    # Under `jax.vmap` each step would do the work of the end of a block.
    return lax.map(lambda series: first_stop(stop, series), losses)


def noisy(trend, key, noise="white", num_series=100):
    """Many series that fall alike."""
    return trend[None, :] + NOISES[noise](key, (num_series, trend.size))


def falling(name, num_steps=4_000):
    """A loss that falls until the onset, and then stays as it is."""
    time = jnp.minimum(jnp.arange(1.0, num_steps + 1), ONSET)
    return (TUNED | HELD_OUT)[name](time / ONSET)


# The rule was chosen on these ...
TUNED = {
    "linear by 10": lambda u: 10 * (1 - u),
    "linear by 30": lambda u: 30 * (1 - u),
    "exponential by 10": lambda u: 10 * jnp.exp(-3 * u),
    "exponential by 20": lambda u: 20 * jnp.exp(-4 * u),
    "exponential by 100": lambda u: 100 * jnp.exp(-5 * u),
    "1/t by 1000": lambda u: 1_000 / (1 + 150 * u),
    "1/t by 50": lambda u: 50 / (1 + 30 * u),
}
# ... and these it had not seen.
HELD_OUT = {
    "linear by 15": lambda u: 15 * (1 - u),
    "linear by 100,000": lambda u: 1e5 * (1 - u),
    "exponential by 15": lambda u: 15 * jnp.exp(-3.5 * u),
    "exponential by 40": lambda u: 40 * jnp.exp(-4.5 * u),
    "exponential by 100,000": lambda u: 1e5 * jnp.exp(-12 * u),
    "two exponentials": lambda u: 100 * jnp.exp(-30 * u) + 20 * jnp.exp(-3 * u),
    "1/t by 30": lambda u: 30 / (1 + 10 * u),
    "1/t by 10,000": lambda u: 10_000 / (1 + 1_500 * u),
    "quadratic by 30": lambda u: 30 * (1 - u) ** 2,
    "root of 1/t by 30": lambda u: 30 / jnp.sqrt(1 + 30 * u),
    "cosine by 20": lambda u: 10 * (1 + jnp.cos(np.pi * u)),
    "a line, then an exponential": lambda u: (
        500 * jnp.maximum(1 - 4 * u, 0) + 10 * jnp.exp(-3 * u)
    ),
    "exponential by ten million": lambda u: 1e7 * jnp.exp(-17 * u),
    "a root by 20": lambda u: 20 * (1 - jnp.sqrt(u)),
}


def _autocorrelated(strength):
    def noise(key, shape):
        shock = np.sqrt(1 - strength**2) * jr.normal(key, shape)

        def step(old, new):
            now = strength * old + new
            return now, now

        _, out = lax.scan(step, jnp.zeros(shape[0]), shock.T)
        return out.T

    return noise


def _scaled(scale):
    """Noise whose standard deviation changes with time."""

    def noise(key, shape):
        time = jnp.arange(1.0, shape[1] + 1) / ONSET
        return jnp.maximum(scale(time), 0)[None, :] * jr.normal(key, shape)

    return noise


def _with_spikes(rate):
    def noise(key, shape):
        where = jr.bernoulli(jr.fold_in(key, 1), rate, shape)
        return jnp.where(where, 1e6, jr.normal(key, shape))

    return noise


NOISES = {
    "none": lambda key, shape: jnp.zeros(shape),
    "white": jr.normal,
    "heavy tails (2)": lambda key, shape: jr.t(key, 2.0, shape),
    "heavy tails (3)": lambda key, shape: jr.t(key, 3.0, shape),
    "skewed": lambda key, shape: jr.exponential(key, shape) - 1,
    "autocorrelated (.5)": _autocorrelated(0.5),
    "autocorrelated (.7)": _autocorrelated(0.7),
    "autocorrelated (.9)": _autocorrelated(0.9),
    "falling": _scaled(lambda u: 10 * jnp.exp(-3 * u)),
    "falling to nothing": _scaled(lambda u: 2 * (1 - u)),
    "spikes": _with_spikes(0.002),
}
