"""A check by Hamiltonian trajectories, where weights are too few: do the draws stay?"""

import dataclasses

from .._custom_types import Key
from .._draws.correction import (
    Correction,
    Parts,
    RESAMPLE_MOVE,
    resampled_and_moved,
)
from .._draws.diagnosis import diagnose_equal, Quantity, with_own_moments
from .._draws.draws import Draws
from .._draws.hamiltonian import FEWEST_ACCEPTED
from .._misc import on_device


# In fewer coordinates few weights mean that the family is far off, or tails are heavy.
_FEWEST_DIM = 50
# So many draws are moved.
_NUM_MOVED = 2_048
# With a larger score discrepancy in a coordinate the target is so different there that a
# few trajectories may not be enough to see how much.
_SCORE_DISCREPANCY = 0.5


@dataclasses.dataclass(frozen=True)
class Moved:
    """Draws at the ends of trajectories.

    **Attributes:**

    - `quantities`: what they say of each number of the posterior, and how far the
        family's own moments are from that.
    - `acceptance`: the part of the trajectories that was accepted.
    """

    quantities: tuple[Quantity, ...]
    acceptance: float


def moved(
    parts: Parts,
    correction: Correction,
    plain: Draws,
    score_discrepancy: float,
    key: Key,
) -> Moved | None:
    """Draws that a procedure has moved, or `None` where these would say nothing: in few
    coordinates, with scores that are too different, or if they are not accepted or have
    not settled.

    **Arguments:**

    - `parts`: the family, which is judged, and from what draws are chosen by weights.
    - `correction`: the procedure.
    - `plain`: draws of the family.
    - `score_discrepancy`: of the worst coordinate.
    - `key`: randomness.
    """
    # NaN is not below anything.
    if parts.family.dim < _FEWEST_DIM or not score_discrepancy < _SCORE_DISCREPANCY:
        return None
    if correction.kind != RESAMPLE_MOVE or not correction.is_settled:
        return None
    ends = resampled_and_moved(parts, correction.num_rounds, _NUM_MOVED, key)
    if not ends.acceptance >= FEWEST_ACCEPTED:
        return None
    x, log_p = on_device((ends.x, ends.log_p), plain.x.dtype)
    draws = Draws(x, None, log_p, plain.target)
    return Moved(with_own_moments(diagnose_equal(draws), plain), ends.acceptance)
