"""Where a density rises to, of points that hardly any of its mass is at."""

import numpy as np
from jaxtyping import Float


# Points within so many sds, and more with more coordinates, are believed.
_NEAR, _NEARER = 3.5, 0.3
# A nat below the best of them counts by so much less.
_RATE = 0.05
# By how much variances may change, and how many sds the center may move.
_FACTOR, _FAR = 9.0, 3.0


def climbed(
    u: Float[np.ndarray, "points dim"], log_p: Float[np.ndarray, " points"]
) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, "dim dim"]]:
    """The center and a root of the covariance of the Gaussian whose log density is the
    nearest at these points, which lie around the origin with unit covariance."""
    dim = u.shape[1]
    near = np.linalg.norm(u, axis=1) < _NEAR + _NEARER * dim
    near &= np.isfinite(log_p)
    if near.sum() < (dim + 1) * (dim + 2) // 2:
        return np.zeros(dim), np.eye(dim)
    u, log_p = u[near], log_p[near] - np.max(log_p[near])
    rows, columns = np.triu_indices(dim)
    terms = np.concatenate([np.ones((len(u), 1)), u, u[:, rows] * u[:, columns]], axis=1)
    weighted = (terms * np.exp(_RATE * log_p)[:, None]).T
    normal = weighted @ terms
    normal += 1e-8 * np.trace(normal) / len(normal) * np.eye(len(normal))
    found = np.linalg.solve(normal, weighted @ log_p)
    half = np.zeros((dim, dim))
    half[rows, columns] = found[1 + dim :]
    values, vectors = np.linalg.eigh(-(half + half.T))
    values = np.clip(values, 1 / _FACTOR, _FACTOR)
    step = vectors @ ((vectors.T @ found[1 : 1 + dim]) / values)
    step *= min(1.0, _FAR / max(float(np.linalg.norm(step)), 1e-30))
    return step, vectors / np.sqrt(values)
