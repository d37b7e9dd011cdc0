"""What follows the first stage of `Auto` where its weights are poor."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ._correct import NUM_DRAWS, proposed
from ._diagnosis import diagnose, Diagnosis
from ._family.affine import Affine
from ._family.coupling import Coupling
from ._family.full_rank import FullRank
from ._family.mean_field import MeanField
from ._fit_result import Fit
from ._host import conduct, History, Options, Run
from ._loop.base import Problem
from ._method.auto import Auto
from ._method.auto_flow import AutoFlow, NUM_DRAWS as FLOW_DRAWS, NUM_STEPS
from ._misc import float_dtype
from ._results import RESULTS
from ._start import start


# Weights that are worse than this are worth a flow.
_KHAT = 0.7
_EFFECTIVE = 0.25
# Numbers that no method folds into the key of its steps.
_JUDGING, _FLOWING = 0xD1A6, 0xF10


@jax.jit
def _key_for(key: Any, purpose: Any) -> Any:
    return jr.fold_in(jr.fold_in(key, 0), purpose)


def judge(fit: Fit) -> Diagnosis | None:
    """The diagnosis of a fit's own proposal, or `None` if nothing can be drawn there."""
    key = _key_for(fit.problem.key, _JUDGING)
    proposal = fit.proposal
    assert proposal is not None
    try:
        return diagnose(proposed(proposal, fit.target, NUM_DRAWS, key))
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


def step_up(fit: Fit, max_steps: int, options: Options) -> Fit:
    """The fit, or one with a small flow where that is better."""
    method, state = fit.problem.method, fit.state
    assert isinstance(method, Auto)
    cost = NUM_STEPS * FLOW_DRAWS + 2 * NUM_DRAWS
    spent = int(state.num_evaluations)
    ended = fit.result == RESULTS.converged and fit.problem.stop is None
    if not ended or fit.target.dim < 2 or spent + cost > method.max_evaluations:
        return fit
    first = judge(fit)
    if not _is_poor(first):
        return fit
    flow = _flow(fit, max_steps, options)
    if flow is None or _badness(judge(flow)) > _badness(first):
        return fit
    return flow


@functools.partial(jax.jit, static_argnums=0)
def _place(dim: int, family: FullRank, key: Any) -> Affine:
    dtype = float_dtype(family)
    normal = MeanField(jnp.zeros(dim, dtype), scale=1.0)
    return Affine(Coupling(normal, key=key), family.loc, family.tril)


def _flow(fit: Fit, max_steps: int, options: Options) -> Fit | None:
    key = _key_for(fit.problem.key, _FLOWING)
    family = _place(fit.target.dim, fit.progress.family, key)
    problem = Problem(
        target=fit.target,
        method=AutoFlow(fit.state),
        key=key,
        stop=None,
        track=fit.problem.track,
        track_every=fit.problem.track_every,
    )
    progress, tracked = start(problem, family)
    tracked = jax.tree.map(np.asarray, tracked)
    losses = np.zeros(0, float_dtype(family))
    run = Run(problem, progress, History(losses, tracked, np.zeros(0, np.int32)))
    after = conduct(run, min(max_steps, NUM_STEPS), options.quiet(), Fit)
    return None if after.result == RESULTS.nonfinite else after
