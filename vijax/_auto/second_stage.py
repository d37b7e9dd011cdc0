"""Where the default's second stage begins, in the coordinates of the first."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._custom_types import Key
from .._family.affine import Affine
from .._family.base import wide_tril
from .._family.coupling import Coupling
from .._family.full_rank import FullRank
from .._family.mean_field import MeanField
from .._target.target import Target
from .budget import FULL_RANK_DIM


# Rows of the first part for each coordinate: enough to see how these correlate.
_ROWS_PER_COORDINATE = 20
# More rows start nearer, up to so many batches or rows.
_MOST_BATCHES, _MOST_ROWS = 20, 5_000


def flow_from(family: FullRank, key: Key) -> Affine:
    """A small flow that is still the Gaussian. (On the host.)"""
    loc = np.zeros(family.loc.shape, family.loc.dtype)
    normal = MeanField(loc, scale=1.0)
    return Affine(Coupling(normal, key=key), family.loc, wide_tril(family))


@eqx.filter_jit
def gaussian_from(family: FullRank) -> Affine:
    """The Gaussian as one in its own coordinates: of full rank, where these are few."""
    kind = FullRank if family.dim <= FULL_RANK_DIM else MeanField
    normal = kind(jnp.zeros_like(family.loc), scale=1.0)
    return Affine(normal, family.loc, family.tril)


@eqx.filter_jit
def part_of(target: Target, key: Key) -> Target:
    """Some of the rows, whose likelihood stands for all."""
    minibatch = target.minibatch
    assert minibatch is not None
    size = minibatch.size(target.data)
    wanted = min(_MOST_BATCHES * size, _MOST_ROWS)
    wanted = max(wanted, _ROWS_PER_COORDINATE * target.dim)
    larger = minibatch.larger(wanted / size, target.data)
    return eqx.tree_at(lambda t: t.minibatch, target, larger).batch(key)
