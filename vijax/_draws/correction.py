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
from .draw import drawn, proposed
from .draws import chosen_draws, Draws
from .hamiltonian import Carried, carried, FEWEST_ACCEPTED
from .psis import proposal_log_weights, smoothed
from .resample import with_replacement


IMPORTANCE, RESAMPLE_MOVE, NONE = "importance", "resample-move", "none"

# The draws whose weights choose, and those that are moved to see how often that takes.
_NUM_WEIGHED, _NUM_MOVED = 2_048, 1_024
# Where weights are nearly enough, since chance has a large part in it, more tell.
_NEARLY, _SECOND_LOOK = 2.0, 4
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


class Parts(NamedTuple):
    """What is drawn: the family, the proposal that is weighed, and the target."""

    family: AbstractFamily
    proposal: AbstractFamily
    probe: HostProbe


class _Weighed(NamedTuple):
    draws: Draws
    log_weights: np.ndarray
    # How many draws the weights are worth.
    effective: float


def chosen_correction(parts: Parts, key: Key) -> Correction:
    """The procedure for a family, by the weights of some draws of the proposal, or else
    by what trajectories do with them."""
    draw_key, move_key = split_key(key)
    weighed, part = _some(parts, _NUM_WEIGHED, draw_key)
    fewest = fewest_effective(parts.family.dim)
    if part < fewest <= _NEARLY * part:
        weighed, part = _some(parts, _SECOND_LOOK * _NUM_WEIGHED, draw_key)
    # NaN is not above anything.
    if part >= fewest:
        return Correction(IMPORTANCE)
    x = _starts(parts, weighed, _NUM_MOVED, move_key)
    noise = 3 * (2 / len(x)) ** 0.5
    for number in range(1, _MOST_ROUNDS + 1):
        ends = _round(parts, x, move_key, number)
        if not ends.acceptance >= FEWEST_ACCEPTED:
            has_enough = weighed.effective >= _FEWEST and part >= _SMALLEST_PART
            return Correction(IMPORTANCE if has_enough else NONE)
        if _change(x, ends.x) < _STILL + noise:
            return Correction(RESAMPLE_MOVE, number)
        x = ends.x
    return Correction(RESAMPLE_MOVE, _MOST_ROUNDS, is_settled=False)


def _some(parts: Parts, num_draws: int, key: Key) -> tuple[_Weighed, float]:
    """Weighed draws, and the part of them that they are worth."""
    weighed = _weighed(drawn(parts.proposal, parts.probe, num_draws, key, {}))
    return weighed, weighed.effective / num_draws


def corrected(
    parts: Parts, correction: Correction, num_draws: int, key: Key, origin: dict[str, Any]
) -> Draws:
    """Draws by a procedure; plain ones of the family, and a warning, where that is
    none."""
    draw_key, choose_key = split_key(key)
    if correction.kind == NONE:
        warnings.warn(
            "The importance weights are worth too few draws to correct anything, and "
            "Hamiltonian trajectories from the draws are not accepted: these are plain "
            "draws of the family. `vi.report(fit, key=key)` says more; "
            "`corrected=False` asks for plain ones.",
            stacklevel=3,
        )
        return drawn(parts.family, parts.probe, num_draws, choose_key, origin)
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
        ends = resampled_and_moved(parts, correction.num_rounds, num_draws, key)
        x, log_p = on_device((ends.x, ends.log_p), float_dtype(parts.family))
        return Draws(x, None, log_p, parts.probe.target, origin)
    draws = proposed(parts.proposal, parts.probe, num_draws, draw_key)
    log_weights = _weighed(draws).log_weights
    chosen = chosen_draws(choose_key, draws, log_weights, num_draws, with_replacement)
    return eqx.tree_at(lambda d: d.origin, chosen, origin)


def resampled_and_moved(
    parts: Parts, num_rounds: int, num_draws: int, key: Key
) -> Carried:
    """Draws at the ends of so many rounds of trajectories."""
    draw_key, move_key = split_key(key)
    draws = proposed(parts.proposal, parts.probe, num_draws, draw_key)
    x = _starts(parts, _weighed(draws), num_draws, move_key)
    ends = _round(parts, x, move_key, 1)
    for number in range(2, num_rounds + 1):
        ends = _round(parts, ends.x, move_key, number)
    return ends


def _weighed(draws: Draws) -> _Weighed:
    log_weights = smoothed(proposal_log_weights(draws.log_p, draws.need_log_q()))[0]
    weights = np.exp(log_weights - np.max(log_weights))
    effective = float(np.sum(weights) ** 2 / np.sum(weights**2))
    return _Weighed(draws, log_weights, effective)


def _starts(
    parts: Parts, weighed: _Weighed, num_draws: int, key: Key
) -> Float[np.ndarray, "draws dim"]:
    """Where trajectories start: chosen by weights where these are worth enough."""
    if weighed.effective >= _ENOUGH_TO_MOVE:
        generator = Seed(key).generator(0)
        places = with_replacement(generator, weighed.log_weights, num_draws)
        return np.asarray(weighed.draws.x, np.float64)[places]
    plain = drawn(parts.family, parts.probe, num_draws, key, {})
    return np.asarray(plain.x, np.float64)


def _round(parts: Parts, x: np.ndarray, key: Key, number: int) -> Carried:
    return carried(parts.probe, parts.family, x, key_for(key, number))


def _change(before: np.ndarray, after: np.ndarray) -> float:
    """The largest change of a mean or a standard deviation, in standard deviations."""
    with np.errstate(all="ignore"):
        std = np.std(after, axis=0)
        shift = np.abs(np.mean(after, axis=0) - np.mean(before, axis=0)) / std
        factor = np.abs(np.log(std / np.std(before, axis=0)))
    # NaN is no small change.
    return float(np.nan_to_num(max(np.max(shift), np.max(factor)), nan=np.inf))
