"""Which indices of a model's plates a step sees."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Int, PyTree

from .._custom_types import Data, Key
from .._misc import as_whole
from .minibatch import AbstractMinibatch, drawn_indices, grown


class Seen(eqx.Module):
    """All of the data, and the indices of some plates that one step sees of them."""

    data: PyTree[Array]
    indices: dict[str, Int[Array, " batch"]]


class PlateMinibatch(AbstractMinibatch):
    """Indices of some plates, by which the model itself looks up its data.

    `plates` are names, lengths, and how many indices a step sees. Indices come in
    shuffled epochs, as in [`vijax.Minibatch`][].
    """

    plates: tuple[tuple[str, int, int], ...] = eqx.field(static=True)

    def cast(self, leaf: Array) -> Array:
        return leaf

    def check(self, data: Data) -> None:
        del data

    def whole_weight(self, data: Data) -> float:
        del data
        return 1.0

    def size(self, data: Data) -> int:
        del data
        return min(size for _, _, size in self.plates)

    def larger(self, factor: float, data: Data) -> "PlateMinibatch":
        del data
        plates = tuple((name, n, grown(size, factor, n)) for name, n, size in self.plates)
        return dataclasses.replace(self, plates=plates)

    def __call__(
        self, key: Key, data: Data, step: Int[Array, ""] | int = 0
    ) -> tuple[PyTree, float]:
        indices = {
            name: drawn_indices(jr.fold_in(key, i), step, size, length, replace=False)
            for i, (name, length, size) in enumerate(self.plates)
        }
        return Seen(data, indices), 1.0


def plate_minibatch(
    batch_size: Any, lengths: dict[str, int], usual: tuple[str, ...]
) -> PlateMinibatch | None:
    """What `batch_size` means for a model with plates of some lengths.

    **Arguments:**

    - `batch_size`: `None`, `{plate: size}`, or a size.
    - `lengths`: the length of each plate that may be seen in part.
    - `usual`: the plates that a bare size speaks of.

    **Raises:** `ValueError` for anything else.
    """
    if batch_size is None:
        return None
    if not isinstance(batch_size, dict):
        if len(usual) != 1:
            raise ValueError(
                f"`batch_size` is {batch_size!r}, but which plate does it speak of? "
                f"Write `{{plate: size}}`; the plates are {lengths}."
            )
        batch_size = {usual[0]: batch_size}
    plates = []
    for name, given in batch_size.items():
        if name not in lengths:
            raise ValueError(
                f"There is no plate {name!r} to take batches of. There are {lengths}."
            )
        size = as_whole(f"batch_size[{name!r}]", given, 1)
        if size > lengths[name]:
            raise ValueError(
                f"`batch_size` is {size} in plate {name!r}, whose length is "
                f"{lengths[name]}. Give a number from 1 to that."
            )
        plates.append((name, lengths[name], size))
    return PlateMinibatch(tuple(plates)) if plates else None
