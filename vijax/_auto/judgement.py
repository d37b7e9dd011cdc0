"""What comes next in the default: are the weights good enough, is the flow better?"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from .._custom_types import Key
from .._draws.diagnosis import diagnose, Diagnosis
from .._draws.draw import proposed
from .._draws.psis import NUM_DRAWS
from .._family.base import AbstractFamily
from .._misc import float_dtype
from .._target.probe import HostProbe


# Weights that are worse than this are worth a flow.
_KHAT = 0.7
_EFFECTIVE = 0.25
# Weights of which more than this part is effective are good.
_MOST_OF_THEM = 0.5
# So many nats above a family's density nothing of the mass is.
_MISSED = 3.0
# Where good weights leave a quantity unsure, so many more say whether it is.
SECOND_LOOK = 4
# Draws of the Gaussian that look for such mass, and the part of it that may be there.
NUM_LOOKED, _PART = 1_024, 0.05
# The last losses of a flow, which tell its ELBO.
_SEEN = 100
# Where a flow was not seen to do better than what has weights at all.
_MANY_DIM = 50
# Beyond, tails that are heavier still cost most of the effective draws.
_MOST_HEAVY_DIM = 15


def judge(
    proposal: AbstractFamily, probe: HostProbe, key: Key, num_draws: int = NUM_DRAWS
) -> Diagnosis | None:
    """The diagnosis of a proposal, or `None` if nothing can be drawn there."""
    try:
        return diagnose(proposed(proposal, probe, num_draws, key))
    except ValueError:
        return None


def is_fine(diagnosis: Diagnosis | None) -> bool:
    """Whether all quantities can be relied on."""
    return diagnosis is not None and diagnosis.is_fine


def is_poor(diagnosis: Diagnosis | None, *, by_weights: bool = True) -> bool:
    """Whether something better is worth trying: judged by the quantities, and unless
    told otherwise by the weights themselves too."""
    if diagnosis is None or not diagnosis.is_fine:
        return True
    khat = max(diagnosis.worst_khat, diagnosis.khat if by_weights else 0.0)
    return khat > _KHAT or diagnosis.effective < _EFFECTIVE


def may_have_heavier_tails(diagnosis: Diagnosis | None, dim: int) -> bool:
    """Whether heavier tails of the proposal may be all that is missing."""
    covers = diagnosis is not None and diagnosis.effective > _EFFECTIVE
    return covers and dim <= _MOST_HEAVY_DIM


def _badness(diagnosis: Diagnosis | None) -> float:
    if diagnosis is None or not np.isfinite(diagnosis.worst_khat):
        return np.inf
    return max(diagnosis.khat, diagnosis.worst_khat) - diagnosis.effective


def are_covered(
    family: AbstractFamily,
    log_evidence: float,
    x: Float[np.ndarray, "points dim"],
    log_p: Float[np.ndarray, " points"],
) -> Bool[np.ndarray, " points"]:
    """Where a family, of that log evidence by its own weights, has about as much mass as
    the target has. A mode that it misses has far less. (On the host.)"""
    on_host = family.on_host()
    log_q = _densities(family, x) if on_host is None else on_host.log_prob(x)
    return log_p - np.asarray(log_q, np.float64) - log_evidence < _MISSED


@eqx.filter_jit
def _densities(family: AbstractFamily, x: Any) -> Array:
    x = x.astype(float_dtype(family))
    return jax.lax.map(family.log_prob, x, batch_size=64)


def misses_mass(
    family: AbstractFamily,
    log_evidence: float,
    x: Float[np.ndarray, "draws dim"],
    log_q: Float[np.ndarray, " draws"],
    log_p: Float[np.ndarray, " draws"],
) -> bool:
    """Whether draws `x` of another distribution, whose log density is `log_q`, see mass
    that a family, of that log evidence by its own weights, does not have."""
    finite = np.isfinite(log_p)
    missed = ~are_covered(family, log_evidence, x[finite], log_p[finite])
    log_weights = (log_p - log_q)[finite][missed] - log_evidence
    return bool(np.sum(np.exp(log_weights)) > _PART * len(log_p))


def is_unsure(diagnosis: Diagnosis | None) -> bool:
    """Whether weights are so good that more of them may tell of quantities that are not
    fine."""
    promising = diagnosis is not None and diagnosis.effective > _MOST_OF_THEM
    return promising and not is_fine(diagnosis)


def nested_is_better(after: Diagnosis, before: Diagnosis | None, dim: int) -> bool:
    """Whether a nested answer will do, and does better than the Gaussian before it."""
    if is_fine(after) and is_fine(before):
        return _badness(after) <= _badness(before)
    # Where weights are even and bounded, what is unsure of a quantity is its own, which
    # no family changes. Else a report, with other draws, should come to the same.
    is_clear = after.is_fine and after.worst_khat < _KHAT
    is_even = after.khat < 0 and after.effective > _MOST_OF_THEM
    # In many coordinates a flow costs most, and hardly ever has better weights.
    has_weights = after.khat < _KHAT and not after.has_few
    return is_clear or is_even or (dim >= _MANY_DIM and has_weights)


def flow_is_better(
    after: Diagnosis | None,
    losses: np.ndarray,
    before: Diagnosis | None,
    elbos: np.ndarray | Array,
) -> bool:
    """Whether a flow is better than the Gaussians before it.

    **Arguments:**

    - `after`, `before`: the diagnoses of both.
    - `losses`: those of the flow's steps.
    - `elbos`: those of the Gaussians.
    """
    if is_fine(after) != is_fine(before):
        return is_fine(after)
    if is_fine(after):
        return _badness(after) <= _badness(before)
    # Of weights that say nothing no figure says much. The divergence does.
    elbo = -np.mean(np.asarray(losses)[-_SEEN:])
    return bool(elbo > np.logaddexp.reduce(np.asarray(elbos), initial=-np.inf))
