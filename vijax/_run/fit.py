"""`vi.fit`: from a target and a method to a fit."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from .._closures import same_function
from .._custom_types import Key
from .._draws.draw import check_dimensions
from .._family.base import AbstractFamily
from .._loop.base import AbstractStop, Problem
from .._loop.chunk import advance
from .._loop.moment_convergence import MomentConvergence
from .._method.auto import Auto
from .._method.base import AbstractMethod, F, Recipe
from .._misc import as_key, as_whole, is_traced
from .._target.target import check_target, Target
from .auto_batches import FIRST_STEPS, fit_in_batches, in_batches, on_a_part
from .checks import check_finite, check_method, check_stop, check_track
from .fit_result import Fit
from .method_names import named_method
from .options import Options
from .points import check_can_estimate, with_points
from .results import RESULTS
from .richer_family import with_richer_family
from .start import as_recipe, find_point, start
from .started import fit_on_host


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
        weights are poor it tries heavier tails for them, then globals as
        [`vijax.Nested`][] does, and then a small flow, [`vijax.Coupling`][]. Where steps
        see batches, it looks at a part of the rows first, and goes on with stochastic
        gradients in the coordinates of that fit. For more than 1,000 coordinates or a
        family of your choice it is ADVI. `"nested"` looks for globals at once. `"advi"`
        fits
        [`vijax.MeanField`][] and `"fullrank_advi"` [`vijax.FullRank`][]. `"svgd"` moves
        100 particles with [`vijax.SVGD`][]; `"asvgd"` fits a [`vijax.FullRank`][] by
        their force, with [`vijax.SteinForce`][].
    - `family`: where to start: a family, or a recipe `loc -> family` such as
        `vi.FullRank`, which is given a point where the log density and its gradient are
        finite. Default: the method's own.
    - `key`: randomness. The same key gives the same result, bit for bit on one machine.
        Keyword only.
    - `max_steps`: the most steps to make. Keyword only.
    - `stop`: a rule that may end the run earlier: [`vijax.LossConvergence`][],
        [`vijax.MomentConvergence`][] or [`vijax.ParameterConvergence`][]. Default: none,
        but `"auto"` has its own. Keyword only.
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
    max_steps = as_whole("max_steps", max_steps, 0, None)
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
        is_auto = method.lower() == "auto"
        method, recipe = named_method(method, target, own_family=family is None)
        is_known = is_auto and recipe is not None and family is None
        if is_known and stop is None and target.weight == 1:
            stop = MomentConvergence()
    else:
        check_method(method)
        recipe = None
    check_can_estimate(method, target)
    start_from = as_recipe(recipe if family is None else family)
    if isinstance(start_from, AbstractFamily):
        start_from = with_points(start_from, target.model.initial(), target)
        check_dimensions(start_from, target)
        check_finite(start_from)

    problem = Problem(target, method, key, stop, track, track_every)
    through_batches = (
        isinstance(method, Auto) and target.minibatch is not None and family is None
    )
    if is_traced(problem, start_from):
        if options.callbacks or checkpoint is not None:
            raise ValueError(
                "`callbacks` and `checkpoint` need the host, so they cannot be used "
                "inside `jax.jit`, `jax.vmap` or the like. Leave them out; `stop` and "
                "`track` do work there."
            )
        # There, room is made for the losses of all of them.
        max_steps = as_whole("max_steps", max_steps, 0)
        run_one = functools.partial(_fit_traced, max_steps=max_steps, throw=throw)
        if through_batches:
            first = run_one(on_a_part(problem), None, max_steps=FIRST_STEPS)
            return run_one(*in_batches(problem, first))
        return run_one(problem, start_from)
    if through_batches:
        return fit_in_batches(problem, max_steps, options, Fit)
    fit = fit_on_host(problem, start_from, max_steps, options, Fit)
    return with_richer_family(fit, max_steps - int(fit.num_steps), options)


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
