"""Going on where a fit ended."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import numpy as np

from .._loop.base import AbstractStop, replace_target
from .._method.base import AbstractMethod
from .._target.target import check_target, Target
from .auto_batches import is_on_a_part, resumed_in_batches
from .checks import check_method, check_stop
from .history import History
from .host import conduct, kind_of
from .method_names import named_method
from .options import Options
from .points import check_can_estimate
from .results import RESULTS
from .richer_family import standing_on, with_richer_family


def resumed(
    fit: Any,
    max_steps: int,
    method: AbstractMethod | str | None,
    target: Target | None,
    stop: AbstractStop | None | Literal["same"],
    options: Options,
) -> Any:
    """What [`vijax.Fit`][]`.resume` returns, of arguments that are checked here."""
    keeps_stop = isinstance(stop, str) and stop == "same"
    is_other = method is not None or target is not None
    if is_on_a_part(fit):
        if not is_other and keeps_stop:
            return resumed_in_batches(fit, max_steps, options)
        # All the rows go on with what a part of them had come to.
        fit = standing_on(fit, None)
    if fit.before is not None and is_other:
        # Of the stage that was under way nobody knows what it would have come to.
        return resumed(fit.before, max_steps, method, target, stop, options)
    problem, before = fit.problem, fit.progress
    if is_other or not keeps_stop or _has_ended(fit):
        # It goes on beyond where its rule was met, or from where it had failed.
        before = before.cleared()
    if not keeps_stop:
        check_stop(stop)
        problem = dataclasses.replace(problem, stop=stop)
    if target is not None:
        check_target(target)
        problem = replace_target(problem, target)
    if isinstance(method, str):
        method, _ = named_method(method, problem.target, own_family=False)
    if method is not None:
        check_method(method)
        check_can_estimate(method, problem.target)
        # What moves from now on is the whole answer, such as a mixture.
        before = before._replace(family=fit.family)
        problem = dataclasses.replace(problem, method=method)
    kind = kind_of(problem)
    if method is not None or not keeps_stop:
        fresh = kind.restart(problem, before)
        if method is not None:
            before = before._replace(state=fresh.state)
        if not keeps_stop:
            before = before._replace(stop_state=fresh.stop_state)
    made = int(fit.num_steps)
    tracked = jax.tree.map(np.asarray, (fit.trackers, fit.tracked_steps))
    run = kind(problem, before, History(np.asarray(fit.losses)[:made], *tracked))
    make_fit = functools.partial(type(fit), before=fit.before)
    fit = conduct(run, max_steps, options, make_fit)
    return with_richer_family(fit, max_steps - (int(fit.num_steps) - made), options)


def _has_ended(fit: Any) -> bool:
    """Whether it is what an uninterrupted run comes to, and its method can go on."""
    done = fit.problem.method.done(fit.progress.state)
    ended = RESULTS.converged, RESULTS.max_steps, RESULTS.stopped, RESULTS.nonfinite
    can_go_on = done is None or not bool(done)
    return can_go_on and any(bool(fit.result == result) for result in ended)
