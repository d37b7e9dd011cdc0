"""How draws of a family are corrected: one procedure for each fit, for any number."""

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._keys import key_for, Seed, split_key
from .._misc import float_dtype, on_device
from .._target.probe import HostProbe
from .diagnosis import fewest_effective
from .draw import drawn
from .draws import chosen_draws, Draws
from .hamiltonian import Carried, carried, FEWEST_ACCEPTED
from .importance_correction import proposed
from .psis import proposal_log_weights, smoothed
from .resample import with_replacement


IMPORTANCE, RESAMPLE_MOVE, NONE = "importance", "resample-move", "none"

# The draws whose weights choose, and those that are moved to see how often that takes.
_NUM_WEIGHED, _NUM_MOVED = 2_048, 1_024
# Weights that leave fewer effective draws, or a smaller part of them, do harm alone.
_FEWEST, _SMALLEST_PART = 50.0, 0.02
# With so many effective draws the chosen ones are nearer to the target than plain ones.
_ENOUGH_TO_MOVE = 20.0
# The most rounds of trajectories.
_MOST_ROUNDS = 6
# Rounds that change a mean by so many standard deviations, or a standard deviation by
# such a factor's logarithm, beyond what is noise, are followed by another.
_STILL = 0.1


class Correction(NamedTuple):
    """What is done with draws.

    **Attributes:**

    - `kind`: `"importance"`, draws of the proposal are chosen by smoothed weights;
        `"resample-move"`, chosen by these where they are worth 20, and moved by rounds of
        Hamiltonian trajectories; `"none"`, plain draws of the family.
    - `num_rounds`: how many rounds.
    - `is_settled`: whether the last round changed nothing.
    """

    kind: str
    num_rounds: int = 0
    is_settled: bool = True


def chosen_correction(
    family: AbstractFamily, proposal: AbstractFamily, probe: HostProbe, key: Key
) -> Correction:
    """The procedure for a family, by the weights of some draws of the proposal, or else
    by what trajectories do with them."""
    draw_key, move_key = split_key(key)
    draws = drawn(proposal, probe, _NUM_WEIGHED, draw_key, {})
    log_weights, effective = _weights_of(draws)
    # NaN is not above anything.
    if effective >= fewest_effective(family.dim) * len(draws):
        return Correction(IMPORTANCE)
    x = _started(family, probe, draws, log_weights, effective, _NUM_MOVED, move_key)
    noise = 3 * (2 / len(x)) ** 0.5
    number, ends = 0, None
    for number in range(1, _MOST_ROUNDS + 1):
        ends = _round(family, probe, x, move_key, number)
        if not ends.acceptance >= FEWEST_ACCEPTED:
            break
        is_still, x = _change(x, ends.x) < _STILL + noise, ends.x
        if is_still:
            return Correction(RESAMPLE_MOVE, number)
    else:
        return Correction(RESAMPLE_MOVE, number, is_settled=False)
    if effective >= max(_FEWEST, _SMALLEST_PART * len(draws)):
        return Correction(IMPORTANCE)
    return Correction(NONE)


def corrected(
    family: AbstractFamily,
    proposal: AbstractFamily,
    probe: HostProbe,
    correction: Correction,
    num_draws: int,
    key: Key,
    origin: dict[str, Any],
) -> Draws:
    """Draws by a procedure; plain ones of `family`, and a warning, where that is none."""
    draw_key, choose_key = split_key(key)
    if correction.kind == NONE:
        warnings.warn(
            "The importance weights are worth too few draws to correct anything, and "
            "Hamiltonian trajectories from the draws are not accepted: these are plain "
            "draws of the family. `vi.report(fit, key=key)` says more; "
            "`corrected=False` asks for plain ones.",
            stacklevel=3,
        )
        return drawn(family, probe, num_draws, choose_key, origin)
    origin = origin | {"corrected": correction.kind}
    if correction.kind == RESAMPLE_MOVE:
        if not correction.is_settled:
            warnings.warn(
                "Importance weights are too few to correct draws, and Hamiltonian "
                "trajectories move them on and on, perhaps not far enough: they are "
                "closer to the target than the family is, no more. "
                "`vi.report(fit, key=key)` says what to do.",
                stacklevel=3,
            )
        ends = resampled_and_moved(family, proposal, probe, correction, num_draws, key)
        x, log_p = on_device((ends.x, ends.log_p), float_dtype(family))
        return Draws(x, None, log_p, probe.target, origin)
    draws = proposed(proposal, probe, num_draws, draw_key)
    log_weights, _ = _weights_of(draws)
    chosen = chosen_draws(choose_key, draws, log_weights, num_draws, with_replacement)
    return eqx.tree_at(lambda d: d.origin, chosen, origin)


def resampled_and_moved(
    family: AbstractFamily,
    proposal: AbstractFamily,
    probe: HostProbe,
    correction: Correction,
    num_draws: int,
    key: Key,
) -> Carried:
    """Draws at the ends of so many rounds of trajectories."""
    draw_key, move_key = split_key(key)
    draws = proposed(proposal, probe, num_draws, draw_key)
    log_weights, effective = _weights_of(draws)
    x = _started(family, probe, draws, log_weights, effective, num_draws, move_key)
    ends = _round(family, probe, x, move_key, 1)
    for number in range(2, correction.num_rounds + 1):
        ends = _round(family, probe, ends.x, move_key, number)
    return ends


def _weights_of(draws: Draws) -> tuple[np.ndarray, float]:
    """Smoothed log weights, and how many draws they are worth."""
    log_weights = smoothed(proposal_log_weights(draws.log_p, draws.need_log_q()))[0]
    weights = np.exp(log_weights - np.max(log_weights))
    return log_weights, float(np.sum(weights) ** 2 / np.sum(weights**2))


def _started(
    family: AbstractFamily,
    probe: HostProbe,
    draws: Draws,
    log_weights: np.ndarray,
    effective: float,
    num_draws: int,
    key: Key,
) -> Float[np.ndarray, "draws dim"]:
    """Where trajectories start: chosen by weights where these are worth enough."""
    if effective >= _ENOUGH_TO_MOVE:
        generator = Seed(key).generator(0)
        places = with_replacement(generator, log_weights, num_draws)
        return np.asarray(draws.x, np.float64)[places]
    return np.asarray(drawn(family, probe, num_draws, key, {}).x, np.float64)


def _round(
    family: AbstractFamily, probe: HostProbe, x: np.ndarray, key: Key, number: int
) -> Carried:
    return carried(probe, family, x, key_for(key, number))


def _change(before: np.ndarray, after: np.ndarray) -> float:
    """The largest change of a mean or a standard deviation, in standard deviations."""
    with np.errstate(all="ignore"):
        std = np.std(after, axis=0)
        shift = np.abs(np.mean(after, axis=0) - np.mean(before, axis=0)) / std
        factor = np.abs(np.log(std / np.std(before, axis=0)))
    # NaN is no small change.
    return float(np.nan_to_num(max(np.max(shift), np.max(factor)), nan=np.inf))
