"""A run on the host: compiled chunks of steps, and callbacks and files between them."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._custom_types import Point
from .._family.base import AbstractFamily
from .._loop.base import MAX_NONFINITE, Problem, Progress, Records, replace_target
from .._loop.chunk import advance
from .._method.base import Recipe
from .._misc import float_dtype
from .._target.target import Target
from .checkpoint import save
from .explain import explain_failure
from .history import History
from .interrupt import Interruption
from .options import Options
from .progress_bar import ProgressBar
from .results import as_fit_error, FitError, RESULTS
from .start import start


# How often a checkpoint is written during a run, in seconds.
_CHECKPOINT_SECONDS = 30.0
# A larger part of skipped steps than this is worth a warning.
_MANY_SKIPPED = 0.1
# How long the device runs before the host looks in, and how many steps at most.
_SECONDS = 0.1
_CAPACITY = 2**16
# How many numbers the trackers may record before the host fetches them.
_RECORDED = 2**20


class Run:
    """A run in progress: at any moment its parts belong to the same step."""

    def __init__(self, problem: Problem, progress: Progress, history: History):
        self.problem = problem
        self.progress = progress
        self.history = history
        self.is_compiled = False
        sizes = [np.prod(x.shape[1:]) for x in jax.tree.leaves(history.tracked()[0])]
        self._num_records = int(np.clip(_RECORDED // max(sum(sizes), 1), 1, 1024))

    @classmethod
    def begin(
        cls,
        problem: Problem,
        family: AbstractFamily | Recipe | None,
        point: Point | None = None,
    ) -> "Run":
        """Before its first step, from a family, or a recipe at a point."""
        progress, tracked = start(problem, family, point)
        losses = np.zeros(0, float_dtype(progress.family))
        tracked = jax.tree.map(np.asarray, tracked)
        return cls(problem, progress, History(losses, tracked, np.zeros(0, np.int32)))

    @property
    def num_steps(self) -> int:
        """How many steps were made."""
        return int(self.progress.num_steps)

    @property
    def losses(self) -> np.ndarray:
        """The loss of every step that was made."""
        return self.history.losses[: self.num_steps]

    def tracked(self) -> tuple[PyTree[np.ndarray], np.ndarray]:
        """What the trackers recorded, and at which steps."""
        tracked, steps = self.history.tracked()
        keep = int(np.searchsorted(steps, self.num_steps, side="right"))
        return jax.tree.map(lambda x: x[:keep], tracked), steps[:keep]

    @property
    def longest(self) -> int:
        """How many steps a chunk has room for."""
        if not self.problem.track:
            return _CAPACITY
        return min(_CAPACITY, self._num_records * self.problem.track_every)

    @property
    def is_over(self) -> bool:
        """Whether the method has nothing left to do."""
        done = self.problem.method.done(self.progress.state)
        return done is not None and bool(done)

    def _advanced(self, num_steps: int) -> tuple[Progress, Records]:
        length = jax.device_put(np.int32(num_steps))
        out = advance(self.problem, self.progress, length, _CAPACITY, self._num_records)
        self.is_compiled = True
        return out

    def begins_well(self) -> bool:
        """Whether the first step is finite. (It is not kept.)"""
        progress, _ = self._advanced(1)
        return int(progress.num_skipped) == 0

    def advance(self, num_steps: int) -> None:
        """Make up to `num_steps` steps."""
        before = self.num_steps
        progress, records = self._advanced(num_steps)
        # An interruption between these two lines leaves records of steps that do not
        # count yet; `losses` and `tracked` do not show them.
        self.history.append(records, before, int(progress.num_steps) - before)
        self.progress = progress


def conduct(run: Run, num_steps: int, options: Options, make_fit: Callable) -> Any:
    """Make `num_steps` steps, or fewer if something ends the run.

    **Arguments:**

    - `run`: changed in place.
    - `num_steps`: how many steps.
    - `options`: what to do on the way.
    - `make_fit`: makes the fit, of a problem, its progress, losses, tracker records,
        their steps, and a result.

    **Returns:**

    The fit.

    **Raises:** `FitError` as `options` have it, or from whatever a callback raises.
    """
    start_step, saved_at = run.num_steps, time.monotonic()

    def so_far(result: Any) -> Any:
        tracked, steps = run.tracked()
        arrays = jax.device_put((np.array(run.losses), tracked, steps))
        return make_fit(run.problem, run.progress, *arrays, result)

    def call_back() -> None:
        fit = so_far(RESULTS.running)
        for callback in options.callbacks:
            answer = callback(fit)
            if isinstance(answer, Target):
                run.problem = replace_target(run.problem, answer)

    def between() -> None:
        nonlocal saved_at
        due = time.monotonic() - saved_at > _CHECKPOINT_SECONDS
        if options.checkpoint is not None and due:
            save(options.checkpoint, so_far(RESULTS.running))
            saved_at = time.monotonic()

    try:
        result = drive(
            run,
            num_steps,
            callback=call_back if options.callbacks else None,
            callback_every=options.callback_every,
            between=between,
            show=options.show,
        )
        fit = so_far(result)
        if options.checkpoint is not None:
            save(options.checkpoint, fit)
    except Exception as e:
        if run.num_steps == start_step:
            raise
        raise as_fit_error(e, so_far(RESULTS.failed)) from e
    if result is not RESULTS.nonfinite:
        _warn_of_skipped(run, start_step)
    if options.throw and result is RESULTS.nonfinite:
        why = explain_failure(run.problem, run.progress)
        raise FitError(f"{RESULTS[result]} {why}", fit)
    return fit


def _warn_of_skipped(run: Run, start_step: int) -> None:
    """Say so if many steps changed nothing, which no mean or loss shows."""
    made = run.num_steps - start_step
    skipped = int(np.sum(~np.isfinite(run.losses[start_step:])))
    if skipped >= 10 and skipped > _MANY_SKIPPED * made:
        warnings.warn(
            f"{skipped} of {made} steps were not finite and changed nothing: the log "
            "density is not finite in part of where the family draws. The fit describes "
            "the other part at best.",
            stacklevel=4,
        )


def drive(
    run: Run,
    num_steps: int,
    *,
    callback: Callable[[], None] | None,
    callback_every: int,
    between: Callable[[], None],
    show: bool,
) -> Any:
    """Make `num_steps` steps, or fewer if something ends the run.

    **Arguments:**

    - `run`: changed in place.
    - `num_steps`: how many steps.
    - `callback`: called whenever the number of steps is a multiple of `callback_every`.
    - `between`: called between chunks, about ten times a second.
    - `show`: whether to show a progress bar.

    **Returns:**

    The member of `RESULTS` that says why the run ended. Exceptions of `callback` other
    than `StopIteration` and `KeyboardInterrupt` go through.
    """
    if run.is_over:
        return RESULTS.converged
    start, end = run.num_steps, run.num_steps + num_steps
    # The first call compiles: its time says nothing, and the rest should not wait.
    length = 10 if run.is_compiled else 1
    bar = ProgressBar(num_steps, show=show)
    try:
        with Interruption() as interruption:
            while run.num_steps < end:
                size = min(end - run.num_steps, length, run.longest)
                if callback is not None:
                    size = min(size, callback_every - run.num_steps % callback_every)
                began, was_compiled = time.perf_counter(), run.is_compiled
                run.advance(size)
                seconds = time.perf_counter() - began
                ideal = int(_SECONDS * size / max(seconds, 1e-9))
                length = max(1, ideal) if was_compiled else 10
                skipped = int(run.progress.num_skipped)
                bar.update(run.num_steps - start, run.losses, skipped)
                between()
                if callback is not None and run.num_steps % callback_every == 0:
                    interruption.is_immediate = True
                    callback()
                    interruption.is_immediate = False
                if bool(run.progress.met):
                    return RESULTS.converged
                if int(run.progress.num_nonfinite) >= MAX_NONFINITE:
                    return RESULTS.nonfinite
                if interruption.is_asked:
                    return RESULTS.interrupted
    except StopIteration:
        return RESULTS.stopped
    except KeyboardInterrupt:
        return RESULTS.interrupted
    finally:
        bar.close()
    return RESULTS.max_steps
