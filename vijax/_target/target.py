"""The target: a log density on unconstrained vectors, and its data."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int, PyTree, Scalar

from .._closures import hashable_method
from .._custom_types import Data, Key, Params, Point
from .._misc import as_key, as_whole, is_traced, shapes_in_words
from .data import as_data, count_nan, named_leaves, nan_in_words
from .minibatch import AbstractMinibatch
from .model import AbstractModel


def _check_nan(target: "Target") -> None:
    """Raise if NaN in the data reach the log density or its gradient."""
    leaves = jtu.tree_flatten_with_path(target.data)[0]
    counts = {path: count_nan(leaf) for path, leaf in leaves}
    if not any(counts.values()):
        return
    initial = np.asarray(target.model.initial())
    steps = np.linspace(-1.0, 1.0, initial.size, dtype=initial.dtype)
    density = eqx.filter_jit(lambda t, x: jax.value_and_grad(t.log_density)(x))
    for x in (initial, initial + steps, initial - steps):
        if all(np.all(np.isfinite(leaf)) for leaf in density(target, x)):
            return
    path, leaf = next((path, leaf) for path, leaf in leaves if counts[path])
    name = f"data{jtu.keystr(path)}"
    raise ValueError(
        f"{nan_in_words(name, counts[path], leaf.size)} With them the log density or "
        "its gradient is not finite."
    )


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
    minibatch: AbstractMinibatch | None
    weight: float
    is_batch: bool

    def __init__(
        self,
        model: AbstractModel,
        data: Data = None,
        minibatch: AbstractMinibatch | None = None,
    ):
        """**Arguments:**

        - `model`: the log density and the names.
        - `data`: the data it is given.
        - `minibatch`: what a step sees of them. Default: all of them.
        """
        if not isinstance(model, AbstractModel):
            raise ValueError(
                f"`model` must be a `vi.AbstractModel`, but it is a "
                f"{type(model).__name__}. Front-ends such as `vi.from_log_density` make "
                "targets with one."
            )
        if minibatch is not None and not isinstance(minibatch, AbstractMinibatch):
            raise ValueError(
                f"`minibatch` must be a `vi.Minibatch`, but it is {minibatch!r}."
            )
        if model.dim == 0:
            raise ValueError(
                "The parameters have no entries: all of their shapes have a zero in "
                "them, so that nothing is to be found."
            )
        self.model = model
        self.data = as_data(data, nan_allowed=model.judges_nan)
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
        if model.judges_nan and not is_traced(self.data):
            _check_nan(self)

    def __repr__(self) -> str:
        lines = [
            f"Target({type(self.model).__name__} of dim {self.dim}",
            f"  parameters: {shapes_in_words(self.model.part_shapes)}",
            f"  data: {shapes_in_words(named_leaves(self.data))}",
        ]
        if self.minibatch is not None:
            lines.append(f"  batches of {self.minibatch.size(self.data)}")
        return "\n".join(lines) + ")"

    @property
    def dim(self) -> int:
        """The number of unconstrained coordinates."""
        return self.model.dim

    @property
    def dtype(self) -> np.dtype:
        """The dtype of points and of the log density."""
        return np.dtype(jax.eval_shape(lambda: self.model.initial()).dtype)

    @hashable_method
    def log_density(self, x: Point) -> Scalar:
        """The unnormalized log density at `x`, of shape `(dim,)`, against all the data.

        It includes the log-Jacobian of `constrain`.
        """
        return self.model.log_density(x, self.data, self.weight)

    @hashable_method
    def unravel(self, x: Point) -> Params:
        """The named parts of `x`, on the unconstrained scale."""
        return self.model.unravel(x)

    @hashable_method
    def constrain(self, x: Point) -> Params:
        """The named parameters that the model was written in, at `x`."""
        return self.model.constrain(x, self.data)

    @hashable_method
    def unconstrain(self, params: Params) -> Point:
        """The point of shape `(dim,)` whose named parameters are `params`; not finite
        where these lie outside their supports."""
        self._check_params(params)
        return self.model.unconstrain(params, self.data)

    def _check_params(self, params: Any) -> None:
        """Raise unless there are values of all the free parameters."""
        free = self.model.part_shapes
        if not isinstance(params, Mapping) or set(free) - set(params):
            given = sorted(map(str, params)) if isinstance(params, Mapping) else params
            raise ValueError(
                "`params` must be a dictionary of the values of all parameters, "
                f"{list(free)}, but it is {given!r}."
            )

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
        key, step = as_key(key), _as_step(step)
        if self.minibatch is None:
            return self
        data, weight = self.minibatch(key, self.data, step)
        get = lambda t: (t.data, t.minibatch, t.weight, t.is_batch)
        new = data, None, weight, True
        return eqx.tree_at(get, self, new, is_leaf=lambda leaf: leaf is None)

    def with_data(self, data: Data) -> "Target":
        """The same model with other data. With the same shapes nothing compiles again.

        **Arguments:**

        - `data`: as given to the front-end; of a NumPyro or PyMC model a dictionary of
            the arguments or data that change.

        **Raises:** `ValueError` as the front-end does.
        """
        model, data = self.model.rebind(data, self.data)
        # NaN are looked for below, once.
        data = as_data(data, nan_allowed=True)
        model, minibatch = model.refitted(data, self.minibatch)
        return Target(model, data, minibatch)

    def with_batch_size(self, batch_size: Any) -> "Target":
        """The same model and data, seen in other batches.

        **Arguments:**

        - `batch_size`: anything that [`vijax.from_likelihood`][] takes: a number of
            rows, a tuple over axes, a [`vijax.Minibatch`][], or `None` for all rows;
            for a model with plates also `{plate: size}`.
            What else a `Minibatch` had said, such as `total_size`, stays unless there
            is a new one.

        **Raises:** `ValueError` as the front-end does.
        """
        minibatch = self.model.minibatch(batch_size, self.minibatch)
        return Target(self.model, self.data, minibatch)


def _as_step(step: Any) -> Any:
    """The number of a step: a whole one, or an array of one."""
    if not isinstance(step, jax.Array):
        return as_whole("step", step, 0)
    if step.shape != () or not jnp.issubdtype(step.dtype, jnp.integer):
        raise ValueError(
            f"`step` must be one whole number, but it is an array of shape {step.shape} "
            f"and dtype {step.dtype}."
        )
    return step


def check_target(target: Any) -> None:
    """Raise unless `target` is one."""
    if not isinstance(target, Target):
        raise ValueError(
            f"`target` must be a `vi.Target`, but it is a {type(target).__name__}. Make "
            "one with `vi.from_log_density(log_density, params, data)`, "
            "`vi.from_likelihood(log_prior, log_likelihood, params, data)`, "
            "`vi.from_numpyro(model, *args)` or `vi.from_pymc(model)`."
        )
