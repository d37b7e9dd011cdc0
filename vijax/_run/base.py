"""A run in progress, as callbacks, files and Ctrl-C see it, however steps are made."""

import abc
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._loop.base import MAX_NONFINITE, Problem, Progress
from .._method.base import Recipe
from .._misc import call_method
from .._target.target import Target
from .history import History


def nothing() -> None:
    """What is called where nobody wants to know."""


class AbstractRun(abc.ABC):
    """A run in progress: at any moment its parts belong to the same step.

    **Attributes:**

    - `problem`: what stays the same; may be replaced between steps.
    - `history`: losses and records.
    - `look`: called wherever the run can be interrupted within a step; may raise.
    - `is_compiled`: whether the next step compiles nothing.
    """

    # The progress after the last step, with arrays of whichever kind the steps take.
    _progress: Progress

    def __init__(self, problem: Problem, history: History):
        self.problem = problem
        self.history = history
        self.look: Callable[[], Any] = nothing
        self.is_compiled = False

    @classmethod
    @abc.abstractmethod
    def begin(
        cls,
        problem: Problem,
        family: AbstractFamily | Recipe | None,
        point: Point | None = None,
    ) -> "AbstractRun":
        """Before its first step, from a family, or a recipe at a point."""

    @staticmethod
    @abc.abstractmethod
    def find_point(key: Key, target: Target) -> tuple[Point, Any]:
        """A point where the log density and its gradient are finite, and whether it is
        one."""

    @staticmethod
    @abc.abstractmethod
    def restart(problem: Problem, progress: Progress) -> Progress:
        """The progress before the first step of another method or rule, where a run has
        come to."""

    @property
    @abc.abstractmethod
    def progress(self) -> Progress:
        """The progress after the last step, with arrays of JAX."""

    @property
    @abc.abstractmethod
    def longest(self) -> int:
        """How many steps `advance` may be asked for."""

    @abc.abstractmethod
    def begins_well(self) -> bool:
        """Whether the first step is finite. (It is not kept.)"""

    @abc.abstractmethod
    def advance(self, num_steps: int) -> None:
        """Make up to `num_steps` steps."""

    @property
    def num_steps(self) -> int:
        """How many steps were made."""
        return int(self._progress.num_steps)

    @property
    def num_skipped(self) -> int:
        """How many of them were not finite."""
        return int(self._progress.num_skipped)

    @property
    def is_met(self) -> bool:
        """Whether the rule was met, or the method is done."""
        return bool(self._progress.met)

    @property
    def has_failed(self) -> bool:
        """Whether too many steps in a row were not finite."""
        return int(self._progress.num_nonfinite) >= MAX_NONFINITE

    @property
    def is_over(self) -> bool:
        """Whether the method has nothing left to do."""
        done = call_method(self.problem.method, "done", self._progress.state)
        return done is not None and bool(done)

    @property
    def doing(self) -> str:
        """What the run is at, in a word or two."""
        return call_method(self.problem.method, "doing", self._progress.state)

    @property
    def losses(self) -> np.ndarray:
        """The loss of every step that was made."""
        return self.history.losses[: self.num_steps]

    def tracked(self) -> tuple[PyTree[np.ndarray], np.ndarray]:
        """What the trackers recorded, and at which steps."""
        tracked, steps = self.history.tracked()
        keep = int(np.searchsorted(steps, self.num_steps, side="right"))
        return jax.tree.map(lambda x: x[:keep], tracked), steps[:keep]
