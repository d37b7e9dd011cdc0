import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ._checks import check_finite, check_method, check_stop, check_target, check_track
from ._custom_types import Key, Params, Point
from ._draws import check_dimensions, draw, Draws
from ._family.base import AbstractFamily
from ._host import conduct, History, Options, Run
from ._loop.base import AbstractStop, Problem, Progress
from ._loop.chunk import advance
from ._method.base import AbstractMethod, F, label, Recipe, State
from ._misc import (
    as_key,
    as_whole,
    float_dtype,
    Held,
    is_traced,
    is_tracer,
    same_function,
)
from ._named import named_method
from ._results import name_of, RESULTS
from ._start import as_recipe, explain_start, find_point, restart, start
from ._target import Target


class Fit(eqx.Module, Generic[F]):
    """What a run hands back: the fitted family, and all that it takes to go on.

    **Attributes:**

    - `losses`: the loss of each step, of shape `(num_steps,)`; NaN where the step was
        skipped. Inside somebody's `jax.jit` its shape is `(max_steps,)`, NaN at the end.
    - `trackers`: `{name: records}`, what each tracker saw; the leading axis runs over
        the records.
    - `tracked_steps`: after how many steps each record was made.
    - `result`: why the run ended, a member of [`vijax.RESULTS`][]: compare with `==`,
        or read the sentence `vi.RESULTS[fit.result]`.
    """

    progress: Progress
    losses: Float[Array, " steps"]
    trackers: dict[str, PyTree[Array]]
    tracked_steps: Int[Array, " records"]
    result: Any
    _arrays: PyTree[Array]
    _held: Held = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        progress: Progress,
        losses: Float[Array, " steps"],
        trackers: dict[str, PyTree[Array]],
        tracked_steps: Int[Array, " records"],
        result: Any,
    ):
        self.progress = progress
        self.losses = losses
        self.trackers = trackers
        self.tracked_steps = tracked_steps
        self.result = result
        # Only arrays are leaves. And what a surrounding `jax.vmap` does not batch stays
        # out of its outputs, or a thousand fits would hold the data a thousand times.
        is_leaf = is_tracer if is_tracer(losses) else eqx.is_array
        self._arrays, rest = eqx.partition(problem, is_leaf)
        self._held = Held(rest)

    def __repr__(self) -> str:
        family = f"{type(self.family).__name__} of dim {self.family.dim}"
        return (
            f"Fit(family={family}, result={name_of(self.result)}, "
            f"num_steps={self.num_steps}, num_skipped={self.num_skipped})"
        )

    def _check_single(self) -> None:
        if self.num_steps.ndim > 0:
            raise ValueError(
                f"These are {self.num_steps.shape[0]} fits in one. Take one of them, "
                "`jax.tree.map(lambda leaf: leaf[0], fits)`, or work on all of them "
                "inside `eqx.filter_vmap`."
            )

    @property
    def problem(self) -> Problem:
        """The target, the method and the rest of what was asked for."""
        return eqx.combine(self._arrays, self._held.tree)

    @property
    def target(self) -> Target:
        """The target."""
        return self.problem.target

    @property
    def family(self) -> F:
        """The fitted family: after a failure, the last good one."""
        return self.progress.family  # pyright: ignore[reportReturnType]  # As started.

    @property
    def state(self) -> State:
        """The state of the method after the last step."""
        return self.progress.state

    @property
    def num_steps(self) -> Int[Array, "..."]:
        """How many steps were made, skipped ones included."""
        return self.progress.num_steps

    @property
    def num_skipped(self) -> Int[Array, "..."]:
        """How many of the steps were not finite, and so changed nothing."""
        return self.progress.num_skipped

    @property
    def mean(self) -> Params:
        """The family's mean on the unconstrained scale, by parameter."""
        return _by_name(self, "mean")

    @property
    def std(self) -> Params:
        """The family's standard deviations on the unconstrained scale, by parameter."""
        return _by_name(self, "std")

    def draw(self, num_draws: int, *, key: Key) -> Draws:
        """Draw from the fitted family.

        **Arguments:**

        - `num_draws`: how many draws.
        - `key`: randomness. Keyword only.

        **Returns:**

        A [`vijax.Draws`][].
        """
        self._check_single()
        problem = self.problem
        origin = {
            "method": label(problem.method),
            "family": type(self.family).__name__,
            "num_steps": self.num_steps,
            "result": name_of(self.result),
        }
        return draw(self.family, problem.target, num_draws, key=key, origin=origin)

    def resume(
        self,
        max_steps: int = 10_000,
        *,
        method: AbstractMethod | str | None = None,
        stop: AbstractStop | None | Literal["same"] = "same",
        callbacks: Callable | Sequence[Callable] = (),
        callback_every: int = 100,
        progress: bool = True,
        checkpoint: str | os.PathLike | None = None,
        throw: bool = True,
    ) -> "Fit[F]":
        """Go on where this fit ended.

        Without a new `method` or `stop`, a run of `a` steps resumed for `b` is one run
        of `a + b` steps, bit for bit.

        **Arguments:**

        - `max_steps`: how many further steps to make at most.
        - `method`: another method, or a name, to go on with: started afresh from the
            present family, whose kind stays. Keyword only.
        - `stop`: another stopping rule, or `None` for none. Default: the same one, with
            its memory. Keyword only.
        - `callbacks`, `callback_every`, `progress`, `checkpoint`, `throw`: as in
            [`vijax.fit`][]. Keyword only.

        **Returns:**

        A [`vijax.Fit`][] of all the steps, old and new. This one is not changed.

        **Raises:** as [`vijax.fit`][]; and `ValueError` inside `jax.jit`, or for several
        fits in one.
        """
        if is_traced(self):
            raise ValueError("`resume` works on the host, not inside `jax.jit`.")
        self._check_single()
        max_steps = as_whole("max_steps", max_steps, 0)
        options = Options(
            callbacks=callbacks,
            callback_every=callback_every,
            show=progress,
            checkpoint=checkpoint,
            throw=throw,
        )
        problem, before = self.problem, self.progress.cleared()
        if stop != "same":
            check_stop(stop)
            problem = dataclasses.replace(problem, stop=stop)
        if isinstance(method, str):
            method, _ = named_method(method, self.target.dim)
        if method is not None:
            check_method(method)
            problem = dataclasses.replace(problem, method=method)
        if method is not None or stop != "same":
            new = {"new_method": method is not None, "new_stop": stop != "same"}
            before = restart(problem, before, **new)
        made = int(self.num_steps)
        tracked = jax.tree.map(np.asarray, (self.trackers, self.tracked_steps))
        run = Run(problem, before, History(np.asarray(self.losses)[:made], *tracked))
        return conduct(run, max_steps, options, Fit)


@eqx.filter_jit
def _moment(family: AbstractFamily, target: Target, name: str) -> Params:
    return target.unravel(getattr(family, name))


def _by_name(fit: Fit, name: str) -> Params:
    fit._check_single()
    if not hasattr(type(fit.family), name):
        raise ValueError(
            f"`{type(fit.family).__name__}` has no {name} in closed form. Estimate it "
            "from draws, e.g. `fit.draw(1_000, key=key).x`."
        )
    return _moment(fit.family, fit.target, name)


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
    - `method`: how: a method such as [`vijax.Descent`][], or a name. `"advi"` fits
        [`vijax.MeanField`][] and `"fullrank_advi"` [`vijax.FullRank`][]; `"auto"`, the
        default, is the latter up to 200 dimensions and the former beyond.
    - `family`: where to start: a family, or a recipe `loc -> family` such as
        `vi.FullRank`, which is given a point where the log density and its gradient are
        finite. Default: the method's own recipe.
    - `key`: randomness. The same key gives the same result, bit for bit on one machine.
        Keyword only.
    - `max_steps`: the most steps to make. Keyword only.
    - `stop`: a rule that may end the run earlier: [`vijax.LossConvergence`][] or
        [`vijax.ParameterConvergence`][]. Keyword only.
    - `track`: `{name: fn}`. What `fn(key, family, target)` returns, any pytree of
        arrays, is recorded in `Fit.trackers`. Runs inside the loop. Keyword only.
    - `track_every`: how many steps lie between two records. Keyword only.
    - `callbacks`: functions `fn(fit_so_far)`, called on the host. `StopIteration` ends
        the run and keeps it. Keyword only.
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
        method, recipe = named_method(method, target.dim)
    else:
        check_method(method)
        recipe = method.recipe
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
    return conduct(run, max_steps, options, Fit)


def _new_run(
    problem: Problem, family: AbstractFamily | Recipe, point: Point | None = None
) -> Run:
    progress, tracked = start(problem, family, point)
    losses = np.zeros(0, float_dtype(progress.family))
    tracked = jax.tree.map(np.asarray, tracked)
    return Run(problem, progress, History(losses, tracked, np.zeros(0, np.int32)))


def _fit_traced(
    problem: Problem, family: AbstractFamily | Recipe, max_steps: int, *, throw: bool
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
