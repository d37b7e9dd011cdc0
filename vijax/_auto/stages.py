"""The default's first stage: paths uphill, the best Gaussian on them, ascents, modes."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from .._arrays import choose, cond, namespace, set_at, switch, switch_points
from .._custom_types import AnyArray
from .._linalg import gaussian_log_prob, index_of_largest, mirrored, where_rows
from .._solver import natural_gradient, quasi_newton
from .._target.probe import Probes
from .modes import Gaussians, Modes, no_gaussians, no_modes


# After the last one comes what `vi.fit` decides: whether a flow follows.
SEARCH, CHECK, ASCEND, DONE, SETTLED = range(5)

# Draws that estimate the ELBO of each path's Gaussian.
_CHECK_DRAWS = 8
# Ends whose log density or ELBO is so many nats below the best one's hold no mass.
NEGLIGIBLE = 20.0
# Ends at the same optimum differ by less, in nats.
SAME = 0.5
# No posterior is as wide as this, on the unconstrained scale.
ENDLESS = 1e12


class Survey(NamedTuple):
    """What more starts came to, after the first stage: how many there were with those of
    the first stage, how many of all came to rest, and how many of these at no mode of the
    answer; how many modes with mass one start led to; the part of the mass at modes that
    were not followed. Zeros where nobody looked."""

    num_starts: Int[AnyArray, ""]
    num_at_rest: Int[AnyArray, ""]
    num_apart: Int[AnyArray, ""]
    num_once: Int[AnyArray, ""]
    left: Float[AnyArray, ""]


class AutoState(NamedTuple):
    """The state of [`vijax.Auto`][]."""

    stage: Int[AnyArray, ""]
    paths: quasi_newton.Paths
    candidate: Gaussians
    best: Gaussians
    next_check: Int[AnyArray, ""]
    ascent: natural_gradient.Ascent
    modes: Modes
    tried: Bool[AnyArray, " paths"]
    num_evaluations: Int[AnyArray, ""]
    loss: Float[AnyArray, ""]
    # Whether draws take heavier tails for their weights, which `vi.fit` finds out.
    heavier: Bool[AnyArray, ""]
    survey: Survey


def num_lanes(num_starts: int) -> int:
    """The most points that a step asks for."""
    return max(num_starts * _CHECK_DRAWS, natural_gradient.BATCH)


def begin(half: AnyArray, loc: AnyArray, tril: AnyArray, num_starts: int) -> AutoState:
    """The state before the first step, from half of the base noise."""
    xp, nobody = namespace(loc), no_gaussians(num_starts, loc)
    zero = xp.zeros((), xp.int32)
    return AutoState(
        stage=xp.full((), SEARCH, xp.int32),
        paths=quasi_newton.begin(loc, spread_starts(mirrored(half), num_starts)),
        candidate=nobody,
        best=nobody,
        next_check=xp.full((), 2, xp.int32),
        ascent=natural_gradient.begin(loc, tril),
        modes=no_modes(loc),
        tried=xp.zeros(num_starts, bool),
        num_evaluations=zero,
        loss=xp.full((), xp.inf, loc.dtype),
        heavier=xp.array(False),
        survey=Survey(zero, zero, zero, zero, xp.zeros((), loc.dtype)),
    )


def ask(half: AnyArray, state: AutoState) -> tuple[AnyArray, AnyArray | int]:
    """The points to evaluate next, and how many of them count.

    `half` is base noise; its mirror images are the other half.
    """
    asks = _ask_search, _ask_check, _ask_ascend, _ask_nothing, _ask_nothing
    return switch_points(state.stage, asks, num_lanes(state.tried.size), half, state)


def tell(half: AnyArray, state: AutoState, probes: Probes) -> AutoState:
    """The state after seeing the target at these points."""
    nothing = lambda half, state, probes: state
    stages = [_tell_search, _tell_check, _tell_ascend, nothing, nothing]
    return switch(state.stage, stages, half, state, probes)


def finish(state: AutoState) -> AutoState:
    """Nothing is left to do."""
    return state._replace(stage=namespace(state.stage).full((), DONE, np.int32))


def best_gaussian(
    loc: AnyArray, tril: AnyArray, state: AutoState
) -> tuple[AnyArray, AnyArray]:
    """The best Gaussian so far: of a mode, else of the ascent, else of a path, else the
    one that is given."""
    xp, path = namespace(state.stage), index_of_largest(state.best.elbo)
    mode = index_of_largest(state.modes.gaussians.elbo)
    searched = xp.isfinite(state.best.elbo[path])
    climbing = state.stage == ASCEND
    settled = state.modes.num_modes > 0
    chosen = loc, tril
    for holds, gaussian in (
        (searched, (state.best.loc[path], state.best.tril[path])),
        (climbing, (state.ascent.loc, state.ascent.tril)),
        (settled, (state.modes.gaussians.loc[mode], state.modes.gaussians.tril[mode])),
    ):
        chosen = choose(holds, gaussian, chosen)
    return chosen


def agreement(state: AutoState) -> tuple[int, int]:
    """How many paths came to rest at a mode that was kept, and how many elsewhere. (On
    the host.)"""
    state = jax.tree.map(np.asarray, state)
    x, ended, same = state.paths.x, state.paths.converged, _ends_as_tried(state)
    near = state.modes.are_near(x)
    another = state.modes.are_others(x, state.paths.score)
    return int(np.sum(ended & (near | same))), int(np.sum(ended & another & ~same))


def _ends_as_tried(state: AutoState) -> Bool[AnyArray, " paths"]:
    """Which paths ended at an optimum that an ascent has begun from. (It need not be near
    the mass: the optimum of a hierarchical model is not.)"""
    xp, z = namespace(state.paths.x), state.modes.coordinates(state.paths.x)
    gaps = xp.sum((z[:, :, None] - z[:, None, :]) ** 2, axis=3)
    close = (gaps < state.ascent.loc.size) & state.modes.known[:, None, None]
    level = xp.abs(state.paths.log_p[:, None] - state.paths.log_p) < SAME
    return xp.any(xp.any(close, axis=0) & level & state.tried, axis=1)


def spread_starts(noise: AnyArray, count: int) -> AnyArray:
    """Starting points from the first draws: uniform in (-2, 2), and every fourth in a
    wider range, for modes that hide behind a nearer one."""
    factor = np.where(np.arange(count) % 4 == 3, 4.0, 1.0).astype(noise.dtype)
    return factor[:, None] * quasi_newton.uniform_starts(noise[:count])


def _pairs(half: AnyArray, count: int) -> AnyArray:
    return mirrored(half[: count // 2])


def _ask_search(half: AnyArray, state: AutoState) -> tuple[AnyArray, AnyArray]:
    del half
    return quasi_newton.ask(state.paths)


def _ask_check(half: AnyArray, state: AutoState) -> AnyArray:
    e = _pairs(half, _CHECK_DRAWS)
    steps = namespace(e).einsum("kij,sj->ksi", state.candidate.tril, e)
    return (state.candidate.loc[:, None, :] + steps).reshape(-1, e.shape[1])


def _ask_ascend(half: AnyArray, state: AutoState) -> AnyArray:
    return natural_gradient.ask(_pairs(half, natural_gradient.BATCH), state.ascent)


def _ask_nothing(half: AnyArray, state: AutoState) -> AnyArray:
    return namespace(half).zeros((0, state.ascent.loc.size), half.dtype)


def _tell_search(half: AnyArray, state: AutoState, probes: Probes) -> AutoState:
    xp, count = namespace(half), state.tried.size
    others = spread_starts(mirrored(half), count)
    paths = quasi_newton.tell(others, state.paths, probes)
    over = xp.all(paths.done)
    due = over | (paths.num_steps >= state.next_check)
    known = xp.isfinite(xp.max(state.best.elbo))

    def propose() -> Gaussians:
        loc, tril = quasi_newton.gaussians(paths)
        return Gaussians(loc, tril, state.candidate.elbo)

    later = (1.4 * state.next_check + 1).astype(xp.int32)
    return state._replace(
        stage=xp.where(due, CHECK, SEARCH).astype(xp.int32),
        paths=paths,
        candidate=cond(due, propose, lambda: state.candidate),
        next_check=xp.where(due, later, state.next_check),
        loss=xp.where(known, state.loss, -xp.max(paths.log_p)),
    )


def _tell_check(half: AnyArray, state: AutoState, probes: Probes) -> AutoState:
    xp, e = namespace(half), _pairs(half, _CHECK_DRAWS)
    log_q = gaussian_log_prob(state.candidate.tril, e)
    log_p = probes.log_p[: log_q.size].reshape(log_q.shape)
    new = state.candidate._replace(elbo=xp.mean(log_p - log_q, axis=1))
    # NaN is not better than anything.
    best = where_rows(new.elbo > state.best.elbo, new, state.best)
    top = xp.max(best.elbo)
    first = index_of_largest(best.elbo)
    state = state._replace(
        stage=xp.full((), SEARCH, xp.int32),
        best=best,
        loss=xp.where(xp.isfinite(top), -top, state.loss),
    )
    over = xp.all(state.paths.done)
    return cond(over, lambda s: _ascend_from(s, first), lambda s: s, state)


def _ascend_from(state: AutoState, path: Int[AnyArray, ""]) -> AutoState:
    xp = namespace(state.best.elbo)
    found = xp.isfinite(state.best.elbo[path])
    dim, dtype = state.ascent.loc.size, state.ascent.loc.dtype
    # Without any finite ELBO, a small Gaussian at the end of the path.
    loc = xp.where(found, state.best.loc[path], state.paths.x[path])
    small = 0.01 * xp.eye(dim, dtype=dtype)
    tril = xp.where(found, state.best.tril[path], small)
    return state._replace(
        stage=xp.full((), ASCEND, xp.int32),
        ascent=natural_gradient.begin(loc, tril),
        tried=set_at(state.tried, path, True),
    )


def _tell_ascend(half: AnyArray, state: AutoState, probes: Probes) -> AutoState:
    xp, e = namespace(half), _pairs(half, natural_gradient.BATCH)
    probes = probes.first(len(e))
    ascent = natural_gradient.tell(e, state.ascent, probes)
    elbo = natural_gradient.batch_elbo(e, state.ascent, probes)
    loss = xp.where(xp.isfinite(elbo), -elbo, state.loss).astype(elbo.dtype)
    # Where the density does not fall, the Gaussian grows and grows: a failed step.
    endless = xp.max(xp.abs(ascent.tril)) > ENDLESS
    state = state._replace(ascent=ascent, loss=xp.where(endless, xp.nan, loss))
    return cond(ascent.done, _settle, lambda state: state, state)


def _settle(state: AutoState) -> AutoState:
    """Keep the Gaussian that was reached, and look for an end that is no part of it."""
    xp, ascent, paths = namespace(state.stage), state.ascent, state.paths
    modes = state.modes.including(ascent.loc, ascent.tril, ascent.last.found.elbo)
    best_elbo = xp.max(xp.where(state.tried, state.best.elbo, -xp.inf))
    best_log_p = xp.max(xp.where(state.tried, paths.log_p, -xp.inf))
    weighty = state.best.elbo > best_elbo - NEGLIGIBLE
    weighty &= paths.log_p > best_log_p - NEGLIGIBLE - ascent.loc.size
    # A path that never came to rest, as on a ridge without an end, has no mode.
    left = ~state.tried & paths.converged & weighty
    left &= modes.are_others(paths.x, paths.score) & modes.wants_more
    state = state._replace(modes=modes)
    left &= ~_ends_as_tried(state)
    path = index_of_largest(xp.where(left, state.best.elbo, -xp.inf))
    return cond(xp.any(left), lambda s: _ascend_from(s, path), finish, state)
