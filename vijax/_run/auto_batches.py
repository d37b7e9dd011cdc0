"""The way of [`vijax.Auto`][] where steps see batches of the data.

A Gaussian is fitted to a part of the rows, whose likelihood stands for all: about as
wide as the posterior, and near it. In its coordinates, where the posterior is nearly
round, stochastic gradients with all the batches find the rest.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._family.affine import Affine
from .._family.full_rank import FullRank
from .._family.mean_field import MeanField
from .._loop.base import Problem
from .._loop.moment_convergence import MomentConvergence
from .._method.auto_next import AutoNext
from .._misc import is_tracer, key_for
from .._target.target import Target
from .fit_result import Fit
from .method_names import FULL_RANK_DIM, stochastic


# Rows of the first part for each coordinate: enough to see how these correlate.
_ROWS_PER_COORDINATE = 20
# More rows start nearer, up to so many batches or rows.
_MOST_BATCHES, _MOST_ROWS = 20, 5_000
# Numbers that no method folds into the key of its steps.
_PICKING, _GOING_ON = 0x9A27, 0x60E5


@eqx.filter_jit
def _part(target: Target, key: Array) -> Target:
    minibatch = target.minibatch
    assert minibatch is not None
    size = minibatch.size(target.data)
    wanted = min(_MOST_BATCHES * size, _MOST_ROWS)
    wanted = max(wanted, _ROWS_PER_COORDINATE * target.dim)
    larger = minibatch.larger(wanted / size, target.data)
    return eqx.tree_at(lambda t: t.minibatch, target, larger).batch(key)


def on_a_part(problem: Problem) -> Problem:
    """The problem of the first stage: some of the rows, seen as a whole."""
    key = key_for(problem.key, _PICKING)
    target = _part(problem.target, key)
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
    return problem, _whitened(family)


@eqx.filter_jit
def _whitened(family: FullRank) -> Affine:
    kind = FullRank if family.dim <= FULL_RANK_DIM else MeanField
    normal = kind(jnp.zeros_like(family.loc), scale=1.0)
    return Affine(normal, family.loc, family.tril)
