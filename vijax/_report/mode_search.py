"""A search for modes that a fit may have missed, which no weights would show."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from .._arrays import cholesky, solve_lower
from .._auto.modes import squared_radius
from .._custom_types import Key
from .._host_distributions import Elliptical
from .._keys import Seed
from .._linalg import equilibrated_cholesky, triangular_root
from .._solver import curvature
from .._survey.climb import climb, Ends
from .._survey.starts import around, images, spread
from .._target.coordinates import numbers_of
from .._target.probe import HostProbe


# So many times as many starts are around the draws as anywhere.
_AROUND = 4
# How many of the ends elsewhere are looked at more closely.
_MOST = 3
# Ends whose log densities differ by less than this are the same, most likely.
_SAME = 0.5


class Starts(NamedTuple):
    """How many starts came to rest where the answer is, and elsewhere; the part of the
    mass elsewhere, as far as that was looked at; and about the part of the starts that
    would lead to modes which nobody has seen."""

    num_near: int
    num_apart: int
    other_share: float = 0.0
    unseen: float = 0.0


def _search(
    probe: HostProbe, x: Float[np.ndarray, "draws dim"], key: Key, num_starts: int
) -> tuple[Ends, Bool[np.ndarray, " starts"]]:
    """Where starts came to rest, and whether that is where the draws are."""
    generator, dim = Seed(key).generator(0), x.shape[1]
    loc = np.mean(x, axis=0)
    root = equilibrated_cholesky((x - loc).T @ (x - loc) / len(x), 1e-4)
    which = np.zeros(_AROUND * num_starts, int)
    places, signs = images(numbers_of(probe.target))
    reflected = loc[places] * signs
    log_p = probe(reflected).log_p
    is_far = np.sum(Elliptical(loc, root).inside(reflected) ** 2, axis=1)
    order = np.argsort(np.where(is_far < squared_radius(dim), np.inf, -log_p))
    initial = np.asarray(probe.target.model.initial(), np.float64)[None]
    starts = [
        initial,
        spread(generator, num_starts - 1, dim),
        around(generator, loc[None], root[None], which),
        reflected[order[: num_starts // 2]],
    ]
    starts = np.concatenate(starts)
    ends = climb(probe, starts, lambda: spread(generator, len(starts), dim), loc, root)
    z = Elliptical(loc, root).inside(ends.x)
    return ends, np.sum(z**2, axis=1) < squared_radius(dim)


def _log_evidence(probe: HostProbe, ends: Ends, i: int) -> float:
    """By Laplace's approximation at the end of a path; NaN where that is no maximum."""
    with np.errstate(all="ignore"):
        root = ends.tril[i]
        width = np.array(curvature.width_for(float(np.finfo(probe.dtype).eps)))
        # The path's own idea of the curvature is a unit for the first look only.
        for _ in range(2):
            probes = probe(curvature.around(ends.x[i], root, width))
            found = curvature.curvature(probes.score, root, width)
            factor = cholesky(found)
            if not np.all(probes.finite) or not np.all(np.isfinite(factor)):
                return np.nan
            root = triangular_root(solve_lower(factor, root.T).T)
    log_det = np.sum(np.log(np.diagonal(root)))
    return float(ends.log_p[i] + 0.5 * len(root) * np.log(2 * np.pi) + log_det)


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
    - `num_starts`: how many anywhere; there are four times as many around the draws.
        Keyword only.
    """
    ends, is_near = _search(probe, x, key, num_starts)
    places, log_p = np.flatnonzero(ends.converged & ~is_near), ends.log_p
    places = places[np.argsort(-log_p[places])]
    share, last, looked = 0.0, np.inf, 0
    for i in places:
        if looked == _MOST:
            break
        if last - log_p[i] < _SAME:
            continue
        last, looked = log_p[i], looked + 1
        mass = _log_evidence(probe, ends, int(i)) - log_evidence
        if np.isfinite(mass):
            share = max(share, float(1 / (1 + np.exp(-np.clip(mass, -700, 700)))))
    return Starts(int(np.sum(ends.converged & is_near)), len(places), share)
