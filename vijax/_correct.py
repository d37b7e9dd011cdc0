"""Draws corrected by importance, and their diagnosis."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ._custom_types import Key
from ._diagnosis import log_weights_of
from ._draws import draw, Draws, resampled
from ._family.base import AbstractFamily
from ._psis import smoothed
from ._target import Target


# Fewer draws than this leave the tail of the weights too short.
NUM_DRAWS = 4_096
# Weights that leave fewer effective draws, or a smaller part of them, do harm.
_FEWEST, _SMALLEST_PART = 50.0, 0.02


def proposed(proposal: AbstractFamily, target: Target, num_draws: int, key: Key) -> Draws:
    """Enough draws of a proposal to choose `num_draws` from by their weights."""
    return draw(proposal, target, max(NUM_DRAWS, num_draws), key=key)


def corrected(
    family: AbstractFamily,
    proposal: AbstractFamily,
    target: Target,
    num_draws: int,
    key: Key,
    origin: dict[str, Any],
) -> Draws:
    """Draws of the target, chosen from those of `proposal` by smoothed weights; plain
    ones of `family`, and a warning, where the weights are no help."""
    draw_key, choose_key = jax.jit(jr.split)(key)
    draws = proposed(proposal, target, num_draws, draw_key)
    log_weights = smoothed(log_weights_of(draws))[0]
    weights = np.exp(log_weights - np.max(log_weights))
    effective = np.sum(weights) ** 2 / np.sum(weights**2)
    if effective < max(_FEWEST, _SMALLEST_PART * len(draws)):
        warnings.warn(
            f"The importance weights of {len(draws)} draws are worth {effective:.1f} "
            "draws, too few to correct anything: these are plain draws of the family. "
            "`vi.report(fit, key=key)` says more; `corrected=False` asks for plain ones.",
            stacklevel=3,
        )
        return draw(family, target, num_draws, key=choose_key, origin=origin)
    origin = origin | {"corrected": True}
    log_weights = jnp.asarray(log_weights, draws.log_p.dtype)
    chosen = resampled(choose_key, draws, log_weights, num_draws)
    return Draws(chosen.x, None, chosen.log_p, target, origin, draws)
