"""PyTensor graphs as functions of JAX. PyTensor is imported inside: it is optional."""

import concurrent.futures
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

from .._misc import lenient_promotion


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


def _without_checks(fgraph: Any) -> None:
    # Inside `jax.jit` nothing can be raised.
    from pytensor.raise_op import CheckAndRaise

    for node in fgraph.toposort():
        if isinstance(node.op, CheckAndRaise):
            fgraph.replace(node.outputs[0], node.inputs[0], import_missing=True)


@jax.custom_jvp
def _not_negative(x: Array) -> Array:
    return jnp.maximum(x, jnp.zeros((), x.dtype))


@_not_negative.defjvp
def _not_negative_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    slack = float(jnp.finfo(x.dtype).eps) ** 0.5
    return _not_negative(x), jnp.where(x >= -slack, tangent, jnp.zeros_like(tangent))


@functools.cache
def _not_negative_op() -> Any:
    from pytensor.link.jax.dispatch.basic import jax_funcify
    from pytensor.scalar.basic import Clip, clip
    from pytensor.tensor.elemwise import Elemwise

    class NotNegative(Clip):
        pass

    def convert(op: Any, **kwargs: Any) -> Any:
        del op, kwargs
        return lambda x, low, high: _not_negative(x)

    jax_funcify.register(NotNegative, convert)
    return Elemwise(NotNegative(clip.output_types_preference, name="not_negative"))


def _as_number(var: Any) -> float | None:
    """The number that a variable is, in however many axes."""
    from pytensor.tensor.elemwise import DimShuffle

    while var.owner is not None and isinstance(var.owner.op, DimShuffle):
        var = var.owner.inputs[0]
    value = np.asarray(getattr(var, "data", np.nan))
    return value.item() if value.size == 1 else None


def _with_smooth_distances(fgraph: Any) -> None:
    """Make sure of the derivatives of squared distances, `clip(xx - 2 xy + yy, 0, inf)`.

    Those of a point to itself are zero but for rounding. XLA computes them in more than
    one fusion, which may disagree on what is clipped; then terms of the gradient that
    cancel do not, and the gradient of a Gaussian process is wrong, if compiled for a CPU.
    """
    from pytensor.scalar.basic import Clip
    from pytensor.tensor.elemwise import Elemwise

    for node in fgraph.toposort():
        if not isinstance(node.op, Elemwise) or type(node.op.scalar_op) is not Clip:
            continue
        x, *bounds = node.inputs
        is_matrix = x.type.ndim >= 2 and "float" in x.type.dtype
        if is_matrix and list(map(_as_number, bounds)) == [0.0, np.inf]:
            smooth = _not_negative_op()(*node.inputs)
            fgraph.replace(node.outputs[0], smooth, import_missing=True)


def jaxified(inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable:
    """`outputs` as a JAX function of `inputs`."""
    from pytensor.compile.mode import get_mode
    from pytensor.graph.fg import FunctionGraph

    mode: Any = get_mode("JAX")
    with _keeping_x64():
        from pytensor.link.jax.dispatch.basic import jax_funcify

    # Perhaps within somebody's trace, whose tracers must not be kept.
    with quiet(), lenient_promotion(), jax.ensure_compile_time_eval():
        fgraph = FunctionGraph(list(inputs), list(outputs), clone=True)
        _without_checks(fgraph)
        _with_smooth_distances(fgraph)
        mode.optimizer.rewrite(fgraph)
        _without_checks(fgraph)
        convert: Any = jax_funcify
        fn = convert(fgraph)

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
    # A new thread sees what holds for all, whatever context we are in.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        read = lambda: jax.config.jax_enable_x64  # pyright: ignore
        before = pool.submit(read).result()
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


class Program:
    """The functions of a PyMC model with data of given shapes.

    Each takes a list of variables, in the model's order, and then the data and indices.
    """

    def __init__(self, model: Any, inputs: Sequence[Any], like: Any):
        self._model = model
        self._inputs = list(inputs)
        # A copy has its variables in another order.
        self._free = [model[var.name] for var in like.free_RVs]
        self._observed = [model[var.name] for var in like.observed_RVs]
        self._deterministic = _computable(model, like.deterministics)
        self.names = tuple(var.name for var in (*self._free, *self._deterministic))

    def _of_values(self, outputs: Sequence[Any]) -> Callable:
        values = [self._model.rvs_to_values[rv] for rv in self._free]
        return jaxified([*values, *self._inputs], outputs)

    @functools.cached_property
    def log_density(self) -> Callable:
        """Of the value variables, log-Jacobian included."""
        return self._of_values([self._model.logp()])

    @functools.cached_property
    def constrain(self) -> Callable:
        """Free and deterministic variables, `names`, from the value variables."""
        named = [*self._free, *self._deterministic]
        return self._of_values(self._model.replace_rvs_by_values(named))

    @functools.cached_property
    def rows(self) -> Callable:
        """The log density of each observation, from the value variables."""
        from pymc.variational.minibatch_rv import get_scaling, MinibatchRandomVariable

        model, outputs = self._model, []
        rows = model.logp(self._observed, sum=False)
        for rv, logp in zip(self._observed, rows, strict=True):
            if isinstance(rv.owner.op, MinibatchRandomVariable):
                total_size = rv.owner.inputs[1:]
                logp = logp / get_scaling(total_size, model.rvs_to_values[rv].shape)
            outputs.append(logp)
        return self._of_values(outputs)

    @functools.cached_property
    def unconstrain(self) -> Callable:
        """The value variables, from the free variables."""
        from pytensor.graph.replace import clone_replace

        values, given = [], {}
        for rv in self._free:
            given[rv] = rv.type(name=rv.name)
            transform = self._model.rvs_to_transforms[rv]
            identity = transform is None
            values.append(rv if identity else transform.forward(rv, *rv.owner.inputs))
        values = clone_replace(values, given, rebuild_strict=False)
        return jaxified([*given.values(), *self._inputs], values)


def _computable(model: Any, like: Sequence[Any]) -> list[Any]:
    """The deterministic variables, but those that hide randomness."""
    from pymc.pytensorf import find_rng_nodes

    variables = [model[var.name] for var in like]
    graphs = model.replace_rvs_by_values(variables)
    pairs = zip(variables, graphs, strict=True)
    return [var for var, graph in pairs if not find_rng_nodes([graph])]
