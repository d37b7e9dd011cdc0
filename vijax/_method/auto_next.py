"""The default's second stage as a method: a flow, or stochastic gradients."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Scalar

from .._custom_types import Key
from .._draws.proposal import flattened, heavy_tailed
from .._family.base import AbstractFamily
from .._target.target import Target
from .base import AbstractMethod, F


class AutoNextState(NamedTuple):
    """The state of [`vijax.Auto`][]'s second stage, and the one the first ended with.

    It ends after `last_step`, which may be put off once, up to `longest`.
    """

    inner: Any
    num_steps: Int[Array, ""]
    last_step: Int[Array, ""]
    longest: Int[Array, ""]
    before: Any


class AutoNext(AbstractMethod):
    """The second stage of [`vijax.Auto`][], in the whitened coordinates of the first.

    It is what `vi.fit` goes on with: a flow, where the weights of the Gaussian are poor;
    stochastic gradients, where steps see batches.

    **Attributes:**

    - `method`: what moves the family.
    - `before`: the state that the first stage ended with.
    - `num_steps`: after how many steps it ends; `None` if something else ends it.
    - `longest`: how many there may be in all, if these do not do.
    - `step_evaluations`: how many gradients a step takes; `None` if not of all data.
    - `corrects`: whether draws are corrected by importance.
    - `num_left`: how many modes with mass the first stage found, but this one leaves.
    """

    method: AbstractMethod
    before: Any
    longest: Int[Array, ""]
    num_steps: int | None = eqx.field(static=True)
    step_evaluations: int | None = eqx.field(static=True)
    corrects: bool = eqx.field(static=True, default=True)
    num_left: int = eqx.field(static=True, default=0)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> AutoNextState:
        return AutoNextState(
            inner=self.method.init(key, family, target),
            num_steps=jnp.zeros((), jnp.int32),
            last_step=jnp.full((), self.num_steps or 0, jnp.int32),
            longest=self.longest,
            before=self.before,
        )

    def step(
        self, key: Key, family: F, target: Target, state: AutoNextState
    ) -> tuple[F, AutoNextState, Scalar]:
        family, inner, loss = self.method.step(key, family, target, state.inner)
        return family, state._replace(inner=inner, num_steps=state.num_steps + 1), loss

    def done(self, state: AutoNextState) -> Bool[Array, ""] | None:
        return None if self.num_steps is None else state.num_steps >= state.last_step

    def doing(self, state: AutoNextState) -> str:
        return "all rows, in batches" if self.num_steps is None else "flow"

    def answer(self, family: AbstractFamily, state: AutoNextState) -> AbstractFamily:
        del state
        return flattened(family)

    def proposal(
        self, family: AbstractFamily, state: AutoNextState
    ) -> AbstractFamily | None:
        return heavy_tailed(self.answer(family, state)) if self.corrects else None
