"""Log densities and gradients of a target at a block of points."""

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .target import Target


# How many points are evaluated side by side.
_BLOCK = 8


class Probes(eqx.Module):
    """Points, the log density and its gradient there, and which of them count.

    Where either is not finite `log_p` is minus infinity, and `score` zero.
    """

    x: Float[Array, "points dim"]
    log_p: Float[Array, " points"]
    score: Float[Array, "points dim"]
    finite: Bool[Array, " points"]

    def __getitem__(self, index: slice) -> "Probes":
        return jax.tree.map(lambda leaf: leaf[index], self)


def probe(
    target: Target, x: Float[Array, "points dim"], count: Int[Array, ""] | int
) -> Probes:
    """Evaluate the first `count` points; the others are as if not finite.

    The program holds the gradient once, whatever the number of points, and takes as long
    as `count` asks for.
    """
    points, dim = x.shape
    padded = jnp.pad(x, ((0, -points % _BLOCK), (0, 0)))
    blocks = padded.reshape(-1, _BLOCK, dim)
    both = jax.vmap(jax.value_and_grad(target.log_density))

    def block(i, out):
        log_p, score = out
        one_log_p, one_score = both(blocks[i])
        return log_p.at[i].set(one_log_p.astype(x.dtype)), score.at[i].set(one_score)

    empty = jnp.full(blocks.shape[:2], -jnp.inf, x.dtype), jnp.zeros_like(blocks)
    count = jnp.asarray(count, jnp.int32)
    needed = jnp.minimum((count + _BLOCK - 1) // _BLOCK, blocks.shape[0])
    log_p, score = lax.fori_loop(jnp.int32(0), needed, block, empty)
    log_p, score = log_p.reshape(-1)[:points], score.reshape(-1, dim)[:points]
    finite = jnp.isfinite(log_p) & jnp.all(jnp.isfinite(score), axis=1)
    finite &= jnp.arange(points, dtype=jnp.int32) < count
    return Probes(
        x=x,
        log_p=jnp.where(finite, log_p, -jnp.inf),
        score=jnp.where(finite[:, None], score, 0),
        finite=finite,
    )
