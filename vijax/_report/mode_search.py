"""A search for modes that a fit may have missed, which no weights would show."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from .._arrays import cholesky, solve_lower
from .._auto.modes import squared_radius
from .._auto.stages import spread_starts
from .._custom_types import Key
from .._host_distributions import Elliptical
from .._keys import Seed
from .._linalg import equilibrated_cholesky, mirrored, triangular_root
from .._solver import curvature, quasi_newton
from .._target.probe import HostProbe


# How many of the ends elsewhere are looked at more closely.
_MOST = 3
# Ends whose log densities differ by less than this are the same, most likely.
_SAME = 0.5


class Starts(NamedTuple):
    """How many starts came to rest where the answer is, and elsewhere; and the part of
    the mass at the best place elsewhere, as far as that was looked at."""

    num_near: int
    num_apart: int
    other_share: float = 0.0


class _Ends(NamedTuple):
    paths: quasi_newton.Paths
    near: Bool[np.ndarray, " starts"]
    apart: Bool[np.ndarray, " starts"]


def _search(
    probe: HostProbe, x: Float[np.ndarray, "draws dim"], key: Key, num_starts: int
) -> _Ends:
    seed, dim = Seed(key), x.shape[1]

    def others(step: int) -> np.ndarray:
        half = seed.generator(step).standard_normal(((num_starts + 1) // 2, dim))
        return spread_starts(mirrored(half), num_starts)

    initial = np.asarray(probe.target.model.initial(), np.float64)
    paths, step = quasi_newton.begin(initial, others(0)), 0
    while not np.all(paths.done):
        step += 1
        probes = probe(quasi_newton.ask(paths))
        with np.errstate(all="ignore"):
            paths = quasi_newton.tell(others(step), paths, probes)
    loc = np.mean(x, axis=0)
    root = equilibrated_cholesky((x - loc).T @ (x - loc) / len(x), 1e-4)
    z = Elliptical(loc, root).inside(paths.x)
    near = np.sum(z**2, axis=1) < squared_radius(dim)
    return _Ends(paths, paths.converged & near, paths.converged & ~near)


def _log_evidence(probe: HostProbe, paths: quasi_newton.Paths, i: int) -> float:
    """By Laplace's approximation at the end of a path; NaN where that is no maximum."""
    with np.errstate(all="ignore"):
        root = quasi_newton.gaussians(paths)[1][i]
        width = np.array(curvature.width_for(float(np.finfo(probe.dtype).eps)))
        # The path's own idea of the curvature is a unit for the first look only.
        for _ in range(2):
            probes = probe(curvature.around(paths.x[i], root, width))
            found = curvature.curvature(probes.score, root, width)
            factor = cholesky(found)
            if not np.all(probes.finite) or not np.all(np.isfinite(factor)):
                return np.nan
            root = triangular_root(solve_lower(factor, root.T).T)
    log_det = np.sum(np.log(np.diagonal(root)))
    return float(paths.log_p[i] + 0.5 * len(root) * np.log(2 * np.pi) + log_det)


def search_for_modes(
    probe: HostProbe,
    x: Float[np.ndarray, "draws dim"],
    log_evidence: float,
    *,
    key: Key,
    num_starts: int,
) -> Starts:
    """Search from several starts for modes that are not where the draws are.

    **Arguments:**

    - `probe`: evaluates what was approximated. All of its data are used.
    - `x`: draws of the approximation.
    - `log_evidence`: the evidence that the approximation accounts for.
    - `key`: randomness of the starts. Keyword only.
    - `num_starts`: how many. Keyword only.
    """
    ends = _search(probe, x, key, num_starts)
    places, log_p = np.flatnonzero(ends.apart), ends.paths.log_p
    places = places[np.argsort(-log_p[places])]
    share, last, looked = 0.0, np.inf, 0
    for i in places:
        if looked == _MOST:
            break
        if last - log_p[i] < _SAME:
            continue
        last, looked = log_p[i], looked + 1
        mass = _log_evidence(probe, ends.paths, int(i)) - log_evidence
        if np.isfinite(mass):
            share = max(share, float(1 / (1 + np.exp(-np.clip(mass, -700, 700)))))
    return Starts(int(ends.near.sum()), len(places), share)
