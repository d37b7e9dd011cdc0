"""A verdict where the weights are too few: whether the target leaves the draws alone."""

import dataclasses

from .._custom_types import Key
from .._draws.diagnosis import diagnose_equal, Diagnosis
from .._draws.draws import Draws
from .._draws.hamiltonian import carried, FEWEST_ACCEPTED
from .._family.base import AbstractFamily
from .verdict import with_own_moments


# In fewer coordinates few weights mean that the family is far off, or tails are heavy.
_FEWEST_DIM = 50
# So many draws are moved.
_NUM_MOVED = 2_048
# With a larger score discrepancy in a coordinate the target is so different there that a
# few trajectories may not be enough to see how much.
_SCORE_DISCREPANCY = 0.5


def settled(
    weights: Diagnosis,
    family: AbstractFamily,
    plain: Draws,
    score_discrepancy: float,
    key: Key,
) -> Diagnosis | None:
    """The diagnosis of draws that trajectories have moved, or `None` if these went
    further than what is called off, or cannot be relied on, or there are few coordinates.

    **Arguments:**

    - `weights`: the diagnosis by importance.
    - `family`: what is judged.
    - `plain`: its draws.
    - `score_discrepancy`: of the worst coordinate.
    - `key`: randomness.
    """
    # NaN is not below anything.
    if family.dim < _FEWEST_DIM or not score_discrepancy < _SCORE_DISCREPANCY:
        return None
    moved = carried(plain.target, family, plain.x[:_NUM_MOVED], key)
    acceptance = float(moved.acceptance)
    if not acceptance >= FEWEST_ACCEPTED:
        return None
    draws = Draws(moved.x, None, moved.log_p, plain.target)
    equal = with_own_moments(diagnose_equal(draws), plain)
    if any(q.is_off or not q.is_fine for q in equal):
        return None
    return dataclasses.replace(weights, quantities=equal, acceptance=acceptance)
