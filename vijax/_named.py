import functools

from ._family.full_rank import FullRank
from ._family.mean_field import MeanField
from ._method.averaging import Averaging
from ._method.base import AbstractMethod, default_optimizer, Recipe
from ._method.birth_death import BirthDeath
from ._method.descent import Descent
from ._method.svgd import SVGD
from ._objective.elbo import ELBO
from ._objective.stein_force import SteinForce
from ._target import Target


# Above so many coordinates a full covariance costs more than it brings.
_FULL_RANK_DIM = 200

NAMES = ("auto", "advi", "fullrank_advi", "svgd", "asvgd")


def named_method(name: str, target: Target) -> tuple[AbstractMethod, Recipe | None]:
    """The method that a name stands for, and its family where it is not the method's own.

    **Arguments:**

    - `name`: `"advi"` (mean field), `"fullrank_advi"`, or `"auto"`: the latter up to 200
        coordinates, the former beyond; `"svgd"` (particles) or `"asvgd"` (full rank).
        Case does not matter.
    - `target`: what it is for.

    **Raises:** `ValueError` for another name.
    """
    if name.lower() not in NAMES:
        raise ValueError(
            f"There is no method called {name!r}. The names are {', '.join(NAMES)}; or "
            "pass a method itself, such as `vi.Descent(vi.ELBO(), optax.adam(1e-2))`."
        )
    if name.lower() == "svgd":
        return BirthDeath(SVGD()), None
    in_batches = target.minibatch is not None
    elbo = ELBO(4, antithetic=in_batches)
    objective = SteinForce() if name.lower() == "asvgd" else elbo
    is_wide = target.dim > _FULL_RANK_DIM
    mean_field = {"auto": is_wide, "advi": True}.get(name.lower(), False)
    # A small start grows without noise, since the entropy's gradient is exact; a wide one
    # shrinks against the noise of the log density's. The Stein force has no entropy: it
    # hardly feels a narrow axis.
    scale = 1.0 if name.lower() == "asvgd" else 0.01
    recipe = functools.partial(MeanField if mean_field else FullRank, scale=scale)
    return Averaging(Descent(objective, default_optimizer()), power=5), recipe
