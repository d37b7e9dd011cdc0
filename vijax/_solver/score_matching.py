"""Score matching: draws of a Gaussian, and the target's scores in its coordinates."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Scalar

from .._custom_types import Key
from .._family.full_rank import FullRank
from .._misc import lenient_promotion
from .._target.probe import probe
from .._target.target import Target


def whitened_scores(
    key: Key, family: FullRank, target: Target, num_draws: int
) -> tuple[Float[Array, "draws dim"], Float[Array, "draws dim"], Scalar]:
    """Draws and the target's scores there, in coordinates in which the family is a
    standard normal, and the divergence of the scores a coordinate: NaN where one of them
    is not finite."""
    e = jr.normal(key, (num_draws, family.dim), family.loc.dtype)
    with lenient_promotion():
        x = family.loc + e @ family.tril.T
    probes = probe(target, x, num_draws)
    with lenient_promotion():
        g = probes.score @ family.tril
        loss = jnp.where(jnp.all(probes.finite), jnp.mean((g + e) ** 2), jnp.nan)
    return e, g, loss
