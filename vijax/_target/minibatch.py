"""Which part of the data one step sees."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int, PyTree

from .._custom_types import Data, Key
from .._misc import as_flag
from .axes import as_dtype, as_entries, slots
from .permutation import permuted


def _shapes(data: Data) -> dict[str, tuple[int, ...]]:
    leaves, _ = jtu.tree_flatten_with_path(data)
    return {f"data{jtu.keystr(path)}": tuple(leaf.shape) for path, leaf in leaves}


def leading_lengths(data: Data) -> dict[str, int]:
    """The length of the leading axis of each array in `data`, by its path."""
    return {name: shape[0] for name, shape in _shapes(data).items()}


def drawn_indices(
    key: Key, step: Int[Array, ""] | int, size: int, length: int, *, replace: bool
) -> Int[Array, " batch"]:
    """The `size` of `length` indices that a step sees, at the cost of `size`.

    Without replacement, `key` stands for a run, whose epochs are shuffled each anew.
    """
    step = jnp.asarray(step, jnp.int32)
    if replace:
        return jr.randint(jr.fold_in(key, step), (size,), 0, length, jnp.int32)
    batches = length // size
    epoch, batch = step // batches, step % batches
    places = batch * size + jnp.arange(size, dtype=jnp.int32)
    return permuted(jr.fold_in(key, epoch), places, length)


def grown(size: int, factor: float, length: int) -> int:
    """So many times `size`, from that up to `length`."""
    return min(max(size, math.ceil(factor * size)), length)


class AbstractMinibatch(eqx.Module):
    """How a step sees a part of the data."""

    @abc.abstractmethod
    def cast(self, leaf: Array) -> Array:
        """An array of the data as it is stored."""

    @abc.abstractmethod
    def check(self, data: Data) -> None:
        """Raise unless a batch can be taken of `data`."""

    @abc.abstractmethod
    def whole_weight(self, data: Data) -> float:
        """What scales a sum over all of `data` to the data there are in all."""

    @abc.abstractmethod
    def size(self, data: Data) -> int:
        """How many rows, or entries along several axes, a step sees."""

    @abc.abstractmethod
    def larger(self, factor: float, data: Data) -> "AbstractMinibatch":
        """Batches of about so many times as many, or of all there are."""

    @abc.abstractmethod
    def __call__(
        self, key: Key, data: Data, step: Int[Array, ""] | int = 0
    ) -> tuple[PyTree, float]:
        """The batch that step number `step` sees, and what scales a sum over it."""


class Minibatch(AbstractMinibatch):
    """Which part of the data one step sees, along which axes, and how it is scaled.

    Several arrays share their indices along an axis. An axis of length one is not drawn
    from where others are longer: for a matrix `R` with rows and columns drawn, the data
    `(R, np.arange(n)[:, None], np.arange(m)[None, :])` say in each batch which they are.
    A sum over the batch is scaled by the product, over the axes, of what there is to
    what is seen. A step costs what its batch costs, however many rows there are.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi
        from jax.scipy.stats import norm

        target = vi.from_likelihood(
            lambda params: norm.logpdf(params["mu"], 0.0, 10.0),
            lambda params, y: norm.logpdf(y, params["mu"], 1.0),
            {"mu": vi.Param()},
            jnp.ones((100, 60)),
            batch_size=vi.Minibatch((10, 20)),  # 10 rows and 20 columns of them.
        )
        target.batch(jax.random.key(0)).data.shape  # (10, 20)
        ```
    """

    batch_size: tuple = eqx.field(static=True)
    replace: bool = eqx.field(static=True)
    total_size: tuple | None = eqx.field(static=True)
    dtype: np.dtype | None = eqx.field(static=True)

    def __init__(
        self,
        batch_size: Any,
        *,
        replace: bool = False,
        total_size: Any = None,
        dtype: Any = None,
    ):
        """**Arguments:**

        - `batch_size`: how many rows; or a tuple with one entry an axis: a size, a pair
            `(size, seed)`, or `None` for the whole axis, and at most one `...` for the
            axes between those before it and those after it. The indices follow from the
            key of the fit, or, where there is a seed, from it alone.
        - `replace`: whether each step draws anew with replacement. Default: shuffled
            epochs, in which no index comes twice. What is left at an epoch's end, less
            than a batch, is skipped; the next epoch is shuffled anew. Keyword only.
        - `total_size`: how much data there are in all, where those given are a part: a
            number or a tuple as above, without seeds. Keyword only.
        - `dtype`: what the data are stored as. Integers stay integers unless it is a
            type of integers. Default: as they are given. Keyword only.

        **Raises:** `ValueError` for anything else.
        """
        self.batch_size = as_entries("batch_size", batch_size, seeds=True)
        self.replace = as_flag("replace", replace)
        self.total_size = None
        if total_size is not None:
            entries = as_entries("total_size", total_size, seeds=False)
            self.total_size = tuple(e[0] if type(e) is tuple else e for e in entries)
        self.dtype = None if dtype is None else as_dtype(dtype)

    def cast(self, leaf: Array) -> Array:
        """An array of the data as it is stored."""
        if self.dtype is None:
            return leaf
        to_integer = not jnp.issubdtype(self.dtype, jnp.inexact)
        if not to_integer and not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf.astype(jax.dtypes.canonicalize_dtype(self.dtype))

    def _lengths(self, data: Data) -> dict[int, int]:
        """The length of what is drawn from, for each entry that has a size."""
        seen: dict[int, dict[str, int]] = {}
        for name, shape in _shapes(data).items():
            least = sum(e is not Ellipsis for e in self.batch_size)
            if Ellipsis in self.batch_size and len(shape) < least:
                raise ValueError(
                    f"`batch_size` speaks of {least} axes besides `...`, but `{name}` "
                    f"has {len(shape)}: its shape is {shape}."
                )
            for axis, slot in enumerate(slots(self.batch_size, len(shape))):
                if slot is not None and self.batch_size[slot] is not None:
                    seen.setdefault(slot, {})[f"{name} axis {axis}"] = shape[axis]
        sizes = [i for i, e in enumerate(self.batch_size) if type(e) is tuple]
        for slot in sizes:
            lengths = set(seen.get(slot, {}).values())
            if not lengths:
                raise ValueError(
                    f"Entry {slot} of `batch_size` is {self.batch_size[slot][0]}, but "
                    f"no array has such an axis: their shapes are {_shapes(data)}."
                )
            # A row vector beside a matrix is no mistake, one array of one row is.
            if len(lengths - ({1} if len(sizes) > 1 else set())) > 1:
                raise ValueError(
                    "Arrays that are drawn from together must agree in length, but "
                    f"along entry {slot} of `batch_size` they are {seen[slot]}."
                )
        return {slot: max(seen[slot].values()) for slot in sizes}

    def check(self, data: Data) -> None:
        """Raise unless a batch can be taken of `data`."""
        for slot, length in self._lengths(data).items():
            size, _ = self.batch_size[slot]
            if size > length:
                raise ValueError(
                    f"`batch_size` is {size} along an axis of length {length} (rows, if "
                    f"it is the first). Give a number from 1 to {length}, or `None` to "
                    "see all of it at every step."
                )
        self.whole_weight(data)

    def whole_weight(self, data: Data) -> float:
        """What scales a sum over all of `data` to `total_size`."""
        if self.total_size is None:
            return 1.0
        shapes = list(_shapes(data).values())
        most = max(map(len, shapes))
        given = [e for e in self.total_size if e is not Ellipsis]
        if len(given) > most:
            raise ValueError(
                f"`total_size` speaks of {len(given)} axes, but the data have {most}."
            )
        weight = 1.0
        for axis, slot in enumerate(slots(self.total_size, most)):
            total = None if slot is None else self.total_size[slot]
            if total is None:
                continue
            # Axes of length one are broadcast against those of other arrays.
            lengths = {s[axis] for s in shapes if len(s) > axis}
            length = max(lengths)
            if length == 0 or lengths - {1, length} or total < length:
                raise ValueError(
                    f"`total_size` is {total} along axis {axis}, but the lengths of the "
                    f"data there are {sorted(lengths)}. It must be known what is a part "
                    "of it, and no longer than it."
                )
            weight *= total / length
        return weight

    def resized(self, batch_size: Any) -> "Minibatch":
        """The same but for its size."""
        return Minibatch(
            batch_size,
            replace=self.replace,
            total_size=self.total_size,
            dtype=self.dtype,
        )

    def size(self, data: Data) -> int:
        """How many entries along the axes that are drawn from a step sees; all the rows
        if none is."""
        drawn = [self.batch_size[slot][0] for slot in self._lengths(data)]
        return math.prod(drawn) if drawn else max(leading_lengths(data).values())

    def larger(self, factor: float, data: Data) -> "Minibatch":
        """The same but for its size, shared among the axes."""
        lengths = self._lengths(data)
        if not lengths:
            return self
        along_each = factor ** (1 / len(lengths))
        entries = list(self.batch_size)
        for slot, length in lengths.items():
            size, seed = entries[slot]
            size = grown(size, along_each, length)
            entries[slot] = size if seed is None else (size, seed)
        return self.resized(tuple(entries))

    def _indices(
        self, slot: int, length: int, key: Key, step: Int[Array, ""] | int
    ) -> Int[Array, " batch"]:
        size, seed = self.batch_size[slot]
        key = jr.fold_in(key if seed is None else jr.key(seed), slot)
        return drawn_indices(key, step, size, length, replace=self.replace)

    def __call__(
        self, key: Key, data: Data, step: Int[Array, ""] | int = 0
    ) -> tuple[PyTree, float]:
        """The batch that step number `step` sees, and what scales a sum over it."""
        lengths = self._lengths(data)
        indices = {i: self._indices(i, n, key, step) for i, n in lengths.items()}

        def take(leaf: Array) -> Array:
            drawn = {
                axis: indices[slot]
                for axis, slot in enumerate(slots(self.batch_size, leaf.ndim))
                if slot in lengths and leaf.shape[axis] == lengths[slot]
            }
            return _take(leaf, drawn)

        seen = (self.batch_size[slot][0] for slot in lengths)
        scale = math.prod(lengths.values()) / math.prod(seen)
        return jax.tree.map(take, data), self.whole_weight(data) * scale


def _take(leaf: Array, indices: dict[int, Array]) -> Array:
    """The entries of `leaf` at some indices along some axes, in one gather."""
    if not indices:
        return leaf
    axes = sorted(indices)
    place: list[Any] = [slice(None)] * leaf.ndim
    for i, axis in enumerate(axes):
        shape = [1] * len(axes)
        shape[i] = -1
        place[axis] = indices[axis].reshape(shape)
    out = leaf.at[tuple(place)].get(mode="promise_in_bounds")
    # Where the axes are not neighbours, indexing puts them all in front.
    together = axes == list(range(axes[0], axes[-1] + 1))
    return out if together else jnp.moveaxis(out, range(len(axes)), axes)


def as_minibatch(batch_size: Any) -> Minibatch | None:
    """What a front-end's `batch_size` means."""
    if batch_size is None or isinstance(batch_size, Minibatch):
        return batch_size
    return Minibatch(batch_size)
