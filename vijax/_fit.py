import os
from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_finite, check_method, check_stop, check_track
from ._custom_types import Key, Point
from ._draws import check_dimensions
from ._family.base import AbstractFamily
from ._fit_result import Fit
from ._host import conduct, History, Options, Run
from ._loop.base import AbstractStop, Problem
from ._loop.chunk import advance
from ._method.auto import Auto
from ._method.base import AbstractMethod, F, Recipe
from ._misc import (
    as_key,
    as_whole,
    float_dtype,
    is_traced,
    same_function,
)
from ._named import named_method
from ._results import RESULTS
from ._start import as_recipe, explain_start, find_point, start
from ._step_up import step_up
from ._target import check_target, Target


def fit(
    target: Target,
    method: AbstractMethod | str = "auto",
    family: F | Recipe | None = None,
    *,
    key: Key,
    max_steps: int = 10_000,
    stop: AbstractStop | None = None,
    track: Mapping[str, Callable] | None = None,
    track_every: int = 10,
    callbacks: Callable | Sequence[Callable] = (),
    callback_every: int = 100,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
    throw: bool = True,
) -> Fit[F]:
    """Fit a family to a target.

    Also inside your own `jax.jit` and `eqx.filter_vmap`: there the run is one traced
    loop, without a progress bar; callbacks and checkpoints raise an error.

    **Arguments:**

    - `target`: what to approximate.
    - `method`: how: a method such as [`vijax.Descent`][], or a name. `"auto"`, the
        default, is [`vijax.Auto`][], which needs no tuning and ends by itself; where its
        weights are poor a small flow follows, [`vijax.Coupling`][]. For minibatches,
        more than 1,000 coordinates or a family of your choice it is ADVI. `"advi"` fits
        [`vijax.MeanField`][] and `"fullrank_advi"` [`vijax.FullRank`][]. `"svgd"` moves
        100 particles with [`vijax.SVGD`][]; `"asvgd"` fits a [`vijax.FullRank`][] by
        their force, with [`vijax.SteinForce`][].
    - `family`: where to start: a family, or a recipe `loc -> family` such as
        `vi.FullRank`, which is given a point where the log density and its gradient are
        finite. Default: the method's own.
    - `key`: randomness. The same key gives the same result, bit for bit on one machine.
        Keyword only.
    - `max_steps`: the most steps to make. Keyword only.
    - `stop`: a rule that may end the run earlier: [`vijax.LossConvergence`][] or
        [`vijax.ParameterConvergence`][]. Keyword only.
    - `track`: `{name: fn}`. What `fn(key, family, target)` returns, any pytree of
        arrays, is recorded in `Fit.trackers`. Runs inside the loop. Keyword only.
    - `track_every`: how many steps lie between two records. Keyword only.
    - `callbacks`: functions `fn(fit_so_far)`, called on the host. `StopIteration` ends
        the run and keeps it. A [`vijax.Target`][] that is returned, such as
        `fit_so_far.target.with_data(next(chunks))`, is what the run goes on with.
        Keyword only.
    - `callback_every`: how many steps lie between two calls. Keyword only.
    - `progress`: whether to show a progress bar. Keyword only.
    - `checkpoint`: a file to save the run to, every 30 seconds and at its end; read it
        with [`vijax.load`][]. Keyword only.
    - `throw`: whether a failure raises [`vijax.FitError`][], or is only written in
        `Fit.result`. Keyword only.

    **Returns:**

    A [`vijax.Fit`][]. Ctrl-C ends a run early and keeps what it has.

    **Raises:** `ValueError` for bad arguments, or if no starting point has a finite log
    density and gradient; [`vijax.FitError`][], with the fit so far on it, if too many
    steps in a row are not finite, or a callback raises an exception.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, "advi", key=jax.random.key(0), max_steps=2_000)
        fit.mean, fit.std
        ```
    """
    check_target(target)
    key = as_key(key)
    max_steps = as_whole("max_steps", max_steps, 0)
    track_every = as_whole("track_every", track_every, 1)
    check_stop(stop)
    # A tracker written anew in each call, without a closure, is still the same one.
    track = {k: same_function(fn) for k, fn in check_track(track).items()}
    options = Options(
        callbacks=callbacks,
        callback_every=callback_every,
        show=progress,
        checkpoint=checkpoint,
        throw=throw,
    )
    if isinstance(method, str):
        method, recipe = named_method(method, target, own_family=family is None)
    else:
        check_method(method)
        recipe = None
    if isinstance(family, AbstractFamily):
        check_dimensions(family, target)
        check_finite(family)
    start_from = as_recipe(recipe if family is None else family)

    problem = Problem(target, method, key, stop, track, track_every)
    if is_traced(problem, start_from):
        if options.callbacks or checkpoint is not None:
            raise ValueError(
                "`callbacks` and `checkpoint` need the host, so they cannot be used "
                "inside `jax.jit`, `jax.vmap` or the like. Leave them out; `stop` and "
                "`track` do work there."
            )
        return _fit_traced(problem, start_from, max_steps, throw=throw)
    run = _new_run(problem, start_from)
    if not isinstance(start_from, AbstractFamily) and not run.begins_well():
        # Looking for a point takes a program of its own, so only now.
        point, found = find_point(key, target)
        if not bool(found):
            raise ValueError(explain_start(target, key))
        run = _new_run(problem, start_from, point)
    fit = conduct(run, max_steps, options, Fit)
    return step_up(fit, max_steps, options) if isinstance(method, Auto) else fit


def _new_run(
    problem: Problem, family: AbstractFamily | Recipe | None, point: Point | None = None
) -> Run:
    progress, tracked = start(problem, family, point)
    losses = np.zeros(0, float_dtype(progress.family))
    tracked = jax.tree.map(np.asarray, tracked)
    return Run(problem, progress, History(losses, tracked, np.zeros(0, np.int32)))


def _fit_traced(
    problem: Problem,
    family: AbstractFamily | Recipe | None,
    max_steps: int,
    *,
    throw: bool,
) -> Fit:
    point, found = None, jnp.array(True)
    if not isinstance(family, AbstractFamily):
        point, found = find_point(problem.key, problem.target)
    before, _ = start(problem, family, point)
    num_records = max_steps // problem.track_every if problem.track else 0
    # Room for one at least, since the loop is compiled even if it is not entered.
    after, records = advance(
        problem, before, jnp.int32(max_steps), max(max_steps, 1), max(num_records, 1)
    )
    if throw:
        message = "No starting point has a finite log density and gradient."
        out = eqx.error_if((after, records), ~found, message)
        after, records = eqx.error_if(out, after.failed, RESULTS[RESULTS.nonfinite])
    result = RESULTS.where(after.met, RESULTS.converged, RESULTS.max_steps)
    result = RESULTS.where(after.failed, RESULTS.nonfinite, result)
    trackers = jax.tree.map(lambda x: x[:num_records], records.tracked)
    steps = records.tracked_steps[:num_records]
    made = jnp.arange(max_steps, dtype=jnp.int32) < after.num_steps
    losses = jnp.where(made, records.losses[:max_steps], jnp.nan)
    return Fit(problem, after, losses, trackers, steps, result)
