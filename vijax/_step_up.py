"""What follows the first stage of `Auto` where its weights are poor."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checkpoint import save
from ._correct import NUM_DRAWS, proposed
from ._diagnosis import diagnose, Diagnosis
from ._family.affine import Affine
from ._family.coupling import Coupling
from ._family.full_rank import FullRank
from ._family.mean_field import MeanField
from ._host import conduct, Options, Run
from ._method.auto import Auto
from ._method.auto_next import AutoNext
from ._method.base import label
from ._method.descent import Descent
from ._misc import key_for
from ._objective.stick_the_landing import StickTheLanding
from ._results import RESULTS


# Weights that are worse than this are worth a flow.
_KHAT = 0.7
_EFFECTIVE = 0.25
# Beyond, a step's matrices cost more than the flow was seen to bring.
_MOST_DIM = 300
# The length of a flow's run, and the draws of a step.
_NUM_STEPS = 2_000
_FLOW_DRAWS = 64
# Numbers that no method folds into the key of its steps.
_JUDGING, _FLOWING = 0xD1A6, 0xF10


def _judge(fit: Any) -> Diagnosis | None:
    """The diagnosis of a fit's own proposal, or `None` if nothing can be drawn there."""
    key = key_for(fit.problem.key, _JUDGING)
    try:
        return diagnose(proposed(fit.proposal, fit.target, NUM_DRAWS, key))
    except ValueError:
        return None


def _is_poor(diagnosis: Diagnosis | None) -> bool:
    if diagnosis is None or not diagnosis.is_fine:
        return True
    khat = max(diagnosis.khat, diagnosis.worst_khat)
    return khat > _KHAT or diagnosis.effective < _EFFECTIVE


def _badness(diagnosis: Diagnosis | None) -> float:
    if diagnosis is None or not np.isfinite(diagnosis.worst_khat):
        return np.inf
    return max(diagnosis.khat, diagnosis.worst_khat) - diagnosis.effective


def step_up(fit: Any, max_steps: int, options: Options) -> Any:
    """A [`vijax.Fit`][] that has just ended; or after `Auto` one with a small flow, where
    that is better."""
    method, state = fit.problem.method, fit.state
    if not isinstance(method, Auto):
        return fit
    cost = _NUM_STEPS * _FLOW_DRAWS + 2 * NUM_DRAWS
    spent = int(state.num_evaluations)
    ended = fit.result == RESULTS.converged and fit.problem.stop is None
    if (
        not (ended and 2 <= fit.target.dim <= _MOST_DIM)
        or spent + cost > method.max_evaluations
    ):
        return fit
    first = _judge(fit)
    if not _is_poor(first):
        return fit
    flow = _flow(fit, max_steps, options)
    if flow is None or _badness(_judge(flow)) > _badness(first):
        if options.checkpoint is not None:
            save(options.checkpoint, fit)
        return fit
    return flow


@jax.jit
def _place(family: FullRank, key: Any) -> Affine:
    normal = MeanField(jnp.zeros_like(family.loc), scale=1.0)
    return Affine(Coupling(normal, key=key), family.loc, family.tril)


def _flow_method(before: Any) -> AutoNext:
    schedule = optax.cosine_decay_schedule(5e-3, _NUM_STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
    descent = Descent(StickTheLanding(_FLOW_DRAWS), optimizer)
    return AutoNext(descent, before, _NUM_STEPS, _FLOW_DRAWS)


def _begin(fit: Any) -> Run:
    key = key_for(fit.problem.key, _FLOWING)
    method = _flow_method(fit.state)
    problem = dataclasses.replace(fit.problem, method=method, key=key, stop=None)
    return Run.begin(problem, _place(fit.progress.family, key))


def _flow(fit: Any, max_steps: int, options: Options) -> Any | None:
    steps = min(max_steps, _NUM_STEPS)
    after = conduct(_begin(fit), steps, options.quiet(), type(fit))
    return None if after.result == RESULTS.nonfinite else after


def in_the_stage_of(fit: Any, method: str) -> Any:
    """A fit by `Auto`, or where a method of this label follows it, one by that, before
    its first step; other fits as they are."""
    is_first = isinstance(fit.problem.method, Auto)
    if not is_first or method != label(_flow_method(fit.state)):
        return fit
    return conduct(_begin(fit), 0, Options.none(), type(fit))
