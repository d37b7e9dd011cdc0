"""Log densities and gradients of a target at a block of points: all that methods which
ask and tell see of it, and the one program that they compile."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._arrays import namespace
from .._custom_types import AnyArray
from .._misc import is_any_array, num_side_by_side, tree_size
from .target import Target


# How many points one call of the program takes, and how many are evaluated side by side.
BLOCK, _SIDE_BY_SIDE = 64, 8


class Probes(NamedTuple):
    """Points, the log density and its gradient there, and which of them count.

    Where either is not finite `log_p` is minus infinity, and `score` zero. `eps` is the
    rounding of the target's numbers, which may be coarser than that of these arrays;
    `count` is how many points were evaluated.
    """

    x: Float[AnyArray, "points dim"]
    log_p: Float[AnyArray, " points"]
    score: Float[AnyArray, "points dim"]
    finite: Bool[AnyArray, " points"]
    count: Int[AnyArray, ""]
    eps: float

    def first(self, size: int) -> "Probes":
        """Those of the first points."""
        x, log_p, score, finite, count, eps = self
        return Probes(x[:size], log_p[:size], score[:size], finite[:size], count, eps)

    def take(self, order: Int[AnyArray, " points"]) -> "Probes":
        """The same points in another order."""
        x, log_p, score, finite, count, eps = self
        return Probes(x[order], log_p[order], score[order], finite[order], count, eps)


def _evaluated(
    target: Target, x: Float[AnyArray, "points dim"], count: Int[AnyArray, ""]
) -> tuple[Array, Array]:
    """Values and scores at the first `count` points; what the others have is no number.

    The program holds the gradient once, whatever the number of points, and takes as long
    as `count` asks for.
    """
    points, dim = x.shape
    size = num_side_by_side(tree_size(target.data), _SIDE_BY_SIDE)
    padded = jnp.pad(x, ((0, -points % size), (0, 0)))
    blocks = padded.reshape(-1, size, dim)
    both = jax.vmap(jax.value_and_grad(target.log_density))

    def block(i, out):
        log_p, score = out
        one_log_p, one_score = both(blocks[i])
        return log_p.at[i].set(one_log_p.astype(x.dtype)), score.at[i].set(one_score)

    empty = jnp.full(blocks.shape[:2], -jnp.inf, x.dtype), jnp.zeros_like(blocks)
    needed = jnp.minimum((count + size - 1) // size, blocks.shape[0])
    log_p, score = lax.fori_loop(jnp.int32(0), needed, block, empty)
    return log_p.reshape(-1)[:points], score.reshape(-1, dim)[:points]


def probe(
    target: Target, x: Float[Array, "points dim"], count: Int[Array, ""] | int
) -> Probes:
    """Evaluate the first `count` points as a part of a program; the others are as if not
    finite."""
    count = jnp.asarray(count, jnp.int32)
    return _probes(x, *_evaluated(target, x, count), count, x.dtype)


def _probes(
    x: AnyArray, log_p: AnyArray, score: AnyArray, count: AnyArray, dtype: Any
) -> Probes:
    xp = namespace(x)
    finite = xp.isfinite(log_p) & xp.all(xp.isfinite(score), axis=1)
    finite &= xp.arange(len(x), dtype=xp.int32) < count
    return Probes(
        x=x,
        log_p=xp.where(finite, log_p, -xp.inf),
        score=xp.where(finite[:, None], score, 0),
        finite=finite,
        count=count,
        eps=float(np.finfo(dtype).eps),
    )


@functools.partial(jax.jit, static_argnums=0)
def _program(static: Any, arrays: Any, x: Any, count: Any) -> tuple[Array, Array]:
    structure, leaves = static
    rest = jax.tree.unflatten(structure, leaves)
    return _evaluated(eqx.combine(arrays, rest), x, count)


class HostProbe:
    """A target as the host sees it: points in, values and scores out, in NumPy.

    Whatever the number of points, they go through one compiled program in blocks of
    `BLOCK`.
    """

    def __init__(self, target: Target, between: Callable[[], Any] = lambda: None):
        """**Arguments:**

        - `target`: what is evaluated, with all of its data.
        - `between`: called before each block; may raise.
        """
        self.target = target
        self._on_host = target.model.on_host
        # Taken apart once: a program of a small model runs in a few microseconds.
        self._arrays, rest = eqx.partition(target, is_any_array)
        leaves, structure = jax.tree.flatten(rest)
        self._static = structure, tuple(leaves)
        self.dtype = target.dtype
        self.between = between
        self.num_evaluations = 0

    def raw(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The points as the target's numbers have them, values and scores, whatever these
        are."""
        x = np.asarray(x, self.dtype)
        parts = [self._block(x[i : i + BLOCK]) for i in range(0, len(x), BLOCK)]
        if not parts:
            return np.zeros(x.shape), np.zeros(0), np.zeros(x.shape)
        values, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        return x.astype(np.float64), values, scores

    def _block(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.between()
        count = len(x)
        self.num_evaluations += count
        if self._on_host is not None:
            values, scores = self._on_host(x.astype(np.float64), self.target.data)
        else:
            padded = np.zeros((BLOCK, x.shape[1]), x.dtype)
            padded[:count] = x
            values, scores = _program(self._static, self._arrays, padded, np.int32(count))
        to_host = lambda array: np.asarray(array)[:count].astype(np.float64)
        return to_host(values), to_host(scores)

    def __call__(self, x: np.ndarray, count: int | None = None) -> Probes:
        """Evaluate points, or the first `count` of them; the others are as if not
        finite."""
        count = len(x) if count is None else int(count)
        seen, log_p, score = self.raw(x[:count])
        rest = (0, len(x) - count)
        x = np.concatenate([seen, x[count:]])
        log_p, score = np.pad(log_p, rest), np.pad(score, (rest, (0, 0)))
        return _probes(x, log_p, score, np.asarray(count, np.int32), self.dtype)
