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

    def fall(self, num: Int[Array, ""]) -> tuple[Scalar, Scalar]:
        """Over the newest `num` blocks: by least squares, and its variance if a loss
        had the variance one."""
        count = num.astype(self.means.dtype)
        age = self.age.astype(self.means.dtype) - 0.5 * (count - 1)
        age = jnp.where(self.age < num, age, 0)
        square = count * (count**2 - 1) / 12
        fall = count * jnp.sum(age * self.means) / square
        return fall, count**2 / (square * self.length)

    def correlation(self) -> Scalar:
        """How much more the means scatter than those of independent losses: a variance.

        By second differences, since a slope has none. A median, since a bend has large
        ones.
        """
        second = lambda x, middle: x[:-2] + middle * x[1:-1] + x[2:]
        variances = (_SD * self.variations) ** 2
        square = self.length * second(self.means, -2) ** 2
        unit = second(variances, 4)
        ratios = jnp.where(unit > 0, square / jnp.where(unit > 0, unit, 1), 0)
        known = self.age[:-2] < self.num
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
    window: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    def __init__(self, window: int = 1_000, tolerance: float | int = 0.1):
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
        zero = jnp.zeros((), dtype)
        empty = jnp.zeros(_ROOM, dtype)
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
        now = _Memory(
            state.num_losses + 1,
            first,
            loss,
            state.total + (loss - first),
            state.variation + jnp.abs(change),
            state.means,
            state.variations,
        )
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
        others = jnp.maximum(made - 1, 1).astype(loss.dtype)
        begun = jnp.where(made < _FEW, jnp.inf, memory.variation / others)
        is_begun = memory.num_losses < self.window // _BLOCKS
        typical = jnp.where(is_begun, begun, memory.variations[-1])
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
        full = blocks.num == _ROOM
        half = jnp.zeros(_ROOM // 2, real.dtype)
        join = lambda ring: jnp.append(half, 0.5 * (ring[::2] + ring[1::2]))
        keep = lambda ring: jnp.where(full, join(ring), ring)
        zero = jnp.zeros_like(real)
        last = memory.previous
        return _Memory(
            memory.num_losses, last, last, zero, zero, keep(means), keep(variations)
        ), met

    def _met(self, blocks: _Blocks, level: Scalar) -> Bool[Array, ""]:
        is_first = blocks.length == self.window // _BLOCKS
        recent = jnp.where(is_first, _RECENT, (blocks.num + 3) // 4)
        noise = _SD * blocks.mean(blocks.variations, recent)
        correlation = blocks.correlation()
        stderr = lambda variance: noise * jnp.sqrt(variance * correlation)
        highest = jnp.max(jnp.where(blocks.age < blocks.num, blocks.means, -jnp.inf))
        whole = highest - blocks.mean(blocks.means, recent)
        # Without noise all comparisons are of zeros, up to rounding.
        rounding = jnp.maximum(jnp.abs(level), jnp.abs(whole))
        rounding = 4 * jnp.finfo(level.dtype).eps * rounding
        none = self.tolerance * noise * correlation**0.25 + rounding

        fall, variance = blocks.fall(recent)
        error = stderr(variance)
        still = (fall <= none) & (fall >= -_RISE * error - rounding)
        before = whole * (recent / blocks.num).astype(whole.dtype)
        most = jnp.minimum(_SLOWER * before, _MOST * none)
        slowed = fall + _STDERRS * error <= most + rounding

        fall, variance = blocks.fall(blocks.num)
        flat = jnp.abs(fall) + _STDERRS * stderr(variance) <= none
        return (blocks.num >= _BLOCKS) & still & (slowed | flat)
