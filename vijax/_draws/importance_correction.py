"""Draws of the target: chosen from a proposal by importance weights, or moved there."""

import warnings
from typing import Any

import equinox as eqx
import numpy as np

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._keys import split_key
from .._misc import on_device
from .._target.probe import HostProbe
from .diagnosis import fewest_effective
from .draw import drawn
from .draws import chosen_draws, Draws
from .hamiltonian import carried, FEWEST_ACCEPTED
from .psis import NUM_DRAWS, proposal_log_weights, smoothed
from .resample import with_replacement


# Weights that leave fewer effective draws, or a smaller part of them, do harm.
_FEWEST, _SMALLEST_PART = 50.0, 0.02
# Trajectories that change a mean by so many standard deviations, or a standard deviation
# by such a factor's logarithm, may be far from their end.
_MOVING = 0.5


def proposed(
    proposal: AbstractFamily, probe: HostProbe, num_draws: int, key: Key
) -> Draws:
    """Enough draws of a proposal to choose `num_draws` from by their weights."""
    return drawn(proposal, probe, max(NUM_DRAWS, num_draws), key, {})


def corrected(
    family: AbstractFamily,
    proposal: AbstractFamily,
    probe: HostProbe,
    num_draws: int,
    key: Key,
    origin: dict[str, Any],
) -> Draws:
    """Draws of the target: chosen from those of `proposal` by smoothed weights; where
    these are too few, those of `family`, moved by Hamiltonian trajectories; plain ones of
    `family`, and a warning, where neither helps."""
    draw_key, choose_key = split_key(key)
    target = probe.target
    draws = proposed(proposal, probe, num_draws, draw_key)
    log_weights = proposal_log_weights(draws.log_p, draws.need_log_q())
    log_weights = smoothed(log_weights)[0]
    weights = np.exp(log_weights - np.max(log_weights))
    effective = np.sum(weights) ** 2 / np.sum(weights**2)
    # NaN is not above anything.
    if not effective >= fewest_effective(target.dim) * len(draws):
        move_key, choose_key = split_key(choose_key)
        plain = drawn(family, probe, num_draws, choose_key, origin)
        x = np.asarray(plain.x, np.float64)
        moved = carried(probe, family, x, move_key)
        if moved.acceptance >= FEWEST_ACCEPTED:
            _warn_if_moving(x, moved.x)
            origin = origin | {"corrected": "trajectories"}
            x, log_p = on_device((moved.x, moved.log_p), plain.x.dtype)
            return Draws(x, None, log_p, target, origin)
        if not effective >= max(_FEWEST, _SMALLEST_PART * len(draws)):
            warnings.warn(
                f"The importance weights of {len(draws)} draws are worth {effective:.1f} "
                "draws, too few to correct anything, and Hamiltonian trajectories from "
                "the draws are not accepted: these are plain draws of the family. "
                "`vi.report(fit, key=key)` says more; `corrected=False` asks for plain "
                "ones.",
                stacklevel=3,
            )
            return plain
    chosen = chosen_draws(choose_key, draws, log_weights, num_draws, with_replacement)
    return eqx.tree_at(lambda d: d.origin, chosen, origin | {"corrected": "importance"})


def _warn_if_moving(x: np.ndarray, moved: np.ndarray) -> None:
    if len(x) < 2:
        return
    std = np.std(x, axis=0)
    with np.errstate(all="ignore"):
        shift = np.abs(np.mean(moved, axis=0) - np.mean(x, axis=0)) / std
        factor = np.abs(np.log(np.std(moved, axis=0) / std))
    noise = 5 * (2 / len(x)) ** 0.5
    if not max(np.max(shift), np.max(factor)) < _MOVING + noise:
        warnings.warn(
            "Importance weights are too few to correct draws, and Hamiltonian "
            "trajectories move them far from the family, perhaps not far enough: they "
            "are closer to the target than the family is, no more. "
            "`vi.report(fit, key=key)` says what to do.",
            stacklevel=4,
        )
