"""The marginal density of the globals."""

import numpy as np

from .._target.probe import HostProbe
from .conditional import scores_of_locals
from .state import known_locals, NestedState, split_of


# How far a round's marginal may be from that of Laplace, in nats.
_NOISE = 1.0


def log_marginal(
    state: NestedState, probe: HostProbe, g: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The log marginal density of globals: by a pair of draws of the locals, which no
    error of the interpolation biases; by Laplace's method; and by one of the draws, whose
    weights are those of draws of both."""
    parts = split_of(state)
    if len(state.rest) == 0:
        log_p = probe(parts.joined(g, np.zeros((len(g), 0)))).log_p
        return log_p, log_p, log_p
    modes, factors = known_locals(state).given(g)
    dim = modes.shape[1]
    normal = generator.standard_normal(modes.shape)
    step = factors.transposed_solve(normal)
    constant = 0.5 * dim * np.log(2 * np.pi) + np.sum(np.log(parts.scale))
    at_mode, score = scores_of_locals(probe, parts, g, modes)
    pair = [scores_of_locals(probe, parts, g, modes + s * step)[0] for s in (1, -1)]
    inner = factors.solve(score)
    # Half of what is left of the scores is how far below its mode that is; but far from
    # a mode this says nothing.
    left = np.minimum(np.sum(inner**2, axis=1), 1.0)
    log_volume = constant - factors.log_det
    log_laplace = at_mode + 0.5 * left + log_volume
    of_normal = 0.5 * np.sum(normal**2, axis=1) + log_volume
    log_joint = pair[0] + of_normal
    log_p = np.logaddexp(*pair) - np.log(2) + of_normal
    known = (log_laplace, log_joint, log_p)
    log_laplace, log_joint, log_p = (np.where(np.isnan(x), -np.inf, x) for x in known)
    # A pair is noisy where locals are many; Laplace's is wrong where the factors are.
    near = np.clip(log_laplace, log_p - _NOISE, log_p + _NOISE)
    return np.where(np.isfinite(log_p), near, -np.inf), log_laplace, log_joint
