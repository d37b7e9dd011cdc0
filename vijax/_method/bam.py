import equinox as eqx

from .._arrays import cholesky, eigh, namespace
from .._custom_types import AnyArray
from .._misc import as_whole
from .._solver import score_matching
from .._solver.score_matching import Matched
from .._target.probe import Probes
from .base import AbstractAskTell, check_gaussian, place_gaussian, start_wide


class BaM(AbstractAskTell):
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

    check = check_gaussian

    def step_noise(self, dim: int) -> tuple[int, ...]:
        return (self.num_draws, dim)

    begin = score_matching.begin
    ask = score_matching.ask

    def tell(
        self, noise: AnyArray, state: Matched, probes: Probes
    ) -> tuple[Matched, AnyArray]:
        e = noise
        g, loss = score_matching.whitened_scores(e, state, probes)
        xp, (count, dim) = namespace(e), e.shape
        rate = count * dim / (state.num_steps + 1.0).astype(e.dtype)
        shrink = rate / (1 + rate)
        mean_e, mean_g = xp.mean(e, axis=0), xp.mean(g, axis=0)
        moved_e, moved_g = e - mean_e, g - mean_g
        u = rate * moved_g.T @ moved_g / count + shrink * xp.outer(mean_g, mean_g)
        v = xp.eye(dim, dtype=e.dtype) + rate * moved_e.T @ moved_e / count
        v += shrink * xp.outer(mean_e, mean_e)
        root = _solve(u, v)
        step = shrink * (root @ (root.T @ mean_g) + mean_e)
        return score_matching.stepped(state, step, root), loss

    place = place_gaussian


def _solve(u: AnyArray, v: AnyArray) -> AnyArray:
    """A root of the positive solution of `s u s + s = v`."""
    xp, low = namespace(u), cholesky(v)
    values, vectors = eigh(low.T @ u @ low)
    values = xp.maximum(values, 0)
    return low @ (vectors * xp.sqrt(2 / (1 + xp.sqrt(1 + 4 * values))))
