"""Natural gradients of a Gaussian's ELBO, from scores regressed on base noise."""

from typing import NamedTuple

import jax.lax as lax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import Point
from .._linalg import gaussian_log_prob, triangular_root
from .._misc import tree_where
from .._target.probe import Probes


RUNNING, CONVERGED, STALLED = 0, 1, 2

# The points of one step; an iteration gathers as many steps' as it needs.
BATCH = 64
# Standard error of the mean, in standard deviations, at which an answer is stable.
_TOLERANCE = 0.02
_MAX_DRAWS = 1024
_MAX_ITERATIONS = 100
_MAX_AVERAGED = 10
# The part of the squared gradient that a full step must take away.
_PROGRESS = 0.2
# The most that one iteration changes a variance.
_FACTOR = 4.0


class Sums(NamedTuple):
    """Sums over the draws of an iteration so far: `e` is base noise, `r` the residual
    `tril' score + e`, which is zero everywhere if the Gaussian is the target."""

    num_finite: Float[Array, ""]
    asked: Float[Array, ""]
    e: Float[Array, " dim"]
    r: Float[Array, " dim"]
    rr: Float[Array, " dim"]
    ee: Float[Array, "dim dim"]
    er: Float[Array, "dim dim"]
    elbo: Float[Array, ""]
    # About `shift`, lest the digits of a large log density run out.
    elbo_squared: Float[Array, ""]
    shift: Float[Array, ""]


class Regression(NamedTuple):
    """The natural gradient in the Gaussian's own coordinates, what is left of the
    residuals beside it, and the ELBO."""

    shift: Float[Array, " dim"]
    curvature: Float[Array, "dim dim"]
    spread: Float[Array, " dim"]
    elbo: Float[Array, ""]
    elbo_stderr: Float[Array, ""]


class Move(NamedTuple):
    """A Gaussian, what is known there, and how far one iteration may go."""

    loc: Float[Array, " dim"]
    tril: Float[Array, "dim dim"]
    found: Regression
    trust: Float[Array, ""]


class Ascent(NamedTuple):
    """The state of an ascent."""

    loc: Float[Array, " dim"]
    tril: Float[Array, "dim dim"]
    sums: Sums
    last: Move
    last_gain: Float[Array, ""]
    was_shortened: Bool[Array, ""]
    rate: Float[Array, ""]
    num_draws: Float[Array, ""]
    num_iterations: Int[Array, ""]
    num_averaged: Int[Array, ""]
    status: Int[Array, ""]

    @property
    def done(self) -> Array:
        """Whether nothing is left to do."""
        return self.status != RUNNING


def fewest_draws(dim: int) -> int:
    """What the regression takes: antithetic draws halve what is known of its slopes."""
    return max(BATCH, 6 * dim)


def begin(loc: Point, tril: Float[Array, "dim dim"]) -> Ascent:
    """The state before the first step, from a first Gaussian."""
    dim, dtype = loc.size, loc.dtype
    zero = jnp.zeros((), dtype)
    infinite = zero + jnp.inf
    still = jnp.zeros_like(loc)
    nothing = Regression(still, jnp.zeros_like(tril), still, -infinite, zero)
    return Ascent(
        loc=loc,
        tril=tril,
        sums=_empty(dim, dtype),
        last=Move(loc, tril, nothing, zero),
        last_gain=infinite,
        was_shortened=jnp.array(False),
        rate=zero + 1,
        num_draws=zero + fewest_draws(dim),
        num_iterations=jnp.zeros((), jnp.int32),
        num_averaged=jnp.zeros((), jnp.int32),
        status=jnp.full((), RUNNING, jnp.int32),
    )


def _empty(dim: int, dtype) -> Sums:
    zero, vector = jnp.zeros((), dtype), jnp.zeros(dim, dtype)
    matrix = jnp.zeros((dim, dim), dtype)
    return Sums(zero, zero, vector, vector, vector, matrix, matrix, zero, zero, zero)


def ask(e: Float[Array, "draws dim"], state: Ascent) -> Float[Array, "draws dim"]:
    """The points to evaluate next, from base noise: `BATCH` draws in pairs that mirror
    each other."""
    return state.loc + e @ state.tril.T


def tell(e: Float[Array, "draws dim"], state: Ascent, probes: Probes) -> Ascent:
    """Take in the target at the points that were asked for."""
    state = state._replace(sums=_gathered(e, state, probes))
    enough = state.sums.asked >= state.num_draws
    return lax.cond(enough, _iterate, lambda state: state, state)


def _log_ratios(state: Ascent, e: Array, probes: Probes) -> Array:
    """`log p - log q` at the draws; zero where they are not finite."""
    log_q = gaussian_log_prob(state.tril, e)
    return jnp.where(probes.finite, probes.log_p - log_q, 0)


def batch_elbo(
    e: Float[Array, "draws dim"], state: Ascent, probes: Probes
) -> Float[Array, ""]:
    """The ELBO as the finite ones of a step's draws see it; NaN if there are none."""
    return jnp.sum(_log_ratios(state, e, probes)) / jnp.sum(probes.finite)


def _gathered(e: Array, state: Ascent, probes: Probes) -> Sums:
    sums = state.sums
    r = probes.score @ state.tril + e
    counts = probes.finite.astype(e.dtype)[:, None]
    values = _log_ratios(state, e, probes)
    e, r = e * counts, r * counts
    count = jnp.sum(counts)
    first = jnp.sum(values) / jnp.maximum(count, 1)
    shift = jnp.where(sums.num_finite > 0, sums.shift, first)
    values = jnp.where(probes.finite, values - shift, 0)
    return Sums(
        num_finite=sums.num_finite + count,
        asked=sums.asked + len(e),
        e=sums.e + jnp.sum(e, axis=0),
        r=sums.r + jnp.sum(r, axis=0),
        rr=sums.rr + jnp.sum(r**2, axis=0),
        ee=sums.ee + e.T @ e,
        er=sums.er + e.T @ r,
        elbo=sums.elbo + jnp.sum(values),
        elbo_squared=sums.elbo_squared + jnp.sum(values**2),
        shift=shift,
    )


def _regress(sums: Sums) -> Regression:
    """The residual on `(1, e)`: its mean is the gradient of the location, its slope the
    one of the covariance (Stein's identity, with the draws' own moments as control)."""
    n = jnp.maximum(sums.num_finite, 1)
    dim = sums.e.size
    mean_e, mean_r = sums.e / n, sums.r / n
    cov_e = sums.ee / n - jnp.outer(mean_e, mean_e)
    cov_er = sums.er / n - jnp.outer(mean_e, mean_r)
    ridge = 1e-6 * jnp.eye(dim, dtype=cov_e.dtype)
    slope = jsl.cho_solve((jnp.linalg.cholesky(cov_e + ridge), True), cov_er)
    explained = jnp.sum(slope * cov_er, axis=0)
    variance = jnp.maximum(sums.rr / n - mean_r**2 - explained, 0)
    variance = variance * n / jnp.maximum(n - 2 * dim - 2, n / 4)
    elbo = sums.elbo / n
    elbo_variance = jnp.maximum(sums.elbo_squared / n - elbo**2, 0)
    return Regression(
        shift=mean_r - mean_e @ slope,
        curvature=0.5 * (slope + slope.T),
        spread=jnp.sqrt(variance),
        elbo=elbo + sums.shift,
        elbo_stderr=jnp.sqrt(elbo_variance / n),
    )


def _trust(found: Regression, count: Float[Array, ""]) -> Float[Array, ""]:
    """The factor by which one iteration may change a variance.

    More where the score is linear as far as the draws see, so that a target that is
    Gaussian is reached in one iteration from anywhere.
    """
    stderr = jnp.max(found.spread) / jnp.sqrt(count)
    return jnp.clip(0.1 / jnp.maximum(stderr, 1e-30), _FACTOR, 1e6)


def _stepped(move: Move, rate: Float[Array, ""]) -> tuple[Array, Array, Array]:
    """The Gaussian after a step of a natural gradient, within a trust region, and
    whether that shortened the step."""
    dim, found = move.loc.size, move.found
    eye = jnp.eye(dim, dtype=move.loc.dtype)
    free, vectors = jnp.linalg.eigh(eye - rate * found.curvature)
    values = jnp.clip(free, 1 / move.trust, move.trust)
    step = vectors @ ((vectors.T @ (rate * found.shift)) / values)
    length = jnp.sqrt(jnp.sum(step**2))
    limit = (dim**0.5 + 1) * move.trust / _FACTOR
    shortened = jnp.any(values != free) | (length > limit)
    step = step * jnp.minimum(1, limit / jnp.maximum(length, 1e-30))
    # A root of the covariance is updated, never the covariance, which has its condition
    # number squared.
    tril = triangular_root(move.tril @ (vectors / jnp.sqrt(values)))
    return move.loc + move.tril @ step, tril, shortened


def _iterate(state: Ascent) -> Ascent:
    sums = state.sums
    found = _regress(sums)
    sound = (sums.num_finite >= 0.5 * sums.asked) & jnp.isfinite(found.elbo)
    sound &= jnp.all(jnp.isfinite(found.curvature)) & jnp.all(jnp.isfinite(found.shift))
    stderr = jnp.hypot(found.elbo_stderr, state.last.found.elbo_stderr)
    # Where the Gaussian reaches into a wall, no standard error means anything.
    slack = jnp.minimum(3 * stderr, state.loc.size + 3) + 0.1
    rise = found.elbo - state.last.found.elbo
    worse = ~sound | (rise < -slack)
    planned = tree_where(worse, _back(state), _onward(state, found, rise > slack))

    loc, tril, shortened = _stepped(planned.last, planned.rate)
    # Where nothing was ever sound, a narrower Gaussian may be.
    never = worse & ~jnp.isfinite(state.last.found.elbo)
    stalled = planned.status == STALLED
    pick = lambda stepped, last, narrower: jnp.where(
        never, narrower, jnp.where(stalled, last, stepped)
    )
    num_iterations = state.num_iterations + 1
    tired = (num_iterations >= _MAX_ITERATIONS) & (planned.status == RUNNING)
    return planned._replace(
        loc=pick(loc, state.last.loc, state.loc),
        tril=pick(tril, state.last.tril, 0.5 * state.tril),
        was_shortened=jnp.where(worse, state.was_shortened, shortened),
        sums=_empty(state.loc.size, state.loc.dtype),
        num_iterations=num_iterations,
        status=jnp.where(tired, STALLED, planned.status),
    )


def _back(state: Ascent) -> Ascent:
    """The last step once more, but shorter."""
    never = ~jnp.isfinite(state.last.found.elbo)
    rate = jnp.where(never, state.rate, 0.35 * state.rate)
    stalled = (rate < 1e-4) & ~never
    status = jnp.where(stalled, STALLED, RUNNING)
    return state._replace(rate=rate, status=status.astype(jnp.int32))


def _onward(state: Ascent, found: Regression, rising: Bool[Array, ""]) -> Ascent:
    """The next step: its direction, rate, and how many draws the one after it takes. The
    ELBO may be `rising` by more than noise."""
    dim, n = state.loc.size, jnp.maximum(state.sums.num_finite, 1)
    gain = jnp.sum(found.shift**2) / 2 + jnp.sum(found.curvature**2) / 4
    floor = 3 * jnp.sum(found.spread**2) / n * (dim + 3) / 4 + _TOLERANCE**2 / 8
    stderr = jnp.max(found.spread) / jnp.sqrt(n)
    at_floor = gain < floor
    most = max(_MAX_DRAWS, fewest_draws(dim))
    wanted = n * jnp.clip((stderr / _TOLERANCE) ** 2, 1, 4)
    num_draws = jnp.where(at_floor, jnp.minimum(wanted, most), state.num_draws)

    # With as many draws as there may be, the answer is averaged over iterations; not on
    # the way to it, where the score may be rough enough to hide its direction.
    averages = ((at_floor & (n >= most)) | (state.num_averaged > 0)) & ~rising
    num_averaged = jnp.where(averages, state.num_averaged + 1, 0)
    enough = stderr / jnp.sqrt(jnp.maximum(num_averaged, 1)) < _TOLERANCE
    converged = (at_floor & (stderr < _TOLERANCE)) | (averages & enough)
    converged |= num_averaged >= _MAX_AVERAGED
    # A step is too long if neither the gradient falls as it should nor, as in a bent
    # valley, the ELBO rises. One that was shortened says nothing of its rate.
    fallen = gain < (1 - _PROGRESS * state.rate) * state.last_gain
    promised = (1 - (1 - state.rate) ** 2) * state.last_gain
    risen = found.elbo - state.last.found.elbo > 0.5 * promised
    slow = ~fallen & ~risen & ~state.was_shortened
    rate = jnp.where(
        slow, jnp.maximum(0.7 * state.rate, 0.1), jnp.minimum(1, 1.3 * state.rate)
    )
    rate = jnp.where(state.num_averaged > 0, 1 / (num_averaged + 1.0), rate)
    return state._replace(
        last=Move(state.loc, state.tril, found, _trust(found, n)),
        last_gain=gain,
        rate=rate.astype(state.rate.dtype),
        num_draws=num_draws.astype(state.num_draws.dtype),
        num_averaged=num_averaged.astype(jnp.int32),
        status=jnp.where(converged, CONVERGED, RUNNING).astype(jnp.int32),
    )
