"""The default where steps see batches of the data: two fits, one after the other.

A Gaussian is fitted to a part of the rows, whose likelihood stands for all: about as
wide as the posterior, and near it. In its coordinates, where the posterior is nearly
round, stochastic gradients with all the batches find the rest.
"""

import dataclasses

import jax.numpy as jnp

from .._auto.second_stage import gaussian_from, part_of
from .._family.affine import Affine
from .._family.full_rank import FullRank
from .._loop.base import Problem
from .._loop.moment_convergence import MomentConvergence
from .._method.auto_next import AutoNext
from .._misc import is_tracer, key_for
from .fit_result import Fit
from .method_names import stochastic


# Numbers that no method folds into the key of its steps.
_PICKING, _GOING_ON = 0x9A27, 0x60E5


def on_a_part(problem: Problem) -> Problem:
    """The problem of the first stage: some of the rows, seen as a whole."""
    key = key_for(problem.key, _PICKING)
    target = part_of(problem.target, key)
    return dataclasses.replace(problem, target=target, key=key, stop=None, track={})


def in_batches(problem: Problem, first: Fit) -> tuple[Problem, Affine]:
    """The problem of the second stage, and where it starts."""
    state = first.state
    num_left = 0
    if not is_tracer(first.num_steps):
        num_left = max(len(state.modes.weighty()[0]) - 1, 0)
    is_part = problem.target.weight != 1
    stop = problem.stop
    if stop is None and not is_part:
        # Of a stream of chunks nobody knows how many are to come.
        stop = MomentConvergence()
    method = AutoNext(
        stochastic(problem.target),
        before=state,
        longest=jnp.zeros((), jnp.int32),
        num_steps=None,
        step_evaluations=None,
        # The rows at hand would pull the draws to their own posterior.
        corrects=not is_part,
        num_left=num_left,
    )
    key = key_for(problem.key, _GOING_ON)
    problem = dataclasses.replace(problem, method=method, key=key, stop=stop)
    family = first.progress.family
    assert isinstance(family, FullRank)
    return problem, gaussian_from(family)
