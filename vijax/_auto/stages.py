"""The default's first stage: paths uphill, the best Gaussian on them, ascents, modes."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import Point
from .._linalg import gaussian_log_prob, index_of_largest, mirrored, where_rows
from .._misc import lenient_promotion, tree_where
from .._solver import natural_gradient, quasi_newton
from .._target.probe import Probes
from .modes import Gaussians, Modes, no_gaussians, no_modes


SEARCH, CHECK, ASCEND, DONE = range(4)

# Draws that estimate the ELBO of each path's Gaussian.
_CHECK_DRAWS = 8
# Ends whose log density or ELBO is so many nats below the best one's hold no mass.
_NEGLIGIBLE = 20.0
# Ends at the same optimum differ by less, in nats.
_SAME = 0.5
# No posterior is as wide as this, on the unconstrained scale.
_ENDLESS = 1e12


class AutoState(NamedTuple):
    """The state of [`vijax.Auto`][]."""

    stage: Int[Array, ""]
    paths: quasi_newton.Paths
    candidate: Gaussians
    best: Gaussians
    next_check: Int[Array, ""]
    ascent: natural_gradient.Ascent
    modes: Modes
    tried: Bool[Array, " paths"]
    num_evaluations: Int[Array, ""]
    loss: Float[Array, ""]
    # Whether draws take heavier tails for their weights, which `vi.fit` finds out.
    heavier: Bool[Array, ""]


def num_lanes(num_starts: int) -> int:
    """The most points that a step asks for."""
    return max(num_starts * _CHECK_DRAWS, natural_gradient.BATCH)


def begin(half: Array, loc: Point, tril: Array, num_starts: int) -> AutoState:
    """The state before the first step, from half of the base noise."""
    nobody = no_gaussians(num_starts, loc)
    return AutoState(
        stage=jnp.full((), SEARCH, jnp.int32),
        paths=quasi_newton.begin(loc, spread_starts(mirrored(half), num_starts)),
        candidate=nobody,
        best=nobody,
        next_check=jnp.full((), 2, jnp.int32),
        ascent=natural_gradient.begin(loc, tril),
        modes=no_modes(loc),
        tried=jnp.zeros(num_starts, bool),
        num_evaluations=jnp.zeros((), jnp.int32),
        loss=jnp.full((), jnp.inf, loc.dtype),
        heavier=jnp.array(False),
    )


def ask(half: Array, state: AutoState) -> tuple[Array, Int[Array, ""]]:
    """The points to evaluate next, and how many of them count.

    `half` is base noise; its mirror images are the other half.
    """
    stages = [_ask_search, _ask_check, _ask_ascend, _ask_nothing]

    def padded(stage):
        def run(half, state):
            x = stage(half, state)
            pad = num_lanes(state.tried.size) - len(x)
            return jnp.pad(x, ((0, pad), (0, 0))), jnp.int32(len(x))

        return run

    return lax.switch(state.stage, [padded(stage) for stage in stages], half, state)


def tell(half: Array, state: AutoState, probes: Probes) -> AutoState:
    """The state after seeing the target at these points."""
    stages = [_tell_search, _tell_check, _tell_ascend, lambda half, state, probes: state]
    return lax.switch(state.stage, stages, half, state, probes)


def finish(state: AutoState) -> AutoState:
    """Nothing is left to do."""
    return state._replace(stage=jnp.full((), DONE, jnp.int32))


def best_gaussian(loc: Point, tril: Array, state: AutoState) -> tuple[Point, Array]:
    """The best Gaussian so far: of a mode, else of the ascent, else of a path, else the
    one that is given."""
    path = index_of_largest(state.best.elbo)
    mode = index_of_largest(state.modes.gaussians.elbo)
    searched = jnp.isfinite(state.best.elbo[path])
    climbing = state.stage == ASCEND
    settled = state.modes.num_modes > 0
    chosen = loc, tril
    for holds, gaussian in (
        (searched, (state.best.loc[path], state.best.tril[path])),
        (climbing, (state.ascent.loc, state.ascent.tril)),
        (settled, (state.modes.gaussians.loc[mode], state.modes.gaussians.tril[mode])),
    ):
        chosen = tree_where(holds, gaussian, chosen)
    return chosen


@eqx.filter_jit
def agreement(state: AutoState) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """How many paths came to rest at a mode that was kept, and how many elsewhere."""
    with lenient_promotion():
        ended, same = state.paths.converged, _ends_as_tried(state)
        near = jax.vmap(state.modes.is_near)(state.paths.x)
        another = jax.vmap(state.modes.is_another)(state.paths.x, state.paths.score)
        return jnp.sum(ended & (near | same)), jnp.sum(ended & another & ~same)


def _ends_as_tried(state: AutoState) -> Bool[Array, " paths"]:
    """Which paths ended at an optimum that an ascent has begun from. (It need not be near
    the mass: the optimum of a hierarchical model is not.)"""
    z = state.modes.coordinates(state.paths.x)
    gaps = jnp.sum((z[:, :, None] - z[:, None, :]) ** 2, axis=3)
    close = (gaps < state.ascent.loc.size) & state.modes.known[:, None, None]
    level = jnp.abs(state.paths.log_p[:, None] - state.paths.log_p) < _SAME
    return jnp.any(jnp.any(close, axis=0) & level & state.tried, axis=1)


def spread_starts(noise: Array, count: int) -> Array:
    """Starting points from the first draws: uniform in (-2, 2), and every fourth in a
    wider range, for modes that hide behind a nearer one."""
    width = jnp.asarray(np.where(np.arange(count) % 4 == 3, 8.0, 2.0), noise.dtype)
    return width[:, None] * lax.erf(noise[:count] / np.sqrt(2).astype(noise.dtype))


def _pairs(half: Array, count: int) -> Array:
    return mirrored(half[: count // 2])


def _ask_search(half: Array, state: AutoState) -> Array:
    del half
    return quasi_newton.ask(state.paths)


def _ask_check(half: Array, state: AutoState) -> Array:
    e = _pairs(half, _CHECK_DRAWS)
    steps = jnp.einsum("kij,sj->ksi", state.candidate.tril, e)
    return (state.candidate.loc[:, None, :] + steps).reshape(-1, e.shape[1])


def _ask_ascend(half: Array, state: AutoState) -> Array:
    return natural_gradient.ask(_pairs(half, natural_gradient.BATCH), state.ascent)


def _ask_nothing(half: Array, state: AutoState) -> Array:
    return jnp.zeros((0, state.ascent.loc.size), half.dtype)


def _tell_search(half: Array, state: AutoState, probes: Probes) -> AutoState:
    count = state.tried.size
    others = spread_starts(mirrored(half), count)
    paths = quasi_newton.tell(others, state.paths, probes[:count])
    over = jnp.all(paths.done)
    due = over | (paths.num_steps >= state.next_check)
    known = jnp.isfinite(jnp.max(state.best.elbo))

    def propose() -> Gaussians:
        loc, tril = quasi_newton.gaussians(paths)
        return Gaussians(loc, tril, state.candidate.elbo)

    later = (1.4 * state.next_check + 1).astype(jnp.int32)
    return state._replace(
        stage=jnp.where(due, CHECK, SEARCH).astype(jnp.int32),
        paths=paths,
        candidate=lax.cond(due, propose, lambda: state.candidate),
        next_check=jnp.where(due, later, state.next_check),
        loss=jnp.where(known, state.loss, -jnp.max(paths.log_p)),
    )


def _tell_check(half: Array, state: AutoState, probes: Probes) -> AutoState:
    e, tril = _pairs(half, _CHECK_DRAWS), state.candidate.tril
    log_q = jax.vmap(lambda tril: gaussian_log_prob(tril, e))(tril)
    log_p = probes.log_p[: log_q.size].reshape(log_q.shape)
    new = state.candidate._replace(elbo=jnp.mean(log_p - log_q, axis=1))
    # NaN is not better than anything.
    best = where_rows(new.elbo > state.best.elbo, new, state.best)
    top = jnp.max(best.elbo)
    first = index_of_largest(best.elbo)
    state = state._replace(
        stage=jnp.full((), SEARCH, jnp.int32),
        best=best,
        loss=jnp.where(jnp.isfinite(top), -top, state.loss),
    )
    over = jnp.all(state.paths.done)
    return lax.cond(over, lambda s: _ascend_from(s, first), lambda s: s, state)


def _ascend_from(state: AutoState, path: Int[Array, ""]) -> AutoState:
    found = jnp.isfinite(state.best.elbo[path])
    dim, dtype = state.ascent.loc.size, state.ascent.loc.dtype
    # Without any finite ELBO, a small Gaussian at the end of the path.
    loc = jnp.where(found, state.best.loc[path], state.paths.x[path])
    small = 0.01 * jnp.eye(dim, dtype=dtype)
    tril = jnp.where(found, state.best.tril[path], small)
    return state._replace(
        stage=jnp.full((), ASCEND, jnp.int32),
        ascent=natural_gradient.begin(loc, tril),
        tried=state.tried.at[path].set(True),
    )


def _tell_ascend(half: Array, state: AutoState, probes: Probes) -> AutoState:
    e = _pairs(half, natural_gradient.BATCH)
    probes = probes[: len(e)]
    ascent = natural_gradient.tell(e, state.ascent, probes)
    elbo = natural_gradient.batch_elbo(e, state.ascent, probes)
    loss = jnp.where(jnp.isfinite(elbo), -elbo, state.loss).astype(elbo.dtype)
    # Where the density does not fall, the Gaussian grows and grows: a failed step.
    endless = jnp.max(jnp.abs(ascent.tril)) > _ENDLESS
    state = state._replace(ascent=ascent, loss=jnp.where(endless, jnp.nan, loss))
    return lax.cond(ascent.done, _settle, lambda state: state, state)


def _settle(state: AutoState) -> AutoState:
    """Keep the Gaussian that was reached, and look for an end that is no part of it."""
    ascent, paths = state.ascent, state.paths
    modes = state.modes.including(ascent.loc, ascent.tril, ascent.last.found.elbo)
    best_elbo = jnp.max(jnp.where(state.tried, state.best.elbo, -jnp.inf))
    best_log_p = jnp.max(jnp.where(state.tried, paths.log_p, -jnp.inf))
    weighty = state.best.elbo > best_elbo - _NEGLIGIBLE
    weighty &= paths.log_p > best_log_p - _NEGLIGIBLE - ascent.loc.size
    # A path that never came to rest, as on a ridge without an end, has no mode.
    left = ~state.tried & paths.converged & weighty
    left &= jax.vmap(modes.is_another)(paths.x, paths.score) & modes.wants_more
    state = state._replace(modes=modes)
    left &= ~_ends_as_tried(state)
    path = index_of_largest(jnp.where(left, state.best.elbo, -jnp.inf))
    return lax.cond(jnp.any(left), lambda s: _ascend_from(s, path), finish, state)
