"""What an objective is."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._misc import as_whole
from .._target.target import Target


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


def as_num_draws(num_draws: int) -> int:
    """How many draws, as a positive whole number."""
    return as_whole("num_draws", num_draws, 1)


def mean_over_draws(fn: Callable[[Key], Scalar], key: Key, num_draws: int) -> Scalar:
    """The mean of `fn` over independent keys, computed side by side."""
    if num_draws == 1:
        return fn(key)
    return jnp.mean(jax.vmap(fn)(jr.split(key, num_draws)))
