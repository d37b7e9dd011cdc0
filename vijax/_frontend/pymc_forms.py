"""What PyTensor's Ops are in JAX, where PyTensor has no answer or one that is not smooth.

PyTensor is imported inside: it is optional.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array

from .pymc_rewrite import as_number
from .pymc_special import betainc, erfcx, finite, piecewise_polynomial


class NoForm(Exception):
    """JAX cannot compute an Op."""

    def __init__(self, op: Any):
        text = str(op)
        name = type(getattr(op, "scalar_op", op)).__name__
        super().__init__(text if len(text) < 50 else name)


def _erfcinv(x: Array) -> Array:
    return -special.ndtri(x / 2) / np.sqrt(2).item()


@functools.cache
def _scalar_forms() -> dict[type, Callable]:
    from pytensor.scalar import math

    return {
        math.BetaInc: betainc,
        math.Erfcinv: _erfcinv,
        math.Erfcx: erfcx,
        math.Log1mexp: _with_finite_slopes(lambda x: jax.nn.log1mexp(-x)),
        math.Softplus: jax.nn.softplus,
    }


def _spline(op: Any, **kwargs: Any) -> Callable:
    from scipy.interpolate import PPoly

    del kwargs
    knots, _, order = op.spline._eval_args
    outside = {0: "extrapolate", 1: "zeros", 3: "nearest"}.get(int(op.spline.ext))
    if outside is None:
        raise NotImplementedError("A spline that raises outside of its knots.")
    # Knots at the ends are there more than once.
    within = slice(order, len(knots) - order - 1)
    coefficients = np.asarray(PPoly.from_spline(op.spline._eval_args).c)[:, within]
    breaks = np.asarray(knots)[order : len(knots) - order]
    return piecewise_polynomial(breaks, coefficients, outside)


def _is_positive_definite(op: Any, **kwargs: Any) -> Callable:
    del op, kwargs
    return lambda x: jnp.all(jnp.isfinite(jnp.linalg.cholesky(x)))


def _minus_infinity_unless(op: Any, **kwargs: Any) -> Callable:
    """What PyMC makes of a check of parameters."""
    del op, kwargs

    def call(x: Array, *conditions: Array) -> Array:
        valid = functools.reduce(jnp.logical_and, map(jnp.all, conditions))
        return jnp.where(valid, x, jnp.asarray(-np.inf, x.dtype))

    return call


@functools.cache
def _register() -> None:
    """Tell PyTensor of what it does not know itself. This holds for the whole process,
    as inner graphs need: hence nothing that it knows is replaced."""
    from pymc.distributions import multivariate
    from pymc.distributions.dist_math import SplineWrapper
    from pytensor.link.jax.dispatch.basic import jax_funcify
    from pytensor.scalar import math

    register: Any = jax_funcify.register
    # Not every version of PyMC has it.
    positive = getattr(multivariate, "PosDefMatrix", None)
    forms = {SplineWrapper: _spline, positive: _is_positive_definite}
    for kind, form in forms.items():
        if kind is not None and kind not in jax_funcify.registry:
            register(kind, form)
    for kind in (math.Erfcx, math.Erfcinv):
        register(kind, _or(jax_funcify.dispatch(kind), _scalar_forms()[kind]))


def _or(old: Callable, form: Callable) -> Callable:
    def convert(op: Any, **kwargs: Any) -> Callable:
        try:
            return old(op, **kwargs)
        except NotImplementedError:
            return form

    return convert


# Smooth squared distances ---------------------------------------------------------------


@jax.custom_jvp
def _not_negative(x: Array, low: Array, high: Array) -> Array:
    del low, high
    return jnp.maximum(x, jnp.zeros((), x.dtype))


@_not_negative.defjvp
def _not_negative_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, tangent = primals[0], tangents[0]
    slack = float(jnp.finfo(x.dtype).eps) ** 0.5
    return _not_negative(*primals), jnp.where(
        x >= -slack, tangent, jnp.zeros_like(tangent)
    )


def _is_squared_distance(node: Any) -> bool:
    """Whether a node is `clip(xx - 2 xy + yy, 0, inf)`.

    Distances of a point to itself are zero but for rounding. XLA computes them in more
    than one fusion, which may disagree on what is clipped; then terms of the gradient
    that cancel do not, and the gradient of a Gaussian process is wrong, if compiled for a
    CPU.
    """
    from pytensor.scalar.basic import Clip

    if type(node.op.scalar_op) is not Clip:
        return False
    x, *bounds = node.inputs
    is_matrix = x.type.ndim >= 2 and "float" in x.type.dtype
    return is_matrix and list(map(as_number, bounds)) == [0.0, np.inf]


# Branches that are not taken ------------------------------------------------------------


def _with_finite_slopes(fn: Callable) -> Callable:
    """`fn` of arrays, entry by entry, with derivatives that zero times is zero."""
    wrapped = jax.custom_jvp(fn)

    @wrapped.defjvp
    def rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        out = wrapped(*primals)
        total = jnp.zeros_like(out)
        for i, (x, tangent) in enumerate(zip(primals, tangents, strict=True)):
            if jnp.issubdtype(x.dtype, jnp.inexact):
                of_one = lambda x, i=i: fn(*primals[:i], x, *primals[i + 1 :])
                slope = jax.jvp(of_one, (x,), (jnp.ones_like(x),))[1]
                total = total + finite(slope) * tangent
        return out, total.astype(out.dtype)

    return lambda *args: wrapped(*map(jnp.asarray, args))


@functools.cache
def _steep() -> tuple[type, ...]:
    """Functions that have infinite derivatives somewhere, or derivatives where they are
    infinite."""
    from pytensor.scalar import basic, math

    return (
        *(basic.Exp, basic.Expm1, basic.Log, basic.Log1p, basic.Mul, basic.Pow),
        *(basic.Reciprocal, basic.Sqr, basic.Sqrt, basic.TrueDiv, math.GammaLn),
    )


def _branches(fgraph: Any) -> set[Any]:
    """The nodes of what a `switch` may not take.

    There JAX multiplies derivatives by zero, which gives NaN if they are infinite;
    PyTensor's own derivatives are rewritten so as not to.
    """
    from pytensor.graph.traversal import ancestors
    from pytensor.scalar.basic import Switch
    from pytensor.tensor.elemwise import Elemwise

    is_switch = lambda op: isinstance(op, Elemwise) and isinstance(op.scalar_op, Switch)
    nodes = [node for node in fgraph.apply_nodes if is_switch(node.op)]
    branches = [var for node in nodes for var in node.inputs[1:]]
    return {var.owner for var in ancestors(branches) if var.owner is not None}


def _scalar_form(node: Any, *, guarded: bool) -> Callable | None:
    """What we compute a node by entry by entry, if not by what PyTensor says."""
    from pytensor.link.jax.dispatch.basic import jax_funcify

    convert: Any = jax_funcify
    op = node.op.scalar_op
    if _is_squared_distance(node):
        return _not_negative
    form = _scalar_forms().get(type(op))
    is_float = "float" in node.outputs[0].type.dtype
    if form is None and guarded and is_float and isinstance(op, _steep()):
        form = _with_finite_slopes(convert(op, node=node))
    return form


def _widened(node: Any, fn: Callable) -> Callable:
    """`fn` in the dtype that PyTensor computes the node in.

    JAX takes float32, of which dtype PyTensor's constants are, where integers or numbers
    without a dtype meet it; PyTensor takes float64.
    """
    from pytensor.scalar.basic import Pow

    wide = np.dtype(node.outputs[0].type.dtype)
    dtypes = [np.dtype(var.type.dtype) for var in node.inputs]
    # A power by a whole number is another function than one by a real number.
    last = 1 if isinstance(node.op.scalar_op, Pow) else len(dtypes)
    narrow = [
        i
        for i, dtype in enumerate(dtypes)
        if (dtype.kind == "f" or (dtype.kind in "iu" and i < last)) and dtype != wide
    ]
    if wide.kind != "f" or not narrow or any(d.kind not in "fiub" for d in dtypes):
        return fn

    def call(*args: Any) -> Any:
        dtype = jax.dtypes.canonicalize_dtype(wide)
        cast = lambda i, x: jnp.asarray(x, dtype) if i in narrow else x
        return fn(*(cast(i, x) for i, x in enumerate(args)))

    return call


def _typify(value: Any, **kwargs: Any) -> Any:
    """A constant for JAX. Numbers keep their dtype: one without gives way to float32."""
    from pytensor.link.jax.dispatch.basic import jax_typify

    convert: Any = jax_typify
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "f":
        return value.astype(jax.dtypes.canonicalize_dtype(value.dtype))[()]
    return convert(value, **kwargs)


def converted(fgraph: Any) -> Callable:
    """A rewritten graph as a function of JAX.

    **Raises:** `NoForm` if JAX cannot compute one of its Ops.
    """
    from pymc.logprob.utils import CheckParameterValue
    from pytensor.link.jax.dispatch.basic import jax_funcify
    from pytensor.link.utils import fgraph_to_python
    from pytensor.tensor.elemwise import Elemwise

    _register()
    guarded = _branches(fgraph)
    convert: Any = jax_funcify

    def convert_node(op: Any, node: Any = None, **kwargs: Any) -> Callable:
        try:
            if isinstance(op, CheckParameterValue):
                return _minus_infinity_unless(op)
            if not isinstance(op, Elemwise):
                return convert(op, node=node, **kwargs)
            form = _scalar_form(node, guarded=node in guarded)
            fn = convert(op, node=node, **kwargs) if form is None else form
            return _widened(node, fn)
        except Exception as e:
            raise NoForm(op) from e

    return fgraph_to_python(fgraph, convert_node, type_conversion_fn=_typify)
