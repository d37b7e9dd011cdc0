"""What diagnostics return and check."""

import equinox as eqx
from jaxtyping import Array, PyTree

from .._draws.draws import check_draws, Draws


class Estimate(eqx.Module):
    """A Monte Carlo estimate and its standard error.

    **Attributes:**

    - `mean`: the estimate: a scalar, an array, or a pytree of them.
    - `stderr`: its standard error, of the same shape.
    """

    mean: PyTree[Array]
    stderr: PyTree[Array]

    def __repr__(self):
        return eqx.tree_pformat(self, short_arrays=False)


def check_several(draws: Draws) -> None:
    """Raise unless there are enough draws for a standard error."""
    check_draws(draws)
    if len(draws) < 2:
        raise ValueError(
            "A standard error needs at least 2 draws, but there is only "
            f"{len(draws)}. Draw more, e.g. `fit.draw(1_000, key=key)`."
        )
