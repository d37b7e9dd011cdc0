"""A richer family after the default's Gaussian, where its weights are poor."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

from .._auto.budget import (
    FLOW_DRAWS,
    FLOW_EVALUATIONS,
    FLOW_STEPS,
    MORE_EVALUATIONS,
    MORE_STEPS,
    suits_a_flow,
)
from .._auto.judgement import (
    flow_is_better,
    is_fine,
    is_poor,
    judge,
    may_have_heavier_tails,
)
from .._auto.second_stage import flow_from
from .._draws.diagnosis import Diagnosis
from .._draws.psis import NUM_DRAWS
from .._method.auto import Auto
from .._method.auto_next import AutoNext
from .._method.base import label
from .._method.descent import Descent
from .._misc import key_for
from .._objective.stick_the_landing import StickTheLanding
from .checkpoint import save
from .history import History
from .host import conduct, Run
from .options import Options
from .results import as_fit_error, RESULTS


# Numbers that no method folds into the key of its steps.
_JUDGING, _FLOWING = 0xD1A6, 0xF10


def _judge(fit: Any) -> Diagnosis | None:
    """The diagnosis of a fit's own proposal."""
    return judge(fit.proposal, fit.target, key_for(fit.problem.key, _JUDGING))


def _flow_is_better(
    flow: Any, after: Diagnosis | None, fit: Any, before: Diagnosis | None
) -> bool:
    if flow.result == RESULTS.nonfinite:
        return False
    modes = fit.state.modes
    elbos = np.asarray(modes.gaussians.elbo)[: int(modes.num_modes)]
    return flow_is_better(after, np.asarray(flow.losses), before, elbos)


def with_richer_family(fit: Any, max_steps: int, options: Options) -> Any:
    """A [`vijax.Fit`][] that has just ended, with `max_steps` left; or after `Auto` one
    with a small flow, where that is better, trained for longer where it is still poor."""
    if fit.result != RESULTS.converged or fit.problem.stop is not None or max_steps < 1:
        return fit
    method = fit.problem.method
    if isinstance(method, Auto):
        return _richer(fit, max_steps, options)
    if isinstance(method, AutoNext) and method.num_steps is not None:
        return _for_longer(fit, _judge(fit), max_steps, options)
    return fit


def _richer(fit: Any, max_steps: int, options: Options) -> Any:
    """After `Auto`: as it is, or with heavier tails of what is weighed, or a flow."""
    most, first = fit.problem.method.max_evaluations, _judge(fit)
    if not is_poor(first):
        return fit
    if may_have_heavier_tails(first, fit.target.dim):
        get = lambda fit: fit.progress.state.heavier
        heavier = eqx.tree_at(get, fit, jax.device_put(np.array(True)))
        second = _judge(heavier)
        fit, heavier = _spent(fit, NUM_DRAWS), _spent(heavier, NUM_DRAWS)
        if not is_poor(second, by_weights=False):
            return _kept(heavier, options)
    can_flow = suits_a_flow(fit.target.dim)
    if not can_flow or int(fit.state.num_evaluations) + FLOW_EVALUATIONS > most:
        return _kept(fit, options)
    flow = conduct(_begin(fit), min(max_steps, FLOW_STEPS), options.quiet(), type(fit))
    third = _judge(flow)
    if not _flow_is_better(flow, third, fit, first):
        cost = FLOW_DRAWS * int(flow.num_steps) + NUM_DRAWS
        return _kept(_spent(fit, cost), options)
    return _for_longer(flow, third, max_steps - FLOW_STEPS, options)


def _for_longer(
    flow: Any, diagnosis: Diagnosis | None, max_steps: int, options: Options
) -> Any:
    state = flow.state
    is_over = flow.result == RESULTS.converged and max_steps > 0
    can_more = int(state.longest) > int(state.last_step)
    if not is_over or not can_more or is_fine(diagnosis):
        return flow
    put_off = lambda progress: progress.state.last_step
    progress = eqx.tree_at(put_off, flow.progress, state.longest).cleared()
    tracked = jax.tree.map(np.asarray, (flow.trackers, flow.tracked_steps))
    run = Run(flow.problem, progress, History(np.asarray(flow.losses), *tracked))
    longer = conduct(run, max_steps, options.quiet(), type(flow))
    if longer.result == RESULTS.nonfinite:
        cost = FLOW_DRAWS * int(longer.num_steps - flow.num_steps)
        return _kept(_spent(flow, cost), options)
    return longer


def _spent(fit: Any, num_evaluations: int) -> Any:
    """The same fit, with what was tried in vain."""
    is_first = isinstance(fit.problem.method, Auto)
    history = lambda fit: fit.progress.state if is_first else fit.progress.state.before
    count = np.asarray(int(history(fit).num_evaluations) + num_evaluations, np.int32)
    get = lambda fit: history(fit).num_evaluations
    return eqx.tree_at(get, fit, jax.device_put(count))


def _kept(fit: Any, options: Options) -> Any:
    """A fit, in place of the one that the checkpoint has by now."""
    if options.checkpoint is not None:
        try:
            save(options.checkpoint, fit)
        except Exception as e:
            fit = eqx.tree_at(lambda fit: fit.result, fit, RESULTS.failed)
            raise as_fit_error(e, fit) from e
    return fit


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
        before=fit.state,
        longest=jax.device_put(longest),
        num_steps=FLOW_STEPS,
        step_evaluations=FLOW_DRAWS,
    )


def _begin(fit: Any) -> Run:
    key = key_for(fit.problem.key, _FLOWING)
    method = _flow_method(fit)
    problem = dataclasses.replace(fit.problem, method=method, key=key, stop=None)
    return Run.begin(problem, flow_from(fit.progress.family, key))


def in_the_stage_of(fit: Any, method: str) -> Any:
    """A fit by `Auto`, or where a method of this label follows it, one by that, before
    its first step; other fits as they are."""
    is_first = isinstance(fit.problem.method, Auto)
    if not is_first or method != label(_flow_method(fit)):
        return fit
    return conduct(_begin(fit), 0, Options.none(), type(fit))
