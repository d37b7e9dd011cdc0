import math

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._family.base import AbstractFamily
from .._misc import as_positive, as_whole, float_dtype
from .base import AbstractStop


_BLOCKS = 10  # The first blocks are so small a part of a window.
_ROOM = 20  # So many blocks there is room for. Full, they are joined in pairs.
_RECENT = 5  # No fewer of the first blocks are looked at for a plateau.
_CLIP = 3.0  # No loss is further from the one before, in mean absolute differences.
_FEW = 8  # From so many losses these are known well enough to begin with.
# What the rule asks for, see the docstring.
_STDERRS = 2.0
_RISE = 1.5
_SLOWER = 1 / 3
_MOST = 8.0
_PACE = 0.15
_RANKS = 2.4
_SD = 0.5 * math.sqrt(math.pi)  # A standard deviation in mean absolute differences.
_MEDIAN = 0.4549  # Of the chi-squared distribution of one degree of freedom.


class _Memory(eqx.Module):
    # The fields are those of files that earlier versions saved.
    num_losses: Int[Array, ""]  # Skipped steps do not count.
    first: Scalar  # The loss before the present block: from here losses are counted.
    previous: Scalar
    total: Scalar  # Of the present block.
    variation: Scalar  # Of the present block: the sum of |successive differences|.
    means: Float[Array, " blocks"]  # Of whole blocks, the newest last.
    variations: Float[Array, " blocks"]  # Of a loss in them.


class _Blocks(eqx.Module):
    """The whole blocks of a run, the newest last."""

    num: Int[Array, ""]
    length: Scalar  # Of each.
    means: Float[Array, " blocks"]
    variations: Float[Array, " blocks"]

    @property
    def age(self) -> Int[Array, " blocks"]:
        """Zero for the newest."""
        return jnp.arange(_ROOM - 1, -1, -1, dtype=jnp.int32)

    def mean(self, values: Float[Array, " blocks"], num: Int[Array, ""]) -> Scalar:
        """Of the newest `num` blocks."""
        total = jnp.sum(jnp.where(self.age < num, values, 0))
        return total / num.astype(values.dtype)

    def _centred(self, num: Int[Array, ""]) -> Float[Array, " blocks"]:
        """The ages of the newest `num`, and zero for all others."""
        age = self.age.astype(self.means.dtype)
        centre = 0.5 * (num.astype(age.dtype) - 1)
        return jnp.where(self.age < num, age - centre, 0)

    def fall(self, num: Int[Array, ""]) -> tuple[Scalar, Scalar]:
        """Over the newest `num` blocks: by least squares, and its variance if a loss
        had the variance one."""
        age = self._centred(num)
        count, square = num.astype(age.dtype), jnp.sum(age**2)
        fall = count * jnp.sum(age * self.means) / square
        return fall, count**2 / (square * self.length)

    def bend(self, num: Int[Array, ""]) -> tuple[Scalar, Scalar]:
        """How far the ends of these blocks are above their middle, likewise."""
        square = self._centred(num) ** 2
        ends = jnp.where(self.age < num, square - self.mean(square, num), 0)
        return jnp.sum(ends * self.means), jnp.sum(ends**2) / self.length

    def rises(self, tilt: Scalar) -> Scalar:
        """The statistic of Mann and Kendall, were each block higher by `tilt` than it is
        against the one before: how sure it is that they rise, in standard errors."""
        higher = self.means - self.age.astype(tilt.dtype) * tilt
        known = self.age < self.num
        pairs = known[:, None] & known[None, :] & (self.age[:, None] > self.age[None, :])
        signs = jnp.where(pairs, jnp.sign(higher[None, :] - higher[:, None]), 0)
        num = self.num.astype(tilt.dtype)
        return jnp.sum(signs) / jnp.sqrt(num * (num - 1) * (2 * num + 5) / 18)

    def correlation(self, num: int) -> Scalar:
        """How much more the means scatter than those of independent losses: a variance.

        By second differences, since a slope has none, of the newest `num`. A median,
        since a bend has large ones.
        """
        second = lambda x, middle: x[:-2] + middle * x[1:-1] + x[2:]
        variances = (_SD * self.variations) ** 2
        square = self.length * second(self.means, -2) ** 2
        unit = second(variances, 4)
        ratios = jnp.where(unit > 0, square / jnp.where(unit > 0, unit, 1), 0)
        known = self.age[:-2] < jnp.minimum(self.num, num)
        ratios = jnp.where(known, ratios, jnp.inf)
        return jnp.maximum(_middle(ratios, jnp.sum(known)) / _MEDIAN, 1)


def _middle(values: Float[Array, " n"], num: Int[Array, ""]) -> Scalar:
    """The median of the `num` smallest. (Sorting costs more, if under `jax.vmap`.)"""
    order = np.arange(values.size)
    below = values[None, :] < values[:, None]
    equal = values[None, :] == values[:, None]
    rank = jnp.sum(below | (equal & (order[None, :] < order[:, None])), axis=1)
    lower, upper = rank == (num - 1) // 2, rank == num // 2
    pick = lambda which: jnp.sum(jnp.where(which, values, 0))
    return 0.5 * (pick(lower) + pick(upper))


class LossConvergence(AbstractStop):
    r"""Stop once the loss no longer improves, as far as its noise lets one tell.

    The run so far is seen as 10 to 20 blocks of equal length: of `window / 10` steps at
    first, of twice as many whenever there are 20. At the end of each, a straight line is
    fitted to the means of the recent blocks, which are a quarter of the run or half a
    window. Over them the loss falls by $D$, with a standard error $s$. With $\sigma$ for
    the noise of one loss, the run stops, after a window at least, if the loss is still:

    $$-\tfrac32 s \le D \le \text{tolerance} \cdot \sigma,$$

    its ends no further above its middle than two standard errors (or it may be turning),
    and if that is no luck, since the fall has slowed beyond doubt, or never was one.
    It has slowed if $D + 2 s \le \min(\frac13 E, \; 8 \, \text{tolerance} \cdot
    \sigma)$, where $E$ is what the recent blocks would have gained at the mean pace of
    the run. It never was one if the rank test of Mann and Kendall finds, at 2.4 standard
    errors each, that the means of all blocks would fall if 0.15 `tolerance` $\sigma$ a
    window were taken from them, and rise if it were added. (Ranks soon forget a small
    fall at the start.) These are tests of equivalence: a stop needs evidence that nothing
    goes on, which short or noisy runs do not have. A loss that rises is not still.

    The noise is estimated from successive differences, into which no trend enters,
    $\sigma_\Delta = \frac{\sqrt\pi}{2} \, \text{mean} |\ell_t - \ell_{t-1}|$. That means
    of blocks scatter $c$ times more than those of independent losses (by the median of
    their squared second differences, $c \ge 1$) tells of autocorrelation: $s$
    grows by $c$, and $\sigma = \sqrt{c} \, \sigma_\Delta$, which for a first-order
    autoregression is right within a fifth. Spikes and heavy tails are clipped: no loss
    counts as further than three mean differences from the one before. Scaling or
    shifting the loss changes nothing; skipped steps do not count.

    Simulated with the default arguments (200 runs a kind): of losses that fall by 10 to
    ten million standard deviations of white noise, by 14 laws on which nothing was tuned,
    until step 1,500, none was stopped before; 56 to 91 % were stopped within 500 steps
    after, all within 2,500. Autocorrelation of 0.9 made that 2,600 steps instead of 2,000
    in the median, and up to 2 % stopped before the end of an exponential. Steady slopes
    of 2e-5 to 2e-2 standard deviations a step were stopped in at most 3 % of runs of
    20,000 steps, up or down, those of 1e-5 in most. So level white noise is only stopped
    after 8,800 steps in the median, that with an autocorrelation of 0.9 after 22,000.

    To stop soon has a price: after a large fall only half a window is looked at, which
    shows a slope of 1e-3 (8 % were stopped) but none of 3e-4 (all were). If such a slow
    rest matters, raise `window`: with 3,000 none of 3e-4 was stopped.

    It judges the loss and nothing else: a fit that creeps along below the noise of its
    loss (parameters on very different scales, an improper posterior) is stopped too, and
    so is one under [`vijax.Averaging`][], whose means become better long after the loss
    is level: [`vijax.MomentConvergence`][] sees that. Look at [`vijax.pareto_khat`][].

    **References:** Schuirmann (1987), *A comparison of the two one-sided tests procedure
    and the power approach for assessing the equivalence of average bioavailability*,
    J. Pharmacokinet. Biopharm. 15(6), 657-680. Mann (1945), *Nonparametric tests against
    trend*, Econometrica 13(3), 245-259. Von Neumann, Kent, Bellinson and Hart (1941),
    *The mean square successive difference*, Ann. Math. Statist. 12(2), 153-162 (here with
    absolute differences).

    !!! Example

        ```python
        import vijax as vi

        stop = vi.LossConvergence(window=1_000, tolerance=0.1)
        ```
    """

    window: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    def __init__(self, window: int = 1_000, tolerance: float | int = 0.1):
        """**Arguments:**

        - `window`: the steps before the run may stop, rounded down to a multiple of ten.
            Longer ones see smaller slopes.
        - `tolerance`: the fall that counts as none, in standard deviations of the noise
            of one loss. A run that began where it ends stops after about
            `19 * (window / tolerance) ** (2 / 3)` steps.

        **Raises:** `ValueError` if the window is too short to tell such a fall from
        noise: at least 80 and `8 / tolerance**2` steps are needed.
        """
        window = as_whole("window", window, _BLOCKS)
        self.tolerance = tolerance = as_positive("tolerance", tolerance)
        shortest = _BLOCKS * max(_FEW, math.ceil(8 / tolerance**2 / _BLOCKS))
        if window < shortest:
            raise ValueError(
                f"A window of {window} steps cannot tell a change of {tolerance} noise "
                f"standard deviations from noise. Raise `window` to {shortest} or more, "
                "or raise `tolerance`."
            )
        self.window = window - window % _BLOCKS

    def init(self, family: AbstractFamily) -> _Memory:
        dtype = float_dtype(family)
        zero, empty = jnp.zeros((), dtype), jnp.zeros(_ROOM, dtype)
        count = jnp.zeros((), jnp.int32)
        return _Memory(count, zero, zero, zero, zero, empty, empty)

    def update(
        self,
        state: _Memory,
        num_steps: Int[Array, ""],
        loss: Scalar,
        family: AbstractFamily,
    ) -> tuple[_Memory, Bool[Array, ""]]:
        del num_steps, family
        loss = loss.astype(state.first.dtype)
        is_first = state.num_losses == 0
        first = jnp.where(is_first, loss, state.first)
        previous = jnp.where(is_first, loss, state.previous)
        length = self._length(state.num_losses)
        most = self._largest(state, loss, state.num_losses % length)
        change = jnp.clip(loss - previous, -most, most)
        loss = previous + change
        count = state.num_losses + 1
        total, variation = state.total + (loss - first), state.variation + jnp.abs(change)
        rings = state.means, state.variations
        now = _Memory(count, first, loss, total, variation, *rings)
        return lax.cond(
            now.num_losses % length == 0,
            lambda: self._end_block(now, length),
            lambda: (now, jnp.array(False)),
        )

    def _length(self, num_losses: Int[Array, ""]) -> Int[Array, ""]:
        """Of the present block: twice as long whenever the memory was full."""
        first = self.window // _BLOCKS
        doublings = 32 - lax.clz(num_losses // (_ROOM * first))
        return jnp.left_shift(jnp.int32(first), doublings)

    def _largest(self, memory: _Memory, loss: Scalar, made: Int[Array, ""]) -> Scalar:
        """The largest change from one loss to the next that is believed.

        A spike would be seen in the mean of its block. A fall that is faster than any
        before is followed all the same: the changes that are believed grow with it.
        """
        is_first = memory.num_losses < self.window // _BLOCKS
        before = jnp.where(is_first, jnp.inf, memory.variations[-1])
        now = memory.variation / jnp.maximum(made - 1, 1).astype(loss.dtype)
        larger = jnp.where(is_first, now, jnp.maximum(before, now))
        typical = jnp.where(made < _FEW, before, larger)
        # Or a loss that was constant for a block would be so for ever.
        rounding = jnp.finfo(loss.dtype).eps * jnp.abs(loss)
        return jnp.maximum(_CLIP * typical, rounding)

    def _end_block(
        self, memory: _Memory, length: Int[Array, ""]
    ) -> tuple[_Memory, Bool[Array, ""]]:
        real = length.astype(memory.first.dtype)
        push = lambda ring, new: jnp.append(ring[1:], new / real)
        means = push(memory.means, memory.total)
        variations = push(memory.variations, memory.variation)
        blocks = _Blocks(memory.num_losses // length, real, means, variations)
        met = self._met(blocks, memory.previous)
        # Counted from here, the losses to come are small, and so is their rounding.
        means = means - (memory.previous - memory.first)
        half, zero = jnp.zeros(_ROOM // 2, real.dtype), jnp.zeros_like(real)
        join = lambda ring: jnp.append(half, 0.5 * (ring[::2] + ring[1::2]))
        keep = lambda ring: jnp.where(blocks.num == _ROOM, join(ring), ring)
        last = memory.previous
        return _Memory(
            memory.num_losses, last, last, zero, zero, keep(means), keep(variations)
        ), met

    def _met(self, blocks: _Blocks, level: Scalar) -> Bool[Array, ""]:
        is_first = blocks.length == self.window // _BLOCKS
        recent = jnp.where(is_first, _RECENT, (blocks.num + 3) // 4)
        noise = _SD * blocks.mean(blocks.variations, recent)
        correlation = blocks.correlation(_BLOCKS)
        stderr = lambda variance: noise * jnp.sqrt(variance * correlation)
        highest = jnp.max(jnp.where(blocks.age < blocks.num, blocks.means, -jnp.inf))
        whole = highest - blocks.mean(blocks.means, recent)
        # Without noise all comparisons are of zeros, up to rounding.
        rounding = 4 * jnp.finfo(level.dtype).eps * jnp.abs(level)
        none = lambda times: self.tolerance * noise * times**0.25 + rounding

        fall, variance = blocks.fall(recent)
        error = stderr(variance)
        still = (fall <= none(correlation)) & (fall >= -_RISE * error - rounding)
        bend, variance = blocks.bend(recent)
        still &= bend <= _STDERRS * stderr(variance) + _RECENT * rounding
        before = whole * (recent / blocks.num).astype(whole.dtype)
        most = jnp.minimum(_SLOWER * before, _MOST * none(correlation))
        slowed = fall + _STDERRS * error <= most + rounding
        tilt = _PACE * none(blocks.correlation(_ROOM)) * blocks.length / self.window
        flat = (blocks.rises(tilt) >= _RANKS) & (blocks.rises(-tilt) <= -_RANKS)
        return (blocks.num >= _BLOCKS) & still & (slowed | flat)
