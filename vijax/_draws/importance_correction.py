"""Draws of a proposal, of which others are chosen by their weights."""

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._target.probe import HostProbe
from .draw import drawn
from .draws import Draws
from .psis import NUM_DRAWS


def proposed(
    proposal: AbstractFamily, probe: HostProbe, num_draws: int, key: Key
) -> Draws:
    """Enough draws of a proposal to choose `num_draws` from by their weights."""
    return drawn(proposal, probe, max(NUM_DRAWS, num_draws), key, {})
