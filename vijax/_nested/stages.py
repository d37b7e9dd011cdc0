"""Nested importance sampling, one step at a time: which coordinates are globals, where
the locals are given these, and rounds of importance sampling of the globals."""

from typing import Any

import numpy as np
from jaxtyping import Int

from .._family.base import AbstractFamily
from .._family.mixture import Mixture
from .._family.nested_gaussian import NestedGaussian
from .._family.student_t import StudentT
from .._interpolation import fewest_points
from .._linalg import triangular_root
from .._misc import on_device
from .._target.probe import HostProbe
from .curvature_change import changes
from .design import with_design
from .marginal import log_marginal
from .restart import climbed
from .split import split
from .state import (
    Design,
    DONE,
    entries,
    EXPLORING,
    FITTING,
    LOOKING,
    NestedState,
    Pool,
    split_of,
    whitened,
)
from .t_mixture import DF, first_parts, NUM_WIDENING, Parts


# A coordinate that changes the others' curvature by less is no global; by much less, it
# is not looked at again.
_CHANGE, _FORGOTTEN = 0.1, 0.02
# The most globals that are found.
_MOST_GLOBALS = 10
# Rounds of drawing, and of beginning anew where hardly anything has weight.
_MOST_ROUNDS, _MOST_RESTARTS = 6, 12
_FEWEST_EFFECTIVE = 25.0
# The part of a round's draws that is effective where another round brings little.
_ENOUGH, _GAIN = 0.7, 0.05
# So many draws of the last mixture say how far it reaches.
_REACHED = 4_096


def begin(before: Any, dim: int, chosen: Int[np.ndarray, " globals"]) -> NestedState:
    """The state before the first step: a Gaussian has to be found; and globals, unless
    they are `chosen`."""
    nothing = np.zeros((0, 0))
    return NestedState(
        stage=np.array(FITTING, np.int32),
        before=before,
        loc=np.zeros(dim),
        tril=np.eye(dim),
        chosen=np.asarray(chosen, np.int32),
        candidates=np.arange(dim, dtype=np.int32),
        rest=np.arange(dim, dtype=np.int32),
        pattern=np.zeros((0, 0), bool),
        center=np.zeros(0),
        root=nothing,
        design=Design(nothing, nothing, nothing),
        pool=Pool(nothing, np.zeros(0), np.zeros(0)),
        parts=Parts(nothing, np.zeros((0, 0, 0)), np.zeros((0, 0, 0, 0))),
        num_rounds=np.array(0, np.int32),
        num_restarts=np.array(0, np.int32),
        effective=np.array(0.0),
        num_evaluations=np.array(0, np.int32),
        loss=np.asarray(before.loss, float),
    )


def from_gaussian(state: NestedState, loc: np.ndarray, tril: np.ndarray) -> NestedState:
    """The Gaussian is known."""
    state = state._replace(stage=np.array(LOOKING, np.int32), loc=loc, tril=tril)
    return _with_globals(state, state.chosen) if len(state.chosen) else state


def _with_globals(state: NestedState, chosen: np.ndarray) -> NestedState:
    """It is known what the globals are; without any, nothing is to be done."""
    chosen = np.asarray(chosen, np.int32)
    if len(chosen) == 0:
        return finish(state)
    rest = np.setdiff1d(np.arange(state.loc.size, dtype=np.int32), chosen)
    parts = split(state.loc, state.tril, chosen, rest)
    nothing = np.zeros((0, len(chosen)))
    return state._replace(
        stage=np.array(EXPLORING, np.int32),
        chosen=chosen,
        rest=rest,
        center=parts.center,
        root=parts.root,
        design=Design(nothing, *state.design[1:]),
        pool=Pool(nothing, *state.pool[1:]),
        parts=first_parts(parts.center, parts.root),
    )


def finish(state: NestedState) -> NestedState:
    """Nothing is left to do."""
    return state._replace(stage=np.array(DONE, np.int32))


def look(
    state: NestedState, probe: HostProbe, generator: np.random.Generator
) -> NestedState:
    """Look for one more global."""
    parts = split(state.loc, state.tril, state.chosen, state.rest)
    found = changes(probe, state.tril, state.loc, parts, state.candidates, generator)
    best = int(np.argmax(found))
    if found[best] < _CHANGE:
        return _with_globals(state, _needed(state, probe, generator))
    dim, chosen = state.loc.size, np.append(state.chosen, state.candidates[best])
    if len(chosen) > min(_MOST_GLOBALS, dim - 1):
        # It does not end: nothing is simple given a few.
        return _with_globals(state, np.zeros(0, np.int32))
    left = found > _FORGOTTEN
    left[best] = False
    rest = np.setdiff1d(np.arange(dim, dtype=np.int32), chosen)
    candidates = state.candidates[left]
    state = state._replace(chosen=chosen, candidates=candidates, rest=rest)
    if not left.any():
        return _with_globals(state, _needed(state, probe, generator))
    return state


def _needed(
    state: NestedState, probe: HostProbe, generator: np.random.Generator
) -> np.ndarray:
    """The globals without those that change nothing given the ones that came later."""
    chosen, dim = state.chosen, state.loc.size
    for one in state.chosen[:-1]:
        others = chosen[chosen != one]
        rest = np.setdiff1d(np.arange(dim), others)
        parts, it = split(state.loc, state.tril, others, rest), np.array([one])
        if changes(probe, state.tril, state.loc, parts, it, generator)[0] < _CHANGE:
            chosen = others
    return chosen


def explore(
    state: NestedState, probe: HostProbe, generator: np.random.Generator
) -> NestedState:
    """One round: exact locals where they are missing, draws of the globals, and a mixture
    fitted to all of these."""
    num_globals = len(state.chosen)
    count = max(256, 64 * (num_globals + 1))
    latest = state.parts.of_round(-1)
    g, _ = latest.draw(generator, count)
    if len(state.rest):
        state = with_design(state, probe, g, generator)
        if len(state.design.g) < fewest_points(num_globals):
            # Not one mode of the locals, or none.
            return _without_answer(state)
    log_p, log_laplace, log_joint = log_marginal(state, probe, g, generator)
    old = state.pool
    pool = Pool(
        np.concatenate([old.g, g]),
        np.concatenate([old.log_p, log_p]),
        np.concatenate([old.log_laplace, log_laplace]),
    )
    log_weights = pool.log_p - _log_proposals(state.parts, pool.g)
    log_evidence = np.logaddexp.reduce(log_weights) - np.log(len(log_weights))
    if not np.isfinite(log_evidence):
        return _without_answer(state)
    state = state._replace(pool=pool, loss=np.asarray(-log_evidence))
    weights = np.exp(log_weights - np.max(log_weights))
    weights /= weights.sum()
    if 1 / np.sum(weights**2) < _FEWEST_EFFECTIVE:
        return _restarted(state)
    own = log_joint - latest.log_prob(g)
    own = np.exp(own - np.max(own))
    effective = float(own.sum() ** 2 / np.sum(own**2) / count)
    rounds = int(state.num_rounds) + 1
    gained = effective - float(state.effective)
    over = rounds >= _MOST_ROUNDS or (rounds > 1 and effective > _ENOUGH)
    over |= rounds > 2 and effective > 0.5 * _ENOUGH and gained < _GAIN
    state = state._replace(
        parts=state.parts.and_next(pool.g, weights, generator),
        num_rounds=np.array(rounds, np.int32),
        effective=np.array(effective),
    )
    if not over:
        return state
    if len(state.rest):
        # Where the last mixture reaches, too.
        tails, _ = state.parts.of_round(-1).draw(generator, _REACHED)
        state = with_design(state, probe, tails, generator)
    return finish(state)


def _without_answer(state: NestedState) -> NestedState:
    """Nothing is found, and the Gaussian stays."""
    return finish(state._replace(parts=Parts(*(x[:0] for x in state.parts))))


def _log_proposals(parts: Parts, g: np.ndarray) -> np.ndarray:
    """The log density of all rounds' draws together."""
    rounds = range(len(parts.weights))
    each = [parts.of_round(i).log_prob(g) for i in rounds]
    return np.logaddexp.reduce(each, axis=0) - np.log(len(each))


def _restarted(state: NestedState) -> NestedState:
    """Around where the marginal density rises to."""
    if int(state.num_restarts) >= _MOST_RESTARTS:
        return finish(state)
    u = whitened(state.pool.g, state)
    center, root = climbed(u, state.pool.log_laplace)
    new = state._replace(
        center=state.center + state.root @ center,
        root=triangular_root(state.root @ root),
        num_restarts=state.num_restarts + np.int32(1),
        num_rounds=np.array(0, np.int32),
        effective=np.array(0.0),
        pool=Pool(*(x[:0] for x in state.pool)),
    )
    if not np.all(np.isfinite(new.root)):
        return finish(state)
    near = np.sum(whitened(state.design.g, new) ** 2, axis=1) < 64
    if len(state.rest):
        new = new._replace(design=state.design.kept(near))
    return new._replace(parts=first_parts(new.center, new.root))


def has_answer(state: NestedState) -> bool:
    """Whether there is anything better than the Gaussian."""
    return int(state.stage) == DONE and len(state.parts.weights) > 1


def answer(
    state: NestedState, dtype: np.dtype, *, as_proposal: bool = False
) -> AbstractFamily:
    """What was found, as a family; as a proposal with the parts that only widen it."""
    first = 0 if as_proposal else NUM_WIDENING
    weights, locs, roots = (x[-1, first:] for x in state.parts)
    used = weights > 0
    pairs = zip(locs[used].astype(dtype), roots[used].astype(dtype), strict=True)
    globals_family = Mixture(
        [StudentT(loc, root, df=DF) for loc, root in pairs], weights[used]
    )
    if len(state.rest) == 0:
        return globals_family
    parts = split_of(state)
    known = whitened(state.design.g, state), state.design.modes, state.design.factors
    numbers = state.center, state.root, *known, parts.loc, parts.scale
    return NestedGaussian(
        globals_family,
        *on_device(numbers, dtype),
        which=tuple(state.chosen.tolist()),
        others=tuple(state.rest.tolist()),
        entries=entries(state),
    )
