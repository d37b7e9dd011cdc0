"""A run in progress, as callbacks, files and Ctrl-C see it, however steps are made."""

import abc
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._loop.base import Problem, Progress
from .history import History


def nothing() -> None:
    """What is called where nobody wants to know."""


class AbstractRun(abc.ABC):
    """A run in progress: at any moment its parts belong to the same step.

    **Attributes:**

    - `problem`: what stays the same; may be replaced between steps.
    - `history`: losses and records.
    - `look`: called wherever the run can be interrupted within a step; may raise.
    """

    def __init__(self, problem: Problem, history: History):
        self.problem = problem
        self.history = history
        self.look: Callable[[], Any] = nothing

    @property
    @abc.abstractmethod
    def progress(self) -> Progress:
        """The progress after the last step."""

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """How many steps were made."""

    @property
    @abc.abstractmethod
    def num_skipped(self) -> int:
        """How many of them were not finite."""

    @property
    @abc.abstractmethod
    def is_met(self) -> bool:
        """Whether the rule was met, or the method is done."""

    @property
    @abc.abstractmethod
    def has_failed(self) -> bool:
        """Whether too many steps in a row were not finite."""

    @property
    @abc.abstractmethod
    def is_over(self) -> bool:
        """Whether the method has nothing left to do."""

    @property
    @abc.abstractmethod
    def is_compiled(self) -> bool:
        """Whether the next step compiles nothing."""

    @property
    @abc.abstractmethod
    def longest(self) -> int:
        """How many steps `advance` may be asked for."""

    @property
    def doing(self) -> str:
        """What the run is at, in a word or two."""
        return self.problem.method.doing(self.progress.state)

    @abc.abstractmethod
    def begins_well(self) -> bool:
        """Whether the first step is finite. (It is not kept.)"""

    @abc.abstractmethod
    def advance(self, num_steps: int) -> None:
        """Make up to `num_steps` steps."""

    @property
    def losses(self) -> np.ndarray:
        """The loss of every step that was made."""
        return self.history.losses[: self.num_steps]

    def tracked(self) -> tuple[PyTree[np.ndarray], np.ndarray]:
        """What the trackers recorded, and at which steps."""
        tracked, steps = self.history.tracked()
        keep = int(np.searchsorted(steps, self.num_steps, side="right"))
        return jax.tree.map(lambda x: x[:keep], tracked), steps[:keep]
