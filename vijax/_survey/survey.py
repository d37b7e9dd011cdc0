"""Whether an answer has all modes: more starts, until few are left to be seen."""

import dataclasses

import numpy as np
from jaxtyping import Float

from .._arrays import cholesky, solve_lower
from .._auto.budget import SURVEY_EVALUATIONS
from .._auto.modes import most_modes, squared_radius
from .._auto.stages import AutoState, ENDLESS, NEGLIGIBLE, SAME, Survey
from .._keys import Seed
from .._linalg import gaussian_log_prob, mirrored
from .._solver import natural_gradient
from .._target.probe import HostProbe
from .climb import climb
from .rest import maximum
from .starts import around, images, spread


# Starts of a round: with those of the first stage so many that of modes to which a start
# in twenty leads none is missed but by a chance of a twentieth; fewer in high dimensions
# (there each holds a large matrix).
_MOST_STARTS, _FEWEST_STARTS, _NUMBERS = 48, 4, 4_800
_MOST_ROUNDS = 12
# The part of the starts that may lead to modes which nobody has seen.
UNSEEN = 0.05
# Where there are several modes others are likely: this part of so many starts.
_UNSEEN_OF_MANY, _MANY = 0.01, 500
# So many nats below the best one a mode need not be seen.
_MATTERS = 10.0
# What one ascent takes at most: so many times the fewest draws that it needs; and one
# that is to tell what an optimum is a part of.
_ASCENT, _SHORT_ASCENT = 30, 10
# After so many that came to known modes no more are made in a round.
_MOST_MERGED = 2
# Draws that estimate the ELBO of a path's Gaussian.
_DRAWS = 8
# Where the density has more nats than the known modes have is another one.
_EXCESS = 3.0
# Points that are looked at before each round: more where they come near to everything.
_MOST_LOOKED, _FEWEST_LOOKED, _LOOKED = 1_024, 256, 3_072
# What streams of random numbers are for.
_STARTING, _INSTEAD, _LOOKING, _ASCENDING = range(4)


@dataclasses.dataclass
class _Optimum:
    """Where paths came to rest, the Gaussian of one of them, how many they are, and of
    which mode this is a part."""

    x: Float[np.ndarray, " dim"]
    log_p: float
    loc: Float[np.ndarray, " dim"]
    tril: Float[np.ndarray, "dim dim"]
    elbo: float = np.nan
    times: int = 1
    mode: int | None = None
    is_verified: bool = False


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
    for number in range(1, _MOST_ROUNDS + 1):
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
        self._state, self._modes = state, state.modes
        self._probe, self._seed = probe, seed
        self._made = probe.num_evaluations
        left = max_evaluations - int(state.num_evaluations)
        self._most = min(SURVEY_EVALUATIONS, left)
        self._images = images(numbers)
        dim = state.ascent.loc.size
        count = np.clip(_NUMBERS // dim, _FEWEST_STARTS, _MOST_STARTS)
        self._num_starts = int(count)
        self._optima: list[_Optimum] = []
        self._looked, self._num_made = 0, len(state.tried)
        paths, best, first = state.paths, state.best, []
        for i in np.flatnonzero(paths.converged):
            optimum = _Optimum(paths.x[i], paths.log_p[i], best.loc[i], best.tril[i])
            optimum.elbo = float(best.elbo[i])
            if state.tried[i]:
                optimum.mode = int(np.argmin(self._squares(optimum.x[None])))
            first.append(optimum)
        self._take_in(first)

    @property
    def _num_modes(self) -> int:
        return int(self._modes.num_modes)

    @property
    def _elbos(self) -> np.ndarray:
        return self._modes.gaussians.elbo[: self._num_modes]

    @property
    def _best(self) -> float:
        return max([float(np.max(self._elbos)), *(o.elbo for o in self._apart)])

    @property
    def _apart(self) -> list[_Optimum]:
        """Those that are a part of no mode."""
        return [optimum for optimum in self._optima if optimum.mode is None]

    @property
    def is_spent(self) -> bool:
        """Whether the budget has no room for another round."""
        made = self._probe.num_evaluations - self._made
        return made + self._num_starts * natural_gradient.BATCH > self._most

    @property
    def unseen(self) -> float:
        """About the chance that the next start leads to a mode that nobody has seen."""
        return self._num_once / max(self._num_at_rest, 1)

    @property
    def is_enough(self) -> bool:
        """Whether few starts would lead to a mode that nobody has seen."""
        several = np.sum(self._elbos > self._best - _MATTERS) > 1
        # Where paths climb for ever more of them tell no more.
        if not several or self._num_at_rest < self._num_made / 2:
            return self.unseen <= UNSEEN
        return self._num_at_rest >= _MANY and self.unseen <= _UNSEEN_OF_MANY

    @property
    def _num_at_rest(self) -> int:
        return sum(optimum.times for optimum in self._optima)

    @property
    def _num_once(self) -> int:
        """How many modes that matter one start led to."""
        counts = np.zeros(self._num_modes, int)
        for optimum in self._optima:
            if optimum.mode is not None:
                counts[optimum.mode] += optimum.times
        least = self._best - _MATTERS
        apart = [o for o in self._apart if o.times == 1 and o.elbo > least]
        return int(np.sum((counts == 1) & (self._elbos > least))) + len(apart)

    @property
    def result(self) -> AutoState:
        """The state with all modes that were followed, and what was seen."""
        elbos = np.array([optimum.elbo for optimum in self._apart])
        total = np.logaddexp.reduce([*self._elbos, *elbos])
        left = float(np.sum(np.exp(elbos - total)))
        made = int(self._state.num_evaluations) + self._probe.num_evaluations - self._made
        num_apart = sum(o.times for o in self._apart if o.elbo > self._best - NEGLIGIBLE)
        counts = self._num_at_rest, num_apart, self._num_once
        at_rest, apart, once = (np.asarray(n, np.int32) for n in counts)
        return self._state._replace(
            modes=self._modes,
            num_evaluations=np.asarray(made, np.int32),
            survey=Survey(at_rest, apart, once, np.asarray(left)),
        )

    def look(self, number: int) -> bool:
        """One more round of starts; whether there are new modes."""
        generator = self._seed.generator(_STARTING, number)
        loc, tril, _ = (part[: self._num_modes] for part in self._modes.gaussians)
        top, dim = int(np.argmax(self._elbos)), loc.shape[1]
        starts = [*self._some_images(), self._unexplained(generator)]
        if number == 1:
            # Those that the first stage gave up go on.
            paths = self._state.paths
            left = paths.x[~paths.converged & np.isfinite(paths.log_p)]
            starts.append(left[: self._num_starts // 4])
        starts += [self._around(generator, self._num_starts // 2)]
        rest = max(self._num_starts - sum(map(len, starts)), 0)
        # At first around the answer alone: elsewhere the first stage has been.
        starts += [
            self._around(generator, rest) if number == 1 else spread(generator, rest, dim)
        ]
        starts = np.concatenate(starts)
        instead = self._seed.generator(_INSTEAD, number)
        others = lambda: spread(instead, len(starts), dim)
        self._num_made += len(starts)
        ends = climb(self._probe, starts, others, loc[top], tril[top])
        x, log_p, loc, tril, _ = (part[ends.converged] for part in ends)
        parts = zip(x, log_p, loc, tril, strict=True)
        self._take_in([_Optimum(*part) for part in parts])
        self._estimate(number)
        return self._follow()

    def _around(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Starts around modes, and around all of them together."""
        loc, tril, _ = (part[: self._num_modes] for part in self._modes.gaussians)
        if self._num_modes > 1:
            mean = np.mean(loc, axis=0)
            within = np.mean(tril @ np.swapaxes(tril, 1, 2), axis=0)
            apart = loc - mean
            whole = cholesky(within + apart.T @ apart / len(loc))
            loc, tril = (np.stack([*a, b]) for a, b in ((loc, mean), (tril, whole)))
        last = len(loc) - 1
        which = generator.integers(len(loc), size=count)
        which = np.where(generator.random(count) < 0.5, last, which)
        return around(generator, loc, tril, which)

    def _unexplained(self, generator: np.random.Generator) -> np.ndarray:
        """Of many points around modes, those of the highest density that no known mode
        explains."""
        dim = self._modes.gaussians.loc.shape[1]
        count = int(np.clip(_LOOKED // dim, _FEWEST_LOOKED, _MOST_LOOKED))
        x = self._around(generator, count)
        log_p = self._probe(x).log_p
        return self._best_of(x, log_p, log_p - self._log_known(x) > _EXCESS)

    def _some_images(self) -> list[np.ndarray]:
        """Images of the modes that were not looked at yet, which no mode explains."""
        out, (places, signs) = [], self._images
        for mode in range(self._looked, self._num_modes):
            x = self._modes.gaussians.loc[mode][places] * signs
            log_p = self._probe(x).log_p
            out.append(self._best_of(x, log_p, self._parts_of(x, log_p) < 0))
        self._looked = self._num_modes
        return out

    def _best_of(
        self, x: np.ndarray, log_p: np.ndarray, chosen: np.ndarray
    ) -> np.ndarray:
        order = np.argsort(-log_p)
        order = order[chosen[order] & np.isfinite(log_p[order])]
        return x[order[: self._num_starts // 4]]

    def _inside(self, x: np.ndarray) -> np.ndarray:
        """Points where each mode has mean zero and unit covariance, of shape
        `(modes, points, dim)`."""
        loc, tril, _ = self._modes.gaussians
        known = range(self._num_modes)
        return np.stack([solve_lower(tril[i], (x - loc[i]).T).T for i in known])

    def _squares(self, x: np.ndarray) -> np.ndarray:
        """The squared distance of each point to each mode, in its standard deviations, of
        shape `(modes, points)`."""
        return np.sum(self._inside(x) ** 2, axis=2)

    def _log_known(self, x: np.ndarray) -> np.ndarray:
        """The log density of the known modes together."""
        tril = self._modes.gaussians.tril[: self._num_modes]
        zero = gaussian_log_prob(tril, np.zeros((1, x.shape[1])))
        each = self._elbos[:, None] + zero - 0.5 * self._squares(x)
        return np.logaddexp.reduce(each, axis=0)

    def _parts_of(self, x: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        """The mode that each point is near to, and that has as much density there; -1 if
        none does."""
        squares = self._squares(x)
        is_near = np.min(squares, axis=0) < squared_radius(x.shape[1])
        explained = log_p - self._log_known(x) < _EXCESS
        return np.where(is_near & explained, np.argmin(squares, axis=0), -1)

    def _place(self, optimum: _Optimum) -> None:
        """Whether it is a part of a known mode."""
        part = int(self._parts_of(optimum.x[None], np.array([optimum.log_p]))[0])
        optimum.mode = None if part < 0 else part

    def _take_in(self, new: list[_Optimum]) -> None:
        """More paths that came to rest, some where others did."""
        if not new:
            return
        x = np.stack([optimum.x for optimum in [*self._optima, *new]])
        log_p = np.array([optimum.log_p for optimum in [*self._optima, *new]])
        z, places = self._inside(x), list(range(len(self._optima)))
        parts = self._parts_of(x, log_p)
        for i, optimum in enumerate(new, start=len(places)):
            gaps = np.sum((z[:, places] - z[:, [i]]) ** 2, axis=2)
            close = np.any(gaps < x.shape[1], axis=0)
            same = np.flatnonzero(close & (np.abs(log_p[places] - log_p[i]) < SAME))
            if len(same):
                self._optima[same[0]].times += optimum.times
                continue
            if optimum.mode is None and parts[i] >= 0:
                optimum.mode = int(parts[i])
            self._optima.append(optimum)
            places.append(i)

    def _estimate(self, number: int) -> None:
        """The ELBO of the Gaussians of those that are a part of no mode."""
        optima = [o for o in self._apart if np.isnan(o.elbo)]
        if not optima:
            return
        dim, count = len(optima[0].x), len(optima)
        half = self._seed.generator(_LOOKING, number).standard_normal((_DRAWS // 2, dim))
        e = mirrored(half)
        trils = np.stack([o.tril for o in optima])
        x = np.stack([o.loc for o in optima])[:, None] + np.einsum(
            "kij,sj->ksi", trils, e
        )
        log_p = self._probe(x.reshape(-1, dim)).log_p.reshape(count, -1)
        elbos = np.mean(log_p - gaussian_log_prob(trils, e), axis=1)
        for optimum, elbo in zip(optima, elbos, strict=True):
            optimum.elbo = float(np.nan_to_num(elbo, nan=-np.inf))

    def _follow(self) -> bool:
        """Ascend from what holds mass and is a part of no mode; whether that is one."""
        before, num_merged = self._num_modes, 0
        for optimum in sorted(self._apart, key=lambda o: -o.elbo):
            known = self._num_modes
            # Where most starts end is a part of the answer, or there is a better one.
            is_common = optimum.times > self._num_at_rest / 2
            is_worth_it = optimum.elbo > self._best - NEGLIGIBLE or is_common
            if self.is_spent or num_merged >= _MOST_MERGED:
                break
            if not is_worth_it:
                continue
            self._place(optimum)
            if optimum.mode is None and not optimum.is_verified:
                self._verify(optimum)
            is_left = any(optimum is other for other in self._apart)
            if is_left and known < most_modes(len(optimum.x)):
                is_common &= optimum.elbo <= self._best - NEGLIGIBLE
                optimum.mode = self._ascend(optimum, apart=not is_common)
                merged = optimum.mode is not None and self._num_modes == known
                num_merged += int(merged)
        return self._num_modes > before

    def _verify(self, optimum: _Optimum) -> None:
        """Put it at a maximum; if there is none, or this is known, it is no other one."""
        self._optima = [other for other in self._optima if other is not optimum]
        found = maximum(self._probe, optimum.x, optimum.tril)
        if found is not None:
            optimum.x, optimum.log_p, optimum.tril = found
            optimum.loc, optimum.is_verified = found.x, True
            self._take_in([optimum])

    def _ascend(self, optimum: _Optimum, *, apart: bool) -> int | None:
        """The mode that natural gradients lead to from there. A narrow one may be where a
        wide one has its mass, if it is known to be `apart`."""
        number = self._probe.num_evaluations
        generator = self._seed.generator(_ASCENDING, number)
        ascent = natural_gradient.begin(optimum.loc, optimum.tril)
        half = natural_gradient.BATCH // 2, optimum.loc.size
        with np.errstate(all="ignore"):
            # One that takes too long is as good as it gets.
            fewest = natural_gradient.fewest_draws(optimum.loc.size)
            most = number + fewest * (_ASCENT if apart else _SHORT_ASCENT)
            while not ascent.done and self._probe.num_evaluations < most:
                e = mirrored(generator.standard_normal(half))
                probes = self._probe(natural_gradient.ask(e, ascent))
                ascent = natural_gradient.tell(e, ascent, probes)
                if self.is_spent:
                    return None
        elbo = ascent.last.found.elbo
        if not np.max(np.abs(ascent.tril)) < ENDLESS or not np.isfinite(elbo):
            # Nothing to be reached from there.
            optimum.elbo = -np.inf
            return None
        same = self._modes.are_same(ascent.loc, ascent.tril, both=apart)
        same = same[: self._num_modes]
        if np.any(same):
            squares = self._squares(ascent.loc[None])[:, 0]
            return int(np.argmin(np.where(same, squares, np.inf)))
        if elbo < np.max(self._elbos) - _MATTERS:
            # As in the neck of a funnel, where a density is high and its mass little.
            optimum.elbo = -np.inf
            return None
        grown = self._modes.with_room(self._num_modes + 1)
        self._modes = grown.including(ascent.loc, ascent.tril, elbo)
        return self._num_modes - 1
