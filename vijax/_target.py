import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree, Scalar

from ._custom_types import Data, Key, Params, Point
from ._minibatch import Minibatch
from ._misc import is_tracer


class AbstractModel(eqx.Module):
    """A log density over named parameters, seen from the flat vectors inside.

    A front-end is a function that returns a [`vijax.Target`][] around one of these.
    To add one implement the members below. Data come as arguments and are never held.
    """

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """The number of unconstrained coordinates."""

    @abc.abstractmethod
    def initial(self) -> Point:
        """The unconstrained starting point."""

    @abc.abstractmethod
    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        """The unnormalized log density at `x`, log-Jacobian included.

        `weight` multiplies what depends on `data`: it scales a batch to all the rows.
        """

    @abc.abstractmethod
    def unravel(self, x: Point) -> Params:
        """The named parts of `x`, on the unconstrained scale."""

    @abc.abstractmethod
    def constrain(self, x: Point, data: Data) -> Params:
        """The named parameters that the model was written in."""

    @abc.abstractmethod
    def check(self, data: Data, *, in_batches: bool) -> None:
        """Raise a `ValueError` unless the model makes sense with `data`, and with some
        of its rows if they come in batches."""


def _count_nan(array: Array | np.ndarray) -> int:
    # Where the data are: on an accelerator a look from the host would copy them all, and
    # on the host a look by JAX would compile.
    if isinstance(array, jax.Array) and any(d.platform != "cpu" for d in array.devices()):
        return int(jax.jit(lambda x: jnp.sum(jnp.isnan(x)))(array))
    return int(np.sum(np.isnan(array)))


def _as_data(data: Any) -> PyTree[Array]:
    """The data as JAX arrays, or an error that says which leaf is wrong."""

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
        bad = _count_nan(array) if jnp.issubdtype(array.dtype, jnp.inexact) else 0
        if bad:
            raise ValueError(
                f"`{name}` has {bad} NaN among its {array.size} entries. Drop or impute "
                "them, or put numbers in their place and pass a mask."
            )
        return jax.device_put(array) if isinstance(array, np.ndarray) else array

    return jtu.tree_map_with_path(convert, data)


class Target(eqx.Module):
    r"""What to approximate: an unnormalized log density on all of $\mathbb{R}^{dim}$.

    Make one with a front-end, such as [`vijax.from_log_density`][] or
    [`vijax.from_likelihood`][]. It is a pytree whose array leaves are the data: the
    same model with other data of the same shapes does not compile again.

    **Attributes:**

    - `model`: the log density and the names, without the data.
    - `data`: the data: any pytree of arrays, or `None`.
    - `minibatch`: which rows a step sees, or `None` for all of them.
    - `weight`: what the likelihood is multiplied by; not one only in a batch.
    """

    model: AbstractModel
    data: PyTree[Array]
    minibatch: Minibatch | None
    weight: float

    def __init__(
        self,
        model: AbstractModel,
        data: Data = None,
        minibatch: Minibatch | None = None,
    ):
        """**Arguments:**

        - `model`: the log density and the names.
        - `data`: the data it is given.
        - `minibatch`: which rows a step sees. Default: all of them.
        """
        self.model = model
        self.data = _as_data(data)
        self.minibatch = minibatch
        self.weight = 1.0
        model.check(self.data, in_batches=minibatch is not None)
        if minibatch is not None:
            minibatch.check(self.data)

    @property
    def dim(self) -> int:
        """The number of unconstrained coordinates."""
        return self.model.dim

    def log_density(self, x: Point) -> Scalar:
        """The unnormalized log density at `x`, of shape `(dim,)`, against all the data.

        It includes the log-Jacobian of `constrain`.
        """
        return self.model.log_density(x, self.data, self.weight)

    def unravel(self, x: Point) -> Params:
        """The named parts of `x`, on the unconstrained scale."""
        return self.model.unravel(x)

    def constrain(self, x: Point) -> Params:
        """The named parameters that the model was written in, at `x`."""
        return self.model.constrain(x, self.data)

    def batch(self, key: Key) -> "Target":
        """The target as one step sees it: itself, or what a batch of rows makes of it.

        The expectation of its log density over `key` is that of the full target.
        """
        if self.minibatch is None:
            return self
        data, weight = self.minibatch(key, self.data)
        get = lambda target: (target.data, target.minibatch, target.weight)
        return eqx.tree_at(
            get, self, (data, None, weight), is_leaf=lambda leaf: leaf is None
        )

    def with_data(self, data: Data) -> "Target":
        """The same model with other data. With the same shapes nothing compiles again.

        **Arguments:**

        - `data`: as given to the front-end.

        **Raises:** `ValueError` as the front-end does.
        """
        return Target(self.model, data, self.minibatch)

    def with_batch_size(self, batch_size: int | None) -> "Target":
        """The same model and data, `batch_size` rows a step (`None`: all of them)."""
        minibatch = None if batch_size is None else Minibatch(batch_size)
        return Target(self.model, self.data, minibatch)
