"""What goes through the loop: the problem, the progress, records, a stopping rule."""

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from .._custom_types import AnyArray, Key
from .._family.base import AbstractFamily
from .._method.base import AbstractMethod, State
from .._target.target import Target


# After so many non-finite steps in a row nothing is to be hoped for.
MAX_NONFINITE = 100


class AbstractStop(eqx.Module):
    """A rule that says when a run may end, evaluated inside the loop at every step.

    To add a rule implement `init` and `update`, as pure functions.
    """

    @abc.abstractmethod
    def init(self, family: AbstractFamily) -> PyTree:
        """The rule's memory before the first step."""

    @abc.abstractmethod
    def update(
        self,
        state: PyTree,
        num_steps: Int[Array, ""],
        loss: Scalar,
        family: AbstractFamily,
    ) -> tuple[PyTree, Bool[Array, ""]]:
        """Take in one step.

        **Arguments:**

        - `state`: the rule's memory.
        - `num_steps`: how many steps were made, this one included.
        - `loss`: the loss of this step.
        - `family`: the family after this step.

        **Returns:**

        The new memory, and whether to stop.
        """


class Problem(eqx.Module):
    """What stays the same throughout a run."""

    target: Target
    method: AbstractMethod
    key: Key
    stop: AbstractStop | None
    track: dict[str, Callable]
    track_every: int = eqx.field(static=True)


def replace_target(problem: Problem, target: Target) -> Problem:
    """The same run with another target, such as the same model with other data."""
    if target.dim != problem.target.dim:
        raise ValueError(
            f"The new target has {target.dim} coordinates, but the run has "
            f"{problem.target.dim}. Make it with `target.with_data(new)`."
        )
    return dataclasses.replace(problem, target=target)


class Progress(NamedTuple):
    """What one step hands to the next: all that an exact resume needs."""

    family: AbstractFamily
    state: State
    stop_state: PyTree
    num_steps: Int[AnyArray, ""]
    num_skipped: Int[AnyArray, ""]
    num_nonfinite: Int[AnyArray, ""]
    met: Bool[AnyArray, ""]

    @property
    def failed(self) -> Bool[Array, ""]:
        """Whether too many steps in a row were not finite."""
        return self.num_nonfinite >= MAX_NONFINITE

    def cleared(self) -> "Progress":
        """Ready to go on after a rule was met, or after a failure."""
        get = lambda progress: (progress.met, progress.num_nonfinite)
        new = jax.device_put((np.array(False), np.array(0, np.int32)))
        return eqx.tree_at(get, self, new)


class Records(eqx.Module):
    """The losses of the steps and what the trackers saw. Only first entries count."""

    losses: Float[AnyArray, " steps"]
    tracked: dict[str, PyTree[AnyArray]]
    tracked_steps: Int[AnyArray, " records"]
    num_tracked: Int[AnyArray, ""]
