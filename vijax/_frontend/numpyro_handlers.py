"""NumPyro's effect handlers as pytrees, and a model's arguments in two parts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from numpyro.handlers import seed
from numpyro.primitives import Messenger

from .._closures import Constant
from .._custom_types import Key
from .._misc import is_tracer


class Rebuilt(eqx.Module):
    """One of NumPyro's effect handlers as a pytree: equal to another with equal parts."""

    kind: type = eqx.field(static=True)
    attributes: dict[str, Any]

    def build(self) -> Any:
        out = object.__new__(self.kind)
        for name, value in self.attributes.items():
            setattr(out, name, build_handlers(value))
        return out


def is_handler(x: Any) -> bool:
    return type(x).__module__.startswith("numpyro.") and (
        isinstance(x, Messenger) or "reparam" in type(x).__module__
    )


def handlers_as_pytrees(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return jax.device_put(np.array(x))  # A copy, which nobody else changes.
    if not is_handler(x):
        return x
    # What `functools.update_wrapper` copied from the function inside.
    attributes = {k: v for k, v in vars(x).items() if not k.startswith("__")}
    convert = lambda tree: jax.tree.map(handlers_as_pytrees, tree, is_leaf=is_handler)
    return Rebuilt(type(x), convert(attributes))


def build_handlers(tree: Any) -> Any:
    is_ours = lambda x: isinstance(x, Rebuilt)
    build = lambda x: x.build() if is_ours(x) else x
    return jax.tree.map(build, tree, is_leaf=is_ours)


def reseeded(x: Any, key: Key) -> Any:
    """A model with `key` in place of that of a `numpyro.handlers.seed` of its own, with
    which every call would draw the same."""
    if not isinstance(x, Rebuilt):
        return x
    attributes = x.attributes | {"fn": reseeded(x.attributes.get("fn"), key)}
    if issubclass(x.kind, seed):
        attributes["rng_key"] = key
    return Rebuilt(x.kind, attributes)


def _is_of_pandas(x: Any) -> bool:
    return type(x).__module__.split(".")[0] == "pandas"


def _is_data(leaf: Any) -> bool:
    if is_tracer(leaf):
        return True
    if hasattr(leaf, "columns") or _is_of_pandas(leaf):
        return True
    if not isinstance(leaf, jax.Array | np.ndarray):
        return False
    # A number of groups, whatever wraps it, decides shapes.
    return leaf.ndim > 0 or jnp.issubdtype(leaf.dtype, jnp.inexact)


def _plain(leaf: Any) -> Any:
    """Numbers in a wrapping, as themselves."""
    is_wrapped = isinstance(leaf, jax.Array | np.ndarray | np.generic)
    return leaf.item() if is_wrapped and not is_tracer(leaf) else leaf


def split_arguments(
    arguments: dict[str, Any], constants: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments as arrays and as the rest, each with `None` where the other is. Arrays at
    the places `constants` belong to the rest."""

    def is_any_array(path: Any, leaf: Any) -> bool:
        return _is_data(leaf) and place_of(path) not in constants

    def rest(path: Any, leaf: Any) -> Any:
        if is_any_array(path, leaf):
            return None
        if is_tracer(leaf):
            raise ValueError(
                f"`{place_of(path)}` is a constant of the model, which computes with it "
                "as NumPy does, so that its values must be known: not inside `jax.jit`, "
                "`jax.vmap` or the like."
            )
        return Constant(leaf) if _is_data(leaf) else _plain(leaf)

    mask = jtu.tree_map_with_path(is_any_array, arguments)
    arrays = eqx.filter(arguments, mask)
    arrays = {k: v for k, v in arrays.items() if jtu.tree_leaves(v)}
    arrays = jax.tree.map(
        lambda x: np.asarray(x) if _is_of_pandas(x) and not hasattr(x, "columns") else x,
        arrays,
    )
    return arrays, jtu.tree_map_with_path(rest, arguments)


def place_of(path: Any) -> str:
    """The name of an argument, and the way to an array in it, such as `data['x']`."""
    first, *others = path
    return jtu.keystr((first,), simple=True) + jtu.keystr(tuple(others))


def array_places(arguments: dict[str, Any]) -> list[str]:
    """Where the arrays among some arguments are."""
    leaves = jtu.tree_flatten_with_path(arguments)[0]
    return [place_of(path) for path, leaf in leaves if _is_data(leaf)]


def whole_arguments(arrays: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """What `split_arguments` has split."""
    value = lambda leaf: leaf.value if isinstance(leaf, Constant) else leaf
    rest = jax.tree.map(value, rest)
    return {
        name: eqx.combine(arrays[name], part) if name in arrays else part
        for name, part in rest.items()
    }


def innermost(fn: Any) -> Any:
    return innermost(fn.attributes["fn"]) if isinstance(fn, Rebuilt) else fn
