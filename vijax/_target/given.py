"""A target whose point estimates are fixed: what the rest of a fit is judged by."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Scalar

from .._custom_types import Data, Params, Point
from .target import AbstractModel, Labels, Target


class _Given(AbstractModel):
    """A model of fewer coordinates: those of the estimates are numbers."""

    model: AbstractModel
    values: Array

    def _others(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.model.dim), self.model.points)

    def _whole(self, x: Point) -> Array:
        out = jnp.zeros((self.model.dim,), x.dtype).at[self._others()].set(x)
        places = np.array(self.model.points)
        return out.at[places].set(self.values.astype(x.dtype))

    @property
    def dim(self) -> int:
        return self.model.dim - len(self.model.points)

    def initial(self) -> Point:
        return self.model.initial()[self._others()]

    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        return self.model.log_density(self._whole(x), data, weight)

    def unravel(self, x: Point) -> Params:
        parts, estimates = self.model.unravel(self._whole(x)), self.model.point_names
        return {name: part for name, part in parts.items() if name not in estimates}

    def constrain(self, x: Point, data: Data) -> Params:
        params = self.model.constrain(self._whole(x), data)
        estimates = self.model.point_names
        return {name: value for name, value in params.items() if name not in estimates}

    def unconstrain(self, params: Params, data: Data) -> Point:
        whole = self._whole(jnp.zeros((self.dim,), self.values.dtype))
        known = self.model.constrain(whole, data)
        estimates = {name: known[name] for name in self.model.point_names}
        return self.model.unconstrain(params | estimates, data)[self._others()]

    def check(self, data: Data, *, in_batches: bool) -> None:
        self.model.check(data, in_batches=in_batches)

    @property
    def judges_nan(self) -> bool:
        return self.model.judges_nan

    def labels(self, data: Data) -> Labels:
        return self.model.labels(data)


def given(target: Target, x: Point) -> Target:
    """The target of the other coordinates, given the estimates that are in `x`."""
    values = x[np.array(target.model.points)]
    return eqx.tree_at(lambda t: t.model, target, _Given(target.model, values))
