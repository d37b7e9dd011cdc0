"""A run whose steps are a compiled loop."""

import dataclasses

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._loop.base import Problem, Progress, Records
from .._loop.chunk import advance, begin
from .._method.base import Recipe
from .._misc import float_dtype
from .._target.target import Target
from .base import AbstractRun
from .history import History
from .start import find_point, start


# How many steps there is room for in a chunk.
_CAPACITY = 2**16
# How many numbers the trackers may record before the host fetches them.
_RECORDED = 2**20


class CompiledRun(AbstractRun):
    """A run in progress, in chunks of a compiled loop."""

    def __init__(self, problem: Problem, progress: Progress, history: History):
        super().__init__(problem, history)
        self._progress = progress
        sizes = [np.prod(x.shape[1:]) for x in jax.tree.leaves(history.tracked()[0])]
        self._num_records = int(np.clip(_RECORDED // max(sum(sizes), 1), 1, 1024))

    @classmethod
    def begin(
        cls,
        problem: Problem,
        family: AbstractFamily | Recipe | None,
        point: Point | None = None,
    ) -> "CompiledRun":
        progress, tracked = start(problem, family, point)
        tracked = jax.tree.map(np.asarray, tracked)
        return cls(
            problem, progress, History.empty(float_dtype(progress.family), tracked)
        )

    @staticmethod
    def find_point(key: Key, target: Target) -> tuple[Point, jax.Array]:
        return find_point(key, target)

    @staticmethod
    @eqx.filter_jit
    def restart(problem: Problem, progress: Progress) -> Progress:
        key = jr.fold_in(problem.key, progress.num_steps)
        return begin(dataclasses.replace(problem, key=key), progress.family)

    @property
    def progress(self) -> Progress:
        return self._progress

    @property
    def longest(self) -> int:
        if not self.problem.track:
            return _CAPACITY
        return min(_CAPACITY, self._num_records * self.problem.track_every)

    def _advanced(self, num_steps: int) -> tuple[Progress, Records]:
        length = jax.device_put(np.int32(num_steps))
        out = advance(self.problem, self._progress, length, _CAPACITY, self._num_records)
        self.is_compiled = True
        return out

    def begins_well(self) -> bool:
        progress, _ = self._advanced(1)
        return int(progress.num_skipped) == 0

    def advance(self, num_steps: int) -> None:
        before = self.num_steps
        progress, records = self._advanced(num_steps)
        # An interruption between these two lines leaves records of steps that do not
        # count yet; `losses` and `tracked` do not show them.
        self.history.append(records, before, int(progress.num_steps) - before)
        self._progress = progress
