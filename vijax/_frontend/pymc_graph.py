"""A PyMC model as functions of JAX, with its data as arguments.

Nothing here knows of inference. PyMC and PyTensor are imported inside, since they are
optional.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .pymc_jax import Program, quiet


# Constants as large as this are data: a program should not hold a table.
_LARGE = 1000

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def _without_initial_values(model: Any) -> Any:
    """The same model but for its initial values, with which PyMC cannot copy it."""
    out = object.__new__(type(model))
    out.__dict__ = model.__dict__ | {
        "rvs_to_initial_values": dict.fromkeys(model.rvs_to_initial_values)
    }
    return out


class PyMCGraph:
    """A PyMC model of which copies with other data can be made. It is never changed.

    **Attributes:**

    - `data`: `{name: array}`, the data that the model holds.
    - `fixed`: names of data whose shapes are a part of the model.
    - `observed`: `{observed variable: name of its data}`.
    - `minibatches`: `{name: (length, batch size)}`.
    """

    def __init__(self, model: Any):
        from pymc.model.fgraph import fgraph_from_model

        with quiet():
            self._point = model.initial_point(0)
            self._fgraph, self._memo = fgraph_from_model(_without_initial_values(model))
        self.model = model
        self.data: dict[str, np.ndarray] = {}
        self.fixed: set[str] = set()
        self._leaves: dict[Any, str] = {}
        self._programs: dict[Any, Program] = {}
        self._find_dimensions()
        self._find_observed()
        self._find_minibatches()
        self._find_other_data()

    def __deepcopy__(self, memo: dict) -> "PyMCGraph":
        return self

    def _find_dimensions(self) -> None:
        from pytensor.compile.sharedvalue import SharedVariable

        self._lengths: dict[Any, str] = {}
        self._usual_lengths: dict[str, int] = {}
        for dim, length in self.model.dim_lengths.items():
            self._usual_lengths[dim] = int(length.eval(mode="FAST_COMPILE"))
            if isinstance(length, SharedVariable):
                self._lengths[self._memo.get(length, length)] = dim

    def _find_observed(self) -> None:
        from pymc.model.fgraph import ModelObservedRV

        self.observed: dict[str, str] = {}
        for node in self._fgraph.toposort():
            if isinstance(node.op, ModelObservedRV):
                name = str(node.outputs[0].name)
                leaf = self._add_leaf(_leaf_of(node.inputs[1]), name)
                if leaf is not None:
                    self.observed[name] = leaf

    def _find_other_data(self) -> None:
        from pytensor.graph.basic import Constant

        for node in self._fgraph.toposort():
            for var in node.inputs:
                is_small = isinstance(var, Constant) and np.size(var.data) < _LARGE
                if var.owner is None and not is_small:
                    kind = "constant" if isinstance(var, Constant) else "shared"
                    name = f"{kind}_{len(self.data)}"
                    self._add_leaf(var, str(var.name or name))

    def _find_minibatches(self) -> None:
        from pymc.data import MinibatchOp

        self.minibatches: dict[str, tuple[int, int]] = {}
        self._behind: dict[str, list[str]] = {}
        self._generators: dict[Any, str] = {}
        for node in self._fgraph.toposort():
            if isinstance(node.op, MinibatchOp):
                name = f"minibatch_{len(self.minibatches)}"
                leaves = [
                    self._add_leaf(_leaf_of(var), f"{name}_{i}")
                    for i, var in enumerate(node.inputs[:-1])
                ]
                self._behind[name] = [leaf for leaf in leaves if leaf is not None]
                first: Any = node.inputs[0]
                length = first.shape[0].eval(mode="FAST_COMPILE")
                size = node.outputs[0].type.shape[0]
                self.minibatches[name] = int(length), size
                # Each has its own generator, by which copies of it are recognized.
                self._generators[node.inputs[-1]] = name

    def _add_leaf(self, var: Any, name: str) -> str | None:
        """Make data of a variable, if it can be, and return their name."""
        from pytensor.compile.sharedvalue import SharedVariable
        from pytensor.tensor.type import TensorType

        if var is None or var.owner is not None or var in self._lengths:
            return None
        if var in self._leaves or not isinstance(var.type, TensorType):
            return self._leaves.get(var)
        is_shared = isinstance(var, SharedVariable)
        if not is_shared and not hasattr(var, "data"):
            return None  # A value variable.
        value = np.asarray(var.get_value() if is_shared else var.data)
        if value.dtype.kind not in "fiub" or (value.dtype.kind == "b" and not is_shared):
            return None  # A mask of constants selects entries when a program is made.
        name = str(var.name) if is_shared and var.name else name
        twins = [n for n, old in self.data.items() if not is_shared and old is value]
        if not twins and name in self.data:
            name = f"{name}_{len(self.data)}"
        self._leaves[var] = twins[0] if twins else name
        self.data[self._leaves[var]] = value
        if not is_shared:
            self.fixed.add(self._leaves[var])
        return self._leaves[var]

    def length_of(self, minibatch: str, shapes: Shapes) -> int:
        """How many rows there are to take batches of, for data of some shapes."""
        lengths = [dict(shapes)[leaf][0] for leaf in self._behind[minibatch]]
        return lengths[0] if lengths else self.minibatches[minibatch][0]

    def check_total_size(self) -> None:
        """Raise if a batch would not be scaled to all the rows."""
        from pymc.data import MinibatchOp
        from pymc.model.fgraph import ModelObservedRV
        from pymc.variational.minibatch_rv import MinibatchRandomVariable
        from pytensor.graph.traversal import ancestors

        for node in self._fgraph.toposort():
            if not isinstance(node.op, ModelObservedRV):
                continue
            rv, value, *_ = node.inputs
            owners = [var.owner for var in ancestors([value]) if var.owner is not None]
            in_batches = any(isinstance(owner.op, MinibatchOp) for owner in owners)
            if in_batches and not isinstance(rv.owner.op, MinibatchRandomVariable):
                raise ValueError(
                    f"{node.outputs[0].name!r} is observed in batches, but how many rows "
                    "there are in all is not said: pass `total_size=` to it."
                )

    def lengths(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
        """The length of each dimension for data of some shapes."""
        out = dict(self._usual_lengths)
        for name, dims in self.model.named_vars_to_dims.items():
            if name in shapes:
                out |= dict(zip(dims, shapes[name], strict=True))
        return {dim: length for dim, length in out.items() if dim is not None}

    def coords(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        """The labels along each dimension; numbers where its length is another now."""
        out = {}
        for dim, length in self.lengths(shapes).items():
            labels = self.model.coords.get(dim) or ()
            out[dim] = list(labels if len(labels) == length else range(length))
        return out

    def _copy(self, leaves: dict[str, Any], indices: dict[str, Any]) -> Any:
        """A PyMC model of `leaves`, seen where `indices` say."""
        from pymc.data import MinibatchOp
        from pymc.model.fgraph import model_from_fgraph, ModelFreeRV
        from pytensor.graph.fg import FunctionGraph
        from pytensor.graph.replace import clone_replace
        from pytensor.graph.traversal import ancestors
        from pytensor.tensor.basic import constant

        shapes = {name: leaf.type.shape for name, leaf in leaves.items()}
        lengths = self.lengths(shapes)
        new: dict[Any, Any] = {var: leaves[name] for var, name in self._leaves.items()}
        for var, dim in self._lengths.items():
            new[var] = constant(lengths[dim], name=dim, dtype=var.type.dtype)
        names = [out.name for out in self._fgraph.outputs]
        # Types follow from the static shapes of the data only if nodes are made anew.
        outputs = clone_replace(self._fgraph.outputs, new, rebuild_strict=False)
        seen = {}
        for var in ancestors(outputs):
            if var.owner is not None and isinstance(var.owner.op, MinibatchOp):
                at = var.owner.outputs.index(var)
                index = indices.get(self._generators[var.owner.inputs[-1]])
                if at < len(var.owner.inputs) - 1:
                    whole = var.owner.inputs[at]
                    seen[var] = whole if index is None else whole[index]
        if seen:
            outputs = clone_replace(outputs, seen, rebuild_strict=False)
        for output, name in zip(outputs, names, strict=True):
            output.name = name
        fgraph: Any = FunctionGraph(outputs=outputs, clone=False)
        fgraph._coords = {dim: tuple(ticks) for dim, ticks in self.coords(shapes).items()}
        fgraph._dim_lengths = {
            dim: constant(length, dtype="int64") for dim, length in lengths.items()
        }
        values = {}
        for node in fgraph.apply_nodes:
            if isinstance(node.op, ModelFreeRV):
                rv, old, *_ = node.inputs
                transform = node.op.transform
                values[old] = (
                    rv if transform is None else transform.forward(rv, *rv.owner.inputs)
                ).type(name=old.name)
        fgraph.replace_all(tuple(values.items()), import_missing=True)
        return model_from_fgraph(fgraph, mutate_fgraph=True)

    def holding(self, data: dict[str, Any]) -> Any:
        """A PyMC model of its own that holds `data`, and sees them whole."""
        leaves = {}
        for name, var in self._roots({k: np.shape(v) for k, v in data.items()}).items():
            value = np.array(data[name], var.type.dtype)
            leaves[name] = var.type.constant_type(var.type, value, name=name)
        with quiet():
            return self._copy(leaves, {})

    def _roots(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        from pytensor.tensor.type import TensorType

        types = {name: var.type for var, name in self._leaves.items()}
        return {
            name: TensorType(types[name].dtype, shape=shapes[name])(name)
            for name in self.data
        }

    def program(self, shapes: Shapes, sizes: Shapes = ()) -> Program:
        """The functions for data of some shapes, in batches of some sizes."""
        from pytensor.tensor.type import TensorType

        key = shapes, sizes, jnp.result_type(float)
        if key not in self._programs:
            roots = self._roots(dict(shapes))
            indices = {
                name: TensorType("int64", shape=shape)(name) for name, shape in sizes
            }
            with quiet():
                model = self._copy(roots, indices)
            inputs = [*roots.values(), *indices.values()]
            self._programs[key] = Program(model, inputs, self.model)
        return self._programs[key]

    def initial(self, data: dict[str, Any]) -> dict[str, np.ndarray]:
        """Where PyMC starts the value variables, by the names of the free variables."""
        old = {rv.name: self.model.rvs_to_values[rv].name for rv in self.model.free_RVs}
        point = {name: np.asarray(self._point[value]) for name, value in old.items()}
        shape = {name: value.shape for name, value in self.data.items()}
        if all(np.shape(value) == shape[name] for name, value in data.items()):
            return point
        with quiet():
            new = self.holding(data).initial_point(0)
        return {
            name: point[name] if np.shape(new[value]) == point[name].shape else new[value]
            for name, value in old.items()
        }


def _leaf_of(var: Any) -> Any:
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
