"""Nested importance sampling, one step at a time: which coordinates are globals, where
the locals are given these, and rounds of importance sampling of the globals."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .._family.base import AbstractFamily
from .._family.mixture import Mixture
from .._family.nested_gaussian import HostNested, NestedGaussian, outward, packed
from .._family.student_t import StudentT
from .._interpolation import fewest_points, interpolate
from .._linalg import triangular_root
from .._misc import on_device
from .._target.probe import HostProbe
from .conditional import scores_of_locals, solve
from .curvature import all_columns, Columns, columns, filled_in, seen_pattern
from .curvature_change import changes
from .restart import climbed
from .split import Split, split
from .t_mixture import DF, first_parts, NUM_WIDENING, Parts


# After the last one comes what `vi.fit` decides.
FITTING, LOOKING, EXPLORING, DONE = range(4)

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
# Points that are so many nats below the best one need no exact locals.
_NEGLIGIBLE = 10.0
# Exact locals are not wanted nearer to each other, in whitened units.
_GAP = 0.3
# How far a round's marginal may be from that of Laplace, in nats.
_NOISE = 1.0
# So many draws of the last mixture say how far it reaches.
_REACHED = 4_096
# At so many points other starts of the locals are tried, so many sds away.
_NUM_TRIED, _FAR = 8, 3.0
# So many of the first points tell which second derivatives there are.
_NUM_SEEN = 4


class Design(NamedTuple):
    """Points of the globals where the locals were solved for."""

    g: Float[np.ndarray, "points globals"]
    modes: Float[np.ndarray, "points locals"]
    factors: Float[np.ndarray, "points entries"]

    def kept(self, which: Bool[np.ndarray, " points"] | slice) -> "Design":
        """Some of them."""
        return Design(*(x[which] for x in self))


class Pool(NamedTuple):
    """Draws of the globals, all rounds', and the log marginal density there: seen by
    draws of the locals, and by Laplace's method."""

    g: Float[np.ndarray, "points globals"]
    log_p: Float[np.ndarray, " points"]
    log_laplace: Float[np.ndarray, " points"]


class NestedState(NamedTuple):
    """The state of [`vijax.Nested`][]. Shapes differ between steps.

    **Attributes:**

    - `before`: the state that [`vijax.Auto`][] ended with, whose Gaussian, `loc` and
        `tril`, it began from.
    - `chosen`: the globals that were found, in this order.
    """

    stage: Int[np.ndarray, ""]
    before: Any
    loc: Float[np.ndarray, " dim"]
    tril: Float[np.ndarray, "dim dim"]
    chosen: Int[np.ndarray, " globals"]
    candidates: Int[np.ndarray, " candidates"]
    rest: Int[np.ndarray, " locals"]
    pattern: Bool[np.ndarray, "locals locals"]
    center: Float[np.ndarray, " globals"]
    root: Float[np.ndarray, "globals globals"]
    design: Design
    pool: Pool
    parts: Parts
    num_rounds: Int[np.ndarray, ""]
    num_restarts: Int[np.ndarray, ""]
    effective: Float[np.ndarray, ""]
    num_evaluations: Int[np.ndarray, ""]
    loss: Float[np.ndarray, ""]


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
        state = _with_design(state, probe, g, generator)
        if len(state.design.g) < fewest_points(num_globals):
            # Not one mode of the locals, or none.
            return _without_answer(state)
    log_p, log_laplace, log_joint = _marginal(state, probe, g, generator)
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
        state = _with_design(state, probe, tails, generator)
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


def whitened(g: np.ndarray, state: NestedState) -> np.ndarray:
    """Globals, where they have mean zero and unit covariance."""
    return np.linalg.solve(state.root, (g - state.center).T).T


def _split(state: NestedState) -> Split:
    return split(state.loc, state.tril, state.chosen, state.rest)


def _columns(state: NestedState) -> Columns:
    if len(state.pattern) == 0:
        return all_columns(len(state.rest))
    return columns(state.pattern)


def entries(state: NestedState) -> tuple[tuple[int, int], ...]:
    """Where factors of the locals' precisions have anything, below the diagonal."""
    pattern = state.pattern
    if len(pattern) == 0:
        pattern = np.ones((len(state.rest), len(state.rest)), bool)
    return tuple((i, j) for i, j in np.argwhere(filled_in(pattern)).tolist())


def _with_design(
    state: NestedState,
    probe: HostProbe,
    g: np.ndarray,
    generator: np.random.Generator,
) -> NestedState:
    """With exact locals at more points, where they are farthest from known ones."""
    dim = len(state.chosen)
    count = max(16, int(1.5 * (1 + dim + dim * (dim + 1) // 2)) + 4)
    if len(state.design.g) < fewest_points(dim):
        first = _spread(count, dim, generator) @ state.root.T + state.center
        if len(state.pattern) == 0:
            state = _with_pattern(state, probe, first)
        state = _solved(state, probe, first)
        if not _is_unique(state, probe, generator):
            nobody = np.zeros(len(state.design.g), bool)
            return state._replace(design=state.design.kept(nobody))
    likely = state.pool.log_p > np.max(state.pool.log_p, initial=-np.inf) - _NEGLIGIBLE
    wanted = _farthest(state, state.pool.g[likely], count // 2)
    state = _solved(state, probe, wanted)
    return _solved(state, probe, _farthest(state, g, count // 2))


def _spread(count: int, dim: int, generator: np.random.Generator) -> np.ndarray:
    """Points of all distances from the origin, as far as a mixture's tails."""
    z = generator.standard_normal((count, dim))
    if dim == 1:
        z = np.where(np.arange(count) % 2, 1.0, -1.0)[:, None]
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return z * (np.linspace(0, 1, count)[:, None] ** (1 / dim)) * (3.5 + 0.3 * dim)


def _farthest(state: NestedState, g: np.ndarray, count: int) -> np.ndarray:
    """Up to so many of these points, each the farthest from the others and the design."""
    u, known = whitened(g, state), whitened(state.design.g, state)
    chosen: list[int] = []
    if len(u) == 0 or len(known) == 0:
        return g[:0]
    gaps = np.min(np.sum((u[:, None] - known) ** 2, axis=2), axis=1)
    while len(chosen) < count:
        best = int(np.argmax(gaps))
        if not gaps[best] > _GAP**2:
            break
        chosen.append(best)
        gaps = np.minimum(gaps, np.sum((u - u[best]) ** 2, axis=1))
    return g[chosen]


def _with_pattern(state: NestedState, probe: HostProbe, g: np.ndarray) -> NestedState:
    """With what is known of second derivatives, and locals with few of these first."""
    # The center, and the outermost ones.
    few = np.concatenate([g[:1], g[-(_NUM_SEEN - 1) :]])
    parts = _split(state)
    seen = solve(probe, parts, few, parts.expected(few), all_columns(len(state.rest)))
    pattern = seen_pattern(seen.precisions)
    if not np.any(seen.found):
        pattern = np.ones_like(pattern)
    order = np.argsort(pattern.sum(axis=0), kind="stable")
    return state._replace(rest=state.rest[order], pattern=pattern[np.ix_(order, order)])


def _is_unique(
    state: NestedState, probe: HostProbe, generator: np.random.Generator
) -> bool:
    """Whether the locals have one mode given the globals, as far as other starts see."""
    parts, few = _split(state), state.design.kept(slice(_NUM_TRIED))
    g, modes = few.g, few.modes
    wide = modes + _FAR * generator.standard_normal(modes.shape)
    mirrored = -modes - 2 * parts.loc / parts.scale
    known, _ = scores_of_locals(probe, parts, g, modes)
    trils = known_locals(state).given(g)[1]
    for start in (wide, mirrored):
        other = solve(probe, parts, g, start, _columns(state))
        there, _ = scores_of_locals(probe, parts, g, other.modes)
        apart = np.einsum("nij,ni->nj", trils, other.modes - modes)
        is_other = other.found & (np.sum(apart**2, axis=1) > 1)
        if np.any(is_other & (there > known - _NEGLIGIBLE)):
            return False
    return True


def _solved(state: NestedState, probe: HostProbe, g: np.ndarray) -> NestedState:
    """With exact locals at these points too, wherever they are found."""
    if len(g) == 0:
        return state
    parts, old, dim = _split(state), state.design, len(state.chosen)
    start = parts.expected(g)
    if len(old.g) >= fewest_points(dim):
        start = known_locals(state).given(g)[0]
    new = solve(probe, parts, g, start, _columns(state))
    found = new.found & np.all(np.isfinite(new.modes), axis=1)
    below = entries(state)
    modes, factors = packed(new.modes[found], new.precisions[found], below)
    together = lambda x, y: np.concatenate([x.reshape(-1, y.shape[1]), y])
    design = Design(*map(together, old, (g[found], modes, factors)))
    return state._replace(design=design)


def known_locals(state: NestedState) -> HostNested:
    """What is known of the locals, with the last round's globals."""
    parts = _split(state)
    values = np.concatenate([state.design.modes, state.design.factors], axis=1)
    return HostNested(
        state.parts.of_round(-1),
        state.chosen,
        state.rest,
        state.center,
        state.root,
        interpolate(whitened(state.design.g, state), values),
        parts.loc,
        parts.scale,
        entries(state),
    )


def _marginal(
    state: NestedState, probe: HostProbe, g: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The log marginal density of globals: by a pair of draws of the locals, which no
    error of the interpolation biases; by Laplace's method; and by one of the draws, whose
    weights are those of draws of both."""
    parts = _split(state)
    if len(state.rest) == 0:
        log_p = probe(parts.joined(g, np.zeros((len(g), 0)))).log_p
        return log_p, log_p, log_p
    modes, trils = known_locals(state).given(g)
    dim = modes.shape[1]
    normal = generator.standard_normal(modes.shape)
    step = outward(trils, normal)
    log_volume = np.sum(np.log(np.einsum("nii->ni", trils)), axis=1)
    constant = 0.5 * dim * np.log(2 * np.pi) + np.sum(np.log(parts.scale))
    at_mode, score = scores_of_locals(probe, parts, g, modes)
    pair = [scores_of_locals(probe, parts, g, modes + s * step)[0] for s in (1, -1)]
    inner = np.linalg.solve(trils, score[:, :, None])[:, :, 0]
    # Half of what is left of the scores is how far below its mode that is; but far from
    # a mode this says nothing.
    left = np.minimum(np.sum(inner**2, axis=1), 1.0)
    log_volume = constant - log_volume
    log_laplace = at_mode + 0.5 * left + log_volume
    of_normal = 0.5 * np.sum(normal**2, axis=1) + log_volume
    log_joint = pair[0] + of_normal
    log_p = np.logaddexp(*pair) - np.log(2) + of_normal
    known = (log_laplace, log_joint, log_p)
    log_laplace, log_joint, log_p = (np.where(np.isnan(x), -np.inf, x) for x in known)
    # A pair is noisy where locals are many; Laplace's is wrong where the factors are.
    near = np.clip(log_laplace, log_p - _NOISE, log_p + _NOISE)
    return np.where(np.isfinite(log_p), near, -np.inf), log_laplace, log_joint


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
    parts = _split(state)
    known = whitened(state.design.g, state), state.design.modes, state.design.factors
    numbers = state.center, state.root, *known, parts.loc, parts.scale
    return NestedGaussian(
        globals_family,
        *on_device(numbers, dtype),
        which=tuple(state.chosen.tolist()),
        others=tuple(state.rest.tolist()),
        entries=entries(state),
    )
