"""Data as JAX arrays, or an error in words."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .._misc import is_tracer


def named_leaves(data: Any) -> dict[str, Any]:
    """The leaves of a pytree by the names on the way to them."""
    out = {}
    for path, leaf in jtu.tree_flatten_with_path(data)[0]:
        parts = (jtu.keystr((entry,), simple=True) for entry in path)
        out["_".join(parts) or "data"] = leaf
    return out


def named_arrays(data: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by the names on the way to them."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(data).items()}


def nan_in_words(name: str, count: int, size: int) -> str:
    """What is wrong with an array that has so many NaN."""
    return (
        f"`{name}` has {count} NaN among its {size} entries. Drop or impute them, or put "
        "numbers in their place and pass a mask."
    )


def count_nan(array: Array | np.ndarray) -> int:
    """How many NaN an array has."""
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return 0
    # Where the data are: on an accelerator a look from the host would copy them all, and
    # on the host a look by JAX would compile.
    if isinstance(array, jax.Array) and any(d.platform != "cpu" for d in array.devices()):
        return int(jax.jit(lambda x: jnp.sum(jnp.isnan(x)))(array))
    return int(np.sum(np.isnan(array)))


def as_data(data: Any, *, nan_allowed: bool = False) -> PyTree[Array]:
    """The data as JAX arrays, or an error that says which leaf is wrong.

    Arrays of NumPy are copied, so that they can be changed afterwards; but not memory
    maps, whose data may be larger than the memory.
    """

    def convert(path, leaf):
        name = f"data{jtu.keystr(path)}"
        if is_tracer(leaf):
            return leaf
        if hasattr(leaf, "columns"):
            raise ValueError(
                f"`{name}` is a table, of which only a matrix without names would be "
                "left. Give its columns by name: "
                "`{name: table[name].to_numpy() for name in table.columns}`."
            )
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if array.dtype.kind in "OSU":
            raise ValueError(
                f"`{name}` is not numeric: it is a {type(leaf).__name__} of dtype "
                f"{array.dtype}. Give arrays of numbers (encode categories as integers)."
            )
        bad = 0 if nan_allowed else count_nan(array)
        if bad:
            raise ValueError(nan_in_words(name, bad, array.size))
        if not isinstance(array, np.ndarray):
            return array
        # On a CPU the device would go on with the caller's own memory.
        is_mapped = isinstance(leaf, np.memmap)
        return jax.device_put(array if is_mapped else np.array(array))

    return jtu.tree_map_with_path(convert, data)
