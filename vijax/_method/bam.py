from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._linalg import triangular_root
from .._misc import as_whole, lenient_promotion
from .._solver.score_matching import whitened_scores
from .._target.target import Target
from .base import AbstractMethod, check_gaussian, F, moved, start_wide


class _State(NamedTuple):
    num_steps: Int[Array, ""]


class BaM(AbstractMethod):
    r"""Batch and match: a Gaussian whose scores match the target's, in closed form.

    Each step moves to the Gaussian that minimizes the divergence of the scores over the
    draws, held back by the Kullback-Leibler divergence from the last one. There is no
    rate to tune, and no gradient of the family. From tens of standard deviations away it
    takes long: start from a rough fit, such as one by [`vijax.Laplace`][]. The loss is
    the divergence of the scores,
    $\mathbb{E}_q \|\nabla \log p - \nabla \log q\|^2$ in the family's own units, a
    coordinate.

    **Reference:** Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul (2024),
    *Batch and match: black-box variational inference with a score-based divergence*,
    [arXiv:2402.14758](https://arxiv.org/abs/2402.14758), algorithm 1, with the rate
    $\lambda_t = B d / (t + 1)$ of its section 4.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, vi.BaM(), key=jax.random.key(0), max_steps=100)
        fit.mean, fit.std
        ```
    """

    num_draws: int = eqx.field(static=True)

    def __init__(self, num_draws: int = 32):
        """**Arguments:**

        - `num_draws`: how many draws a step.

        **Raises:** `ValueError` for fewer than two.
        """
        self.num_draws = as_whole("num_draws", num_draws, 2)

    start = start_wide

    def init(self, key: Key, family: AbstractFamily, target: Target) -> _State:
        del key
        check_gaussian(self, family, target)
        return _State(jnp.zeros((), jnp.int32))

    def step(
        self, key: Key, family: F, target: Target, state: _State
    ) -> tuple[F, _State, Scalar]:
        assert isinstance(family, FullRank)
        loc, tril, dim = family.loc, family.tril, family.dim
        e, g, loss = whitened_scores(key, family, target, self.num_draws)
        with lenient_promotion():
            rate = self.num_draws * dim / (state.num_steps + 1.0).astype(loc.dtype)
            shrink = rate / (1 + rate)
            mean_e, mean_g = jnp.mean(e, axis=0), jnp.mean(g, axis=0)
            moved_e, moved_g = e - mean_e, g - mean_g
            u = rate * moved_g.T @ moved_g / len(e) + shrink * jnp.outer(mean_g, mean_g)
            v = jnp.eye(dim, dtype=loc.dtype) + rate * moved_e.T @ moved_e / len(e)
            v += shrink * jnp.outer(mean_e, mean_e)
            root = _solve(u, v)
            step = shrink * (root @ (root.T @ mean_g) + mean_e)
            after = moved(family, loc + tril @ step, triangular_root(tril @ root))
            return after, _State(state.num_steps + 1), loss


def _solve(u: Array, v: Array) -> Array:
    """A root of the positive solution of `s u s + s = v`."""
    low = jnp.linalg.cholesky(v)
    values, vectors = jnp.linalg.eigh(low.T @ u @ low)
    values = jnp.maximum(values, 0)
    return low @ (vectors * jnp.sqrt(2 / (1 + jnp.sqrt(1 + 4 * values))))
