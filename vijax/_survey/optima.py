"""Where paths came to rest: how many did, and of which mode that is a part."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from .._auto.modes import Modes, squared_radius
from .._auto.stages import SAME
from .._linalg import gaussian_log_prob


# Where the density has more nats than the known modes have is another one.
EXCESS = 3.0


@dataclasses.dataclass
class Optimum:
    """Where paths came to rest, the Gaussian of one of them and its ELBO, NaN as long as
    nobody knows; how many they are, of which mode this is a part, if it is, and whether
    it is known to be a maximum."""

    x: Float[np.ndarray, " dim"]
    log_p: float
    loc: Float[np.ndarray, " dim"]
    tril: Float[np.ndarray, "dim dim"]
    elbo: float = np.nan
    times: int = 1
    mode: int | None = None
    is_verified: bool = False


def log_density(
    modes: Modes, x: Float[np.ndarray, "points dim"]
) -> Float[np.ndarray, " points"]:
    """What the Gaussians of all modes together have."""
    center = gaussian_log_prob(modes.gaussians.tril, np.zeros((1, x.shape[1])))
    squares = np.sum(modes.coordinates(x) ** 2, axis=2)
    each = modes.gaussians.elbo[:, None] + center - 0.5 * squares
    return np.logaddexp.reduce(each, axis=0)


def parts_of(
    modes: Modes,
    x: Float[np.ndarray, "points dim"],
    log_p: Float[np.ndarray, " points"],
) -> Int[np.ndarray, " points"]:
    """The mode that each point is near to, and that has as much density there; -1 if none
    does."""
    squares = np.sum(modes.coordinates(x) ** 2, axis=2)
    is_near = np.min(squares, axis=0) < squared_radius(x.shape[1])
    explained = log_p - log_density(modes, x) < EXCESS
    return np.where(is_near & explained, np.argmin(squares, axis=0), -1)


class Optima:
    """All that were found so far, each once."""

    def __init__(self):
        self._all: list[Optimum] = []

    @property
    def apart(self) -> list[Optimum]:
        """Those that are a part of no mode."""
        return [optimum for optimum in self._all if optimum.mode is None]

    @property
    def num_at_rest(self) -> int:
        """How many paths came to rest."""
        return sum(optimum.times for optimum in self._all)

    def num_once(self, modes: Modes, least: float) -> int:
        """To how many modes, or optima that are a part of none, of an ELBO above `least`,
        one path led."""
        counts = np.zeros(len(modes.gaussians.elbo), int)
        for optimum in self._all:
            if optimum.mode is not None:
                counts[optimum.mode] += optimum.times
        alone = [o for o in self.apart if o.times == 1 and o.elbo > least]
        return int(np.sum((counts == 1) & (modes.gaussians.elbo > least))) + len(alone)

    def leave_out(self, optimum: Optimum) -> None:
        """As if no path had come to rest there."""
        self._all = [other for other in self._all if other is not optimum]

    def take_in(self, new: list[Optimum], modes: Modes) -> None:
        """More paths that came to rest, some where others did."""
        if not new:
            return
        x = np.stack([optimum.x for optimum in [*self._all, *new]])
        log_p = np.array([optimum.log_p for optimum in [*self._all, *new]])
        z, parts = modes.coordinates(x), parts_of(modes, x, log_p)
        # The rows of those that are kept, in their order.
        rows = list(range(len(self._all)))
        for i, optimum in enumerate(new, start=len(rows)):
            gaps = np.sum((z[:, rows] - z[:, [i]]) ** 2, axis=2)
            close = np.any(gaps < x.shape[1], axis=0)
            same = np.flatnonzero(close & (np.abs(log_p[rows] - log_p[i]) < SAME))
            if len(same):
                self._all[same[0]].times += optimum.times
                continue
            if optimum.mode is None and parts[i] >= 0:
                optimum.mode = int(parts[i])
            self._all.append(optimum)
            rows.append(i)
