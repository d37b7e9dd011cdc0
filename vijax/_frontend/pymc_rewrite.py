"""What is done to the graph of a PyMC model before it is looked at.

PyMC and PyTensor are imported inside, since they are optional.
"""

from typing import Any

import numpy as np


# Constants as large as this are data: a program should not hold a table.
_LARGE = 1000
# Square ones are covariances or neighbours: what is made of them alone, such as a root,
# is made once if they are constants.
_LARGE_SQUARE = 2**18


def without_initial_values(model: Any) -> Any:
    """The same model but for its initial values, with which PyMC cannot copy it."""
    out = object.__new__(type(model))
    out.__dict__ = model.__dict__ | {
        "rvs_to_initial_values": dict.fromkeys(model.rvs_to_initial_values)
    }
    return out


def fold_constants(fgraph: Any) -> None:
    """Compute what depends on constants alone: the shape of `W.nonzero()`, for one, is
    known only then, and once `W` is data it never is."""
    from pytensor.tensor.rewriting.basic import topo_constant_folding

    topo_constant_folding.apply(fgraph)


def take_scales(fgraph: Any) -> dict[str, tuple[Any, ...]]:
    """`{observed variable: total_size of each axis}`, which the graph no longer has then.

    PyMC cannot make such a node anew, as a copy with other shapes does, if there is an
    axis without a `total_size`; and it finds the density of a variable more often
    without one around it.
    """
    from pymc.variational.minibatch_rv import MinibatchRandomVariable
    from pytensor.tensor.type_other import NoneConst

    out = {}
    for name, node in observed_nodes(fgraph.outputs).items():
        rv = node.inputs[0].owner
        if isinstance(rv.op, MinibatchRandomVariable):
            plain, *sizes = rv.inputs
            out[name] = tuple(None if NoneConst.equals(n) else n for n in sizes)
            fgraph.replace(rv.outputs[0], plain, import_missing=True)
    return out


def is_small_constant(var: Any) -> bool:
    """Whether a variable is a constant that may stay in a program."""
    from pytensor.graph.basic import Constant

    if not isinstance(var, Constant):
        return False
    shape = np.shape(var.data)
    square = len(shape) == 2 and shape[0] == shape[1]
    return np.size(var.data) < (_LARGE_SQUARE if square else _LARGE)


def leaf_of(var: Any) -> Any:
    """The data that an observed value is, behind casts and minibatches; or `None`."""
    from pymc.data import MinibatchOp
    from pymc.model.fgraph import ModelNamed
    from pytensor.scalar.basic import Cast
    from pytensor.tensor.elemwise import Elemwise

    while var.owner is not None:
        op = var.owner.op
        if isinstance(op, MinibatchOp):
            var = var.owner.inputs[var.owner.outputs.index(var)]
        elif isinstance(op, ModelNamed) or (
            isinstance(op, Elemwise) and isinstance(op.scalar_op, Cast)
        ):
            var = var.owner.inputs[0]
        else:
            return None
    return var


def observed_nodes(outputs: list[Any]) -> dict[str, Any]:
    """`{name: node}` of the observed variables among the outputs of a graph."""
    from pymc.model.fgraph import ModelObservedRV

    observed = (out for out in outputs if isinstance(out.owner.op, ModelObservedRV))
    return {str(out.name): out.owner for out in observed}


def batches_behind(variables: list[Any]) -> list[Any]:
    """The nodes of `pm.Minibatch` that some variables are computed from."""
    from pymc.data import MinibatchOp
    from pytensor.graph.traversal import ancestors

    owners = {v.owner: None for v in ancestors(variables) if v.owner is not None}
    return [node for node in owners if isinstance(node.op, MinibatchOp)]


def _without_fixed_shapes(var: Any) -> Any:
    """A random variable, and those that it is made of, without what says their shapes:
    PyTensor puts it there where an inner graph meets inputs of other shapes."""
    from pytensor.graph.basic import Apply
    from pytensor.tensor.shape import SpecifyShape

    while var.owner is not None and isinstance(var.owner.op, SpecifyShape):
        var = var.owner.inputs[0]
    node: Any = var.owner
    if node is None or not hasattr(node.op, "ndim_supp"):
        return var
    inputs = [_without_fixed_shapes(x) for x in node.inputs]
    if all(new is old for new, old in zip(inputs, node.inputs, strict=True)):
        return var
    # Not made by `op.make_node`, which would put them there again.
    new: Any = Apply(node.op, inputs, [out.type() for out in node.outputs])
    return new.outputs[node.outputs.index(var)]


def fit_to_value(rv: Any, value: Any) -> Any:
    """A random variable with the shape of what is observed of it: its size may be that
    of a batch, written down or derived when it was made."""
    from pymc.distributions.shape_utils import change_dist_size

    bare = _without_fixed_shapes(rv)
    pairs = zip(bare.type.shape, value.type.shape, strict=True)
    if bare is rv and all(None in pair or pair[0] == pair[1] for pair in pairs):
        return rv
    size = tuple(value.shape)[: bare.type.ndim - bare.owner.op.ndim_supp]
    return change_dist_size(bare, size)


def as_number(var: Any) -> float | None:
    """The number that a variable is, in however many axes."""
    from pytensor.tensor.elemwise import DimShuffle

    while var.owner is not None and isinstance(var.owner.op, DimShuffle):
        var = var.owner.inputs[0]
    value = np.asarray(getattr(var, "data", np.nan))
    return float(value.item()) if value.size == 1 else None


def drop_fine_checks(fgraph: Any, eps: float) -> None:
    """Leave out checks of parameters with a tolerance below what rounding gives.

    PyMC's are meant for float64: what sums to zero has a mean below 1e-9.
    """
    from pymc.logprob.utils import CheckParameterValue
    from pytensor.tensor.basic import as_tensor

    nodes = [n for n in fgraph.apply_nodes if isinstance(n.op, CheckParameterValue)]
    to_see, seen = [var.owner for node in nodes for var in node.inputs[1:]], set()
    while to_see:
        node = to_see.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for i, var in enumerate(node.inputs):
            number = as_number(var) if "float" in var.type.dtype else None
            if number is not None and 0 < number < eps:
                new = as_tensor(np.full(var.type.shape, np.inf, var.type.dtype))
                fgraph.change_node_input(node, i, new, import_missing=True)
            is_sum = var.owner is not None and _is_sum_of_two(var.owner)
            if var.type.dtype == "bool" or is_sum:
                to_see.append(var.owner)


def _is_sum_of_two(node: Any) -> bool:
    from pytensor.scalar.basic import Add
    from pytensor.tensor.elemwise import Elemwise

    is_sum = isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, Add)
    return is_sum and len(node.inputs) == 2
