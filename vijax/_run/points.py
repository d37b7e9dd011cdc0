"""Point estimates: a family of the other coordinates is put together with them."""

import numpy as np
from jaxtyping import Array

from .._custom_types import Point
from .._family.base import AbstractFamily
from .._family.point_estimates import PointEstimates
from .._method.base import AbstractMethod, label
from .._misc import listed, others
from .._target.target import Target


def check_can_estimate(method: AbstractMethod, target: Target) -> None:
    """Raise if there are estimates to be made, and the method makes none."""
    if target.model.point_names and not method.can_estimate:
        names = listed(f"`{name}`" for name in target.model.point_names)
        raise ValueError(
            f"`vi.{label(method)}` cannot find point estimates, of {names}: it does not "
            "follow the gradient of an objective. Use the names "
            '"auto", "advi" or "fullrank_advi", or `vi.Descent`.'
        )


def others_of(x: Point, target: Target) -> Array:
    """The coordinates that are no estimates."""
    places = target.model.points
    return x[others(target.dim, places)] if places else x


def with_points(family: AbstractFamily, x: Point, target: Target) -> AbstractFamily:
    """A family of the coordinates that are no estimates, with these as in `x`."""
    places = target.model.points
    is_whole = isinstance(family, PointEstimates)
    if is_whole and family.places != places:
        raise ValueError(
            f"`family` has point estimates of the coordinates {family.places}, but those "
            f"of the target are {places}. Say which sites are estimated when the target "
            "is made, `vi.from_numpyro(model, ..., point=...)`, and give a family of the "
            "others."
        )
    if is_whole or not places:
        return family
    dim = target.dim - len(places)
    if family.dim != dim:
        raise ValueError(
            f"`family` has {family.dim} coordinates, but {dim} of the target's "
            f"{target.dim} are no point estimates: give a family of these."
        )
    return PointEstimates(family, x[np.array(places)], places)
