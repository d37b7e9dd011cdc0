import functools
from collections.abc import Callable
from typing import Any

import optax

from ._family.full_rank import FullRank
from ._family.mean_field import MeanField
from ._method.averaging import Averaging
from ._method.base import AbstractMethod, Recipe
from ._method.descent import Descent
from ._objective.elbo import ELBO


# Above so many coordinates a full covariance costs more than it brings.
_FULL_RANK_DIM = 200

NAMES = ("auto", "advi", "fullrank_advi")


def _adam() -> Any:
    # Never ends, so that a longer run goes on where a shorter one stopped.
    schedule = lambda count: 0.1 / (1 + count / 300)
    # A short memory of the gradient's size: the first steps, from far away, see gradients
    # a thousand times larger than the last ones, and must not slow these down.
    return optax.adam(schedule, b2=0.99)


def named_method(name: str, dim: int) -> tuple[AbstractMethod, Recipe]:
    """The method and the family that a name stands for.

    **Arguments:**

    - `name`: `"advi"` (mean field), `"fullrank_advi"`, or `"auto"`: the latter up to 200
        coordinates, the former beyond. Case does not matter.
    - `dim`: the number of coordinates.

    **Raises:** `ValueError` for another name.
    """
    recipes: dict[str, Callable] = {
        "auto": FullRank if dim <= _FULL_RANK_DIM else MeanField,
        "advi": MeanField,
        "fullrank_advi": FullRank,
    }
    if name.lower() not in recipes:
        raise ValueError(
            f"There is no method called {name!r}. The names are {', '.join(NAMES)}; or "
            "pass a method itself, such as `vi.Descent(vi.ELBO(), optax.adam(1e-2))`."
        )
    # A small start grows without noise, since the entropy's gradient is exact; a wide one
    # shrinks against the noise of the log density's.
    recipe = functools.partial(recipes[name.lower()], scale=0.01)
    return Averaging(Descent(ELBO(4), _adam()), power=5), recipe
