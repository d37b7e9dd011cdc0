"""Modes and precisions of the locals at points of the globals."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from .._target.probe import HostProbe
from .curvature import Columns, precisions
from .split import Split


# Second derivatives are taken so often, and serve for so many steps.
_MOST_MATRICES, _MOST_STEPS = 6, 6
# Squared scores, in units of the precision, at which a mode is found.
_FOUND, _ENOUGH = 1e-4, 1e-3
# Precisions are taken once more after moves of such a squared length.
_MOVED = 0.05
# The smallest eigenvalue of a precision that serves for a step, of the largest.
_FLAT = 1e-6


class Conditional(NamedTuple):
    """What the locals are at points of the globals, in units of their scales."""

    modes: Float[np.ndarray, "points locals"]
    precisions: Float[np.ndarray, "points locals locals"]
    found: Bool[np.ndarray, " points"]


def scores_of_locals(
    probe: HostProbe, parts: Split, g: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log densities at points, and their gradients in the scaled locals; minus infinity
    and zero where these are not finite."""
    probes = probe(parts.joined(g, y))
    return probes.log_p, probes.score[:, parts.locals] * parts.scale


def solve(
    probe: HostProbe,
    parts: Split,
    g: Float[np.ndarray, "points globals"],
    start: Float[np.ndarray, "points locals"],
    seen: Columns,
) -> Conditional:
    """The mode of the locals at each point of the globals, and the precision there, by
    Newton steps; several with the same second derivatives."""
    count, dim = start.shape
    y, scale = start.copy(), np.ones((count, dim))
    log_p, score = scores_of_locals(probe, parts, g, y)
    values, vectors = np.ones((count, dim)), np.zeros((count, dim, dim))
    matrices, found = np.zeros((count, dim, dim)), np.zeros(count, bool)
    left = np.isfinite(log_p)
    for _ in range(_MOST_MATRICES):
        at = np.flatnonzero(left & ~found)
        if len(at) == 0:
            break
        matrix = _precisions(probe, parts, g[at], y[at], scale[at], seen)
        left[at] = np.all(np.isfinite(matrix), axis=(1, 2))
        at, matrix = at[left[at]], matrix[left[at]]
        w, vectors[at] = np.linalg.eigh(matrix)
        most = np.max(np.abs(w), axis=1, keepdims=True, initial=0)
        values[at] = np.maximum(np.abs(w), _FLAT * most + 1e-30)
        matrices[at] = matrix
        sizes = np.einsum("nij,nj->ni", vectors[at] ** 2, values[at])
        scale[at] = np.clip(1 / np.sqrt(sizes), 1e-4, 10.0)
        moved, decrement = _climb(probe, parts, at, g, y, log_p, score, values, vectors)
        peaked = np.all(w > 0, axis=1)
        found[at] = (decrement < _ENOUGH) & (moved < _MOVED) & peaked
    return Conditional(y, matrices, found)


def _precisions(
    probe: HostProbe,
    parts: Split,
    g: np.ndarray,
    y: np.ndarray,
    scale: np.ndarray,
    seen: Columns,
) -> np.ndarray:
    def scores(points: np.ndarray) -> np.ndarray:
        flat = points.reshape(-1, points.shape[2])
        repeated = np.repeat(g, points.shape[1], axis=0)
        return scores_of_locals(probe, parts, repeated, flat)[1].reshape(points.shape)

    return precisions(scores, y, scale, seen)


def _climb(
    probe: HostProbe,
    parts: Split,
    at: np.ndarray,
    g: np.ndarray,
    y: np.ndarray,
    log_p: np.ndarray,
    score: np.ndarray,
    values: np.ndarray,
    vectors: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Steps with the same second derivatives, of the points `at`, in place; how far these
    moved in all, and what is left of the scores."""
    moved, rate = np.zeros(len(at)), np.ones(len(at))

    def newton(of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inside = np.einsum("nji,nj->ni", vectors[of], score[of])
        step = np.einsum("nij,nj->ni", vectors[of], inside / values[of])
        return step, np.sum(inside**2 / values[of], axis=1)

    for _ in range(_MOST_STEPS):
        step, decrement = newton(at)
        live = np.flatnonzero(decrement > _FOUND)
        if len(live) == 0:
            break
        to = at[live]
        there = y[to] + rate[live, None] * step[live]
        new_log_p, new_score = scores_of_locals(probe, parts, g[to], there)
        # As much as rounding takes.
        rises = new_log_p > log_p[to] - 1e-3
        up, i = to[rises], live[rises]
        y[up], log_p[up], score[up] = there[rises], new_log_p[rises], new_score[rises]
        moved[i] += decrement[i] * rate[i]
        rate[i] = np.minimum(2 * rate[i], 1)
        rate[live[~rises]] *= 0.3
    return moved, newton(at)[1]
