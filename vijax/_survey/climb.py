"""Paths uphill from any starts, in the coordinates of an answer."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from .._solver import quasi_newton
from .._target.probe import HostProbe, Probes


# The most steps, which from a thousand standard deviations away takes: those of a density
# without a maximum would never end.
_LAST = 60
# Once most paths are at rest, the others have so many times as long, and a few steps.
_MOST, _LONGER, _AT_LEAST = 0.75, 2, 10


class Ends(NamedTuple):
    """Where paths ended, the log density there, the Gaussians that the paths think of,
    and which of them came to rest."""

    x: Float[np.ndarray, "paths dim"]
    log_p: Float[np.ndarray, " paths"]
    loc: Float[np.ndarray, "paths dim"]
    tril: Float[np.ndarray, "paths dim dim"]
    converged: Bool[np.ndarray, " paths"]


def climb(
    probe: HostProbe,
    starts: Float[np.ndarray, "paths dim"],
    others: Callable[[], Float[np.ndarray, "paths dim"]],
    loc: Float[np.ndarray, " dim"],
    tril: Float[np.ndarray, "dim dim"],
) -> Ends:
    """Follow the gradient from all `starts`, where `tril` is the unit: few steps then.

    `others` makes starts in place of those where the density is not finite.
    """
    inside = lambda x: np.linalg.solve(tril, (x - loc).T).T
    z = inside(starts)
    with np.errstate(all="ignore"):
        paths = quasi_newton.begin(z[0], z)
        last = _LAST
        while not np.all(paths.done) and paths.num_steps < last:
            asked, count = quasi_newton.ask(paths)
            probes = _seen(probe, asked, int(count), loc, tril)
            instead = z if np.all(paths.found) else inside(others())
            paths = quasi_newton.tell(instead, paths, probes)
            if np.mean(paths.done) >= _MOST and last == _LAST:
                last = min(_LAST, _LONGER * paths.num_steps + _AT_LEAST)
        centers, roots = quasi_newton.gaussians(paths)
        x = loc + paths.x @ tril.T
        return Ends(x, paths.log_p, loc + centers @ tril.T, tril @ roots, paths.converged)


def _seen(
    probe: HostProbe, z: np.ndarray, count: int, loc: np.ndarray, tril: np.ndarray
) -> Probes:
    probes = probe(loc + z @ tril.T, count)
    return probes._replace(x=z, score=probes.score @ tril)
