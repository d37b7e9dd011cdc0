"""Where each round of a survey starts from."""

import numpy as np

from .._arrays import cholesky
from .._auto.modes import Modes
from .._auto.stages import AutoState
from .._keys import Seed
from .._target.probe import HostProbe
from .optima import EXCESS, log_density, parts_of
from .starts import around, between, images, spread


# Points that are looked at before each round: more where they come near to everything.
_MOST_LOOKED, _FEWEST_LOOKED, _LOOKED = 1_024, 256, 3_072
# What a stream of random numbers is for; others have the next ones.
_STARTING = 0


class Rounds:
    """Starts around the answer, at its images, at the densest of many points, anywhere,
    and where the first stage gave up."""

    def __init__(
        self,
        state: AutoState,
        probe: HostProbe,
        seed: Seed,
        numbers: dict[str, np.ndarray],
        num_starts: int,
    ):
        self._paths, self._probe, self._seed = state.paths, probe, seed
        self._dim = state.paths.x.shape[1]
        self._images = images(numbers)
        self._num_starts = num_starts
        # Of how many modes the images were looked at.
        self._looked = 0

    def starts(self, number: int, modes: Modes) -> np.ndarray:
        """Those of a round, from the first one on, with what is known by then."""
        generator = self._seed.generator(_STARTING, number)
        known = modes.gaussians
        starts = [*self._some_images(modes), self._unexplained(generator, modes)]
        if number == 1:
            # Those that the first stage gave up go on.
            paths = self._paths
            left = paths.x[~paths.converged & np.isfinite(paths.log_p)]
            starts.append(left[: self._num_starts // 4])
        several = len(known.elbo) > 1
        near = self._num_starts // (8 if several else 2)
        starts += [self._around(generator, modes, near)]
        rest = max(self._num_starts - sum(map(len, starts)), 0)
        if several:
            # Starts around known modes lead to these.
            wide = rest // 4
            starts += [between(generator, known.loc, known.tril, rest - wide)]
            starts += [spread(generator, wide, self._dim)]
        elif number == 1:
            # At first around the answer alone: elsewhere the first stage has been.
            starts += [self._around(generator, modes, rest)]
        else:
            starts += [spread(generator, rest, self._dim)]
        return np.concatenate(starts)

    def _around(
        self, generator: np.random.Generator, modes: Modes, count: int
    ) -> np.ndarray:
        """Starts around modes, and as many around all of them together."""
        loc, tril, _ = modes.gaussians
        if len(loc) > 1:
            mean = np.mean(loc, axis=0)
            within = np.mean(tril @ np.swapaxes(tril, 1, 2), axis=0)
            apart = loc - mean
            whole = cholesky(within + apart.T @ apart / len(loc))
            loc, tril = (np.stack([*a, b]) for a, b in ((loc, mean), (tril, whole)))
        which = generator.integers(len(loc), size=count)
        which = np.where(generator.random(count) < 0.5, len(loc) - 1, which)
        return around(generator, loc, tril, which)

    def _unexplained(self, generator: np.random.Generator, modes: Modes) -> np.ndarray:
        """Of many points around modes, and where several leave room, those of the highest
        density that no known mode explains."""
        count = int(np.clip(_LOOKED // self._dim, _FEWEST_LOOKED, _MOST_LOOKED))
        x = self._around(generator, modes, count)
        known = modes.gaussians
        if len(known.elbo) > 1:
            x = np.concatenate([x, between(generator, known.loc, known.tril, count)])
        log_p = self._probe(x).log_p
        return self._best_of(x, log_p, log_p - log_density(modes, x) > EXCESS)

    def _some_images(self, modes: Modes) -> list[np.ndarray]:
        """Images of the modes that were not looked at yet, which no mode explains."""
        out, (places, signs) = [], self._images
        for loc in modes.gaussians.loc[self._looked :]:
            x = loc[places] * signs
            log_p = self._probe(x).log_p
            out.append(self._best_of(x, log_p, parts_of(modes, x, log_p) < 0))
        self._looked = len(modes.gaussians.elbo)
        return out

    def _best_of(
        self, x: np.ndarray, log_p: np.ndarray, chosen: np.ndarray
    ) -> np.ndarray:
        order = np.argsort(-log_p)
        order = order[chosen[order] & np.isfinite(log_p[order])]
        return x[order[: self._num_starts // 4]]
