import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int, PyTree, Scalar

from ._custom_types import Data, Key, Params, Point
from ._minibatch import as_minibatch, Minibatch
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
    def unconstrain(self, params: Params, data: Data) -> Point:
        """The unconstrained point at which `constrain` gives `params`; not finite where
        they lie outside their supports."""

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
    - `minibatch`: what a step sees of the data, or `None` for all of them.
    - `weight`: what the likelihood is multiplied by: not one in a batch, or where the
        data are a part of `total_size`.
    - `is_batch`: whether this is what `batch` made of a target.
    """

    model: AbstractModel
    data: PyTree[Array]
    minibatch: Minibatch | None
    weight: float
    is_batch: bool

    def __init__(
        self,
        model: AbstractModel,
        data: Data = None,
        minibatch: Minibatch | None = None,
    ):
        """**Arguments:**

        - `model`: the log density and the names.
        - `data`: the data it is given.
        - `minibatch`: what a step sees of them. Default: all of them.
        """
        self.model = model
        self.data = _as_data(data)
        self.minibatch = minibatch
        self.weight = 1.0
        self.is_batch = False
        if minibatch is not None:
            self.data = jax.tree.map(minibatch.cast, self.data)
        model.check(self.data, in_batches=minibatch is not None)
        if minibatch is not None:
            minibatch.check(self.data)
            self.weight = minibatch.whole_weight(self.data)
            # The likelihood must make sense with a part of the data too.
            batch = jax.eval_shape(lambda data: minibatch(jr.key(0), data)[0], self.data)
            model.check(batch, in_batches=True)

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

    def unconstrain(self, params: Params) -> Point:
        """The point of shape `(dim,)` whose named parameters are `params`; not finite
        where these lie outside their supports."""
        return self.model.unconstrain(params, self.data)

    def batch(self, key: Key, step: Int[Array, ""] | int = 0) -> "Target":
        """The target as one step sees it: itself, or what a batch of the data makes of
        it.

        **Arguments:**

        - `key`: which batches there are. Their expectation over it is the full target.
        - `step`: which of them: one key stands for a run, whose shuffled epochs go
            through the data.

        **Returns:**

        A [`vijax.Target`][] whose `data` are the batch.
        """
        if self.minibatch is None:
            return self
        data, weight = self.minibatch(key, self.data, step)
        get = lambda t: (t.data, t.minibatch, t.weight, t.is_batch)
        new = data, None, weight, True
        return eqx.tree_at(get, self, new, is_leaf=lambda leaf: leaf is None)

    def with_data(self, data: Data) -> "Target":
        """The same model with other data. With the same shapes nothing compiles again.

        **Arguments:**

        - `data`: as given to the front-end.

        **Raises:** `ValueError` as the front-end does.
        """
        return Target(self.model, data, self.minibatch)

    def with_batch_size(self, batch_size: Any) -> "Target":
        """The same model and data, seen in other batches.

        **Arguments:**

        - `batch_size`: anything that [`vijax.from_likelihood`][] takes: a number of
            rows, a tuple over axes, a [`vijax.Minibatch`][], or `None` for all rows.
            What else a `Minibatch` had said, such as `total_size`, stays unless there
            is a new one.

        **Raises:** `ValueError` as the front-end does.
        """
        old = self.minibatch
        keeps = batch_size is not None or (old is not None and old.total_size is not None)
        if old is not None and keeps and not isinstance(batch_size, Minibatch):
            batch_size = old.resized(batch_size)
        return Target(self.model, self.data, as_minibatch(batch_size))


def check_target(target: Any) -> None:
    """Raise unless `target` is one."""
    if not isinstance(target, Target):
        raise ValueError(
            f"`target` must be a `vi.Target`, but it is a {type(target).__name__}. Make "
            "one with `vi.from_log_density(log_density, params, data)` or "
            "`vi.from_likelihood(log_prior, log_likelihood, params, data)`."
        )
