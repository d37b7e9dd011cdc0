from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._misc import all_finite, closures_as_pytrees, lenient_promotion
from .._objective.stick_the_landing import StickTheLanding
from .._proposal import heavy_tailed
from .._target import Target
from .base import AbstractMethod, F


NUM_STEPS = 2_000
NUM_DRAWS = 64


class _State(NamedTuple):
    inner: Any
    num_steps: Int[Array, ""]


class AutoFlow(AbstractMethod):
    """The second stage of [`vijax.Auto`][]: a flow around the Gaussian of the first.

    It is what `vi.fit` goes on with where the weights of the Gaussian are poor.

    **Attributes:**

    - `before`: the state that the first stage ended with.
    """

    before: Any
    optimizer: Any

    def __init__(self, before: Any):
        """**Arguments:**

        - `before`: the state that the first stage ended with.
        """
        self.before = before
        schedule = optax.cosine_decay_schedule(5e-3, NUM_STEPS)
        optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
        self.optimizer = closures_as_pytrees(optimizer)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> _State:
        del key, target
        inner = self.optimizer.init(eqx.filter(family, eqx.is_inexact_array))
        return _State(inner, jnp.zeros((), jnp.int32))

    def step(
        self, key: Key, family: F, target: Target, state: _State
    ) -> tuple[F, _State, Scalar]:
        params, rest = eqx.partition(family, eqx.is_inexact_array)
        objective = StickTheLanding(NUM_DRAWS)
        loss_fn = lambda params: objective(key, eqx.combine(params, rest), target)
        loss, grads = eqx.filter_value_and_grad(loss_fn)(params)
        with lenient_promotion():
            updates, inner = self.optimizer.update(grads, state.inner, params)
        family = eqx.apply_updates(family, updates)
        loss = jnp.where(all_finite(grads), loss, jnp.nan)
        return family, _State(inner, state.num_steps + 1), loss

    def done(self, state: _State) -> Bool[Array, ""]:
        return state.num_steps >= NUM_STEPS

    def proposal(self, family: AbstractFamily, state: _State) -> AbstractFamily:
        del state
        return heavy_tailed(family)
