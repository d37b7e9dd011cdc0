from typing import Literal, TypeAlias

import equinox as eqx
import jax.flatten_util as jfu
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._family.base import AbstractFamily
from .._misc import as_positive, as_real, as_whole
from .base import AbstractStop


_Flat: TypeAlias = Float[Array, " parameters"]


class _Windows(eqx.Module):
    """Of the parameters in the present window and in the one before it."""

    num_steps: Int[Array, ""]  # Skipped steps do not count.
    mean: _Flat
    squares: _Flat  # The sum of the squared deviations from the mean.
    old_mean: _Flat
    old_squares: _Flat


def _flatten(family: AbstractFamily) -> _Flat:
    return jfu.ravel_pytree(eqx.filter(family, eqx.is_inexact_array))[0]


class ParameterConvergence(AbstractStop):
    r"""Stop once the family's parameters no longer change: PyMC's rule.

    Every `every` steps the flattened parameters $\theta$ are compared with those of
    `every` steps before, $\theta'$, and the run stops once $\lVert\delta\rVert <$
    `tolerance`, where $\delta$ is

    - relative: $(|\theta - \theta'| + 10^{-6}) / (|\theta'| + 10^{-6})$;
    - absolute: $|\theta - \theta'|$.

    It compares two noisy iterates, so it may stop by luck, or never where a parameter
    is near zero (relative), or where parameters are of unlike sizes (absolute).
    [`vijax.LossConvergence`][] is the better rule. There is a third $\delta$, not of
    PyMC, in which every parameter has its own unit:

    - scaled: $|m - m'| / (s + 10^{-6} \max(|m|, |m'|))$, where $m$ are the means of the
      parameters over the last `every` steps, $m'$ those over the `every` before, and $s$
      the standard deviations of single iterates around them.

    No choice of units changes it. A parameter that drifts has a $\delta$ of about 3.5,
    however slowly it goes, until its own jitter hides that; one that only jitters has one
    that shrinks as the root of `every`. So a `tolerance` of 0.5 suits, and an `every` of
    many times the steps for which the jitter is correlated.

    **Reference:** `CheckParametersConvergence` of PyMC.

    !!! Example

        ```python
        import vijax as vi

        stop = vi.ParameterConvergence(every=100, tolerance=1e-3, diff="absolute")
        stop = vi.ParameterConvergence(every=500, tolerance=0.5, diff="scaled")
        ```
    """

    every: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    diff: Literal["relative", "absolute", "scaled"] = eqx.field(static=True)
    ord: float = eqx.field(static=True)

    def __init__(
        self,
        every: int = 100,
        tolerance: float | int = 1e-3,
        diff: Literal["relative", "absolute", "scaled"] = "relative",
        ord: float | int = np.inf,
    ):
        """**Arguments:**

        - `every`: how many steps lie between two comparisons.
        - `tolerance`: how small the change must be.
        - `diff`: `"relative"`, `"absolute"` or `"scaled"`.
        - `ord`: the order of the norm, as in `jnp.linalg.norm`.

        **Raises:** `ValueError` for another `diff`, a `tolerance` or an `every` that is
        not positive, an `every` of one for `"scaled"` (one iterate does not jitter), or
        an `ord` that is no number.
        """
        if not isinstance(diff, str) or diff not in ("relative", "absolute", "scaled"):
            raise ValueError(
                f'`diff` must be "relative" or "absolute" (as in PyMC) or "scaled", not '
                f"{diff!r}."
            )
        self.every = as_whole("every", every, 2 if diff == "scaled" else 1)
        self.tolerance = as_positive("tolerance", tolerance)
        self.diff = diff
        self.ord = as_real(ord)
        if np.isnan(self.ord):
            raise ValueError(
                f"`ord` must be the order of a norm, such as 2 or `np.inf`, but it is "
                f"{ord!r}."
            )

    def init(self, family: AbstractFamily) -> _Flat | _Windows:
        flat = _flatten(family)
        if self.diff != "scaled":
            return flat
        zero = jnp.zeros_like(flat)
        return _Windows(jnp.zeros((), jnp.int32), zero, zero, zero, zero)

    def update(
        self,
        state: _Flat | _Windows,
        num_steps: Int[Array, ""],
        loss: Scalar,
        family: AbstractFamily,
    ) -> tuple[_Flat | _Windows, Bool[Array, ""]]:
        del loss
        if isinstance(state, _Windows):
            return self._scaled(state, _flatten(family))
        due = num_steps % self.every == 0

        def compare() -> tuple[_Flat, Bool[Array, ""]]:
            now = _flatten(family)
            change = jnp.abs(now - state)
            if self.diff == "relative":
                change = (change + 1e-6) / (jnp.abs(state) + 1e-6)
            return now, jnp.linalg.norm(change, self.ord) < self.tolerance

        # PyMC remembers the parameters after the first step, not those before it.
        remember = lambda: (
            jnp.where(num_steps == 1, _flatten(family), state),
            jnp.array(False),
        )
        return lax.cond(due, compare, remember)

    def _scaled(self, old: _Windows, now: _Flat) -> tuple[_Windows, Bool[Array, ""]]:
        # Welford's recursion, which does not cancel.
        made = old.num_steps % self.every + 1
        mean = old.mean + (now - old.mean) / made.astype(now.dtype)
        squares = old.squares + (now - old.mean) * (now - mean)
        windows = _Windows(
            old.num_steps + 1, mean, squares, old.old_mean, old.old_squares
        )

        def compare() -> tuple[_Windows, Bool[Array, ""]]:
            change = self._change(windows)
            met = jnp.linalg.norm(change, self.ord) < self.tolerance
            zero = jnp.zeros_like(now)
            new = _Windows(windows.num_steps, zero, zero, mean, squares)
            return new, met & (windows.num_steps >= 2 * self.every)

        return lax.cond(made == self.every, compare, lambda: (windows, jnp.array(False)))

    def _change(self, windows: _Windows) -> _Flat:
        """In units of each parameter's own jitter; without any, of its sixth digit."""
        degrees = 2 * (self.every - 1)
        jitter = jnp.sqrt((windows.squares + windows.old_squares) / degrees)
        size = jnp.maximum(jnp.abs(windows.mean), jnp.abs(windows.old_mean))
        unit = jitter + 1e-6 * size
        change = jnp.abs(windows.mean - windows.old_mean)
        return jnp.where(unit > 0, change / jnp.where(unit > 0, unit, 1), 0)
