"""What a target says at each of many draws, as one program."""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._custom_types import AnyArray, Data, Params
from .._misc import in_blocks, is_traced, map_in_batches, num_side_by_side, tree_size
from .._target.data import as_data
from .._target.model import AbstractModel
from .._target.target import Target


# How many draws are looked at side by side.
_BLOCK = 256


def rebound(target: Target, data: Data) -> tuple[AbstractModel, Data]:
    """The model of a target and its data, with these in place of some."""
    if data is None:
        return target.model, target.data
    model, data = target.model.rebind(data, target.data)
    return model, as_data(data)


@eqx.filter_jit
def log_likelihoods(model: AbstractModel, params: Params, data: Data) -> Params:
    """Of each observation at each draw of `params`."""
    one = lambda params: model.log_likelihood(params, data)
    return map_in_batches(one, params, tree_size(data))


@eqx.filter_jit
def _constrained(target: Target, x: Float[AnyArray, "draws dim"]) -> Params:
    return jax.vmap(target.constrain)(x)


def constrained(target: Target, x: Float[Array, "draws dim"]) -> Params:
    """The named parameters at each draw."""
    if is_traced(target, x):
        return _constrained(target, x)
    size = num_side_by_side(tree_size(target.data), _BLOCK)
    program = lambda block: _constrained(target, block)
    return jax.device_put(in_blocks(program, size, np.asarray(x)))


@eqx.filter_jit
def evaluated(
    target: Target, x: Float[Array, "draws dim"], fn: Callable, args: tuple
) -> PyTree[Array]:
    """A function of the parameters at each draw."""
    one = lambda x: fn(target.constrain(x), *args)
    return map_in_batches(one, x, tree_size(args))
