"""Whether an answer has all modes: more starts, until few are left to be seen."""

import numpy as np

from .._auto.budget import SURVEY_EVALUATIONS
from .._auto.modes import most_modes
from .._auto.stages import AutoState, ENDLESS, NEGLIGIBLE, Survey
from .._keys import Seed
from .._linalg import gaussian_log_prob, mirrored
from .._solver import natural_gradient
from .._target.probe import HostProbe
from .climb import climb
from .optima import Optima, Optimum
from .rest import maximum
from .rounds import Rounds
from .starts import spread


# Starts of a round: with those of the first stage so many that of modes to which a start
# in twenty leads none is missed but by a chance of a twentieth; fewer in high dimensions
# (there each holds a large matrix).
_MOST_STARTS, _FEWEST_STARTS, _NUMBERS = 48, 4, 4_800
_MOST_ROUNDS = 12
# The part of the starts that may lead to modes which nobody has seen.
UNSEEN = 0.05
# Where there are several modes others are likely: this part of so many starts, and of
# more in some dimensions, where narrow modes are hard to hit. In many they are not hit.
_UNSEEN_OF_MANY, _MANY, _MORE, _SOME_DIM = 0.01, 500, 1_000, (6, 20)
# So many nats below the best one a mode need not be seen.
_MATTERS = 10.0
# What one ascent takes at most: so many times the fewest draws that it needs; and one
# that is to tell what an optimum is a part of.
_ASCENT, _SHORT_ASCENT = 30, 10
# After so many that came to known modes no more are made in a round.
_MOST_MERGED = 2
# Draws that estimate the ELBO of a path's Gaussian.
_DRAWS = 8
# What streams of random numbers are for.
_INSTEAD, _LOOKING, _ASCENDING = range(1, 4)


def survey(
    state: AutoState,
    probe: HostProbe,
    seed: Seed,
    numbers: dict[str, np.ndarray],
    max_evaluations: int,
) -> AutoState:
    """Look for modes from more starts, and follow those that hold mass.

    Starts are around the answer, at its images under changes of signs and of labels, and
    anywhere. By Good and Turing, the part of the starts whose mode no other start led to
    is about the chance that the next one leads to a mode which nobody has seen: rounds of
    starts go on until it is small, or a budget is spent.

    **Arguments:**

    - `state`: what the first stage ended with, of which a mode is known.
    - `probe`: evaluates the target.
    - `seed`: randomness of the starts.
    - `numbers`: the coordinates of each parameter.
    - `max_evaluations`: the most gradients of all stages.

    **Reference:** Good (1953), *The population frequencies of species and the estimation
    of population parameters*, Biometrika 40(3/4).
    """
    surveying = _Surveying(state, probe, seed, numbers, max_evaluations)
    for number in range(1, surveying.most_rounds + 1):
        grown = surveying.look(number)
        if surveying.is_spent or (not grown and surveying.is_enough):
            break
    return surveying.result


class _Surveying:
    """A survey in progress."""

    def __init__(
        self,
        state: AutoState,
        probe: HostProbe,
        seed: Seed,
        numbers: dict[str, np.ndarray],
        max_evaluations: int,
    ):
        self._state, self.modes = state, state.modes.trimmed()
        self._probe, self._seed = probe, seed
        self._made = probe.num_evaluations
        left = max_evaluations - int(state.num_evaluations)
        self._most = min(SURVEY_EVALUATIONS, left)
        count = np.clip(_NUMBERS // self._dim, _FEWEST_STARTS, _MOST_STARTS)
        self._num_starts, self._num_made = int(count), len(state.tried)
        self._rounds = Rounds(state, probe, seed, numbers, self._num_starts)
        paths, best, first = state.paths, state.best, []
        for i in np.flatnonzero(paths.converged):
            optimum = Optimum(paths.x[i], paths.log_p[i], best.loc[i], best.tril[i])
            optimum.elbo = float(best.elbo[i])
            if state.tried[i]:
                optimum.mode = self._nearest(optimum.x)
            first.append(optimum)
        self.optima = Optima()
        self.optima.take_in(first, self.modes)

    @property
    def _dim(self) -> int:
        return self.modes.gaussians.loc.shape[1]

    @property
    def _elbos(self) -> np.ndarray:
        return self.modes.gaussians.elbo

    @property
    def _best(self) -> float:
        return max([float(np.max(self._elbos)), *(o.elbo for o in self.optima.apart)])

    @property
    def is_spent(self) -> bool:
        """Whether the budget has no room for another round."""
        made = self._probe.num_evaluations - self._made
        return made + self._num_starts * natural_gradient.BATCH > self._most

    @property
    def is_enough(self) -> bool:
        """Whether few starts would lead to a mode that nobody has seen."""
        at_rest = self.optima.num_at_rest
        unseen = self._num_once / max(at_rest, 1)
        several = np.sum(self._elbos > self._best - _MATTERS) > 1
        # Where paths climb for ever more of them tell no more.
        if not several or at_rest < self._num_made / 2:
            return unseen <= UNSEEN
        return at_rest >= self._many and unseen <= _UNSEEN_OF_MANY

    @property
    def _many(self) -> int:
        fewest, most = _SOME_DIM
        return _MORE if fewest <= self._dim <= most else _MANY

    @property
    def most_rounds(self) -> int:
        """After so many no more is learned."""
        return _MOST_ROUNDS * self._many // _MANY

    @property
    def _num_once(self) -> int:
        return self.optima.num_once(self.modes, self._best - _MATTERS)

    @property
    def result(self) -> AutoState:
        """The state with all modes that were followed, and what was seen."""
        apart = self.optima.apart
        elbos = np.array([optimum.elbo for optimum in apart])
        total = np.logaddexp.reduce([*self._elbos, *elbos])
        left = float(np.sum(np.exp(elbos - total)))
        made = int(self._state.num_evaluations) + self._probe.num_evaluations - self._made
        num_apart = sum(o.times for o in apart if o.elbo > self._best - NEGLIGIBLE)
        as_count = lambda number: np.asarray(number, np.int32)
        seen = Survey(
            num_starts=as_count(self._num_made),
            num_at_rest=as_count(self.optima.num_at_rest),
            num_apart=as_count(num_apart),
            num_once=as_count(self._num_once),
            left=np.asarray(left),
        )
        return self._state._replace(
            modes=self.modes,
            num_evaluations=as_count(made),
            survey=seen,
        )

    def look(self, number: int) -> bool:
        """One more round of starts; whether there are new modes."""
        known = self.modes.gaussians
        starts = self._rounds.starts(number, self.modes)
        instead = self._seed.generator(_INSTEAD, number)
        others = lambda: spread(instead, len(starts), self._dim)
        self._num_made += len(starts)
        top = int(np.argmax(known.elbo))
        ends = climb(self._probe, starts, others, known.loc[top], known.tril[top])
        x, log_p, loc, tril, _ = (part[ends.converged] for part in ends)
        parts = zip(x, log_p, loc, tril, strict=True)
        self.optima.take_in([Optimum(*part) for part in parts], self.modes)
        self._estimate(number)
        return self.follow()

    def _nearest(self, x: np.ndarray) -> int:
        """The mode that a point is nearest to, in its standard deviations."""
        return int(np.argmin(np.sum(self.modes.coordinates(x[None]) ** 2, axis=(1, 2))))

    def _estimate(self, number: int) -> None:
        """The ELBO of the Gaussians of those that are a part of no mode."""
        optima = [o for o in self.optima.apart if np.isnan(o.elbo)]
        if not optima:
            return
        half = self._seed.generator(_LOOKING, number)
        e = mirrored(half.standard_normal((_DRAWS // 2, self._dim)))
        trils = np.stack([o.tril for o in optima])
        steps = np.einsum("kij,sj->ksi", trils, e)
        x = np.stack([o.loc for o in optima])[:, None] + steps
        log_p = self._probe(x.reshape(-1, self._dim)).log_p
        log_q = gaussian_log_prob(trils, e)
        elbos = np.mean(log_p.reshape(log_q.shape) - log_q, axis=1)
        for optimum, elbo in zip(optima, elbos, strict=True):
            optimum.elbo = float(np.nan_to_num(elbo, nan=-np.inf))

    def follow(self) -> bool:
        """Ascend from what holds mass and is a part of no mode; whether that is one."""
        before, num_merged = len(self._elbos), 0
        for optimum in sorted(self.optima.apart, key=lambda o: -o.elbo):
            if self.is_spent or num_merged >= _MOST_MERGED:
                break
            has_mass = optimum.elbo > self._best - NEGLIGIBLE
            # Where most starts end is a part of the answer, or there is a better one.
            is_common = optimum.times > self.optima.num_at_rest / 2
            if (has_mass or is_common) and self._is_another(optimum):
                known = len(self._elbos)
                optimum.mode = self._ascend(optimum, has_mass=has_mass)
                merged = optimum.mode is not None and len(self._elbos) == known
                num_merged += int(merged)
        return len(self._elbos) > before

    def _is_another(self, optimum: Optimum) -> bool:
        """Put it at its maximum, and say whether that is a part of no mode which is known
        by now, and may be another."""
        self.optima.leave_out(optimum)
        if not optimum.is_verified:
            found = maximum(self._probe, optimum.x, optimum.tril)
            if found is None:
                return False
            optimum.x, optimum.log_p, optimum.tril = found
            optimum.loc, optimum.is_verified = found.x, True
        self.optima.take_in([optimum], self.modes)
        is_left = any(optimum is other for other in self.optima.apart)
        return is_left and len(self._elbos) < most_modes(self._dim)

    def _ascend(self, optimum: Optimum, *, has_mass: bool) -> int | None:
        """The mode that natural gradients lead to from there. A narrow one may be where a
        wide one has its mass, but one without mass of its own is a part of that."""
        made = self._probe.num_evaluations
        generator = self._seed.generator(_ASCENDING, made)
        ascent = natural_gradient.begin(optimum.loc, optimum.tril)
        fewest = natural_gradient.fewest_draws(self._dim)
        most = made + fewest * (_ASCENT if has_mass else _SHORT_ASCENT)
        with np.errstate(all="ignore"):
            # One that takes too long is as good as it gets.
            while not ascent.done and self._probe.num_evaluations < most:
                half = generator.standard_normal((natural_gradient.BATCH // 2, self._dim))
                e = mirrored(half)
                probes = self._probe(natural_gradient.ask(e, ascent))
                ascent = natural_gradient.tell(e, ascent, probes)
                if self.is_spent:
                    return None
        elbo = ascent.last.found.elbo
        if not np.max(np.abs(ascent.tril)) < ENDLESS or not np.isfinite(elbo):
            # Nothing to be reached from there.
            optimum.elbo = -np.inf
            return None
        if np.any(self.modes.are_same(ascent.loc, ascent.tril, both=has_mass)):
            return self._nearest(ascent.loc)
        if elbo < np.max(self._elbos) - _MATTERS:
            # As in the neck of a funnel, where a density is high and its mass little.
            optimum.elbo = -np.inf
            return None
        self.modes = self.modes.appended(ascent.loc, ascent.tril, elbo)
        return len(self._elbos) - 1
