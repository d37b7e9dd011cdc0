import contextlib
import functools
import operator
import types
from collections.abc import Callable, Iterator
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


def tree_where(condition: Bool[Array, ""], yes: T, no: T) -> T:
    """`yes` or `no`, array leaf by array leaf. `no` decides dtypes and other leaves."""
    pick = lambda y, n: (
        jnp.where(condition, y.astype(n.dtype), n) if eqx.is_array(n) else n
    )
    return jax.tree.map(pick, yes, no)


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


@contextlib.contextmanager
def lenient_promotion() -> Iterator[None]:
    """For code of others, which mixes dtypes and ranks where our users may forbid it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def map_in_batches(fn: Callable, xs: PyTree[Array], size: int) -> PyTree[Array]:
    """`jax.vmap(fn)(xs)`, in pieces when one call touches `size` numbers.

    A thousand draws against a hundred million numbers do not fit in memory at once.
    """
    length = jtu.tree_leaves(xs)[0].shape[0]
    batch_size = max(1, _VECTORIZED_SIZE // max(size, 1))
    if batch_size >= length:
        return jax.vmap(fn)(xs)
    return lax.map(fn, xs, batch_size=batch_size)


def as_array(value: Any) -> Array | np.ndarray | None:
    """`value` as an array of JAX, or else of NumPy: nothing is compiled for it."""
    if value is None or isinstance(value, jax.Array):
        return value
    return np.asarray(value)


def as_whole(name: str, value: Any, least: int) -> int:
    """`value` as a whole number of at least `least`, or an error that names it."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}, but it is {value!r}."
        )
    return number


def as_real(value: Any) -> float:
    """`value` as a number, or NaN, which is in no interval, if it is none."""
    is_number = isinstance(value, float | int | np.number) and not isinstance(value, bool)
    return float(value) if is_number else float("nan")


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


def _by_value(leaf: Any) -> Any:
    """Numbers, words and our functions as they are, anything else by its identity."""
    is_plain = isinstance(leaf, bool | int | float | str | _Function)
    return (type(leaf), leaf) if is_plain else id(leaf)


class Held:
    """Any pytree as one static value. Equal to another one of the same leaves."""

    def __init__(self, tree: PyTree):
        self.tree = tree
        leaves, structure = jtu.tree_flatten(tree)
        self._identity = structure, tuple(_by_value(x) for x in leaves)

    def __deepcopy__(self, memo: dict) -> "Held":
        return self

    def __hash__(self):
        return hash(self._identity)

    def __eq__(self, other):
        return isinstance(other, Held) and self._identity == other._identity


def _global_names(code: types.CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_global_names, inner))


class _Function:
    """A function without its closure. Equal to another one of the same source that sees
    the same globals.

    It is a leaf, and can be called as far as others look: Optax asks of a mask whether
    it holds anything that can be.
    """

    def __init__(self, fn: types.FunctionType):
        self.fn = fn
        names = sorted(_global_names(fn.__code__) & fn.__globals__.keys())
        # Held, so that no identity is given to something else.
        self._seen = [fn.__globals__[name] for name in names]
        values = tuple(_by_value(value) for value in self._seen)
        self._identity = fn.__code__, fn.__qualname__, fn.__module__, values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __deepcopy__(self, memo: dict) -> "_Function":
        return self

    def __hash__(self):
        return hash(self._identity)

    def __eq__(self, other):
        return isinstance(other, _Function) and self._identity == other._identity


# What a closure names but never got.
_EMPTY = type("_Empty", (), {})


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


class _Closure(eqx.Module):
    fn: _Function
    defaults: Any
    keyword_defaults: Any
    contents: tuple

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fn = self.fn.fn
        cells = tuple(
            types.CellType() if value is _EMPTY else types.CellType(value)
            for value in self.contents
        )
        rebuilt = types.FunctionType(
            fn.__code__, fn.__globals__, fn.__name__, self.defaults, cells
        )
        rebuilt.__kwdefaults__ = self.keyword_defaults
        return rebuilt(*args, **kwargs)


def same_function(fn: Callable) -> Callable:
    """`fn`, equal to another one of the same source if it closes over nothing."""
    is_bare = isinstance(fn, types.FunctionType) and fn.__closure__ is None
    return _Function(fn) if is_bare else fn


def closures_as_pytrees(tree: PyTree) -> PyTree:
    """A copy of `tree` in which closures are pytrees of what they close over.

    JAX compares functions by identity, so that each `optax.adam(1e-3)` would compile
    anew. As pytrees, closures of the same source over equal values are equal.
    """

    def convert(leaf):
        if not isinstance(leaf, types.FunctionType) or "<" not in leaf.__qualname__:
            return leaf  # Functions of a module are the same each time.
        contents = tuple(map(_content, leaf.__closure__ or ()))
        return _Closure(
            fn=_Function(leaf),
            defaults=closures_as_pytrees(leaf.__defaults__),
            keyword_defaults=closures_as_pytrees(leaf.__kwdefaults__),
            contents=closures_as_pytrees(contents),
        )

    return jax.tree.map(convert, tree)
