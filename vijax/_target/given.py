"""A target whose point estimates are fixed: what the rest of a fit is judged by."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Scalar

from .._custom_types import Data, Params, Point
from .._misc import others, put_together
from .model import AbstractModel, Labels
from .target import Target


class _Given(AbstractModel):
    """A model of fewer coordinates: those of the estimates are numbers."""

    model: AbstractModel
    values: Array

    def _whole(self, x: Point) -> Array:
        return put_together(x, self.values, self.model.points)

    def _rest(self, x: Array) -> Array:
        return x[others(self.model.dim, self.model.points)]

    def _named(self, params: Params) -> Params:
        estimates = self.model.point_names
        return {name: value for name, value in params.items() if name not in estimates}

    @property
    def dim(self) -> int:
        return self.model.dim - len(self.model.points)

    def initial(self) -> Point:
        return self._rest(self.model.initial())

    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        return self.model.log_density(self._whole(x), data, weight)

    def unravel(self, x: Point) -> Params:
        return self._named(self.model.unravel(self._whole(x)))

    def constrain(self, x: Point, data: Data) -> Params:
        return self._named(self.model.constrain(self._whole(x), data))

    def unconstrain(self, params: Params, data: Data) -> Point:
        whole = self._whole(jnp.zeros((self.dim,), self.values.dtype))
        known = self.model.constrain(whole, data)
        estimates = {name: known[name] for name in self.model.point_names}
        return self._rest(self.model.unconstrain(params | estimates, data))

    def check(self, data: Data, *, in_batches: bool) -> None:
        self.model.check(data, in_batches=in_batches)

    @property
    def judges_nan(self) -> bool:
        return self.model.judges_nan

    def labels(self, data: Data) -> Labels:
        return self.model.labels(data)


def given(target: Target, values: Array) -> Target:
    """The target of the other coordinates, given its point estimates."""
    return eqx.tree_at(lambda t: t.model, target, _Given(target.model, values))
