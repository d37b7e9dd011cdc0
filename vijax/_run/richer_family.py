"""A richer family after the default's Gaussian, where its weights are poor."""

import dataclasses
import functools
import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

from .._auto import stages
from .._auto.budget import (
    FLOW_DRAWS,
    FLOW_EVALUATIONS,
    FLOW_STEPS,
    for_nesting,
    MORE_EVALUATIONS,
    MORE_STEPS,
    NESTED_EVALUATIONS,
    suits_a_flow,
    suits_nesting,
)
from .._auto.judgement import (
    flow_is_better,
    is_fine,
    is_poor,
    is_unsure,
    judge,
    may_have_heavier_tails,
    misses_mass,
    nested_is_better,
    NUM_LOOKED,
    SECOND_LOOK,
)
from .._auto.second_stage import flow_from
from .._draws.diagnosis import Diagnosis
from .._draws.psis import NUM_DRAWS
from .._host_distributions import Elliptical
from .._keys import key_for, Seed
from .._method.auto import Auto
from .._method.auto_next import AutoNext
from .._method.base import label
from .._method.descent import Descent
from .._method.nested import Nested
from .._misc import float_dtype, on_device
from .._nested.stages import has_answer
from .._objective.stick_the_landing import StickTheLanding
from .._target.probe import HostProbe
from .._target.threads import one_thread
from .base import AbstractRun
from .history import History
from .host import conduct, kind_of, write_last
from .interrupt import Interruption
from .options import Options
from .progress_bar import ProgressBar
from .results import as_fit_error, FitError, RESULTS
from .surveyed import surveyed


# Numbers that no method folds into the key of its steps.
_JUDGING, _FLOWING, _NESTING, _COVERING = 0xD1A6, 0xF10, 0x9E57, 0xC0E5


def _flow_is_better(
    flow: Any, after: Diagnosis | None, fit: Any, before: Diagnosis | None
) -> bool:
    modes = fit.state.modes
    elbos = np.asarray(modes.gaussians.elbo)[: int(modes.num_modes)]
    if not flow_is_better(after, np.asarray(flow.losses), before, elbos):
        return False
    # One flow of several modes may have come to some of these only.
    several = len(modes.weighty()[0]) > 1
    return not several or (after is not None and _covers(flow, fit, after.log_evidence))


def with_richer_family(fit: Any, max_steps: int, options: Options) -> Any:
    """A [`vijax.Fit`][] that has just ended, with `max_steps` left; or after `Auto` one
    with a small flow, where that is better, trained for longer where it is still poor.

    Wherever that ends early, the fit that stood until then is kept, and resuming it goes
    on to the same.
    """
    if fit.result != RESULTS.converged or fit.problem.stop is not None or max_steps < 1:
        return fit
    following = _Stages(fit, options)
    try:
        following.go_on(max_steps)
    except KeyboardInterrupt:
        return ended(following.fit, RESULTS.interrupted)
    except FitError:
        raise
    except Exception as e:
        raise as_fit_error(e, ended(following.fit, RESULTS.failed)) from e
    return following.fit


def standing_on(fit: Any, before: Any) -> Any:
    """The same fit, with another one that stands until it is over, or none."""
    parts = fit.problem, fit.progress, fit.losses, fit.trackers, fit.tracked_steps
    return type(fit)(*parts, fit.result, before)


def ended(fit: Any, result: Any) -> Any:
    """The same fit, which ended for another reason."""
    return eqx.tree_at(lambda fit: fit.result, fit, result)


class _Stages:
    """What follows a fit by `Auto`; `fit` is whole at any moment."""

    def __init__(self, fit: Any, options: Options):
        self.fit = fit
        self.options = options

    def _judge(self, fit: Any, num_draws: int = NUM_DRAWS) -> Diagnosis | None:
        """The diagnosis of what a stage itself has come to."""
        proposal = fit.problem.method.proposal(fit.progress.family, fit.state)
        key = key_for(fit.problem.key, _JUDGING)
        bar = ProgressBar(num_draws, show=self.options.show, unit="draw")
        bar.note("importance sampling")
        with Interruption() as interruption, one_thread(fit.target):
            probe = HostProbe(fit.target, lambda: _between(probe, bar, interruption))
            try:
                return judge(proposal, probe, key, num_draws)
            finally:
                bar.close()

    def _keep(self, fit: Any) -> None:
        """A fit, in place of the one that the checkpoint has by now."""
        self.fit = fit
        if self.options.checkpoint is not None:
            write_last(self.options.checkpoint, fit)

    def go_on(self, left: int) -> None:
        """Whatever comes next, with so many steps left."""
        method = self.fit.problem.method
        if isinstance(method, Auto) and not is_settled(self.fit):
            self.fit = surveyed(self.fit, show=self.options.show)
            self._richer(self.fit, left)
        elif isinstance(method, Nested) and self.fit.before is not None:
            self._after_nested(self.fit, left)
        elif isinstance(method, AutoNext) and method.num_steps is not None:
            self._after_flow(self.fit, left)

    def _richer(self, fit: Any, left: int) -> None:
        """After `Auto`: as it is, or with heavier tails of what is weighed, or nested, or
        a flow."""
        first = self._judge(fit)
        if not is_poor(first):
            self._keep(_settled(fit))
            return
        if may_have_heavier_tails(first, fit.target.dim):
            heavier = _with_state(fit, heavier=np.array(True))
            second = self._judge(heavier)
            fit, heavier = _spent(fit, NUM_DRAWS), _spent(heavier, NUM_DRAWS)
            if not is_poor(second, by_weights=False):
                self._keep(_settled(heavier))
                return
        most, made = fit.problem.method.max_evaluations, int(fit.state.num_evaluations)
        can_nest = suits_nesting(fit.target.dim) and made + NESTED_EVALUATIONS <= most
        if not can_nest or left < 1:
            self._with_flow(fit, left, first)
            return
        make_fit = functools.partial(type(fit), before=fit)
        nested = conduct(_begin_nested(fit), left, self.options.quiet(), make_fit)
        self.fit = nested
        if nested.result in (RESULTS.converged, RESULTS.nonfinite):
            self._after_nested(nested, left - int(nested.num_steps), first)

    def _after_nested(
        self, nested: Any, left: int, first: Diagnosis | None = None
    ) -> None:
        """After looking for globals: that, or a flow."""
        fit, cost = nested.before, int(nested.state.num_evaluations)
        if has_answer(nested.state):
            cost += NUM_DRAWS + 2 * NUM_LOOKED
            after = self._judge(nested)
            if is_unsure(after):
                after = self._judge(nested, SECOND_LOOK * NUM_DRAWS)
                cost += SECOND_LOOK * NUM_DRAWS
            first = self._judge(fit) if first is None else first
            if (
                after is not None
                and nested_is_better(after, first, fit.target.dim)
                and _covers(nested, fit, after.log_evidence)
            ):
                self._keep(standing_on(nested, None))
                return
        self._with_flow(_spent(fit, cost), left, first)

    def _with_flow(self, fit: Any, left: int, first: Diagnosis | None) -> None:
        """After a Gaussian that is poor: a flow, if there is room for one."""
        can_flow, most = suits_a_flow(fit.target.dim), fit.problem.method.max_evaluations
        spent = int(fit.state.num_evaluations) + FLOW_EVALUATIONS > most
        if not can_flow or spent or left < 1:
            self._keep(_settled(fit))
            return
        flow = self._flow(fit, min(left, FLOW_STEPS))
        if flow is None:
            self._keep(_settled(fit))
            return
        self.fit = flow
        if flow.result == RESULTS.nonfinite:
            self._keep(_settled(_spent(fit, FLOW_DRAWS * int(flow.num_steps))))
            return
        if flow.result == RESULTS.converged:
            self._after_flow(flow, left - FLOW_STEPS, first)

    def _flow(self, fit: Any, num_steps: int) -> Any:
        """The fit of a flow; `None` if there is no room for it."""
        make_fit = functools.partial(type(fit), before=fit)
        try:
            return conduct(_begin(fit), num_steps, self.options.quiet(), make_fit)
        except (MemoryError, jax.errors.JaxRuntimeError) as e:
            warnings.warn(
                f"The weights of the Gaussian are poor, but a flow could not be tried: "
                f"{type(e).__name__}: {e}",
                stacklevel=6,
            )
            return None

    def _after_flow(self, flow: Any, left: int, first: Diagnosis | None = None) -> None:
        """After a flow: that, or what was before it, of which `first` may be known, or it
        is trained for longer."""
        if flow.before is not None and isinstance(flow.before.problem.method, AutoNext):
            self._keep(standing_on(flow, None))
            return
        after = self._judge(flow)
        if flow.before is not None:
            fit = flow.before
            first = self._judge(fit) if first is None else first
            if not _flow_is_better(flow, after, fit, first):
                cost = FLOW_DRAWS * int(flow.num_steps) + NUM_DRAWS
                self._keep(_settled(_spent(fit, cost)))
                return
            flow = standing_on(flow, None)
            self.fit = flow
        state = flow.state
        can_more = int(state.longest) > int(state.last_step)
        if left < 1 or not can_more or is_fine(after):
            self._keep(flow)
            return
        self._for_longer(flow, left)

    def _for_longer(self, flow: Any, left: int) -> None:
        state = flow.state
        put_off = lambda progress: progress.state.last_step
        progress = eqx.tree_at(put_off, flow.progress, state.longest).cleared()
        tracked = jax.tree.map(np.asarray, (flow.trackers, flow.tracked_steps))
        history = History(np.asarray(flow.losses), *tracked)
        run = kind_of(flow.problem)(flow.problem, progress, history)
        make_fit = functools.partial(type(flow), before=flow)
        longer = conduct(run, left, self.options.quiet(), make_fit)
        self.fit = longer
        if longer.result == RESULTS.nonfinite:
            cost = FLOW_DRAWS * int(longer.num_steps - flow.num_steps)
            no_longer = lambda fit: fit.progress.state.longest
            flow = eqx.tree_at(no_longer, flow, state.last_step)
            self._keep(_spent(flow, cost))
        elif longer.result == RESULTS.converged:
            self._keep(standing_on(longer, None))


def _covers(richer: Any, fit: Any, log_evidence: float) -> bool:
    """Whether a richer answer has all the mass that is known of: around modes, on paths,
    and where draws of the Gaussian are."""
    state, method = jax.tree.map(np.asarray, fit.state), richer.problem.method
    own = method.proposal(richer.progress.family, richer.state)
    probe, seed = HostProbe(fit.target), Seed(key_for(fit.problem.key, _COVERING))
    wide = fit.problem.method.proposal(fit.progress.family, state).on_host()
    looks = [(wide, NUM_LOOKED)]
    for gaussians in (state.modes.gaussians, state.best):
        for loc, tril, elbo in zip(*gaussians, strict=True):
            if elbo > log_evidence - stages.NEGLIGIBLE:
                looks.append((Elliptical(loc, tril), NUM_LOOKED // 16))
    with one_thread(fit.target):
        for number, (place, num_draws) in enumerate(looks):
            x, log_q = place.draw(seed.generator(number), num_draws)
            if misses_mass(own, log_evidence, x, log_q, probe(x).log_p):
                return False
    return True


def _between(probe: HostProbe, bar: ProgressBar, interruption: Interruption) -> None:
    interruption.look()
    bar.move_to(probe.num_evaluations)


def _with_state(fit: Any, **parts: Any) -> Any:
    """The same fit by `Auto`, with another state."""
    state = fit.progress.state._replace(**parts)
    return eqx.tree_at(lambda fit: fit.progress.state, fit, state)


def _settled(fit: Any) -> Any:
    """The same fit by `Auto`, after which nothing follows."""
    return _with_state(fit, stage=np.array(stages.SETTLED, np.int32))


def is_settled(fit: Any) -> bool:
    """Whether it is known what follows a fit by `Auto`, or that nothing does."""
    return int(fit.state.stage) == stages.SETTLED


def _spent(fit: Any, num_evaluations: int) -> Any:
    """The same fit, with what was tried in vain."""
    is_first = isinstance(fit.problem.method, Auto)
    history = lambda fit: fit.progress.state if is_first else fit.progress.state.before
    count = np.asarray(int(history(fit).num_evaluations) + num_evaluations, np.int32)
    get = lambda fit: history(fit).num_evaluations
    return eqx.tree_at(get, fit, count if is_first else jax.device_put(count))


def _begin_nested(fit: Any) -> AbstractRun:
    auto = fit.problem.method
    most = for_nesting(auto.max_evaluations, int(fit.state.num_evaluations))
    method = Nested(num_starts=auto.num_starts, max_evaluations=most)
    method = eqx.tree_at(
        lambda m: m.before, method, fit.state, is_leaf=lambda x: x is None
    )
    key = key_for(fit.problem.key, _NESTING)
    problem = dataclasses.replace(fit.problem, method=method, key=key, stop=None)
    return kind_of(problem).begin(problem, fit.progress.family)


def _flow_method(fit: Any) -> AutoNext:
    parts = FLOW_STEPS, MORE_STEPS
    schedules = [optax.cosine_decay_schedule(5e-3, steps) for steps in parts]
    schedule = optax.join_schedules(schedules, [FLOW_STEPS])
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
    cost = int(fit.state.num_evaluations) + FLOW_EVALUATIONS + MORE_EVALUATIONS
    can_more = cost <= fit.problem.method.max_evaluations
    longest = np.asarray(FLOW_STEPS + can_more * MORE_STEPS, np.int32)
    return AutoNext(
        Descent(StickTheLanding(FLOW_DRAWS), optimizer),
        before=on_device(fit.state, float_dtype(fit.progress.family)),
        longest=jax.device_put(longest),
        num_steps=FLOW_STEPS,
        step_evaluations=FLOW_DRAWS,
    )


def _begin(fit: Any) -> AbstractRun:
    key = key_for(fit.problem.key, _FLOWING)
    method = _flow_method(fit)
    problem = dataclasses.replace(fit.problem, method=method, key=key, stop=None)
    return kind_of(problem).begin(problem, flow_from(fit.progress.family, key))


def in_the_stage_of(fit: Any, method: str, before: str | None) -> Any:
    """A fit by `Auto`, or where a method of the first label follows it, one by that,
    before its first step, with what stands until it is over; other fits as they are."""
    if not isinstance(fit.problem.method, Auto):
        return standing_on(fit, None) if before is None else fit
    begin = {label(_flow_method(fit)): _begin, label(Nested()): _begin_nested}.get(method)
    if begin is None:
        return standing_on(fit, None) if before is None else fit
    next_fit = conduct(begin(fit), 0, Options.none(), type(fit))
    first = label(fit.problem.method)
    stands = {None: None, first: fit, method: next_fit}.get(before)
    return next_fit if stands is None else standing_on(next_fit, stands)
