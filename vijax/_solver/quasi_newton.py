"""BFGS from several starts in lockstep, one trial point a start and step."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._linalg import equilibrated_cholesky, one_by_one, where_rows
from .._target.probe import Probes


_MAX_STEPS = 150
_MAX_FAILURES = 10
_ARMIJO = 1e-4
# A Newton decrement at which the mode is a hundredth of a nat away.
DECREMENT = 1e-2
# A gain, in nats, that a path at rest does not make.
_REST = 0.1
# How often a start without a finite log density is drawn anew.
_MAX_DRAWS = 20


class Paths(NamedTuple):
    """One entry of the leading axis a start."""

    x: Float[Array, "paths dim"]
    log_p: Float[Array, " paths"]
    score: Float[Array, "paths dim"]
    inverse: Float[Array, "paths dim dim"]
    rate: Float[Array, " paths"]
    failures: Int[Array, " paths"]
    is_first: Bool[Array, " paths"]
    done: Bool[Array, " paths"]
    converged: Bool[Array, " paths"]
    # Where a path seemed to be at rest, before it was started once more from there.
    rest_log_p: Float[Array, " paths"]
    rest_inverse: Float[Array, "paths dim dim"]
    num_steps: Int[Array, ""]
    num_draws: Int[Array, ""]

    @property
    def found(self) -> Bool[Array, " paths"]:
        """Which starts have a finite log density."""
        return jnp.isfinite(self.log_p)


def begin(first: Float[Array, " dim"], others: Float[Array, "paths dim"]) -> Paths:
    """Paths at `first` and at all of `others` but one, of which nothing is known yet."""
    num_paths, dim = others.shape
    x = others.at[0].set(first)
    zeros = jnp.zeros(num_paths, first.dtype)
    eye = jnp.broadcast_to(jnp.eye(dim, dtype=first.dtype), (num_paths, dim, dim))
    no = jnp.zeros(num_paths, bool)
    return Paths(
        x=x,
        log_p=zeros - jnp.inf,
        score=jnp.zeros_like(x),
        inverse=eye,
        rate=zeros + 1,
        failures=jnp.zeros(num_paths, jnp.int32),
        is_first=~no,
        done=no,
        converged=no,
        rest_log_p=zeros - jnp.inf,
        rest_inverse=eye,
        num_steps=jnp.zeros((), jnp.int32),
        num_draws=jnp.zeros((), jnp.int32),
    )


def _matvec(matrix: Array, vector: Array) -> Array:
    return jnp.einsum("kij,kj->ki", matrix, vector)


def _dot(x: Array, y: Array) -> Array:
    return jnp.sum(x * y, axis=1)


def ask(paths: Paths) -> Float[Array, "paths dim"]:
    """The points to evaluate next."""
    step = paths.rate[:, None] * _matvec(paths.inverse, paths.score)
    return jnp.where(paths.found[:, None], paths.x + step, paths.x)


def tell(
    others: Float[Array, "paths dim"],
    paths: Paths,
    probes: Probes,
    decrement: float = DECREMENT,
) -> Paths:
    """Take in the target at the points that were asked for. Where no point of a path was
    finite so far, it is replaced by one of `others`. A path is at rest where its Newton
    decrement is below `decrement`."""
    fresh = ~paths.found
    placed = _place(others, paths, probes)
    moved = _move(paths, probes, decrement)
    new = where_rows(fresh, placed, moved)
    tired = jnp.all(paths.found) | (paths.num_draws >= _MAX_DRAWS)
    new = new._replace(
        num_steps=paths.num_steps + 1,
        num_draws=paths.num_draws + 1,
        done=new.done | (~new.found & tired),
    )
    return new._replace(done=new.done | (new.num_steps >= _MAX_STEPS))


def _place(others: Array, paths: Paths, probes: Probes) -> Paths:
    """Starts whose first point was evaluated: kept if finite, else another one."""
    size = jnp.sqrt(_dot(probes.score, probes.score))
    return paths._replace(
        x=jnp.where(probes.finite[:, None], probes.x, others),
        log_p=probes.log_p,
        score=probes.score,
        # A first step of a length of one, or of the gradient's where that is shorter.
        rate=1 / jnp.maximum(size, 1),
        done=probes.finite & (size == 0),
        converged=probes.finite & (size == 0),
    )


def _move(paths: Paths, probes: Probes, enough: float) -> Paths:
    eps = jnp.finfo(paths.x.dtype).eps
    direction = _matvec(paths.inverse, paths.score)
    slope = _dot(direction, paths.score)
    gain = probes.log_p - paths.log_p
    # What a difference of two rounded log densities cannot tell from zero.
    rounding = 4 * eps * jnp.maximum(jnp.abs(paths.log_p), 1)
    accept = probes.finite & (gain >= _ARMIJO * paths.rate * slope - rounding)
    accept &= ~paths.done

    inverse = _updated(paths, probes)
    # Failed: the maximum of the parabola through what is known, but no small step.
    curvature = 2 * (paths.rate * slope - gain)
    best = paths.rate * slope / jnp.where(curvature > 0, curvature, jnp.inf)
    ratio = jnp.where(probes.finite, jnp.clip(best, 0.1, 0.5), 0.1)
    failures = jnp.where(accept, 0, paths.failures + 1)
    reset = failures == _MAX_FAILURES
    eye = jnp.eye(paths.x.shape[1], dtype=paths.x.dtype)
    size = jnp.sqrt(_dot(paths.score, paths.score))
    after_failure = jnp.where(reset, 1 / jnp.maximum(size, 1), paths.rate * ratio)
    kept = jnp.where(reset[:, None, None], eye, paths.inverse)

    inverse = jnp.where(accept[:, None, None], inverse, kept)
    score = jnp.where(accept[:, None], probes.score, paths.score)
    decrement = _dot(score, _matvec(inverse, score))
    tolerance = jnp.maximum(enough, rounding)
    log_p = jnp.where(accept, probes.log_p, paths.log_p)
    # An inverse Hessian that has seen steep directions only takes flat ones for flat
    # optima: it is believed when a fresh start from there comes to the same.
    resting = accept & (decrement < tolerance) & ~paths.is_first
    converged = resting & (log_p < paths.rest_log_p + _REST)
    again = resting & ~converged
    done = converged | (failures >= 2 * _MAX_FAILURES)
    restored = jnp.where(converged[:, None, None], paths.rest_inverse, inverse)
    rest_inverse = jnp.where(again[:, None, None], inverse, paths.rest_inverse)
    size = jnp.sqrt(_dot(score, score))
    rate = jnp.where(accept, 1, after_failure)
    moved = Paths(
        x=jnp.where(accept[:, None], probes.x, paths.x),
        log_p=log_p,
        score=score,
        inverse=jnp.where(again[:, None, None], eye, restored),
        rate=jnp.where(again, 1 / jnp.maximum(size, 1), rate).astype(paths.rate.dtype),
        failures=failures,
        is_first=(paths.is_first & ~accept) | reset | again,
        done=done,
        converged=converged,
        rest_log_p=jnp.where(again, log_p, paths.rest_log_p),
        rest_inverse=rest_inverse,
        num_steps=paths.num_steps,
        num_draws=paths.num_draws,
    )
    # Counts of all paths together have no rows, and are the same in both.
    return where_rows(paths.done, paths, moved)


def _updated(paths: Paths, probes: Probes) -> Float[Array, "paths dim dim"]:
    """The BFGS update of the inverse Hessian; none where a curvature is negative."""
    s = probes.x - paths.x
    y = paths.score - probes.score
    sy = _dot(s, y)
    yy = _dot(y, y)
    ok = sy > 1e-8 * jnp.sqrt(_dot(s, s) * yy)
    safe = jnp.where(ok, sy, 1)
    # Before the first update, the unit matrix in the scale that was just seen.
    scale = jnp.where(paths.is_first, safe / jnp.where(ok, yy, 1), 1)
    inverse = paths.inverse * scale[:, None, None]
    hy = _matvec(inverse, y)
    outer = jnp.einsum("ki,kj->kij", hy, s)
    factor = (1 + _dot(y, hy) / safe) / safe
    new = (
        inverse
        - (outer + jnp.swapaxes(outer, 1, 2)) / safe[:, None, None]
        + factor[:, None, None] * jnp.einsum("ki,kj->kij", s, s)
    )
    finite = jnp.all(jnp.isfinite(new), axis=(1, 2))
    return jnp.where((ok & finite)[:, None, None], new, paths.inverse)


def gaussians(paths: Paths) -> tuple[Array, Array]:
    """At each path, the mode and the Cholesky factor that the inverse Hessian implies."""
    step = _matvec(paths.inverse, paths.score)
    length = jnp.sqrt(_dot(step, step))
    # A step that the next iteration would shorten is no mean.
    limit = jnp.minimum(1, 10 / jnp.maximum(length, 1e-30))
    loc = paths.x + jnp.where(paths.is_first, 0, limit)[:, None] * step
    jitter = 10 * float(jnp.finfo(loc.dtype).eps)
    root = lambda matrix: equilibrated_cholesky(matrix, jitter)
    roots = one_by_one(root, paths.inverse)
    return loc, roots
