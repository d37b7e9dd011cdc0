"""Roots of covariances, and choices along a leading axis."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._misc import standard_normal_log_prob


T = TypeVar("T")


def triangular_root(root: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """The Cholesky factor of `root root'`, by QR: that product would have the condition
    number squared."""
    upper = jnp.linalg.qr(root.T, mode="r")
    return upper.T * jnp.where(jnp.diagonal(upper) < 0, -1, 1)


def equilibrated_cholesky(
    matrix: Float[Array, "dim dim"], jitter: float
) -> Float[Array, "dim dim"]:
    """A Cholesky factor, in units of the diagonal lest float32 runs out of digits."""
    scale = jnp.sqrt(jnp.diagonal(matrix))
    unit = matrix / scale[:, None] / scale[None, :]
    factor = jnp.linalg.cholesky(unit + jitter * jnp.eye(len(unit), dtype=unit.dtype))
    return scale[:, None] * factor


def one_by_one(fn: Callable, xs: Any) -> Any:
    """`jax.vmap(fn)(xs)`, one after the other, for what calls LAPACK.

    Of several matrices at once, each of its calls waits on a thread of XLA's pool for
    others: two such calls side by side wait for ever where there are two threads (jaxlib
    0.10, `jax::ParallelBatchMap`).
    """
    return lax.map(fn, xs)


def gaussian_log_prob(
    tril: Float[Array, "dim dim"], e: Float[Array, "draws dim"]
) -> Float[Array, " draws"]:
    """The log density of a Gaussian at `loc + tril e`."""
    log_scale = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(tril))))
    return jax.vmap(standard_normal_log_prob)(e) - log_scale


def mirrored(half: Float[Array, "pairs dim"]) -> Float[Array, "draws dim"]:
    """Draws, and then their mirror images."""
    return jnp.concatenate([half, -half])


def where_rows(condition: Bool[Array, " rows"], yes: T, no: T) -> T:
    """`yes` or `no`, row by row of the leading axis of each array; `yes` where an array
    has no axis."""

    def pick(y: Array, n: Array) -> Array:
        rows = condition.reshape(-1, *[1] * (y.ndim - 1))
        return jnp.where(rows, y, n) if y.ndim else y

    return jax.tree.map(pick, yes, no)


def hessian(
    fn: Callable[[Array], Array], x: Float[Array, " dim"]
) -> Float[Array, "dim dim"]:
    """The second derivatives of a scalar function."""
    try:
        return jax.hessian(fn)(x)
    except TypeError as e:
        # Solvers of differential equations have their own rule of reverse mode, and
        # often can be differentiated by it once only.
        if "custom_vjp" not in str(e):
            raise
        return _hessian_by_differences(jax.grad(fn), x)


def _hessian_by_differences(grad: Callable[[Array], Array], x: Array) -> Array:
    eps = float(jnp.finfo(x.dtype).eps)
    eye = jnp.eye(x.size, dtype=x.dtype)

    def differences(steps: Array) -> Array:
        def row(step_and_unit: tuple[Array, Array]) -> Array:
            step, unit = step_and_unit
            return (grad(x + step * unit) - grad(x - step * unit)) / (2 * step)

        return lax.map(row, (steps, eye))

    # Steps that are a small part of each coordinate's scale, which a first look tells.
    least = eps ** (2 / 3) * (1 + jnp.abs(x))
    first = jnp.diagonal(differences(eps ** (1 / 3) * (1 + jnp.abs(x))))
    scale = 1 / jnp.sqrt(jnp.maximum(jnp.abs(first), 1e-12))
    found = differences(jnp.maximum(eps ** (1 / 4) * scale, least))
    return 0.5 * (found + found.T)


def index_of_largest(values: Float[Array, " count"]) -> Int[Array, ""]:
    """Where the largest value is, as a 32-bit integer whatever JAX's default."""
    return lax.convert_element_type(jnp.argmax(values), jnp.int32)
