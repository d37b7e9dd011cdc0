"""What a front-end makes of a model: its log density, and all that may be asked of it."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Scalar

from .._custom_types import Data, Key, Params, Point
from .data import named_arrays
from .minibatch import AbstractMinibatch, as_minibatch, Minibatch


# Of points of shape `(points, dim)` in float64 and the data: values and scores.
OnHost: TypeAlias = Callable[..., tuple[np.ndarray, np.ndarray]]


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

    @property
    def part_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of the named parts of a point."""
        x = jax.eval_shape(lambda: self.initial())
        return jax.eval_shape(lambda x: self.unravel(x), x)

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

    def minibatch(
        self, batch_size: Any, old: AbstractMinibatch | None
    ) -> AbstractMinibatch | None:
        """What `batch_size` means, in place of `old`."""
        keeps = batch_size is not None or getattr(old, "total_size", None) is not None
        if isinstance(old, Minibatch) and keeps and not isinstance(batch_size, Minibatch):
            batch_size = old.resized(batch_size)
        return as_minibatch(batch_size)

    @property
    def point_names(self) -> tuple[str, ...]:
        """The parameters that are to be estimated by a number each."""
        return ()

    @property
    def points(self) -> tuple[int, ...]:
        """The coordinates of those, in increasing order."""
        return ()

    @property
    def on_host(self) -> OnHost | None:
        """A function `on_host(x, data) -> (values, scores)` of points of shape
        `(points, dim)`, all NumPy arrays of float64, where the log density is computed
        outside of JAX; `None` where a program of JAX computes it.

        It says what `log_density` and its gradient say, log-Jacobian included.
        """
        return None

    @property
    def judges_nan(self) -> bool:
        """Whether NaN in the data are welcome as long as the density is finite."""
        return False

    @property
    def is_generative(self) -> bool:
        """Whether `predict` and `sample_prior` can be asked for."""
        return False

    def rebind(self, new: Data, old: Data) -> tuple["AbstractModel", Data]:
        """The model and its data, with `new` in place of `old`."""
        del old
        return self, new

    def refitted(
        self, data: Data, old: AbstractMinibatch | None
    ) -> tuple["AbstractModel", AbstractMinibatch | None]:
        """The model, and what `old` is, with data that may have other lengths."""
        del data
        return self, old

    def log_likelihood(self, params: Params, data: Data) -> Params:
        """The log density of each observation by the name of its array, at one draw."""
        del params, data
        raise ValueError(
            "This target is a log density as a whole: it does not say what each "
            "observation adds. Make it with `vi.from_likelihood`, `vi.from_numpyro` or "
            "`vi.from_pymc`."
        )

    def predict(
        self, key: Key, params: Params, data: Data, names: tuple[str, ...] | None
    ) -> Params:
        """New observations, one set a draw of `params`, whose arrays lead with draws."""
        del key, params, data, names
        raise ValueError(
            "This target is a density, from which no data can be drawn. Draw them "
            "yourself, `draws.evaluate(lambda params, keys: ...)`, or make the target "
            "with `vi.from_numpyro` or `vi.from_pymc`."
        )

    def sample_prior(self, key: Key, num_draws: int, data: Data) -> tuple[Params, Params]:
        """Parameters from the prior, and observations at each, leading with draws."""
        del key, num_draws, data
        raise ValueError("This target is a density, whose prior cannot be drawn from.")

    def labels(self, data: Data) -> "Labels":
        """What the data are, and the names of the axes."""
        return Labels(observed=named_arrays(data))


@dataclasses.dataclass(frozen=True)
class Labels:
    """What an export calls things.

    **Attributes:**

    - `observed`: the arrays that were observed, by name.
    - `constants`: the other data.
    - `coords`: `{dimension: labels}`.
    - `dims`: `{variable: [dimension, ...]}`.
    """

    observed: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    coords: dict[str, Any] = dataclasses.field(default_factory=dict)
    dims: dict[str, list[str]] = dataclasses.field(default_factory=dict)
