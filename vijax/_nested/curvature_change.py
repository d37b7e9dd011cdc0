"""Which coordinates are globals: those whose movement changes the curvature of the
others."""

import numpy as np
from jaxtyping import Float, Int

from .._linalg import triangular_root
from .._target.probe import HostProbe
from .split import Split


# Points that are looked around: the mean, and draws so many sds wide.
_NUM_PLACES, _WIDTH = 3, 0.7
# Random directions in which curvature is seen, for all the coordinates together.
_DIRECTIONS = 60
# A difference of scores is over so many sds to each side.
_STEP = 0.1
# What one direction counts at most.
_MOST = 25.0


def changes(
    probe: HostProbe,
    tril: Float[np.ndarray, "dim dim"],
    loc: Float[np.ndarray, " dim"],
    parts: Split,
    candidates: Int[np.ndarray, " candidates"],
    generator: np.random.Generator,
) -> Float[np.ndarray, " candidates"]:
    """How the curvature of the locals changes where one of them, a candidate, is moved by
    its sd given the globals, and the others follow by their regression on it: the
    Frobenius norm of the change, in units of their covariance given both.

    A fourth of its square is about the divergence between the Gaussians before and after.
    """
    dim, rest = loc.size, parts.locals
    order = np.concatenate([parts.globals, rest])
    count = len(parts.globals)
    root = triangular_root(tril[order])[count:, count:]
    # In the coordinates of `root` a candidate moves along a unit vector, and the others
    # given it are what is orthogonal to that.
    units = root / np.linalg.norm(root, axis=1, keepdims=True)
    units = units[np.searchsorted(rest, candidates)]
    num_directions = max(1, round(_DIRECTIONS / dim))
    shape = _NUM_PLACES, len(candidates), num_directions, len(rest)
    noise = _orthogonal(generator.standard_normal(shape), units)
    moves, looks = np.zeros((len(candidates), dim)), np.zeros((*shape[:3], dim))
    moves[:, rest], looks[..., rest] = units @ root.T, noise @ root.T
    around = generator.standard_normal((_NUM_PLACES, dim))
    around[0] = 0
    places = (loc + _WIDTH * around @ tril.T)[:, None, None]
    x = np.stack(
        [
            places + side * 0.5 * moves[None, :, None] + sign * _STEP * looks
            for side in (1, -1)
            for sign in (1, -1)
        ]
    )
    score = probe.raw(x.reshape(-1, dim))[2].reshape(x.shape)[..., rest]
    with np.errstate(all="ignore"):
        change = (score[0] - score[1] - score[2] + score[3]) / (2 * _STEP)
        squares = np.sum(_orthogonal(change @ root, units) ** 2, axis=3)
    # Where a score is not finite, the curvature is another indeed.
    squares = np.where(np.isnan(squares), _MOST, np.minimum(squares, _MOST))
    return np.sqrt(np.mean(squares, axis=(0, 2)))


def _orthogonal(vectors: np.ndarray, units: np.ndarray) -> np.ndarray:
    along = np.einsum("pcdi,ci->pcd", vectors, units)[..., None]
    return vectors - along * units[:, None]
