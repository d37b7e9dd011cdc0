"""A PyMC model as functions of JAX, with its data as arguments.

Nothing here knows of inference. PyMC and PyTensor are imported inside, since they are
optional.
"""

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._misc import lenient_promotion


# Constants as large as this are data: a program should not hold a table.
_LARGE = 1000

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, or words on what is sampled, that our users did not ask for."""
    logger = logging.getLogger("pymc")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _without_initial_values(model: Any) -> Any:
    """The same model but for its initial values, with which PyMC cannot copy it."""
    out = object.__new__(type(model))
    out.__dict__ = model.__dict__ | {
        "rvs_to_initial_values": dict.fromkeys(model.rvs_to_initial_values)
    }
    return out


def _without_checks(fgraph: Any) -> None:
    # Inside `jax.jit` nothing can be raised.
    from pytensor.raise_op import CheckAndRaise

    for node in fgraph.toposort():
        if isinstance(node.op, CheckAndRaise):
            fgraph.replace(node.outputs[0], node.inputs[0], import_missing=True)


def _jaxified(inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable:
    """`outputs` as a JAX function of `inputs`."""
    from pytensor.compile.mode import get_mode
    from pytensor.graph.fg import FunctionGraph

    with _keeping_x64():
        from pytensor.link.jax.dispatch import jax_funcify

    # Perhaps within somebody's trace, whose tracers must not be kept.
    with quiet(), lenient_promotion(), jax.ensure_compile_time_eval():
        fgraph = FunctionGraph(list(inputs), list(outputs), clone=True)
        _without_checks(fgraph)
        get_mode("JAX").optimizer.rewrite(fgraph)
        _without_checks(fgraph)
        fn = jax_funcify(fgraph)

    def call(*args: Array) -> tuple[Array, ...]:
        cast = (
            jnp.asarray(arg, jax.dtypes.canonicalize_dtype(var.type.dtype))
            for arg, var in zip(args, inputs, strict=True)
        )
        with quiet(), lenient_promotion():
            return tuple(jnp.asarray(out) for out in fn(*cast))

    return call


@contextlib.contextmanager
def _keeping_x64() -> Iterator[None]:
    # PyTensor sets it for the whole process when its JAX linker is imported.
    before = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


class Program:
    """The functions of a PyMC model with data of given shapes.

    Each takes a list of variables, in the model's order, and then the data and indices.
    """

    def __init__(self, model: Any, inputs: Sequence[Any]):
        self._model = model
        self._inputs = list(inputs)

    def _of_values(self, outputs: Sequence[Any]) -> Callable:
        return _jaxified([*self._model.value_vars, *self._inputs], outputs)

    @functools.cached_property
    def log_density(self) -> Callable:
        """Of the value variables, log-Jacobian included."""
        return self._of_values([self._model.logp()])

    @functools.cached_property
    def constrain(self) -> Callable:
        """Free and deterministic variables, from the value variables."""
        model = self._model
        named = [*model.free_RVs, *_computable(model)]
        return self._of_values(model.replace_rvs_by_values(named))

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """What `constrain` returns."""
        return tuple(v.name for v in (*self._model.free_RVs, *_computable(self._model)))

    @functools.cached_property
    def rows(self) -> Callable:
        """The log density of each observation, from the value variables."""
        from pymc.variational.minibatch_rv import get_scaling, MinibatchRandomVariable

        model, outputs = self._model, []
        observed = model.observed_RVs
        for rv, logp in zip(observed, model.logp(observed, sum=False), strict=True):
            if isinstance(rv.owner.op, MinibatchRandomVariable):
                total_size = rv.owner.inputs[1:]
                logp = logp / get_scaling(total_size, model.rvs_to_values[rv].shape)
            outputs.append(logp)
        return self._of_values(outputs)

    @functools.cached_property
    def unconstrain(self) -> Callable:
        """The value variables, from the free variables."""
        from pytensor.graph.replace import graph_replace

        model, given = self._model, {}
        values = []
        for rv in model.free_RVs:
            given[rv] = rv.type(name=rv.name)
            transform = model.rvs_to_transforms[rv]
            identity = transform is None
            values.append(rv if identity else transform.forward(rv, *rv.owner.inputs))
        values = graph_replace(values, given, strict=False)
        return _jaxified([*given.values(), *self._inputs], values)


def _computable(model: Any) -> list[Any]:
    """The deterministic variables, but those that hide randomness."""
    from pymc.pytensorf import find_rng_nodes

    graphs = model.replace_rvs_by_values(model.deterministics)
    pairs = zip(model.deterministics, graphs, strict=True)
    return [var for var, graph in pairs if not find_rng_nodes([graph])]


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
        self._find_other_data()
        self._find_minibatches()

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
                name = node.outputs[0].name
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
                    self._add_leaf(var, var.name or name)

    def _find_minibatches(self) -> None:
        from pymc.data import MinibatchOp

        self.minibatches: dict[str, tuple[int, int]] = {}
        self._behind: dict[str, list[str]] = {}
        self._generators: dict[Any, str] = {}
        for node in self._fgraph.toposort():
            if isinstance(node.op, MinibatchOp):
                name = f"minibatch_{len(self.minibatches)}"
                for i, var in enumerate(node.inputs[:-1]):
                    self._add_leaf(var, f"{name}_{i}")
                leaves = [self._leaves.get(_leaf_of(var)) for var in node.inputs[:-1]]
                self._behind[name] = [leaf for leaf in leaves if leaf is not None]
                length = node.inputs[0].shape[0].eval(mode="FAST_COMPILE")
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
        name = var.name if is_shared and var.name else name
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
            labels = self.model.coords.get(dim)
            known = labels is not None and len(labels) == length
            out[dim] = list(labels) if known else list(range(length))
        return out

    def _copy(self, leaves: dict[str, Any], indices: dict[str, Any]) -> Any:
        """A PyMC model of `leaves`, seen where `indices` say."""
        import pytensor.tensor as pt
        from pymc.data import MinibatchOp
        from pymc.model.fgraph import model_from_fgraph, ModelFreeRV
        from pytensor.graph.fg import FunctionGraph
        from pytensor.graph.replace import clone_replace
        from pytensor.graph.traversal import ancestors

        shapes = {name: leaf.type.shape for name, leaf in leaves.items()}
        lengths = self.lengths(shapes)
        new: dict[Any, Any] = {var: leaves[name] for var, name in self._leaves.items()}
        for var, dim in self._lengths.items():
            new[var] = pt.constant(lengths[dim], name=dim, dtype=var.type.dtype)
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
            dim: pt.constant(length, dtype="int64") for dim, length in lengths.items()
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
        import pytensor.tensor as pt

        key = shapes, sizes, jnp.result_type(float)
        if key not in self._programs:
            roots = self._roots(dict(shapes))
            indices = {
                name: pt.TensorType("int64", shape=shape)(name) for name, shape in sizes
            }
            with quiet():
                model = self._copy(roots, indices)
            inputs = [*roots.values(), *indices.values()]
            self._programs[key] = Program(model, inputs)
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
