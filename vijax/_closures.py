"""Functions and other values that compare by what they are, not by where they lie."""

import functools
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree


def _by_value(leaf: Any) -> Any:
    """Numbers, words and our functions as they are, anything else by its identity."""
    is_plain = isinstance(leaf, _PLAIN)
    return (type(leaf), leaf) if is_plain else id(leaf)


class ComparedByValue:
    """Equal to another one of the same kind and `_identity`, and never copied."""

    _identity: Any

    def __deepcopy__(self, memo: dict) -> "ComparedByValue":
        return self

    def __hash__(self):
        return hash(self._identity)

    def __eq__(self, other):
        return type(other) is type(self) and self._identity == other._identity


class Constant(ComparedByValue):
    """What a program has in place of an array argument: equal to another one of the same
    content. It keeps a copy, of the kind that was given."""

    def __init__(self, value: Any):
        self.value = value.copy()
        table = getattr(value, "columns", None)
        parts = [value] if table is None else [value[name] for name in table]
        arrays = tuple(map(np.asarray, parts))
        # Objects, such as words, have no bytes that say what they are.
        content = (repr(x.tolist()) if x.dtype.hasobject else x.tobytes() for x in arrays)
        kinds = tuple((str(x.dtype), x.shape) for x in arrays)
        self._identity = type(value), str(table), kinds, tuple(content)


class Held(ComparedByValue):
    """Any pytree as one static value. Equal to another one of the same leaves."""

    def __init__(self, tree: PyTree):
        self.tree = tree
        leaves, structure = jtu.tree_flatten(tree)
        self._identity = structure, tuple(_by_value(x) for x in leaves)


def _global_names(code: types.CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_global_names, inner))


class _Function(ComparedByValue):
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


_PLAIN = (bool, int, float, str, _Function, Constant, jtu.PyTreeDef)


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


class hashable_method:  # noqa: N801  # Used as `property` is.
    """A method of a module of arrays that can be given to `jax.jit`, which asks for a
    hash: a pytree, as Equinox's own methods are, that equals itself only."""

    def __init__(self, fn: Callable):
        self._fn = fn
        functools.update_wrapper(self, fn)  # pyright: ignore[reportArgumentType]

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else jtu.Partial(self._fn, owner)
