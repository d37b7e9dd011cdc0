import math

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._family.base import AbstractFamily
from .._misc import as_positive, as_whole, float_dtype
from .base import AbstractStop


_BLOCKS = 10  # Blocks in one window: the rule is evaluated so many times a window.


class _Memory(eqx.Module):
    num_losses: Int[Array, ""]  # Skipped steps do not count.
    first: Scalar
    previous: Scalar
    total: Scalar  # Of the present block, relative to `first`.
    variation: Scalar  # Of the present block: the sum of |successive differences|.
    means: Float[Array, " blocks"]  # Of whole blocks, oldest first.
    variations: Float[Array, " blocks"]


class LossConvergence(AbstractStop):
    r"""Stop once the loss no longer improves, as far as its noise lets one tell.

    Two windows of `window` steps each, the last one and the one before it, have mean
    losses that differ by $D$. The noise of a single loss, $\sigma$, is estimated from
    successive differences, $\sigma = \frac{\sqrt\pi}{2} \, \text{mean} |\ell_t -
    \ell_{t-1}|$, so that a trend does not enter it. The run stops once

    $$|D| + 2 \sigma \sqrt{2 / \text{window}} \le \text{tolerance} \cdot \sigma,$$

    that is, once even two standard errors above the estimate the change over a window
    is a small part of the noise of one loss. It is tried ten times a window. A loss that
    improves or worsens steadily by some `tolerance` of its noise a window does not stop
    the run; nor does scaling or shifting the loss change anything.

    It judges the loss and nothing else: a fit that creeps along below the noise of its
    loss (parameters on very different scales, an improper posterior) is stopped too.
    Look at [`vijax.pareto_khat`][].

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

        - `window`: how many steps are averaged over, rounded down to a multiple of ten.
            No run stops before two windows have passed.
        - `tolerance`: the change over one window that counts as none, in standard
            deviations of the noise of one loss.

        **Raises:** `ValueError` if the window is too short to tell such a change from
        noise: at least `8 / tolerance**2` steps are needed.
        """
        window = as_whole("window", window, _BLOCKS)
        self.tolerance = tolerance = as_positive("tolerance", tolerance)
        shortest = max(_BLOCKS, _BLOCKS * math.ceil(8 / tolerance**2 / _BLOCKS))
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
        empty = jnp.zeros(2 * _BLOCKS, dtype)
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
        # Deviations from the first loss add up with less rounding than losses.
        first = jnp.where(is_first, loss, state.first)
        previous = jnp.where(is_first, loss, state.previous)
        total = state.total + (loss - first)
        variation = state.variation + jnp.abs(loss - previous)
        block = self.window // _BLOCKS
        count = state.num_losses + 1
        now = _Memory(count, first, loss, total, variation, state.means, state.variations)
        return lax.cond(
            count % block == 0,
            self._end_block,
            lambda memory: (memory, jnp.array(False)),
            now,
        )

    def _end_block(self, memory: _Memory) -> tuple[_Memory, Bool[Array, ""]]:
        block = self.window // _BLOCKS
        push = lambda ring, new: jnp.append(ring[1:], new / block)
        means = push(memory.means, memory.total)
        variations = push(memory.variations, memory.variation)
        change = jnp.abs(jnp.mean(means[_BLOCKS:]) - jnp.mean(means[:_BLOCKS]))
        noise = 0.5 * math.sqrt(math.pi) * jnp.mean(variations)
        error = 2 * noise * math.sqrt(2 / self.window)
        enough = memory.num_losses >= 2 * self.window
        met = enough & (change + error <= self.tolerance * noise)
        zero = jnp.zeros_like(memory.total)
        return _Memory(
            memory.num_losses,
            memory.first,
            memory.previous,
            zero,
            zero,
            means,
            variations,
        ), met
