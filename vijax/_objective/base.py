import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._target import Target


class AbstractObjective(eqx.Module):
    """A loss, to be made small, together with the way its gradient is estimated.

    To add an objective, or a gradient estimator, implement `__call__`.
    """

    @abc.abstractmethod
    def __call__(self, key: Key, family: AbstractFamily, target: Target) -> Scalar:
        """Estimate the loss.

        **Arguments:**

        - `key`: randomness for the estimate.
        - `family`: where to evaluate the loss. Differentiated.
        - `target`: what to approximate. Not differentiated.

        **Returns:**

        A scalar. Its value is an estimate of the loss; its derivative with respect to
        `family`, as given by `jax.grad`, is the gradient estimator.
        """


def check_num_draws(num_draws: int) -> None:
    """Raise unless `num_draws` is a positive whole number."""
    if isinstance(num_draws, bool) or not isinstance(num_draws, int) or num_draws < 1:
        raise ValueError(
            f"`num_draws` must be a positive whole number, but it is {num_draws!r}."
        )


def mean_over_draws(fn: Callable[[Key], Scalar], key: Key, num_draws: int) -> Scalar:
    """The mean of `fn` over independent keys, computed side by side."""
    if num_draws == 1:
        return fn(key)
    return jnp.mean(jax.vmap(fn)(jr.split(key, num_draws)))
