"""The methods that names such as "advi" stand for."""

import functools

from .._auto.budget import FULL_RANK_DIM, is_affordable, num_starts_for
from .._family.full_rank import FullRank
from .._family.mean_field import MeanField
from .._method.auto import Auto
from .._method.averaging import Averaging
from .._method.base import AbstractMethod, default_optimizer, Recipe
from .._method.birth_death import BirthDeath
from .._method.descent import Descent
from .._method.nested import Nested
from .._method.svgd import SVGD
from .._objective.base import AbstractObjective
from .._objective.elbo import ELBO
from .._objective.stein_force import SteinForce
from .._objective.stick_the_landing import StickTheLanding
from .._target.target import Target


NAMES = ("auto", "nested", "advi", "fullrank_advi", "svgd", "asvgd")


def named_method(
    name: str, target: Target, *, own_family: bool
) -> tuple[AbstractMethod, Recipe | None]:
    """The method that a name stands for, and its family where it is not the method's own.

    **Arguments:**

    - `name`: `"auto"`; `"advi"` (mean field) or `"fullrank_advi"`; `"svgd"` (particles)
        or `"asvgd"` (full rank). Case does not matter. `"auto"` is [`vijax.Auto`][];
        where that cannot be used, for more than 1,000 coordinates, point estimates or a
        family of the user's choice, ADVI: of full rank up to 200 coordinates. `"nested"`
        is [`vijax.Nested`][].
    - `target`: what it is for.
    - `own_family`: whether the user chose no other family.

    **Raises:** `ValueError` for another name.
    """
    if name.lower() not in NAMES:
        raise ValueError(
            f"There is no method called {name!r}. The names are {', '.join(NAMES)}; or "
            "pass a method itself, such as `vi.Descent(vi.ELBO(), optax.adam(1e-2))`."
        )
    if name.lower() == "svgd":
        return BirthDeath(SVGD()), None
    if name.lower() == "nested":
        return Nested(num_starts=num_starts_for(target.dim)), None
    by_itself = name.lower() == "auto" and own_family and not target.model.point_names
    if by_itself and is_affordable(target.dim):
        return Auto(num_starts_for(target.dim)), None
    is_wide = target.dim > FULL_RANK_DIM
    mean_field = {"auto": is_wide, "advi": True}.get(name.lower(), False)
    # A small start grows without noise, since the entropy's gradient is exact; a wide one
    # shrinks against the noise of the log density's. The Stein force has no entropy: it
    # hardly feels a narrow axis.
    scale = 1.0 if name.lower() == "asvgd" else 0.01
    recipe = functools.partial(MeanField if mean_field else FullRank, scale=scale)
    objective = SteinForce() if name.lower() == "asvgd" else None
    if by_itself and target.minibatch is None:
        # Its noise vanishes as the family nears the target, so that a run can end.
        objective = StickTheLanding(4)
    return stochastic(target, objective), recipe


def stochastic(target: Target, objective: AbstractObjective | None = None) -> Averaging:
    """Stochastic gradients, of the ELBO unless told, whose rate suits any length."""
    if objective is None:
        objective = ELBO(4, antithetic=target.minibatch is not None)
    return Averaging(Descent(objective, default_optimizer()), power=5)
