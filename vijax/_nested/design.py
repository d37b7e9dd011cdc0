"""Where the locals are solved for: points of the globals, far from each other."""

import numpy as np

from .._family.nested_on_host import packed
from .._interpolation import fewest_points
from .._target.probe import HostProbe
from .conditional import scores_of_locals, solve
from .curvature import all_columns, seen_pattern
from .state import (
    columns_of,
    Design,
    entries,
    known_locals,
    NestedState,
    split_of,
    whitened,
)


# Points that are so many nats below the best one need no exact locals.
_NEGLIGIBLE = 10.0
# Exact locals are not wanted nearer to each other, in whitened units.
_GAP = 0.3
# At so many points other starts of the locals are tried, so many sds away.
_NUM_TRIED, _FAR = 8, 3.0
# So many of the first points tell which second derivatives there are.
_NUM_SEEN = 4


def with_design(
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
    parts = split_of(state)
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
    parts, few = split_of(state), state.design.kept(slice(_NUM_TRIED))
    g, modes = few.g, few.modes
    wide = modes + _FAR * generator.standard_normal(modes.shape)
    mirrored = -modes - 2 * parts.loc / parts.scale
    known, _ = scores_of_locals(probe, parts, g, modes)
    factors = known_locals(state).given(g)[1]
    for start in (wide, mirrored):
        other = solve(probe, parts, g, start, columns_of(state))
        there, _ = scores_of_locals(probe, parts, g, other.modes)
        apart = factors.transposed_times(other.modes - modes)
        is_other = other.found & (np.sum(apart**2, axis=1) > 1)
        if np.any(is_other & (there > known - _NEGLIGIBLE)):
            return False
    return True


def _solved(state: NestedState, probe: HostProbe, g: np.ndarray) -> NestedState:
    """With exact locals at these points too, wherever they are found."""
    if len(g) == 0:
        return state
    parts, old, dim = split_of(state), state.design, len(state.chosen)
    start = parts.expected(g)
    if len(old.g) >= fewest_points(dim):
        start = known_locals(state).given(g)[0]
    new = solve(probe, parts, g, start, columns_of(state))
    found = new.found & np.all(np.isfinite(new.modes), axis=1)
    below = entries(state)
    modes, factors = packed(new.modes[found], new.precisions[found], below)
    together = lambda x, y: np.concatenate([x.reshape(-1, y.shape[1]), y])
    design = Design(*map(together, old, (g[found], modes, factors)))
    return state._replace(design=design)
