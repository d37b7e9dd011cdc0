"""A PyMC model as what a target asks for."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, Scalar

from .._custom_types import Data, Key, Params, Point
from .._misc import float_dtype, lenient_promotion
from .._target.minibatch import AbstractMinibatch
from .._target.model import AbstractModel, Labels, OnHost
from .._target.param import named_parts
from .._target.plates import plate_minibatch, PlateMinibatch, Seen
from .pymc_data import Shapes
from .pymc_graph import PyMCGraph
from .pymc_jax import Program
from .pymc_sample import draw_observed, draw_prior
from .pymc_words import explained


class _PyMCMinibatch(PlateMinibatch):
    """Indices in place of those that `pm.Minibatch` draws."""

    graph: PyMCGraph = eqx.field(static=True)

    def check(self, data: Data) -> None:
        for name, length, _ in self.plates:
            now = self.graph.data.length_of(name, _shapes(data))
            if now != length:
                raise ValueError(
                    f"Batches are taken of {length} rows in {name!r}, but the data have "
                    f"{now} now. Set the data in the model, `pm.set_data`, and make the "
                    "target anew, `vi.from_pymc(model)`."
                )


class PyMCModel(AbstractModel):
    """A PyMC model with data of given shapes."""

    graph: PyMCGraph = eqx.field(static=True)
    shapes: Shapes = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    value_shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    start: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, graph: PyMCGraph, data: Data):
        start = graph.initial(data)
        self.graph = graph
        self.shapes = _shapes(data)
        self.names = tuple(start)
        self.value_shapes = tuple(value.shape for value in start.values())
        self.start = tuple(float(x) for value in start.values() for x in value.ravel())

    @property
    def dim(self) -> int:
        return len(self.start)

    @property
    def _shapes(self) -> Shapes:
        return tuple(zip(self.names, self.value_shapes, strict=True))

    @property
    def program(self) -> Program:
        """The functions of the model with all of its data."""
        return self.graph.program(self.shapes, self._shapes)

    def initial(self) -> Point:
        return jax.device_put(np.array(self.start, jnp.result_type(float)))

    def unravel(self, x: Point) -> Params:
        return named_parts(x, self.names, self.value_shapes)

    def __repr__(self) -> str:
        return f"PyMCModel({self.graph!r})"

    def _call(
        self, pick: Callable[[Program], Callable], variables: Params, data: Data
    ) -> tuple[Array, ...]:
        indices: dict[str, Int[Array, " batch"]] = {}
        if isinstance(data, Seen):
            data, indices = data.data, data.indices
        sizes = tuple((name, index.shape) for name, index in sorted(indices.items()))
        program = self.graph.program(_shapes(data), self._shapes, sizes)
        # In the order of the program's inputs.
        variables = {name: variables[name] for name in self.names}
        known = (data[name] for name in self.graph.data.arrays)
        seen = (indices[name] for name, _ in sizes)
        return pick(program)(*variables.values(), *known, *seen)

    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        del weight  # PyMC's `total_size` is in the density.
        return self._call(lambda program: program.log_density, self.unravel(x), data)[
            0
        ].astype(x.dtype)

    @property
    def on_host(self) -> OnHost | None:
        block = self.program.on_host
        if block is None:
            return None

        def call(x: np.ndarray, data: Data) -> tuple[np.ndarray, np.ndarray]:
            known = (np.asarray(data[name])[None] for name in self.graph.data.arrays)
            return block(x, *known)

        return call

    def constrain(self, x: Point, data: Data) -> Params:
        values = self._call(lambda program: program.constrain, self.unravel(x), data)
        names = self.program.names
        as_x = lambda v: v.astype(x.dtype) if jnp.issubdtype(v.dtype, jnp.inexact) else v
        return {name: as_x(v) for name, v in zip(names, values, strict=True)}

    def _free(self, params: Params) -> Params:
        missing = [name for name in self.names if name not in params]
        if missing:
            raise ValueError(
                f"`params` has no {missing[0]!r}. The free variables of the model are "
                f"{list(self.names)}."
            )
        return {name: jnp.asarray(params[name]) for name in self.names}

    def _values(self, params: Params, data: Data) -> Params:
        values = self._call(lambda program: program.unconstrain, self._free(params), data)
        return dict(zip(self.names, values, strict=True))

    def unconstrain(self, params: Params, data: Data) -> Point:
        free = self._free(params)
        values = self._values(free, data)
        # Not every transform of PyMC tells what is outside: back again it is elsewhere.
        back = self._call(lambda program: program.constrain, values, data)
        parts = []
        for (name, value), again in zip(values.items(), back, strict=False):
            given = free[name].astype(again.dtype)
            near = jnp.abs(again - given) <= 1e-2 * (1 + jnp.abs(given))
            parts.append(jnp.where(jnp.all(near), value, jnp.nan).ravel())
        with lenient_promotion():
            return jnp.concatenate(parts).astype(float_dtype(free))

    def log_likelihood(self, params: Params, data: Data) -> Params:
        if not self.graph.model.observed_RVs:
            raise ValueError(
                "The model has no observed variables, and what a `pm.Potential` adds is "
                "not known by observation. Use `observed=` or `pm.CustomDist`."
            )
        rows = self._call(lambda program: program.rows, self._values(params, data), data)
        names = [rv.name for rv in self.graph.model.observed_RVs]
        return dict(zip(names, rows, strict=True))

    def check(self, data: Data, *, in_batches: bool) -> None:
        x = jax.ShapeDtypeStruct((self.dim,), jnp.result_type(float))
        whole = data.data if isinstance(data, Seen) else data

        def attempt(name: str) -> Exception | None:
            pick = lambda program: program.part(name)
            part = lambda x, d: self._call(pick, self.unravel(x), d)
            return _error_of(lambda: jax.eval_shape(part, x, data))

        look = jax.value_and_grad(lambda x, d: self.log_density(x, d, 1.0))
        error = _error_of(lambda: jax.eval_shape(look, x, data))
        if error is None and data is whole:
            error = _error_of(lambda: jax.eval_shape(self.constrain, x, data))
        if error is not None:
            words = explained(error, self.graph, self._shapes, _shapes(whole), attempt)
            raise ValueError(words) from error

    def minibatch(
        self, batch_size: Any, old: AbstractMinibatch | None
    ) -> AbstractMinibatch | None:
        del old
        lengths = {
            name: length for name, (length, _) in self.graph.data.minibatches.items()
        }
        if batch_size is not None and not lengths:
            raise ValueError(
                "The PyMC model sees all of its data. For batches write "
                "`pm.Minibatch(X, y, batch_size=...)` in the model, and `total_size=` in "
                "its observed variables."
            )
        plates = plate_minibatch(batch_size, lengths, tuple(lengths))
        return None if plates is None else _PyMCMinibatch(plates.plates, self.graph)

    @property
    def is_generative(self) -> bool:
        return True

    def rebind(self, new: Data, old: Data) -> tuple[AbstractModel, Data]:
        known = self.graph.data.arrays
        if not isinstance(new, dict) or any(name not in known for name in new):
            names = list(new) if isinstance(new, dict) else f"a {type(new).__name__}"
            raise ValueError(
                f"The data of a PyMC model are a dictionary with some of {list(known)}, "
                f"but these are {names}."
            )
        data = dict(old)
        for name, value in new.items():
            value = value.to_numpy() if hasattr(value, "to_numpy") else value
            value = value if isinstance(value, jax.Array) else np.asarray(value)
            shape = known[name].shape
            if value.ndim != len(shape):
                raise ValueError(
                    f"{name!r} has {len(shape)} axes in the model, but new data of shape "
                    f"{value.shape} were given."
                )
            if name in self.graph.data.fixed and value.shape != shape:
                raise ValueError(
                    f"{name!r} is a constant of the model, of shape {shape}, but the new "
                    f"one has shape {value.shape}. Only `pm.Data` can change shape."
                )
            data[name] = value
        return PyMCModel(self.graph, data), data

    def predict(
        self, key: Key, params: Params, data: Data, names: tuple[str, ...] | None
    ) -> Params:
        model = self.graph.holding(data)
        # What has another shape now, such as one value a row, is drawn anew.
        like = jax.eval_shape(self.constrain, self.initial(), data)
        given = self._free(params)
        given = {n: v for n, v in given.items() if v.shape[1:] == like[n].shape}
        num_draws = next(iter(params.values())).shape[0]
        return draw_observed(model, _seed(key), given, num_draws, names)

    def sample_prior(self, key: Key, num_draws: int, data: Data) -> tuple[Params, Params]:
        model = self.graph.holding(data)
        params = [var.name for var in (*model.free_RVs, *model.deterministics)]
        drawn = draw_prior(model, _seed(key), num_draws)
        observed = {name: v for name, v in drawn.items() if name not in params}
        return {name: drawn[name] for name in params}, observed

    def labels(self, data: Data) -> Labels:
        graph, known = self.graph, self.graph.data
        host = {name: np.asarray(value) for name, value in data.items()}
        observed = {name: host[leaf] for name, leaf in known.observed.items()}
        named = {var.name for var in graph.model.data_vars}
        constants = named & host.keys() - set(known.observed.values())
        dims = {
            name: [dim or f"{name}_dim_{i}" for i, dim in enumerate(axes)]
            for name, axes in graph.model.named_vars_to_dims.items()
        }
        return Labels(
            observed,
            {name: host[name] for name in host if name in constants},
            known.coords(_shapes(data)),
            dims,
        )


def _shapes(data: Data) -> Shapes:
    return tuple((name, np.shape(value)) for name, value in sorted(data.items()))


def _error_of(fn: Callable) -> Exception | None:
    try:
        fn()
    except Exception as e:
        return e
    return None


def _seed(key: Key) -> int:
    return int(jr.bits(key, dtype=jnp.uint32))
