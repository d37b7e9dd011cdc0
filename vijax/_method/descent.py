from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Scalar

from .._closures import closures_as_pytrees
from .._custom_types import Key
from .._family.base import AbstractFamily
from .._misc import all_finite, lenient_promotion
from .._objective.base import AbstractObjective
from .._target.target import Target
from .base import AbstractMethod, as_optimizer, F


class Descent(AbstractMethod):
    """Gradient descent on an objective, with any Optax optimizer.

    Every floating-point array of the family is trained.

    !!! Example

        ```python
        import optax
        import vijax as vi

        schedule = optax.cosine_decay_schedule(0.05, 2_000)
        method = vi.Descent(vi.StickTheLanding(num_draws=16), optax.adam(schedule))
        ```
    """

    objective: AbstractObjective
    optimizer: Any

    def __init__(
        self, objective: AbstractObjective, optimizer: optax.GradientTransformation
    ):
        """**Arguments:**

        - `objective`: the loss, and how to estimate its gradient.
        - `optimizer`: an Optax gradient transformation; chains, schedules and line
            searches included.

        **Raises:** `ValueError` if either is something else.
        """
        if not isinstance(objective, AbstractObjective):
            raise ValueError(
                "`objective` must be an objective such as `vi.ELBO(num_draws=1)`, but it "
                f"is {objective!r}."
            )
        self.objective = objective
        self.optimizer = closures_as_pytrees(as_optimizer(optimizer))

    @property
    def can_estimate(self) -> bool:
        return True

    def init(self, key: Key, family: AbstractFamily, target: Target) -> optax.OptState:
        del key, target
        return self.optimizer.init(eqx.filter(family, eqx.is_inexact_array))

    def step(
        self, key: Key, family: F, target: Target, state: optax.OptState
    ) -> tuple[F, optax.OptState, Scalar]:
        params, rest = eqx.partition(family, eqx.is_inexact_array)
        loss_fn = lambda params: self.objective(key, eqx.combine(params, rest), target)
        loss, grads = jax.value_and_grad(loss_fn)(params)
        with lenient_promotion():
            updates, state = self.optimizer.update(
                grads, state, params, value=loss, grad=grads, value_fn=loss_fn
            )
        family = eqx.apply_updates(family, updates)
        return family, state, jnp.where(all_finite(grads), loss, jnp.nan)
