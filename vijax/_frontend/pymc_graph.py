"""A PyMC model as functions of JAX, with its data as arguments.

Nothing here knows of inference. PyMC and PyTensor are imported inside, since they are
optional.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .pymc_data import PyMCData, Shapes
from .pymc_jax import Program, quiet, Scales
from .pymc_rewrite import (
    batches_behind,
    fit_to_value,
    fold_constants,
    observed_nodes,
    take_scales,
    without_initial_values,
)


class PyMCGraph:
    """A PyMC model of which copies with other data can be made. It is never changed.

    **Attributes:**

    - `model`: the model.
    - `data`: the data in it.
    """

    def __init__(self, model: Any):
        from pymc.model.fgraph import fgraph_from_model

        with quiet():
            self._point = model.initial_point(0)
            self._fgraph, memo = fgraph_from_model(without_initial_values(model))
            self._scales = take_scales(self._fgraph)
            fold_constants(self._fgraph)
            self.data = PyMCData(model, self._fgraph, memo)
        self.model = model
        self._programs: dict[Any, Program] = {}

    def __deepcopy__(self, memo: dict) -> "PyMCGraph":
        return self

    def __repr__(self) -> str:
        names = [rv.name for rv in self.model.basic_RVs]
        return (
            f"PyMCGraph({len(names)} variables, {len(self.data.arrays)} arrays of data)"
        )

    def check_total_size(self) -> None:
        """Raise if a batch would not be scaled to all the rows."""
        for name in self.data.in_batches:
            if name not in self._scales:
                raise ValueError(
                    f"{name!r} is observed in batches, but how many rows there are in "
                    "all is not said: pass `total_size=` to it."
                )

    def _replaced(self, leaves: dict[str, Any], indices: dict[str, Any]) -> list[Any]:
        """The outputs of the graph, and what it is scaled by, of other leaves."""
        from pytensor.graph.replace import clone_replace
        from pytensor.tensor.basic import constant

        totals = [n for sizes in self._scales.values() for n in sizes if n is not None]
        new: dict[Any, Any] = {v: leaves[name] for v, name in self.data.leaves.items()}
        # Types follow from the static shapes of the data only if nodes are made anew.
        copy = clone_replace([*self._fgraph.outputs, *totals], new, rebuild_strict=False)
        new = {}
        for node in batches_behind(copy):
            index = indices.get(self.data.name_of(node))
            pairs = zip(node.outputs, node.inputs[:-1], strict=False)
            new |= {var: x if index is None else x[index] for var, x in pairs}
        lengths = self.data.lengths(_shapes_of(leaves), _shapes_of(indices))
        for var, dim in self.data.dims.items():
            new[var] = constant(lengths[dim], name=dim, dtype=var.type.dtype)
        copy = clone_replace(copy, new, rebuild_strict=False)
        for output, old in zip(copy, self._fgraph.outputs, strict=False):
            output.name = old.name
        nodes = observed_nodes(copy[: len(self._fgraph.outputs)])
        rvs = [nodes[name].inputs[:2] for name in self.data.in_batches]
        pairs = [(rv, fit_to_value(rv, value)) for rv, value in rvs]
        pairs = [(rv, now) for rv, now in pairs if now is not rv]
        # One pass, for what is new is made of what is there.
        return _rebuilder()(copy, [], pairs, [], rebuild_strict=False)[1]

    def _copy(
        self, leaves: dict[str, Any], indices: dict[str, Any], values: Shapes = ()
    ) -> tuple[Any, Scales]:
        """A PyMC model of `leaves`, seen where `indices` say; and the total sizes of its
        observed variables."""
        from pymc.model.fgraph import model_from_fgraph
        from pytensor.graph.fg import FunctionGraph
        from pytensor.tensor.basic import constant

        names = [out.name for out in self._fgraph.outputs]
        copy = self._replaced(leaves, indices)
        outputs, totals = copy[: len(names)], iter(copy[len(names) :])
        for output, name in zip(outputs, names, strict=True):
            output.name = name
        # Data observed twice are there twice.
        outputs = list({output.name: output for output in outputs}.values())
        fgraph: Any = FunctionGraph(outputs=outputs, clone=False)
        lengths = self.data.lengths(_shapes_of(leaves), _shapes_of(indices))
        fgraph._coords = {dim: tuple(range(n)) for dim, n in lengths.items()}
        fgraph._dim_lengths = {
            dim: constant(n, dtype="int64") for dim, n in lengths.items()
        }
        self._settle(fgraph, dict(values))
        scales = {
            name: tuple(None if n is None else next(totals) for n in sizes)
            for name, sizes in self._scales.items()
        }
        return model_from_fgraph(fgraph, mutate_fgraph=True), scales

    def _settle(self, fgraph: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        """Make a copy's values of the types that they have now, each with its own."""
        from pymc.model.fgraph import ModelFreeRV
        from pytensor.tensor.type import TensorType

        new, values = [], set()
        for node in fgraph.apply_nodes:
            if isinstance(node.op, ModelFreeRV):
                rv, old, *_ = node.inputs
                transform = node.op.transform
                like = (
                    rv if transform is None else transform.forward(rv, *rv.owner.inputs)
                )
                shape = shapes.get(node.outputs[0].name, like.type.shape)
                new.append((old, TensorType(like.type.dtype, shape=shape)(old.name)))
        for node in observed_nodes(fgraph.outputs).values():
            value = node.inputs[1]
            if value in values:
                # PyMC tells variables apart by their values.
                fgraph.change_node_input(node, 1, value.copy(), import_missing=True)
            values.add(value)
        fgraph.replace_all(new, import_missing=True)

    def holding(self, data: dict[str, Any]) -> Any:
        """A PyMC model of its own that holds `data`, and sees them whole."""
        leaves = {}
        shapes = tuple((name, np.shape(value)) for name, value in data.items())
        for name, var in self._roots(shapes).items():
            value = np.array(data[name], var.type.dtype)
            leaves[name] = var.type.constant_type(var.type, value, name=name)
        with quiet():
            return self._copy(leaves, {})[0]

    def _roots(self, shapes: Shapes) -> dict[str, Any]:
        from pytensor.tensor.type import TensorType

        dtypes = {name: var.type.dtype for var, name in self.data.leaves.items()}
        return {
            name: TensorType(dtypes[name], shape=dict(shapes)[name])(name)
            for name in self.data.arrays
        }

    def program(self, shapes: Shapes, values: Shapes, sizes: Shapes = ()) -> Program:
        """The functions of values of some shapes, for data of some shapes, in batches of
        some sizes."""
        from pytensor.tensor.type import TensorType

        key = shapes, values, sizes, jnp.result_type(float)
        if key not in self._programs:
            roots = self._roots(shapes)
            indices = {
                name: TensorType("int64", shape=shape)(name) for name, shape in sizes
            }
            with quiet():
                model, scales = self._copy(roots, indices, values)
            inputs = [*roots.values(), *indices.values()]
            start = {rv.name: self.model.rvs_to_values[rv] for rv in self.model.free_RVs}
            example = lambda: [
                *(np.resize(self._point[start[n].name], shape) for n, shape in values),
                *(np.resize(self.data.arrays[n], dict(shapes)[n]) for n in roots),
                *(np.zeros(shape, np.int64) for _, shape in sizes),
            ]
            self._programs[key] = Program(model, scales, inputs, self.model, example)
        return self._programs[key]

    def initial(self, data: dict[str, Any]) -> dict[str, np.ndarray]:
        """Where PyMC starts the value variables, by the names of the free variables."""
        old = {rv.name: self.model.rvs_to_values[rv].name for rv in self.model.free_RVs}
        point = {name: np.asarray(self._point[value]) for name, value in old.items()}
        usual = self.data.arrays
        if all(np.shape(value) == usual[name].shape for name, value in data.items()):
            return point
        with quiet():
            new = self.holding(data).initial_point(0)
        return {
            name: point[name] if np.shape(new[value]) == point[name].shape else new[value]
            for name, value in old.items()
        }


def _shapes_of(variables: dict[str, Any]) -> Shapes:
    return tuple((name, var.type.shape) for name, var in variables.items())


def _rebuilder() -> Any:
    """PyTensor's `rebuild_collect_shared`, wherever this version has it."""
    try:
        from pytensor.compile.rebuild import (  # pyright: ignore[reportMissingImports]
            rebuild_collect_shared,
        )
    except ImportError:
        from pytensor.compile.function.pfunc import rebuild_collect_shared
    return rebuild_collect_shared
