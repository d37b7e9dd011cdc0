"""A run on the host: compiled chunks of steps, and callbacks and files between them."""

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._loop.base import Problem, replace_target
from .._method.base import AbstractAskTell, AbstractOnHost
from .._target.target import Target
from .base import AbstractRun, nothing
from .checkpoint import save
from .compiled_run import CompiledRun
from .explain import explain_failure
from .host_run import HostRun
from .interrupt import Interruption
from .options import Options
from .progress_bar import ProgressBar
from .results import as_fit_error, FitError, RESULTS


# How often a checkpoint is written during a run, in seconds.
_CHECKPOINT_SECONDS = 30.0
# A larger part of skipped steps than this is worth a warning.
_MANY_SKIPPED = 0.1
# How long the device runs before the host looks in.
_SECONDS = 0.1


def kind_of(problem: Problem) -> type[CompiledRun] | type[HostRun]:
    """How steps are made: driven from the host where the method can be."""
    on_host = isinstance(problem.method, AbstractAskTell | AbstractOnHost)
    return HostRun if on_host else CompiledRun


def conduct(
    run: AbstractRun, num_steps: int, options: Options, make_fit: Callable
) -> Any:
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
        asked = options.checkpoint is not None and write_last(options.checkpoint, fit)
        if asked and (run.is_over or run.is_met):
            # Nothing that may come after this stage is begun.
            fit = so_far(RESULTS.interrupted)
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


def write_last(path: str | os.PathLike, fit: Any) -> bool:
    """Write a checkpoint to its end, and say whether somebody has asked to stop."""
    try:
        with Interruption() as interruption:
            save(path, fit)
    except KeyboardInterrupt:
        return True
    return interruption.is_asked


def _warn_of_skipped(run: AbstractRun, start_step: int) -> None:
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
    run: AbstractRun,
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
    if run.is_over or run.is_met:
        return RESULTS.converged
    start, end = run.num_steps, run.num_steps + num_steps
    # The first call compiles: its time says nothing, and the rest should not wait.
    length = 10 if run.is_compiled else 1
    bar = ProgressBar(num_steps, show=show)
    if not run.is_compiled:
        bar.note("compiling the model")
    try:
        with Interruption() as interruption:
            run.look = interruption.look
            while run.num_steps < end:
                size = min(end - run.num_steps, length, run.longest)
                if callback is not None:
                    size = min(size, callback_every - run.num_steps % callback_every)
                began, was_compiled = time.perf_counter(), run.is_compiled
                run.advance(size)
                seconds = time.perf_counter() - began
                ideal = int(_SECONDS * size / max(seconds, 1e-9))
                length = max(1, ideal) if was_compiled else 10
                bar.update(run.num_steps - start, run.losses, run.num_skipped, run.doing)
                between()
                if callback is not None and run.num_steps % callback_every == 0:
                    interruption.is_immediate = True
                    callback()
                    interruption.is_immediate = False
                if run.is_met:
                    return RESULTS.converged
                if run.has_failed:
                    return RESULTS.nonfinite
                if interruption.is_asked:
                    return RESULTS.interrupted
    except StopIteration:
        return RESULTS.stopped
    except KeyboardInterrupt:
        return RESULTS.interrupted
    finally:
        run.look = nothing
        bar.close()
    return RESULTS.max_steps
