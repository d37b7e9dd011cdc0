"""BFGS from several starts in lockstep, one trial point a start and step."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .._arrays import erf, namespace, one_by_one, set_at
from .._custom_types import AnyArray
from .._linalg import equilibrated_cholesky, where_rows
from .._target.probe import Probes


_MAX_STEPS = 150
_MAX_FAILURES = 10
_ARMIJO = 1e-4
# A Newton decrement at which the mode is a hundredth of a nat away.
DECREMENT = 1e-2
# A gain, in nats, that a path at rest does not make.
_REST = 0.1
# After so many steps a path is left behind that lacks so many nats, times as many and
# what the middle one lacks.
_LATE, _FAR_BEHIND = 20, 100.0
# How often a start without a finite log density is drawn anew.
_MAX_DRAWS = 20


class Paths(NamedTuple):
    """One entry of the leading axis a start."""

    x: Float[AnyArray, "paths dim"]
    log_p: Float[AnyArray, " paths"]
    score: Float[AnyArray, "paths dim"]
    inverse: Float[AnyArray, "paths dim dim"]
    rate: Float[AnyArray, " paths"]
    failures: Int[AnyArray, " paths"]
    is_first: Bool[AnyArray, " paths"]
    done: Bool[AnyArray, " paths"]
    converged: Bool[AnyArray, " paths"]
    # Where a path seemed to be at rest, before it was started once more from there.
    rest_log_p: Float[AnyArray, " paths"]
    rest_inverse: Float[AnyArray, "paths dim dim"]
    num_steps: Int[AnyArray, ""]
    num_draws: Int[AnyArray, ""]

    @property
    def found(self) -> Bool[AnyArray, " paths"]:
        """Which starts have a finite log density."""
        return namespace(self.log_p).isfinite(self.log_p)


def begin(first: Float[AnyArray, " dim"], others: Float[AnyArray, "paths dim"]) -> Paths:
    """Paths at `first` and at all of `others` but one, of which nothing is known yet."""
    xp, (num_paths, dim) = namespace(first), others.shape
    x = set_at(others, 0, first)
    zeros = xp.zeros(num_paths, first.dtype)
    eye = xp.broadcast_to(xp.eye(dim, dtype=first.dtype), (num_paths, dim, dim))
    no = xp.zeros(num_paths, bool)
    return Paths(
        x=x,
        log_p=zeros - xp.inf,
        score=xp.zeros_like(x),
        inverse=eye,
        rate=zeros + 1,
        failures=xp.zeros(num_paths, xp.int32),
        is_first=~no,
        done=no,
        converged=no,
        rest_log_p=zeros - xp.inf,
        rest_inverse=eye,
        num_steps=xp.zeros((), xp.int32),
        num_draws=xp.zeros((), xp.int32),
    )


def uniform_starts(
    noise: Float[AnyArray, "*starts dim"],
) -> Float[AnyArray, "*starts dim"]:
    """Starting points from standard normal noise: uniform in (-2, 2)."""
    return 2 * erf(noise / np.sqrt(2).astype(noise.dtype))


def _matvec(matrix: AnyArray, vector: AnyArray) -> AnyArray:
    return namespace(matrix).einsum("kij,kj->ki", matrix, vector)


def _dot(x: AnyArray, y: AnyArray) -> AnyArray:
    return namespace(x).sum(x * y, axis=1)


def ask(paths: Paths) -> tuple[Float[AnyArray, "paths dim"], Int[AnyArray, ""]]:
    """The points to evaluate next, and how many: those of paths that are done come last,
    and need not be evaluated."""
    xp = namespace(paths.x)
    step = paths.rate[:, None] * _matvec(paths.inverse, paths.score)
    x = xp.where(paths.found[:, None], paths.x + step, paths.x)
    return x[_order(paths)], xp.sum(~paths.done)


def _order(paths: Paths) -> Int[AnyArray, " paths"]:
    return namespace(paths.x).argsort(paths.done, stable=True)


def tell(
    others: Float[AnyArray, "paths dim"],
    paths: Paths,
    probes: Probes,
    decrement: float = DECREMENT,
) -> Paths:
    """Take in the target at the points that were asked for, the first of those that were
    evaluated. Where no point of a path was finite so far, it is replaced by one of
    `others`. A path is at rest where its Newton decrement is below `decrement`."""
    xp, fresh = namespace(paths.x), ~paths.found
    probes = probes.first(len(paths.x)).take(xp.argsort(_order(paths)))
    placed = _place(others, paths, probes)
    moved = _move(paths, probes, decrement)
    new = where_rows(fresh, placed, moved)
    tired = xp.all(paths.found) | (paths.num_draws >= _MAX_DRAWS)
    new = new._replace(
        num_steps=paths.num_steps + 1,
        num_draws=paths.num_draws + 1,
        done=new.done | (~new.found & tired),
    )
    over = (new.num_steps >= _MAX_STEPS) | _is_left_behind(new)
    return new._replace(done=new.done | over)


def _is_left_behind(paths: Paths) -> Bool[AnyArray, " paths"]:
    """Which paths are where the density is next to nothing, as most others long are not:
    an equation may be stiff there, and a value take a hundred times as long."""
    xp = namespace(paths.log_p)
    lag = xp.max(paths.log_p) - paths.log_p
    middle = xp.sort(lag)[len(lag) // 2]
    behind = lag > _FAR_BEHIND * (_FAR_BEHIND + middle)
    return behind & (paths.num_steps >= _LATE)


def _place(others: AnyArray, paths: Paths, probes: Probes) -> Paths:
    """Starts whose first point was evaluated: kept if finite, else another one."""
    xp = namespace(paths.x)
    size = xp.sqrt(_dot(probes.score, probes.score))
    return paths._replace(
        x=xp.where(probes.finite[:, None], probes.x, others),
        log_p=probes.log_p,
        score=probes.score,
        # A first step of a length of one, or of the gradient's where that is shorter.
        rate=1 / xp.maximum(size, 1),
        done=probes.finite & (size == 0),
        converged=probes.finite & (size == 0),
    )


def _move(paths: Paths, probes: Probes, enough: float) -> Paths:
    xp, eps = namespace(paths.x), probes.eps
    direction = _matvec(paths.inverse, paths.score)
    slope = _dot(direction, paths.score)
    gain = probes.log_p - paths.log_p
    # What a difference of two rounded log densities cannot tell from zero.
    rounding = 4 * eps * xp.maximum(xp.abs(paths.log_p), 1)
    accept = probes.finite & (gain >= _ARMIJO * paths.rate * slope - rounding)
    accept &= ~paths.done

    inverse = _updated(paths, probes)
    # Failed: the maximum of the parabola through what is known, but no small step.
    curvature = 2 * (paths.rate * slope - gain)
    best = paths.rate * slope / xp.where(curvature > 0, curvature, xp.inf)
    ratio = xp.where(probes.finite, xp.clip(best, 0.1, 0.5), 0.1)
    failures = xp.where(accept, 0, paths.failures + 1)
    reset = failures == _MAX_FAILURES
    eye = xp.eye(paths.x.shape[1], dtype=paths.x.dtype)
    size = xp.sqrt(_dot(paths.score, paths.score))
    after_failure = xp.where(reset, 1 / xp.maximum(size, 1), paths.rate * ratio)
    kept = xp.where(reset[:, None, None], eye, paths.inverse)

    inverse = xp.where(accept[:, None, None], inverse, kept)
    score = xp.where(accept[:, None], probes.score, paths.score)
    decrement = _dot(score, _matvec(inverse, score))
    tolerance = xp.maximum(enough, rounding)
    log_p = xp.where(accept, probes.log_p, paths.log_p)
    # An inverse Hessian that has seen steep directions only takes flat ones for flat
    # optima: it is believed when a fresh start from there comes to the same.
    resting = accept & (decrement < tolerance) & ~paths.is_first
    converged = resting & (log_p < paths.rest_log_p + _REST)
    again = resting & ~converged
    done = converged | (failures >= 2 * _MAX_FAILURES)
    restored = xp.where(converged[:, None, None], paths.rest_inverse, inverse)
    rest_inverse = xp.where(again[:, None, None], inverse, paths.rest_inverse)
    size = xp.sqrt(_dot(score, score))
    rate = xp.where(accept, 1, after_failure)
    moved = Paths(
        x=xp.where(accept[:, None], probes.x, paths.x),
        log_p=log_p,
        score=score,
        inverse=xp.where(again[:, None, None], eye, restored),
        rate=xp.where(again, 1 / xp.maximum(size, 1), rate).astype(paths.rate.dtype),
        failures=failures,
        is_first=(paths.is_first & ~accept) | reset | again,
        done=done,
        converged=converged,
        rest_log_p=xp.where(again, log_p, paths.rest_log_p),
        rest_inverse=rest_inverse,
        num_steps=paths.num_steps,
        num_draws=paths.num_draws,
    )
    # Counts of all paths together have no rows, and are the same in both.
    return where_rows(paths.done, paths, moved)


def _updated(paths: Paths, probes: Probes) -> Float[AnyArray, "paths dim dim"]:
    """The BFGS update of the inverse Hessian; none where a curvature is negative."""
    xp = namespace(paths.x)
    s = probes.x - paths.x
    y = paths.score - probes.score
    sy = _dot(s, y)
    yy = _dot(y, y)
    ok = sy > 1e-8 * xp.sqrt(_dot(s, s) * yy)
    safe = xp.where(ok, sy, 1)
    # Before the first update, the unit matrix in the scale that was just seen.
    scale = xp.where(paths.is_first, safe / xp.where(ok, yy, 1), 1)
    inverse = paths.inverse * scale[:, None, None]
    hy = _matvec(inverse, y)
    outer = xp.einsum("ki,kj->kij", hy, s)
    factor = (1 + _dot(y, hy) / safe) / safe
    new = (
        inverse
        - (outer + xp.swapaxes(outer, 1, 2)) / safe[:, None, None]
        + factor[:, None, None] * xp.einsum("ki,kj->kij", s, s)
    )
    finite = xp.all(xp.isfinite(new), axis=(1, 2))
    return xp.where((ok & finite)[:, None, None], new, paths.inverse)


def gaussians(paths: Paths) -> tuple[AnyArray, AnyArray]:
    """At each path, the mode and the Cholesky factor that the inverse Hessian implies."""
    xp = namespace(paths.x)
    step = _matvec(paths.inverse, paths.score)
    length = xp.sqrt(_dot(step, step))
    # A step that the next iteration would shorten is no mean.
    limit = xp.minimum(1, 10 / xp.maximum(length, 1e-30))
    loc = paths.x + xp.where(paths.is_first, 0, limit)[:, None] * step
    jitter = 10 * float(np.finfo(loc.dtype).eps)
    root = lambda matrix: equilibrated_cholesky(matrix, jitter)
    roots = one_by_one(root, paths.inverse)
    return loc, roots
