"""Natural gradients of a Gaussian's ELBO, from scores regressed on base noise."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from .._arrays import choose, cond, eigh, namespace
from .._custom_types import AnyArray
from .._linalg import triangular_root
from .._target.probe import Probes
from .score_regression import gathered, log_ratios, no_sums, regress, Regression, Sums


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


class Move(NamedTuple):
    """A Gaussian, what is known there, and how far one iteration may go."""

    loc: Float[AnyArray, " dim"]
    tril: Float[AnyArray, "dim dim"]
    found: Regression
    trust: Float[AnyArray, ""]


class Ascent(NamedTuple):
    """The state of an ascent."""

    loc: Float[AnyArray, " dim"]
    tril: Float[AnyArray, "dim dim"]
    sums: Sums
    last: Move
    last_gain: Float[AnyArray, ""]
    was_shortened: Bool[AnyArray, ""]
    rate: Float[AnyArray, ""]
    num_draws: Float[AnyArray, ""]
    num_iterations: Int[AnyArray, ""]
    num_averaged: Int[AnyArray, ""]
    status: Int[AnyArray, ""]

    @property
    def done(self) -> AnyArray:
        """Whether nothing is left to do."""
        return self.status != RUNNING


def fewest_draws(dim: int) -> int:
    """What the regression takes: antithetic draws halve what is known of its slopes."""
    return max(BATCH, 6 * dim)


def begin(loc: Float[AnyArray, " dim"], tril: Float[AnyArray, "dim dim"]) -> Ascent:
    """The state before the first step, from a first Gaussian."""
    xp, dim, dtype = namespace(loc), loc.size, loc.dtype
    zero = xp.zeros((), dtype)
    infinite = zero + xp.inf
    still = xp.zeros_like(loc)
    nothing = Regression(still, xp.zeros_like(tril), still, -infinite, zero)
    return Ascent(
        loc=loc,
        tril=tril,
        sums=no_sums(loc),
        last=Move(loc, tril, nothing, zero),
        last_gain=infinite,
        was_shortened=xp.array(False),
        rate=zero + 1,
        num_draws=zero + fewest_draws(dim),
        num_iterations=xp.zeros((), xp.int32),
        num_averaged=xp.zeros((), xp.int32),
        status=xp.full((), RUNNING, xp.int32),
    )


def ask(e: Float[AnyArray, "draws dim"], state: Ascent) -> Float[AnyArray, "draws dim"]:
    """The points to evaluate next, from base noise: `BATCH` draws in pairs that mirror
    each other."""
    return state.loc + e @ state.tril.T


def tell(e: Float[AnyArray, "draws dim"], state: Ascent, probes: Probes) -> Ascent:
    """Take in the target at the points that were asked for."""
    state = state._replace(sums=gathered(state.sums, state.tril, e, probes))
    enough = state.sums.asked >= state.num_draws
    return cond(enough, _iterate, lambda state: state, state)


def batch_elbo(
    e: Float[AnyArray, "draws dim"], state: Ascent, probes: Probes
) -> Float[AnyArray, ""]:
    """The ELBO as the finite ones of a step's draws see it; NaN if there are none."""
    xp = namespace(e)
    return xp.sum(log_ratios(state.tril, e, probes)) / xp.sum(probes.finite)


def _trust(found: Regression, count: Float[AnyArray, ""]) -> Float[AnyArray, ""]:
    """The factor by which one iteration may change a variance.

    More where the score is linear as far as the draws see, so that a target that is
    Gaussian is reached in one iteration from anywhere.
    """
    xp = namespace(found.spread)
    stderr = xp.max(found.spread) / xp.sqrt(count)
    return xp.clip(0.1 / xp.maximum(stderr, 1e-30), _FACTOR, 1e6)


def _stepped(
    move: Move, rate: Float[AnyArray, ""]
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """The Gaussian after a step of a natural gradient, within a trust region, and
    whether that shortened the step."""
    xp, dim, found = namespace(move.loc), move.loc.size, move.found
    eye = xp.eye(dim, dtype=move.loc.dtype)
    free, vectors = eigh(eye - rate * found.curvature)
    values = xp.clip(free, 1 / move.trust, move.trust)
    step = vectors @ ((vectors.T @ (rate * found.shift)) / values)
    length = xp.sqrt(xp.sum(step**2))
    limit = (dim**0.5 + 1) * move.trust / _FACTOR
    shortened = xp.any(values != free) | (length > limit)
    step = step * xp.minimum(1, limit / xp.maximum(length, 1e-30))
    # A root of the covariance is updated, never the covariance, which has its condition
    # number squared.
    tril = triangular_root(move.tril @ (vectors / xp.sqrt(values)))
    return move.loc + move.tril @ step, tril, shortened


def _iterate(state: Ascent) -> Ascent:
    xp, sums = namespace(state.loc), state.sums
    found = regress(sums)
    sound = (sums.num_finite >= 0.5 * sums.asked) & xp.isfinite(found.elbo)
    sound &= xp.all(xp.isfinite(found.curvature)) & xp.all(xp.isfinite(found.shift))
    stderr = xp.hypot(found.elbo_stderr, state.last.found.elbo_stderr)
    # Where the Gaussian reaches into a wall, no standard error means anything.
    slack = xp.minimum(3 * stderr, state.loc.size + 3) + 0.1
    rise = found.elbo - state.last.found.elbo
    worse = ~sound | (rise < -slack)
    planned = choose(worse, _back(state), _onward(state, found, rise > slack))

    loc, tril, shortened = _stepped(planned.last, planned.rate)
    # Where nothing was ever sound, a narrower Gaussian may be.
    never = worse & ~xp.isfinite(state.last.found.elbo)
    stalled = planned.status == STALLED
    pick = lambda stepped, last, narrower: xp.where(
        never, narrower, xp.where(stalled, last, stepped)
    )
    num_iterations = state.num_iterations + 1
    tired = (num_iterations >= _MAX_ITERATIONS) & (planned.status == RUNNING)
    return planned._replace(
        loc=pick(loc, state.last.loc, state.loc),
        tril=pick(tril, state.last.tril, 0.5 * state.tril),
        was_shortened=xp.where(worse, state.was_shortened, shortened),
        sums=no_sums(state.loc),
        num_iterations=num_iterations,
        status=xp.where(tired, STALLED, planned.status),
    )


def _back(state: Ascent) -> Ascent:
    """The last step once more, but shorter."""
    xp = namespace(state.loc)
    never = ~xp.isfinite(state.last.found.elbo)
    rate = xp.where(never, state.rate, 0.35 * state.rate)
    stalled = (rate < 1e-4) & ~never
    status = xp.where(stalled, STALLED, RUNNING)
    return state._replace(rate=rate, status=status.astype(xp.int32))


def _onward(state: Ascent, found: Regression, rising: Bool[AnyArray, ""]) -> Ascent:
    """The next step: its direction, rate, and how many draws the one after it takes. The
    ELBO may be `rising` by more than noise."""
    xp, dim = namespace(state.loc), state.loc.size
    n = xp.maximum(state.sums.num_finite, 1)
    gain = xp.sum(found.shift**2) / 2 + xp.sum(found.curvature**2) / 4
    floor = 3 * xp.sum(found.spread**2) / n * (dim + 3) / 4 + _TOLERANCE**2 / 8
    stderr = xp.max(found.spread) / xp.sqrt(n)
    at_floor = gain < floor
    most = max(_MAX_DRAWS, fewest_draws(dim))
    wanted = n * xp.clip((stderr / _TOLERANCE) ** 2, 1, 4)
    num_draws = xp.where(at_floor, xp.minimum(wanted, most), state.num_draws)

    # With as many draws as there may be, the answer is averaged over iterations; not on
    # the way to it, where the score may be rough enough to hide its direction.
    averages = ((at_floor & (n >= most)) | (state.num_averaged > 0)) & ~rising
    num_averaged = xp.where(averages, state.num_averaged + 1, 0)
    enough = stderr / xp.sqrt(xp.maximum(num_averaged, 1)) < _TOLERANCE
    converged = (at_floor & (stderr < _TOLERANCE)) | (averages & enough)
    converged |= num_averaged >= _MAX_AVERAGED
    # A step is too long if neither the gradient falls as it should nor, as in a bent
    # valley, the ELBO rises. One that was shortened says nothing of its rate.
    fallen = gain < (1 - _PROGRESS * state.rate) * state.last_gain
    promised = (1 - (1 - state.rate) ** 2) * state.last_gain
    risen = found.elbo - state.last.found.elbo > 0.5 * promised
    slow = ~fallen & ~risen & ~state.was_shortened
    rate = xp.where(
        slow, xp.maximum(0.7 * state.rate, 0.1), xp.minimum(1, 1.3 * state.rate)
    )
    rate = xp.where(state.num_averaged > 0, 1 / (num_averaged + 1.0), rate)
    return state._replace(
        last=Move(state.loc, state.tril, found, _trust(found, n)),
        last_gain=gain,
        rate=rate.astype(state.rate.dtype),
        num_draws=num_draws.astype(state.num_draws.dtype),
        num_averaged=num_averaged.astype(xp.int32),
        status=xp.where(converged, CONVERGED, RUNNING).astype(xp.int32),
    )
