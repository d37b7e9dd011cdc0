"""Point estimates: a family of the other coordinates is put together with them."""

from typing import Any

import numpy as np
from jaxtyping import Array

from .._custom_types import Point
from .._family.base import AbstractFamily
from .._family.point_estimates import PointEstimates
from .._method.averaging import Averaging
from .._method.base import AbstractMethod
from .._method.descent import Descent
from .._misc import listed
from .._target.target import Target


def check_can_estimate(method: AbstractMethod, target: Target) -> None:
    """Raise if there are estimates to be made, and the method makes none."""
    inner: Any = method
    while isinstance(inner, Averaging):
        inner = inner.method
    if target.model.point_names and not isinstance(inner, Descent):
        names = listed(f"`{name}`" for name in target.model.point_names)
        raise ValueError(
            f"`vi.{type(inner).__name__}` cannot find point estimates, of {names}: it "
            "does not follow the gradient of an objective. Use the names "
            '"auto", "advi" or "fullrank_advi", or `vi.Descent`.'
        )


def others_of(x: Point, target: Target) -> Array:
    """The coordinates that are no estimates."""
    places = target.model.points
    return x[np.setdiff1d(np.arange(target.dim), places)] if places else x


def with_points(family: AbstractFamily, x: Point, target: Target) -> AbstractFamily:
    """A family of the coordinates that are no estimates, with these as in `x`; a family
    of all coordinates as it is."""
    places = target.model.points
    if not places or family.dim == target.dim:
        return family
    return PointEstimates(family, x[np.array(places)], places)
