"""What a minibatch says of the axes of an array, in entries: one an axis."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .._misc import as_whole


def _as_entry(name: str, entry: Any, *, seeds: bool) -> Any:
    """One axis: `None`, `Ellipsis`, or a pair of a size and a seed or `None`."""
    if entry is None or entry is Ellipsis:
        return entry
    if seeds and isinstance(entry, (tuple, list)) and len(entry) == 2:
        seed = as_whole(f"{name} seed", entry[1], 0, None)
        if seed >= 2**32:
            raise ValueError(f"A seed must be below 2^32, but one is {seed}.")
        return as_whole(name, entry[0], 1), seed
    return as_whole(name, entry, 1), None


def as_entries(name: str, given: Any, *, seeds: bool) -> tuple:
    """What is said of the axes, from the first one on."""
    entries = given if isinstance(given, tuple | list) else (given,)
    kinds = "numbers, `None`, at most one `...`"
    kinds += " and pairs (size, seed)" if seeds else ""
    try:
        if not entries:
            raise ValueError("There is nothing in it.")
        entries = tuple(_as_entry(name, entry, seeds=seeds) for entry in entries)
        if sum(entry is Ellipsis for entry in entries) > 1:
            raise ValueError("There are two `...` in it.")
    except (TypeError, ValueError) as e:
        raise ValueError(
            f"`{name}` must be a whole number of at least 1, or a tuple of {kinds}, one "
            f"entry an axis, but it is {given!r}. {e}"
        ) from e
    return entries


def as_dtype(dtype: Any) -> np.dtype:
    try:
        converted = np.dtype(dtype)
    except TypeError:
        converted = np.dtype(object)
    if not (jnp.issubdtype(converted, jnp.number) or converted == np.bool_):
        raise ValueError(
            "`dtype` must be a type of numbers such as `np.float32`, but it is "
            f"{dtype!r}."
        )
    return converted


def slots(entries: tuple, num_axes: int) -> list[int | None]:
    """For each axis which of the entries speaks of it."""
    numbers = list(range(len(entries)))
    if Ellipsis not in entries:
        return [i if i < len(entries) else None for i in range(num_axes)]
    at = entries.index(Ellipsis)
    head, tail = numbers[:at], numbers[at + 1 :]
    return [*head, *[None] * (num_axes - len(head) - len(tail)), *tail]
