"""Roots of covariances, and choices along a leading axis."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._arrays import cholesky, is_numpy, namespace
from ._custom_types import AnyArray


T = TypeVar("T")


def triangular_root(root: Float[AnyArray, "dim dim"]) -> Float[AnyArray, "dim dim"]:
    """The Cholesky factor of `root root'`, by QR: that product would have the condition
    number squared."""
    xp = namespace(root)
    upper = xp.linalg.qr(root.T, mode="r")
    return upper.T * xp.where(xp.diagonal(upper) < 0, -1, 1)


def equilibrated_cholesky(
    matrix: Float[AnyArray, "dim dim"], jitter: float
) -> Float[AnyArray, "dim dim"]:
    """A Cholesky factor, in units of the diagonal lest float32 runs out of digits."""
    xp = namespace(matrix)
    scale = xp.sqrt(xp.diagonal(matrix))
    unit = matrix / scale[:, None] / scale[None, :]
    factor = cholesky(unit + jitter * xp.eye(len(unit), dtype=unit.dtype))
    return scale[:, None] * factor


def gaussian_log_prob(
    tril: Float[AnyArray, "*many dim dim"], e: Float[AnyArray, "draws dim"]
) -> Float[AnyArray, "*many draws"]:
    """The log density of a Gaussian, or of each of many, at `loc + tril e`."""
    xp = namespace(tril)
    diagonal = xp.diagonal(tril, axis1=-2, axis2=-1)
    log_scale = xp.sum(xp.log(xp.abs(diagonal)), axis=-1)
    constant = 0.5 * e.shape[-1] * np.log(2 * np.pi).item()
    return -0.5 * xp.sum(e**2, axis=-1) - constant - log_scale[..., None]


def mirrored(half: Float[AnyArray, "pairs dim"]) -> Float[AnyArray, "draws dim"]:
    """Draws, and then their mirror images."""
    return namespace(half).concatenate([half, -half])


def where_rows(condition: Bool[AnyArray, " rows"], yes: T, no: T) -> T:
    """`yes` or `no`, row by row of the leading axis of each array; `yes` where an array
    has no axis."""

    def pick(y: Any, n: Any) -> Any:
        rows = condition.reshape(-1, *[1] * (y.ndim - 1))
        return namespace(y).where(rows, y, n) if y.ndim else y

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


def index_of_largest(values: Float[AnyArray, " count"]) -> Int[AnyArray, ""]:
    """Where the largest value is, as a 32-bit integer whatever JAX's default."""
    if is_numpy(values):
        return np.argmax(values).astype(np.int32)
    return lax.convert_element_type(jnp.argmax(values), jnp.int32)
