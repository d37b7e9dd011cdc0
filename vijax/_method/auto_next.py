from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._proposal import flattened, heavy_tailed
from .._target import Target
from .base import AbstractMethod, F


class AutoNextState(NamedTuple):
    """The state of [`vijax.Auto`][]'s second stage, and the one the first ended with."""

    inner: Any
    num_steps: Int[Array, ""]
    before: Any


class AutoNext(AbstractMethod):
    """The second stage of [`vijax.Auto`][], in the whitened coordinates of the first.

    It is what `vi.fit` goes on with: a flow, where the weights of the Gaussian are poor;
    stochastic gradients, where steps see batches.

    **Attributes:**

    - `method`: what moves the family.
    - `before`: the state that the first stage ended with.
    - `num_steps`: after how many steps it ends; `None` if something else ends it.
    - `step_evaluations`: how many gradients a step takes; `None` if not of all data.
    - `corrects`: whether draws are corrected by importance.
    - `num_left`: how many modes with mass the first stage found, but this one leaves.
    """

    method: AbstractMethod
    before: Any
    num_steps: int | None = eqx.field(static=True)
    step_evaluations: int | None = eqx.field(static=True)
    corrects: bool = eqx.field(static=True, default=True)
    num_left: int = eqx.field(static=True, default=0)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> AutoNextState:
        inner = self.method.init(key, family, target)
        return AutoNextState(inner, jnp.zeros((), jnp.int32), self.before)

    def step(
        self, key: Key, family: F, target: Target, state: AutoNextState
    ) -> tuple[F, AutoNextState, Scalar]:
        family, inner, loss = self.method.step(key, family, target, state.inner)
        return family, AutoNextState(inner, state.num_steps + 1, state.before), loss

    def done(self, state: AutoNextState) -> Bool[Array, ""] | None:
        return None if self.num_steps is None else state.num_steps >= self.num_steps

    def answer(self, family: AbstractFamily, state: AutoNextState) -> AbstractFamily:
        del state
        return flattened(family)

    def proposal(
        self, family: AbstractFamily, state: AutoNextState
    ) -> AbstractFamily | None:
        return heavy_tailed(self.answer(family, state)) if self.corrects else None
