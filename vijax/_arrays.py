"""What algorithms are written with, once for both kinds of arrays: of JAX where they are
traced, of NumPy where the host drives them, which compiles nothing."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import scipy.special as ss
from scipy.linalg import get_blas_funcs


T = TypeVar("T")

_trsm: Any = get_blas_funcs("trsm", dtype=np.float64)


def is_numpy(x: Any) -> bool:
    """Whether an array, or a number, is on the host."""
    return isinstance(x, np.ndarray | np.generic | bool | int | float)


def namespace(x: Any) -> Any:
    """The functions for an array: `numpy`, or else `jax.numpy`."""
    return np if is_numpy(x) else jnp


def cond(condition: Any, yes: Callable[..., T], no: Callable[..., T], *args: Any) -> T:
    """What `yes` or `no` makes of the arguments."""
    if is_numpy(condition):
        return (yes if condition else no)(*args)
    return lax.cond(condition, yes, no, *args)


def switch(index: Any, branches: Sequence[Callable[..., T]], *args: Any) -> T:
    """What one of the branches makes of the arguments."""
    if is_numpy(index):
        return branches[int(index)](*args)
    return lax.switch(index, branches, *args)


def switch_points(
    index: Any, branches: Sequence[Callable[..., Any]], most: int, *args: Any
) -> tuple[Any, Any]:
    """The points that one of the branches asks for, of shape `(points, dim)`, and how
    many of them count: all, unless the branch says that too. Filled up to `most` where it
    is not known which branch that is."""

    def filled(branch: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> tuple[Any, Any]:
            x = branch(*args)
            x, count = x if isinstance(x, tuple) else (x, len(x))
            if is_numpy(x):
                return x, int(count)
            padded = jnp.pad(x, ((0, most - len(x)), (0, 0)))
            return padded, jnp.asarray(count, jnp.int32)

        return run

    return switch(index, [filled(branch) for branch in branches], *args)


def choose(condition: Any, yes: T, no: T) -> T:
    """One of two pytrees of equal shapes. `no` decides dtypes, and what is no array."""
    if is_numpy(condition):
        return yes if condition else no
    pick = lambda y, n: (
        jnp.where(condition, y.astype(n.dtype), n) if eqx.is_array(n) else n
    )
    return jax.tree.map(pick, yes, no)


def set_at(x: Any, index: Any, value: Any) -> Any:
    """The same array with another entry."""
    if not is_numpy(x):
        return x.at[index].set(value)
    x = x.copy()
    x[index] = value
    return x


def one_by_one(fn: Callable, xs: Any) -> Any:
    """`jax.vmap(fn)(xs)`, one after the other, for what calls LAPACK.

    Of several matrices at once, each of its calls waits on a thread of XLA's pool for
    others: two such calls side by side wait for ever where there are two threads (jaxlib
    0.10, `jax::ParallelBatchMap`).
    """
    leaves = jax.tree.leaves(xs)
    if not is_numpy(leaves[0]):
        return lax.map(fn, xs)
    each = [fn(jax.tree.map(lambda x: x[i], xs)) for i in range(len(leaves[0]))]  # noqa: B023
    return jax.tree.map(lambda *parts: np.stack(parts), *each)


def cholesky(x: Any) -> Any:
    """A Cholesky factor; NaN where there is none."""
    if not is_numpy(x):
        return jnp.linalg.cholesky(x)
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        return np.full_like(x, np.nan)


def eigh(x: Any) -> tuple[Any, Any]:
    """Eigenvalues and eigenvectors of a symmetric matrix; NaN where these are not
    found."""
    try:
        values, vectors = namespace(x).linalg.eigh(x)
    except np.linalg.LinAlgError:
        return np.full_like(x[0], np.nan), np.full_like(x, np.nan)
    return values, vectors


def solve_lower(tril: Any, b: Any) -> Any:
    """`tril⁻¹ b`."""
    if not is_numpy(tril):
        return jsl.solve_triangular(tril, b, lower=True)
    # Not LAPACK's function, which wakes up threads for the smallest matrix.
    return _trsm(1.0, tril, b, lower=1)


def solve_by_cholesky(tril: Any, b: Any) -> Any:
    """`(tril tril')⁻¹ b`."""
    if not is_numpy(tril):
        return jsl.cho_solve((tril, True), b)
    return solve_upper(tril, _trsm(1.0, tril, b, lower=1))


def solve_upper(tril: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`tril'⁻¹ b`. (On the host.)"""
    return _trsm(1.0, tril, b, lower=1, trans_a=1)


def erf(x: Any) -> Any:
    """The error function."""
    return ss.erf(x) if is_numpy(x) else lax.erf(x)
