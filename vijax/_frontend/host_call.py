"""What runs outside of JAX, in NumPy, as a part of JAX's programs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Scalar


# Of a block of points: arguments lead with points, or with an axis of length one where
# they are the same at all points; the first of them always has them all.
Block = Callable[..., Sequence[np.ndarray]]


def _rows(x: np.ndarray, ndim: int, lead: tuple[int, ...], *, full: bool) -> np.ndarray:
    """An array of some axes with what leads them as one axis."""
    shape = x.shape[x.ndim - ndim :]
    if full or x.size != int(np.prod(shape)):
        x = np.broadcast_to(x, lead + shape)
    return x.reshape(-1, *shape)


def host_call(
    block: Block, like: Sequence[jax.ShapeDtypeStruct], *args: Array
) -> tuple[Array, ...]:
    """What `block` makes of one point, with the shapes and dtypes of `like`. However many
    points `jax.vmap` makes of it, they are one call."""
    ndims = [arg.ndim for arg in args]

    def call(*args: Array) -> tuple[np.ndarray, ...]:
        host = [np.asarray(arg) for arg in args]
        pairs = list(zip(host, ndims, strict=True))
        lead = np.broadcast_shapes(*(x.shape[: x.ndim - n] for x, n in pairs))
        rows = [_rows(x, n, lead, full=i == 0) for i, (x, n) in enumerate(pairs)]
        outs = block(*rows)
        # What overflows in float32 is infinite, as anything that JAX computes.
        with np.errstate(over="ignore"):
            return tuple(
                np.asarray(out).astype(one.dtype).reshape(lead + one.shape)
                for out, one in zip(outs, like, strict=True)
            )

    return jax.pure_callback(call, tuple(like), *args, vmap_method="expand_dims")


# Two rules, one within the other: JAX then says of second derivatives what it says of any
# rule of reverse mode, not that a callback has none.
def _called(block: Block, x: Array, data: tuple[Array, ...]) -> tuple[Array, ...]:
    value = jax.ShapeDtypeStruct((), x.dtype)
    return host_call(block, (value, jax.ShapeDtypeStruct(x.shape, x.dtype)), x, *data)


def _no_second_derivatives(block: Block, rest: None, slopes: tuple) -> tuple:
    raise TypeError(
        "The score is computed on the host, by a `jax.custom_vjp`: its own derivatives "
        "are not known. Take differences of it."
    )


_value_and_score: Any = jax.custom_vjp(_called, nondiff_argnums=(0,))
_value_and_score.defvjp(
    lambda block, x, data: (_called(block, x, data), None), _no_second_derivatives
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def host_density(block: Block, x: Array, data: tuple[Array, ...] = ()) -> Scalar:
    """A log density whose value and score at a block of points are what `block` says."""
    return _value_and_score(block, x, data)[0]


def _forward(block: Block, x: Array, data: tuple[Array, ...]) -> tuple:
    value, score = _value_and_score(block, x, data)
    return value, (score, data)


def _backward(block: Block, rest: tuple, slope: Scalar) -> tuple:
    del block
    score, data = rest
    # Not known, which is not zero.
    unknown = lambda d: jnp.full_like(d, np.nan) if _is_real(d) else None
    return slope * score, tuple(unknown(d) for d in data)


def _is_real(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


host_density.defvjp(_forward, _backward)
