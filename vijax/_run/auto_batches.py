"""The default where steps see batches of the data: two fits, one after the other.

A Gaussian is fitted to a part of the rows, whose likelihood stands for all: about as
wide as the posterior, and near it. In its coordinates, where the posterior is nearly
round, stochastic gradients with all the batches find the rest.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._auto.second_stage import gaussian_from, part_of
from .._family.affine import Affine
from .._family.full_rank import FullRank
from .._keys import key_for
from .._loop.base import Problem
from .._loop.moment_convergence import MomentConvergence
from .._method.auto_next import AutoNext
from .._misc import float_dtype, is_tracer, on_device
from .history import History
from .host import conduct, kind_of
from .method_names import stochastic
from .options import Options
from .results import FitError, RESULTS
from .richer_family import ended
from .started import fit_on_host


# More than the first of two stages ever takes.
FIRST_STEPS = 10_000
# Numbers that no method folds into the key of its steps.
_PICKING, _GOING_ON = 0x9A27, 0x60E5


def on_a_part(problem: Problem) -> Problem:
    """The problem of the first stage: some of the rows, seen as a whole."""
    key = key_for(problem.key, _PICKING)
    target = part_of(problem.target, key)
    return dataclasses.replace(problem, target=target, key=key, stop=None, track={})


def in_batches(problem: Problem, first: Any) -> tuple[Problem, Affine]:
    """The problem of the second stage, and where it starts."""
    stop = problem.stop
    if stop is None and problem.target.weight == 1:
        # Of a stream of chunks nobody knows how many are to come.
        stop = MomentConvergence()
    key = key_for(problem.key, _GOING_ON)
    return following(dataclasses.replace(problem, key=key, stop=stop), first)


def following(problem: Problem, first: Any) -> tuple[Problem, Affine]:
    """The problem of the second stage, but for its method, with the one that follows this
    first stage, and where it starts."""
    num_left = 0
    if not is_tracer(first.num_steps):
        num_left = max(len(first.state.modes.weighty()[0]) - 1, 0)
    method = AutoNext(
        stochastic(problem.target),
        before=on_device(first.state, float_dtype(first.progress.family)),
        longest=jax.device_put(np.zeros((), np.int32)),
        num_steps=None,
        step_evaluations=None,
        # The rows at hand would pull the draws to their own posterior.
        corrects=problem.target.weight == 1,
        num_left=num_left,
    )
    family = first.progress.family
    assert isinstance(family, FullRank)
    return dataclasses.replace(problem, method=method), gaussian_from(family)


def fit_in_batches(problem: Problem, max_steps: int, options: Options, kind: type) -> Any:
    """Both stages, on the host, as a fit of this kind."""
    part = on_a_part(problem)
    # Callbacks may bring other data of all the rows, and checkpoints are of the whole.
    first = lambda: fit_on_host(part, None, FIRST_STEPS, options.alone(), kind)
    return _both(first, lambda fit: in_batches(problem, fit), max_steps, options)


def _both(
    first: Callable[[], Any],
    then: Callable[[Any], tuple[Problem, Affine]],
    max_steps: int,
    options: Options,
) -> Any:
    try:
        fit = first()
    except FitError as e:
        if e.fit.result != RESULTS.failed:
            raise
        raise FitError(str(e), _unfinished(e.fit, *then(e.fit))) from e.__cause__
    problem, family = then(fit)
    if fit.result == RESULTS.interrupted:
        return _unfinished(fit, problem, family)
    return conduct(kind_of(problem).begin(problem, family), max_steps, options, type(fit))


def _unfinished(first: Any, problem: Problem, family: Affine) -> Any:
    """The second stage before its first step, where the first one, which ended early,
    stands: it goes on when this is resumed."""
    make_fit = functools.partial(type(first), before=first)
    fit = conduct(kind_of(problem).begin(problem, family), 0, Options.none(), make_fit)
    return ended(fit, first.result)


def is_on_a_part(fit: Any) -> bool:
    """Whether the first of the two stages is not over."""
    method = fit.problem.method
    is_second = isinstance(method, AutoNext) and method.num_steps is None
    return is_second and fit.before is not None


def resumed_in_batches(fit: Any, max_steps: int, options: Options) -> Any:
    """Goes on with the first stage, and then with the second."""
    first = fit.before
    assert first is not None
    losses = np.asarray(first.losses)[: int(first.num_steps)]
    history = History(losses, {}, np.zeros(0, np.int32))
    run = kind_of(first.problem)(first.problem, first.progress.cleared(), history)
    go_on = lambda: conduct(run, FIRST_STEPS, options.alone(), type(fit))
    return _both(go_on, lambda new: following(fit.problem, new), max_steps, options)
