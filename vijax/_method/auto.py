from typing import NamedTuple

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from .. import _natural_gradient as natural_gradient, _quasi_newton as quasi_newton
from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._family.mixture import Mixture
from .._misc import as_whole, lenient_promotion
from .._probe import probe, Probes
from .._proposal import heavy_tailed
from .._target import Target
from .base import AbstractMethod, check_gaussian, F, moved


SEARCH, CHECK, ASCEND, DONE = range(4)

# Draws that estimate the ELBO of each path's Gaussian.
_CHECK_DRAWS = 8
# Ends whose log density or ELBO is so many nats below the best one's hold no mass.
_NEGLIGIBLE = 20.0
# No posterior is as wide as this, on the unconstrained scale.
_ENDLESS = 1e12
# The most modes that are looked into.
_MAX_MODES = 4
# After so many that turned out to be known ones, no others are expected.
_MAX_MERGED = 2


class Gaussians(NamedTuple):
    """Some Gaussians and their ELBO, which is minus infinity where there is none."""

    loc: Float[Array, "count dim"]
    tril: Float[Array, "count dim dim"]
    elbo: Float[Array, " count"]

    def set(self, index: Int[Array, ""], loc: Array, tril: Array, elbo: Array):
        """With another one in the place `index`."""
        return Gaussians(
            self.loc.at[index].set(loc),
            self.tril.at[index].set(tril),
            self.elbo.at[index].set(elbo),
        )


class AutoState(NamedTuple):
    """The state of [`vijax.Auto`][]."""

    stage: Int[Array, ""]
    paths: quasi_newton.Paths
    candidate: Gaussians
    best: Gaussians
    next_check: Int[Array, ""]
    ascent: natural_gradient.Ascent
    modes: Gaussians
    mode_status: Int[Array, " modes"]
    num_modes: Int[Array, ""]
    num_merged: Int[Array, ""]
    tried: Bool[Array, " paths"]
    num_evaluations: Int[Array, ""]
    loss: Float[Array, ""]


def _none(count: int, loc: Point) -> Gaussians:
    return Gaussians(
        jnp.zeros((count, loc.size), loc.dtype),
        jnp.zeros((count, loc.size, loc.size), loc.dtype),
        jnp.full(count, -jnp.inf, loc.dtype),
    )


class Auto(AbstractMethod):
    r"""Variational inference without tuning: a Gaussian by natural gradients.

    Quasi-Newton paths from several starts; the best Gaussian on them by its ELBO; from
    there natural gradients of the ELBO, with as many draws as a stable answer takes.
    Where paths end apart and none of the ends is negligible, each is followed, and the
    answer is a mixture. It ends by itself. [`vijax.fit`][] then tries a small flow where
    the importance weights say that it is needed; and `fit.draw` corrects draws by these
    weights. It is what the name `"auto"`, the default, stands for.

    **Reference:** Zhang, Carpenter, Gelman and Vehtari (2022), *Pathfinder: parallel
    quasi-Newton variational inference*, JMLR 23(306); Lin, Khan and Schmidt (2019),
    *Stein's lemma for the reparameterization trick with exponential family mixtures*,
    [arXiv:1910.13398](https://arxiv.org/abs/1910.13398).

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, vi.Auto(max_evaluations=10_000), key=jax.random.key(0))
        fit.draw(1_000, key=jax.random.key(1)).params["x"].mean()
        ```
    """

    num_starts: int = eqx.field(static=True)
    max_evaluations: int = eqx.field(static=True)

    def __init__(self, num_starts: int = 16, max_evaluations: int = 200_000):
        """**Arguments:**

        - `num_starts`: how many quasi-Newton paths there are: one from the model's own
            starting point, the others from uniform draws of (-2, 2), a quarter of them
            of (-8, 8).
        - `max_evaluations`: the most gradients of the log density. A richer family is
            tried only if it would not exceed this.

        **Raises:** `ValueError` for numbers that are not positive.
        """
        self.num_starts = as_whole("num_starts", num_starts, 1)
        self.max_evaluations = as_whole("max_evaluations", max_evaluations, 1)

    def start(self, key: Key, loc: Point) -> AbstractFamily:
        del key
        return FullRank(loc, scale=1.0)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> AutoState:
        family = check_gaussian(self, family, target)
        loc, count = family.loc, self.num_starts
        nobody = _none(count, loc)
        return AutoState(
            stage=jnp.full((), SEARCH, jnp.int32),
            paths=quasi_newton.begin(loc, _uniform(_noise(key, 2 * count, loc), count)),
            candidate=nobody,
            best=nobody,
            next_check=jnp.full((), 2, jnp.int32),
            ascent=natural_gradient.begin(loc, family.tril),
            modes=_none(_MAX_MODES, loc),
            mode_status=jnp.zeros(_MAX_MODES, jnp.int32),
            num_modes=jnp.zeros((), jnp.int32),
            num_merged=jnp.zeros((), jnp.int32),
            tried=jnp.zeros(count, bool),
            num_evaluations=jnp.zeros((), jnp.int32),
            loss=jnp.full((), jnp.inf, loc.dtype),
        )

    def step(
        self, key: Key, family: F, target: Target, state: AutoState
    ) -> tuple[F, AutoState, Scalar]:
        # Random numbers and the model once, outside the branches: they are what compiles
        # slowly.
        noise = _noise(key, _lanes(state), state.ascent.loc)
        ask = [_ask_search, _ask_check, _ask_ascend, _ask_nothing]
        with lenient_promotion():
            x, count = lax.switch(state.stage, ask, noise, state)
        probes = probe(target, x, count)
        with lenient_promotion():
            state = state._replace(num_evaluations=state.num_evaluations + count)
            tell = [_tell_search, _tell_check, _tell_ascend, _tell_nothing]
            state = lax.switch(state.stage, tell, noise, state, probes)
            spent = state.num_evaluations >= self.max_evaluations
            state = lax.cond(spent, _finish, lambda state: state, state)
            return _family(family, state), state, state.loss

    def done(self, state: AutoState) -> Bool[Array, ""]:
        return state.stage == DONE

    def answer(self, family: AbstractFamily, state: AutoState) -> AbstractFamily:
        kept = modes_of(state)
        if len(kept) < 2:
            return family
        components = [FullRank(state.modes.loc[i], state.modes.tril[i]) for i in kept]
        return Mixture(components, _mode_weights(np.asarray(state.modes.elbo)[kept]))

    def proposal(self, family: AbstractFamily, state: AutoState) -> AbstractFamily:
        return heavy_tailed(self.answer(family, state))


def _mode_weights(elbos: np.ndarray) -> np.ndarray:
    """The evidence of each mode, but never so little that its draws say nothing."""
    weights = np.exp(elbos - np.max(elbos))
    return np.maximum(weights / np.sum(weights), 0.05)


def modes_of(state: AutoState) -> np.ndarray:
    """The numbers of the modes that hold some mass. (On the host.)"""
    elbo = np.asarray(state.modes.elbo)[: int(state.num_modes)]
    if elbo.size == 0:
        return np.zeros(0, int)
    return np.flatnonzero(elbo > np.max(elbo) - np.log(1e4))


def _lanes(state: AutoState) -> int:
    return max(state.tried.size * _CHECK_DRAWS, natural_gradient.BATCH)


def _padded(x: Array, state: AutoState) -> Array:
    return jnp.pad(x, ((0, _lanes(state) - len(x)), (0, 0)))


def _noise(key: Key, count: int, loc: Point) -> Array:
    """Standard normals; the second half mirrors the first."""
    half = jr.normal(key, (count // 2, loc.size), loc.dtype)
    return jnp.concatenate([half, -half])


def _uniform(noise: Array, count: int) -> Array:
    """Starting points from the first draws: uniform in (-2, 2), and every fourth in a
    wider range, for modes that hide behind a nearer one."""
    width = jnp.asarray(np.where(np.arange(count) % 4 == 3, 8.0, 2.0), noise.dtype)
    return width[:, None] * lax.erf(noise[:count] / np.sqrt(2).astype(noise.dtype))


def _paired(noise: Array, count: int) -> Array:
    """The first `count // 2` draws and their mirror images."""
    return jnp.concatenate([noise[: count // 2], -noise[: count // 2]])


def _ask_search(noise: Array, state: AutoState):
    del noise
    x = quasi_newton.ask(state.paths)
    return _padded(x, state), jnp.int32(len(x))


def _ask_check(noise: Array, state: AutoState):
    e = _paired(noise, _CHECK_DRAWS)
    steps = jnp.einsum("kij,sj->ksi", state.candidate.tril, e)
    x = (state.candidate.loc[:, None, :] + steps).reshape(-1, e.shape[1])
    return _padded(x, state), jnp.int32(len(x))


def _ask_ascend(noise: Array, state: AutoState):
    x = natural_gradient.ask(_paired(noise, natural_gradient.BATCH), state.ascent)
    return _padded(x, state), jnp.int32(len(x))


def _ask_nothing(noise: Array, state: AutoState):
    del noise
    return _padded(state.ascent.loc[None], state), jnp.int32(0)


def _tell_nothing(noise: Array, state: AutoState, probes: Probes) -> AutoState:
    del noise, probes
    return state


def _tell_ascend(noise: Array, state: AutoState, probes: Probes) -> AutoState:
    e = _paired(noise, natural_gradient.BATCH)
    probes = probes[: len(e)]
    ascent = natural_gradient.tell(e, state.ascent, probes)
    elbo = natural_gradient.batch_elbo(e, state.ascent, probes)
    loss = jnp.where(jnp.isfinite(elbo), -elbo, state.loss).astype(elbo.dtype)
    # Where the density does not fall, the Gaussian grows and grows: a failed step.
    endless = jnp.max(jnp.abs(ascent.tril)) > _ENDLESS
    loss = jnp.where(endless, jnp.nan, loss)
    state = state._replace(ascent=ascent, loss=loss)
    return lax.cond(ascent.done, _settle, lambda state: state, state)


def _tell_search(noise: Array, state: AutoState, probes: Probes) -> AutoState:
    count = state.tried.size
    others = _uniform(noise, count)
    paths = quasi_newton.tell(others, state.paths, probes[:count])
    over = jnp.all(paths.done)
    due = over | (paths.num_steps >= state.next_check)
    known = jnp.isfinite(jnp.max(state.best.elbo))
    loss = jnp.where(known, state.loss, -jnp.max(paths.log_p))

    def propose() -> Gaussians:
        loc, tril = quasi_newton.gaussians(paths)
        return Gaussians(loc, tril, state.candidate.elbo)

    later = (1.4 * state.next_check + 1).astype(jnp.int32)
    return state._replace(
        stage=jnp.where(due, CHECK, SEARCH).astype(jnp.int32),
        paths=paths,
        candidate=lax.cond(due, propose, lambda: state.candidate),
        next_check=jnp.where(due, later, state.next_check),
        loss=loss,
    )


def _tell_check(noise: Array, state: AutoState, probes: Probes) -> AutoState:
    e, (count, dim) = _paired(noise, _CHECK_DRAWS), state.candidate.loc.shape
    diagonal = jax.vmap(jnp.diagonal)(state.candidate.tril)
    log_q = -0.5 * jnp.sum(e**2, axis=1)[None, :]
    log_q -= jnp.sum(jnp.log(diagonal), axis=1)[:, None]
    log_q -= 0.5 * dim * np.log(2 * np.pi).item()
    log_p = probes.log_p[: log_q.size].reshape(count, _CHECK_DRAWS)
    elbo = jnp.mean(log_p - log_q, axis=1)
    better = elbo > state.best.elbo  # NaN is not.
    pick = lambda new, old: jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    new = Gaussians(state.candidate.loc, state.candidate.tril, elbo)
    best = Gaussians(*(pick(a, b) for a, b in zip(new, state.best, strict=True)))
    top = jnp.max(best.elbo)
    over = jnp.all(state.paths.done)
    first = quasi_newton.best_of(best.elbo)
    state = state._replace(
        stage=jnp.full((), SEARCH, jnp.int32),
        best=best,
        loss=jnp.where(jnp.isfinite(top), -top, state.loss),
    )
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


def _settle(state: AutoState) -> AutoState:
    """Keep the Gaussian that was reached, and look for an end that is no part of it."""
    ascent = state.ascent
    known = jnp.arange(_MAX_MODES) < state.num_modes
    is_new = ~jnp.any(known & _places(state.modes, ascent.loc, ascent.loc)[0])
    better = _kept(state, is_new)
    # A path that never came to rest, as on a ridge without an end, has no mode.
    untried = ~state.tried & state.paths.converged
    best_path = jnp.where(state.tried, state.best.elbo, -jnp.inf)
    best_log_p = jnp.where(state.tried, state.paths.log_p, -jnp.inf)
    dim = ascent.loc.size
    weighty = state.best.elbo > jnp.max(best_path) - _NEGLIGIBLE
    weighty &= state.paths.log_p > jnp.max(best_log_p) - _NEGLIGIBLE - dim
    known = jnp.arange(_MAX_MODES) < better.num_modes
    near, at_rest = jax.vmap(lambda x, g: _places(better.modes, x, g))(
        state.paths.x, state.paths.score
    )
    elsewhere = jnp.any(known & at_rest, axis=1) & ~jnp.any(known & near, axis=1)
    left = untried & weighty & elsewhere
    left &= (better.num_modes < _MAX_MODES) & (better.num_merged < _MAX_MERGED)
    path = quasi_newton.best_of(jnp.where(left, state.best.elbo, -jnp.inf))
    return lax.cond(jnp.any(left), lambda s: _ascend_from(s, path), _finish, better)


def _kept(state: AutoState, is_new: Bool[Array, ""]) -> AutoState:
    ascent = state.ascent
    place = jnp.minimum(state.num_modes, _MAX_MODES - 1)
    added = state.modes.set(place, ascent.loc, ascent.tril, ascent.last.elbo)
    pick = lambda new, old: jnp.where(is_new, new, old)
    status = state.mode_status.at[place].set(ascent.status)
    return state._replace(
        modes=jax.tree.map(pick, added, state.modes),
        mode_status=pick(status, state.mode_status),
        num_modes=state.num_modes + is_new.astype(jnp.int32),
        num_merged=state.num_merged + (~is_new).astype(jnp.int32),
    )


def _places(
    modes: Gaussians, x: Point, score: Point
) -> tuple[Bool[Array, " modes"], Bool[Array, " modes"]]:
    """Of each mode, whether a point is near it, and whether the score there is that of a
    place of rest in its scale."""

    def one(loc, tril):
        eye = jnp.eye(loc.size, dtype=loc.dtype)
        tril = jnp.where(jnp.diagonal(tril) == 0, eye, tril)
        z = jsl.solve_triangular(tril, x - loc, lower=True)
        size = jnp.sum(z**2)
        near = size < loc.size + 4 * (2 * loc.size) ** 0.5 + 8
        return near, jnp.sum((tril.T @ score) ** 2) < 1 + 1e-3 * size

    return jax.vmap(one)(modes.loc, modes.tril)


@eqx.filter_jit
def agreement(state: AutoState) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """How many paths came to rest at a mode that was kept, and how many elsewhere."""
    with lenient_promotion():
        known = jnp.arange(_MAX_MODES) < state.num_modes
        near, at_rest = jax.vmap(lambda x, g: _places(state.modes, x, g))(
            state.paths.x, state.paths.score
        )
        near = jnp.any(near & known, axis=1)
        elsewhere = jnp.any(at_rest & known, axis=1) & ~near
        ended = state.paths.converged
        return jnp.sum(ended & near), jnp.sum(ended & elsewhere)


def _finish(state: AutoState) -> AutoState:
    return state._replace(stage=jnp.full((), DONE, jnp.int32))


def _family(family: F, state: AutoState) -> F:
    """The best Gaussian so far."""
    mode = quasi_newton.best_of(state.modes.elbo)
    path = quasi_newton.best_of(state.best.elbo)
    settled = state.num_modes > 0
    climbing = (state.stage == ASCEND) & ~settled
    searched = jnp.isfinite(state.best.elbo[path])

    old = family.loc, family.tril  # pyright: ignore[reportAttributeAccessIssue]
    first = state.best.loc[path], state.best.tril[path]
    now = state.ascent.loc, state.ascent.tril
    last = state.modes.loc[mode], state.modes.tril[mode]
    choose = lambda condition, a, b: jax.tree.map(
        lambda a, b: jnp.where(condition, a, b), a, b
    )
    chosen = choose(searched, first, old)
    chosen = choose(climbing, now, chosen)
    chosen = choose(settled, last, chosen)
    return moved(family, *chosen)
