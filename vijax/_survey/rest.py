"""Whether a path that came to rest is at a maximum, by the curvature there."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .._arrays import cholesky, solve_lower
from .._linalg import triangular_root
from .._solver import curvature
from .._target.probe import HostProbe


# Newton steps from where a path thinks that it is at rest, and the longest one.
_STEPS, _LONGEST = 5, 3.0
# The squared length of the next step at which a maximum is reached.
_REACHED = 0.01


class Maximum(NamedTuple):
    """A maximum, the log density there, and the Cholesky factor of the covariance that
    the curvature implies."""

    x: Float[np.ndarray, " dim"]
    log_p: float
    tril: Float[np.ndarray, "dim dim"]


def maximum(
    probe: HostProbe, x: Float[np.ndarray, " dim"], tril: Float[np.ndarray, "dim dim"]
) -> Maximum | None:
    """The maximum that Newton steps lead to, with `tril` as a first unit; `None` if there
    is none, as on a ridge, where a path with steps that are too short seems to rest."""
    width = np.array(curvature.width_for(float(np.finfo(probe.dtype).eps)))
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            points = curvature.around(x, tril, width)
            probes = probe(np.concatenate([x[None], points]))
            if not np.all(probes.finite):
                return None
            factor = cholesky(curvature.curvature(probes.score[1:], tril, width))
            if not np.all(np.isfinite(factor)):
                return None
            tril = triangular_root(solve_lower(factor, tril.T).T)
            step = tril.T @ probes.score[0]
            length = float(np.sqrt(step @ step))
            if length**2 < _REACHED:
                return Maximum(x, float(probes.log_p[0]), tril)
            x = x + tril @ step * min(1.0, _LONGEST / length)
    return None
