"""What the default affords: coordinates, starts, and gradients for which stage."""

import numpy as np

from .._draws.psis import NUM_DRAWS


# Above so many coordinates a full covariance costs more than it brings.
FULL_RANK_DIM = 200
# Natural gradients make better use of draws, and pay until later.
_MOST_DIM = 1_000
# Quasi-Newton paths times coordinates.
_PATHS = 1_600
# The steps of the flow that is tried where weights are poor, and of its training once
# more where they still are; and the draws of each.
FLOW_STEPS, MORE_STEPS, FLOW_DRAWS = 2_000, 4_000, 64
# What that takes, with the draws that judge it; and at first those of before.
FLOW_EVALUATIONS = FLOW_STEPS * FLOW_DRAWS + 2 * NUM_DRAWS
MORE_EVALUATIONS = MORE_STEPS * FLOW_DRAWS + NUM_DRAWS
# What more starts take at most, and the ascents that they lead to.
SURVEY_EVALUATIONS = 60_000
# What globals take at most, or nearly, with the draws that judge them.
NESTED_EVALUATIONS = 40_000
# Beyond, matrices of the locals at many points take too long.
_MOST_NESTED_DIM = 300
# Beyond, a step's matrices cost more than the flow was seen to bring.
_MOST_FLOW_DIM = 300
# No larger part of a budget is kept for it.
_KEPT_PART = 0.8


def is_affordable(dim: int) -> bool:
    """Whether the default can be used at all in so many coordinates."""
    return dim <= _MOST_DIM


def num_starts_for(dim: int) -> int:
    """How many quasi-Newton paths there are: each holds a matrix."""
    return int(np.clip(2 * (_PATHS // dim // 2), 2, 16))


def suits_nesting(dim: int) -> bool:
    """Whether globals may be looked for in so many coordinates."""
    return 2 <= dim <= _MOST_NESTED_DIM


def suits_a_flow(dim: int) -> bool:
    """Whether a flow may be tried in so many coordinates."""
    return 2 <= dim <= _MOST_FLOW_DIM


def for_the_gaussian(max_evaluations: int, dim: int) -> int:
    """The part of a budget that the Gaussian may take."""
    if not suits_a_flow(dim):
        return max_evaluations
    kept = FLOW_EVALUATIONS + MORE_EVALUATIONS, FLOW_EVALUATIONS, 0
    most = _KEPT_PART * max_evaluations
    return max_evaluations - next(part for part in kept if part <= most)


def for_nesting(max_evaluations: int, made: int) -> int:
    """What globals may come to in all, after so many: a flow that may follow has room."""
    left = max_evaluations - FLOW_EVALUATIONS
    return left if made + NESTED_EVALUATIONS <= left else max_evaluations
