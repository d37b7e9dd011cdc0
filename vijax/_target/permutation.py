"""A random order of any number of rows, of which only some places are computed."""

import math

import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, UInt32

from .._custom_types import Key


# By then pairs of places are even to half a percent, and more rounds bring nothing.
_ROUNDS = 10
# With fewer values than that they are not; but then sorting costs little.
_FEW = 64


def _scramble(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finalizer of MurmurHash3: every input bit flips half of the output bits."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _below(bits: UInt32[Array, "..."], bound: int) -> UInt32[Array, "..."]:
    """Random bits as numbers below `bound`, which is at most 2^16."""
    n = jnp.uint32(bound)
    high, low = bits >> 16, bits & 0xFFFF
    return (high * n + ((low * n) >> 16)) >> 16


def permuted(
    key: Key, places: Int[Array, " places"], length: int
) -> Int[Array, " places"]:
    """What stands at some places of a random permutation of `range(length)`.

    The cost is that of the places: no permutation is ever written down. It is a Feistel
    network on pairs of digits, whose number exceeds `length` by little; what falls
    beyond is sent round again.

    **Reference:** Black and Rogaway (2002), *Ciphers with arbitrary finite domains*,
    CT-RSA: the generalized Feistel cipher, and cycle walking.
    """
    if length <= _FEW:
        return jr.permutation(key, length).astype(places.dtype)[places]
    rows = math.isqrt(length - 1) + 1
    columns = -(-length // rows)
    keys = jr.bits(key, (_ROUNDS,), jnp.uint32)
    wrap = lambda x, bound: jnp.where(x >= bound, x - jnp.uint32(bound), x)

    def shuffle(x: UInt32[Array, " places"]) -> UInt32[Array, " places"]:
        row, column = x // jnp.uint32(columns), x % jnp.uint32(columns)
        for i in range(0, _ROUNDS, 2):
            add = _below(_scramble(column * jnp.uint32(0x9E3779B1) + keys[i]), rows)
            row = wrap(row + add, rows)
            add = _below(_scramble(row * jnp.uint32(0x9E3779B1) + keys[i + 1]), columns)
            column = wrap(column + add, columns)
        return row * jnp.uint32(columns) + column

    outside = lambda x: x >= jnp.uint32(length)
    walk = lambda x: jnp.where(outside(x), shuffle(x), x)
    start = shuffle(places.astype(jnp.uint32))
    inside = lax.while_loop(lambda x: jnp.any(outside(x)), walk, start)
    return inside.astype(places.dtype)
