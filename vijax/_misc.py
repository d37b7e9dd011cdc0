"""Helpers that know nothing of inference: keys, dtypes, checks of numbers."""

import contextlib
import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.core
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree, Scalar


T = TypeVar("T")

# Steps, draws and places are counted in 32 bits.
_MOST = 2**31 - 1
# How many numbers one vectorized evaluation may touch at once: 64 MiB of float32.
_VECTORIZED_SIZE = 2**24


def standard_normal_log_prob(z: Array) -> Scalar:
    """`log N(z; 0, I)`, summed over every entry."""
    return -0.5 * jnp.sum(z**2 + np.log(2 * np.pi).item())


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point entry of a pytree is finite."""
    leaves = jtu.tree_leaves(eqx.filter(tree, eqx.is_inexact_array))
    finite = (jnp.all(jnp.isfinite(leaf)) for leaf in leaves)
    return functools.reduce(operator.and_, finite, jnp.array(True))


def _strong(x: Any) -> Any:
    if jnp.issubdtype(jnp.result_type(x), jax.dtypes.extended):
        return x
    return lax.convert_element_type(x, jnp.result_type(x))


def strengthen(tree: T) -> T:
    """The same pytree with no weak types, which would cost a second compilation."""
    return jax.tree.map(lambda x: _strong(x) if eqx.is_array(x) else x, tree)


def as_arrays(tree: PyTree) -> PyTree:
    """The same pytree with arrays for numbers: a loop carries nothing else."""
    return jax.tree.map(lambda x: _strong(x) if eqx.is_array_like(x) else x, tree)


def float_dtype(tree: PyTree) -> np.dtype:
    """The dtype of the floating-point arrays of a pytree (the widest of them)."""
    leaves = jtu.tree_leaves(eqx.filter(tree, eqx.is_inexact_array))
    return np.dtype(jnp.result_type(*leaves)) if leaves else np.dtype(np.float32)


def is_tracer(leaf: Any) -> bool:
    """Whether `leaf` is known only to a transformation in progress."""
    return isinstance(leaf, jax.core.Tracer)


def is_traced(*trees: PyTree) -> bool:
    """Whether we are inside somebody's `jax.jit`, `jax.vmap` or `jax.grad`."""
    if any(is_tracer(leaf) for leaf in jtu.tree_leaves(trees)):
        return True
    # Moves a number and compiles nothing; under `jax.jit` it is a tracer.
    return is_tracer(jax.device_put(np.int32(0)))


def eager(*trees: PyTree) -> tuple[Any, Callable[[T], T]]:
    """What to compute with eagerly, and what then makes arrays of JAX: NumPy, which
    compiles nothing, unless some of it is traced."""
    return (jnp, lambda x: x) if is_traced(*trees) else (np, jax.device_put)


@contextlib.contextmanager
def lenient_promotion() -> Iterator[None]:
    """For code of others, which mixes dtypes and ranks where our users may forbid it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def num_side_by_side(size: int, most: int | None = None) -> int:
    """How many evaluations, of at most `most`, fit in memory side by side, each of which
    touches `size` numbers."""
    count = max(1, _VECTORIZED_SIZE // max(size, 1))
    return count if most is None else min(count, most)


def map_in_batches(
    fn: Callable, xs: PyTree[Array], size: int, most: int | None = None
) -> PyTree[Array]:
    """`jax.vmap(fn)(xs)`, in pieces when one call touches `size` numbers, of at most
    `most` calls each.

    A thousand draws against a hundred million numbers do not fit in memory at once.
    """
    length = jtu.tree_leaves(xs)[0].shape[0]
    batch_size = num_side_by_side(size, most)
    if batch_size >= length:
        return jax.vmap(fn)(xs)
    return lax.map(fn, xs, batch_size=batch_size)


def in_blocks(
    fn: Callable[..., PyTree[Array]], size: int, *rows: np.ndarray
) -> PyTree[np.ndarray]:
    """What a compiled function makes of some rows, in blocks of one size, so that their
    number compiles nothing."""
    count, parts = len(rows[0]), []
    for start in range(0, max(count, 1), size):
        blocks = [np.resize(x[start : start + size], (size, *x.shape[1:])) for x in rows]
        parts.append(fn(*blocks))
    together = lambda *leaves: np.concatenate([np.asarray(x) for x in leaves])[:count]
    return jax.tree.map(together, *parts)


def as_array(value: Any) -> Array | np.ndarray | None:
    """`value` as an array of JAX, or else of NumPy: nothing is compiled for it."""
    if value is None or isinstance(value, jax.Array):
        return value
    return np.asarray(value)


def as_numbers(name: str, value: Any) -> Array | np.ndarray:
    """`value` as an array of real numbers, or an error that names it."""
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError:  # Lists within it differ in length.
        array = np.asarray(None)
    dtype = array.dtype
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise ValueError(f"`{name}` must hold real numbers, but it is {value!r}.")
    return array


def as_flag(name: str, value: Any) -> bool:
    """`value` as a boolean, or an error that names it."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False, but it is {value!r}.")
    return bool(value)


def as_names(name: str, value: Any, example: str) -> tuple[str, ...]:
    """`value` as a tuple of words, or an error that names it."""
    try:
        words = None if isinstance(value, str) else tuple(value)
    except TypeError:
        words = None
    if words is None or not all(isinstance(word, str) for word in words):
        raise ValueError(
            f"`{name}` must be a list of names such as {example}, but it is {value!r}."
        )
    return words


def check_function(name: str, fn: Any, call: str, num_args: int) -> None:
    """Raise unless `fn` can be called as `call`, with so many arguments."""
    if not callable(fn):
        raise ValueError(f"`{name}` must be a function `{call}`, but it is {fn!r}.")
    try:
        inspect.signature(fn).bind(*[None] * num_args)
    except TypeError as e:
        raise ValueError(
            f"`{name}` must be a function `{call}`, but the one given cannot be called "
            f"like that: {e}."
        ) from e
    except ValueError:  # Some of those written in C do not tell.
        pass


def as_whole(name: str, value: Any, least: int, most: int | None = _MOST) -> int:
    """`value` as a whole number from `least` to `most`, or an error that names it."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}, but it is {value!r}."
        )
    if most is not None and number > most:
        raise ValueError(f"`{name}` must be {most} at most, but it is {number}.")
    return number


def as_real(value: Any) -> float:
    """`value` as a number, or NaN, which is in no interval, if it is none."""
    is_array = isinstance(value, np.ndarray | np.generic | jax.Array)
    if is_array and np.ndim(value) == 0 and not is_tracer(value):
        value = value.item()
    if not isinstance(value, float | int) or isinstance(value, bool):
        return float("nan")
    try:
        return float(value)
    except OverflowError:  # A whole number of hundreds of digits.
        return float("inf") if value > 0 else -float("inf")


def as_positive(name: str, value: Any) -> float:
    """`value` as a positive number, or an error that names it."""
    number = as_real(value)
    if not number > 0:  # NaN neither.
        raise ValueError(f"`{name}` must be positive, but it is {value!r}.")
    return number


def as_key(key: Any) -> PRNGKeyArray:
    """A typed key, from one or from an old-style one."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if key.shape != ():
            raise ValueError(
                f"`key` must be one key, but it is an array of keys of shape "
                f"{key.shape}. For many fits at once use `eqx.filter_vmap` over the keys."
            )
        return key
    if dtype == jnp.uint32 and getattr(key, "ndim", 0) == 1:
        # Should its length be wrong, the sentence below says what is expected.
        with contextlib.suppress(TypeError, ValueError):
            return jr.wrap_key_data(jnp.asarray(key))
    raise ValueError(
        f"`key` must be a JAX random key such as `jax.random.key(0)`, but it is {key!r}."
    )


def tree_size(tree: PyTree) -> int:
    """How many numbers the array leaves of a pytree hold."""
    return sum(leaf.size for leaf in jtu.tree_leaves(tree) if eqx.is_array(leaf))


def others(dim: int, places: tuple[int, ...]) -> np.ndarray:
    """The coordinates that are not among `places`."""
    return np.setdiff1d(np.arange(dim), places)


def put_together(rest: Array, values: Array, places: tuple[int, ...]) -> Array:
    """A vector with `values` at `places`, and `rest` at the others."""
    dim = rest.size + len(places)
    out = jnp.zeros((dim,), rest.dtype).at[others(dim, places)].set(rest)
    return out.at[np.array(places)].set(values.astype(rest.dtype))


def listed(words: Iterable[str], most: int = 8) -> str:
    """Words in one line, cut where there are more than `most`."""
    words = list(words)
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest if words else "none"


def shapes_in_words(arrays: Mapping[str, Any]) -> str:
    """Named arrays, or what has their shapes, in one line: `mu (), beta (3,)`."""
    return listed(f"{name} {tuple(x.shape)}" for name, x in arrays.items())


def entry_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """What the entries of an array are called: `beta[0]`; a number just `beta`."""
    indices = np.ndindex(shape)
    return [f"{name}[{', '.join(map(str, i))}]" if i else name for i in indices]


def call_method(module: eqx.Module, name: str, *args: Any) -> Any:
    """`module.name(*args)`, from the host. Equinox makes a module of each method that is
    looked up, which takes longer than a step of a small model."""
    return getattr(type(module), name)(module, *args)


def is_any_array(leaf: Any) -> bool:
    """Whether `leaf` is an array of JAX, or of NumPy."""
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray)


def on_device(tree: PyTree, dtype: np.dtype) -> Any:
    """The same pytree with arrays of JAX, floating-point ones of one dtype."""

    def move(x: Any) -> Any:
        is_wide = isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.floating)
        return x.astype(dtype) if is_wide else x

    return jax.device_put(jax.tree.map(move, tree))
