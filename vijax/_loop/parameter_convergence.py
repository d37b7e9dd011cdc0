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
    is near zero (relative). [`vijax.LossConvergence`][] is the better rule.

    **Reference:** `CheckParametersConvergence` of PyMC.

    !!! Example

        ```python
        import vijax as vi

        stop = vi.ParameterConvergence(every=100, tolerance=1e-3, diff="absolute")
        ```
    """

    every: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    diff: Literal["relative", "absolute"] = eqx.field(static=True)
    ord: float = eqx.field(static=True)

    def __init__(
        self,
        every: int = 100,
        tolerance: float | int = 1e-3,
        diff: Literal["relative", "absolute"] = "relative",
        ord: float | int = np.inf,
    ):
        """**Arguments:**

        - `every`: how many steps lie between two comparisons.
        - `tolerance`: how small the change must be.
        - `diff`: `"relative"` or `"absolute"`.
        - `ord`: the order of the norm, as in `jnp.linalg.norm`.

        **Raises:** `ValueError` for another `diff`, an `every` or `tolerance` that is not
        positive, or an `ord` that is no number.
        """
        if not isinstance(diff, str) or diff not in ("relative", "absolute"):
            raise ValueError(f'`diff` must be "relative" or "absolute", not {diff!r}.')
        self.every = as_whole("every", every, 1)
        self.tolerance = as_positive("tolerance", tolerance)
        self.diff = diff
        self.ord = as_real(ord)
        if np.isnan(self.ord):
            raise ValueError(
                f"`ord` must be the order of a norm, such as 2 or `np.inf`, but it is "
                f"{ord!r}."
            )

    def init(self, family: AbstractFamily) -> _Flat:
        return _flatten(family)

    def update(
        self,
        state: _Flat,
        num_steps: Int[Array, ""],
        loss: Scalar,
        family: AbstractFamily,
    ) -> tuple[_Flat, Bool[Array, ""]]:
        del loss
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
