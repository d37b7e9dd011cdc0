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
from .._target.param import named_parts
from .._target.plates import plate_minibatch, PlateMinibatch, Seen
from .._target.target import AbstractModel, Labels, Target
from .pymc_graph import PyMCGraph, Shapes
from .pymc_sample import draw_observed, draw_prior


class _PyMCMinibatch(PlateMinibatch):
    """Indices in place of those that `pm.Minibatch` draws."""

    graph: PyMCGraph = eqx.field(static=True)

    def check(self, data: Data) -> None:
        for name, length, _ in self.plates:
            now = self.graph.length_of(name, _shapes(data))
            if now != length:
                raise ValueError(
                    f"Batches are taken of {length} rows in {name!r}, but the data have "
                    f"{now} now. Set the data in the model, `pm.set_data`, and make the "
                    "target anew, `vi.from_pymc(model)`."
                )


class _PyMCModel(AbstractModel):
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

    def initial(self) -> Point:
        return jnp.asarray(np.array(self.start), jnp.result_type(float))

    def unravel(self, x: Point) -> Params:
        return named_parts(x, self.names, self.value_shapes)

    def _call(self, what: str, variables: Params, data: Data) -> tuple[Array, ...]:
        indices: dict[str, Int[Array, " batch"]] = {}
        if isinstance(data, Seen):
            data, indices = data.data, data.indices
        sizes = tuple((name, index.shape) for name, index in sorted(indices.items()))
        program = self.graph.program(_shapes(data), sizes)
        # In the order of the program's inputs.
        variables = {name: variables[name] for name in self.names}
        known = (data[name] for name in self.graph.data)
        seen = (indices[name] for name, _ in sizes)
        return getattr(program, what)(*variables.values(), *known, *seen)

    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        del weight  # PyMC's `total_size` is in the density.
        return self._call("log_density", self.unravel(x), data)[0].astype(x.dtype)

    def constrain(self, x: Point, data: Data) -> Params:
        values = self._call("constrain", self.unravel(x), data)
        names = self.graph.program(self.shapes).names
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
        values = self._call("unconstrain", self._free(params), data)
        return dict(zip(self.names, values, strict=True))

    def unconstrain(self, params: Params, data: Data) -> Point:
        free = self._free(params)
        values = self._values(free, data)
        # Not every transform of PyMC tells what is outside: back again it is elsewhere.
        back = self._call("constrain", values, data)
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
        rows = self._call("rows", self._values(params, data), data)
        names = [rv.name for rv in self.graph.model.observed_RVs]
        return dict(zip(names, rows, strict=True))

    def check(self, data: Data, *, in_batches: bool) -> None:
        x = jax.ShapeDtypeStruct((self.dim,), jnp.result_type(float))
        try:
            out = jax.eval_shape(lambda x, d: self.log_density(x, d, 1.0), x, data)
        except Exception as e:
            where = "a batch of the data" if isinstance(data, Seen) else "its data"
            raise ValueError(
                f"The log density of the PyMC model with {where} raised "
                f"{type(e).__name__}: {e}. Its data must fit together in shape, a free "
                "variable cannot belong to the rows of a `pm.Minibatch`, and whatever it "
                "computes with must be known to PyTensor's JAX backend."
            ) from e
        assert out.shape == ()

    def minibatch(
        self, batch_size: Any, old: AbstractMinibatch | None
    ) -> AbstractMinibatch | None:
        del old
        lengths = {name: length for name, (length, _) in self.graph.minibatches.items()}
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
        known = self.graph.data
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
            if name in self.graph.fixed and value.shape != shape:
                raise ValueError(
                    f"{name!r} is a constant of the model, of shape {shape}, but the new "
                    f"one has shape {value.shape}. Only `pm.Data` can change shape."
                )
            data[name] = value
        return _PyMCModel(self.graph, data), data

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
        graph = self.graph
        host = {name: np.asarray(value) for name, value in data.items()}
        observed = {name: host[leaf] for name, leaf in graph.observed.items()}
        named = {var.name for var in graph.model.data_vars}
        constants = named & host.keys() - set(graph.observed.values())
        dims = {
            name: [dim or f"{name}_dim_{i}" for i, dim in enumerate(axes)]
            for name, axes in graph.model.named_vars_to_dims.items()
        }
        return Labels(
            observed,
            {name: host[name] for name in host if name in constants},
            graph.coords(dict(_shapes(data))),
            dims,
        )


def _shapes(data: Data) -> Shapes:
    return tuple((name, np.shape(value)) for name, value in sorted(data.items()))


def _seed(key: Key) -> int:
    return int(jr.bits(key, dtype=jnp.uint32))


def _check_model(model: Any) -> None:
    try:
        import pymc
    except ImportError as e:
        raise ImportError(
            '`vi.from_pymc` needs PyMC: `pip install "vijax[pymc]"`.'
        ) from e
    if not isinstance(model, pymc.Model):
        raise ValueError(
            f"`model` must be a `pm.Model`, but it is a {type(model).__name__}. Pass "
            "what `with pm.Model() as model:` names."
        )
    if not model.free_RVs:
        raise ValueError("The PyMC model has no free variables: nothing is to be found.")
    for value in model.discrete_value_vars:
        name = model.values_to_rvs[value].name
        raise ValueError(
            f"The variable {name!r} is discrete, but only continuous ones have a density "
            "to follow. Sum it out: write a mixture, e.g. `pm.Mixture` or "
            "`pm.NormalMixture`, or use `marginalize` of the package `pymc-extras`."
        )


def from_pymc(model: Any) -> Target:
    """A target from a PyMC model.

    The log density is PyMC's own, `model.logp()`, computed in JAX. Potentials, transforms
    and imputed data are in it. Point by point:

    - *Data*: whatever is in `pm.Data` or observed (and any large constant) is data of the
      target: `target.with_data({"X": new})`. For the same shapes nothing compiles again.
      Other shapes need `pm.Data`. The model itself is never changed.
    - *Batches*: steps of a fit see what `pm.Minibatch` says, in shuffled epochs;
      everything else, such as draws and diagnostics, sees all the rows.
    - *Predictions* are drawn by PyMC: free variables whose shape is another for new data
      come from their prior given the rest, all others from the draws.

    **Arguments:**

    - `model`: a `pm.Model`.

    **Returns:**

    A [`vijax.Target`][], whose parameters are the free variables and the deterministic
    ones, by their names. Its coordinates are PyMC's value variables in their order.

    **Raises:** `ValueError` if it is no model, if a free variable is discrete, if
    `pm.Minibatch` is used without `total_size`, if PyTensor cannot turn the log density
    into JAX, or if data hold NaN. `ImportError` without PyMC.

    !!! Example

        ```python
        import numpy as np
        import pymc as pm
        import vijax as vi

        with pm.Model() as model:
            x = pm.Data("x", np.arange(5.0))
            slope = pm.Normal("slope", 0.0, 1.0)
            sigma = pm.HalfNormal("sigma", 1.0)
            pm.Normal("y", slope * x, sigma, observed=np.arange(5.0))

        target = vi.from_pymc(model)
        ```
    """
    _check_model(model)
    graph = PyMCGraph(model)
    graph.check_total_size()
    out = _PyMCModel(graph, graph.data)
    sizes = {name: size for name, (_, size) in graph.minibatches.items()}
    return Target(out, graph.data, out.minibatch(sizes, None) if sizes else None)
