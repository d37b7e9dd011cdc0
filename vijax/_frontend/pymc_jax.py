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
from jaxtyping import Array

from .._misc import lenient_promotion
from .._target.model import OnHost
from .pymc_forms import converted, NoForm
from .pymc_host import HostDensity, on_host
from .pymc_rewrite import drop_fine_checks


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


def _without_checks(fgraph: Any, *, bounds: bool) -> None:
    """Take out whatever would raise: inside `jax.jit` nothing can.

    Checks that PyMC turns into a density of zero stay if there are `bounds`.
    """
    from pymc.logprob.utils import CheckParameterValue
    from pytensor.raise_op import CheckAndRaise

    for node in fgraph.toposort():
        op = node.op
        stays = isinstance(op, CheckParameterValue) and op.can_be_replaced_by_ninf
        if isinstance(op, CheckAndRaise) and not (stays and bounds):
            fgraph.replace(node.outputs[0], node.inputs[0], import_missing=True)


def jaxified(
    inputs: Sequence[Any], outputs: Sequence[Any], *, bounds: bool = True
) -> Callable:
    """`outputs` as a JAX function of `inputs`; minus infinity where PyMC's checks of
    parameters fail, if there are `bounds`."""
    from pytensor.compile.mode import get_mode
    from pytensor.graph.fg import FunctionGraph

    # XLA fuses by itself, and does not see into what is fused here.
    mode: Any = get_mode("JAX")
    mode = mode.excluding("fusion")
    with _keeping_x64():
        import pytensor.link.jax.dispatch  # noqa: F401

    # Perhaps within somebody's trace, whose tracers must not be kept.
    with quiet(), lenient_promotion(), jax.ensure_compile_time_eval():
        fgraph = FunctionGraph(list(inputs), list(outputs), clone=True)
        _without_checks(fgraph, bounds=bounds)
        mode.optimizer.rewrite(fgraph)
        _without_checks(fgraph, bounds=bounds)
        drop_fine_checks(fgraph, float(jnp.finfo(jnp.result_type(float)).eps))
        fn = converted(fgraph)

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


# By the name of an observed variable, how many there are in all along each axis.
Scales = dict[str, tuple[Any, ...]]


class Program:
    """The functions of a PyMC model with data of given shapes.

    Each takes a list of variables, in the model's order, and then the data and indices.
    """

    def __init__(
        self,
        model: Any,
        scales: Scales,
        inputs: Sequence[Any],
        like: Any,
        example: Callable[[], list[Any]],
    ):
        self._example = example
        self._model = model
        self._scales = scales
        self._inputs = list(inputs)
        # A copy has its variables in another order.
        self._free = [model[var.name] for var in like.free_RVs]
        self._observed = [model[var.name] for var in like.observed_RVs]
        self._deterministic = _computable(model, like.deterministics)
        self._bounds = bool(like.check_bounds)
        self.names = tuple(var.name for var in (*self._free, *self._deterministic))

    @property
    def _values(self) -> list[Any]:
        return [self._model.rvs_to_values[rv] for rv in self._free]

    def _in_jax(self, outputs: Sequence[Any]) -> Callable:
        inputs = [*self._values, *self._inputs]
        return jaxified(inputs, outputs, bounds=self._bounds)

    def _error_in_jax(self, output: Any) -> NoForm | None:
        try:
            self._in_jax([output])
        except NoForm as e:
            return e
        return None

    def _of_values(self, outputs: Sequence[Any]) -> Callable:
        """A function of JAX, which calls PyTensor for what it has no form of."""
        try:
            return self._in_jax(outputs)
        except NoForm:
            known = [out for out in outputs if self._error_in_jax(out) is None]
        others = [out for out in outputs if out not in known]
        inputs = [*self._values, *self._inputs]
        with quiet():
            rest = on_host(inputs, others, self._example, bounds=self._bounds)
        first = self._in_jax(known) if known else lambda *args: ()

        def call(*args: Array) -> tuple[Array, ...]:
            values = (*first(*args), *rest(*args))
            found = dict(zip([*known, *others], values, strict=True))
            return tuple(found[out] for out in outputs)

        return call

    def _density(self, log_density: Any) -> Callable:
        """A scalar function that can be differentiated."""
        try:
            return self._in_jax([log_density])
        except NoForm as e:
            because = e
        of = self._values, self._inputs, log_density
        with quiet():
            return HostDensity(*of, bounds=self._bounds, because=because)

    @functools.cached_property
    def _terms(self) -> dict[str, Any]:
        """What each variable and potential adds to the log density."""
        model = self._model
        variables = [*self._free, *self._observed, *model.potentials]
        out = {}
        for var, logp in zip(variables, model.logp(variables, sum=False), strict=True):
            out[var.name] = _summed(logp)
            shape = model.rvs_to_values[var].shape if var.name in self._scales else ()
            for total, length in zip(self._scales.get(var.name, ()), shape, strict=False):
                if total is not None:
                    out[var.name] *= total / length
        return out

    def part(self, name: str) -> Callable:
        """What one variable or potential adds, or a deterministic variable."""
        if name in self._terms:
            return self._density(self._terms[name])
        return self._of_values(self._model.replace_rvs_by_values([self._model[name]]))

    @functools.cached_property
    def log_density(self) -> Callable:
        """Of the value variables, log-Jacobian included."""
        return self._density(sum(self._terms.values()))

    @property
    def on_host(self) -> OnHost | None:
        """Values and scores by PyTensor, where it has no form of them in JAX."""
        fn = self.log_density
        return fn.block if isinstance(fn, HostDensity) else None

    def unknown(self) -> dict[str, NoForm]:
        """The variables and potentials that JAX cannot compute, with what it lacks."""
        tried = {name: self._error_in_jax(term) for name, term in self._terms.items()}
        return {name: e for name, e in tried.items() if e is not None}

    @functools.cached_property
    def constrain(self) -> Callable:
        """Free and deterministic variables, `names`, from the value variables."""
        named = [*self._free, *self._deterministic]
        return self._of_values(self._model.replace_rvs_by_values(named))

    @functools.cached_property
    def rows(self) -> Callable:
        """The log density of each observation, from the value variables."""
        return self._of_values(self._model.logp(self._observed, sum=False))

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


def _summed(logp: Any) -> Any:
    """The sum of a log density: it is of fewer numbers with its checks outside of it."""
    from pymc.logprob.utils import CheckParameterValue
    from pytensor.tensor.basic import Alloc

    node = logp.owner
    if node is not None and isinstance(node.op, Alloc):
        # PyMC gives it its shape, often without need.
        inner = node.inputs[0]
        if None not in inner.type.shape and inner.type.shape == logp.type.shape:
            node = inner.owner
    if node is None or not isinstance(node.op, CheckParameterValue):
        return logp.sum()
    inner, *conditions = node.inputs
    return node.op(inner.sum(), *conditions)


def _computable(model: Any, like: Sequence[Any]) -> list[Any]:
    """The deterministic variables, but those that hide randomness, or are no arrays:
    with `total_size` PyMC takes another input for the probabilities of some."""
    from pymc.pytensorf import find_rng_nodes
    from pytensor.tensor.type import TensorType

    variables = [model[var.name] for var in like if isinstance(var.type, TensorType)]
    graphs = model.replace_rvs_by_values(variables)
    pairs = zip(variables, graphs, strict=True)
    return [var for var, graph in pairs if not find_rng_nodes([graph])]
