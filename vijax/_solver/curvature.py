"""The curvature of a log density at a point, from differences of its scores."""

import numpy as np
from jaxtyping import Float

from .._arrays import namespace
from .._custom_types import AnyArray


# Of each difference: how many steps away, and the weight (fourth order, central).
_STEPS = np.array([1.0, -1.0, 2.0, -2.0])
_WEIGHTS = np.array([8.0, -8.0, -1.0, 1.0]) / 12


def width_for(eps: AnyArray) -> AnyArray:
    """The step, in standard deviations, at which what is left out of the differences and
    what is rounded in the scores, some hundred units of `eps`, are equally small."""
    return (100 * eps) ** 0.2


def around(
    x: Float[AnyArray, " dim"], root: Float[AnyArray, "dim dim"], width: AnyArray
) -> Float[AnyArray, "points dim"]:
    """The `4 dim` points at which scores tell the curvature at `x`; `root` is that of
    about the inverse curvature, `width` a step in its units."""
    steps = (width * _STEPS.astype(x.dtype))[:, None, None] * root.T
    return (x + steps).reshape(-1, len(x))


def curvature(
    scores: Float[AnyArray, "points dim"],
    root: Float[AnyArray, "dim dim"],
    width: AnyArray,
) -> Float[AnyArray, "dim dim"]:
    """The negative Hessian in the coordinates of `root`, in which it is about one."""
    xp, dim = namespace(root), len(root)
    parts = scores.reshape(len(_STEPS), dim, dim)
    slope = xp.einsum("s,sij->ij", _WEIGHTS.astype(root.dtype), parts) / width
    found = -slope @ root
    return 0.5 * (found + found.T)
