import equinox as eqx

from .._arrays import cholesky, namespace
from .._custom_types import AnyArray
from .._misc import as_whole
from .._solver import score_matching
from .._solver.score_matching import Matched
from .._target.probe import Probes
from .base import AbstractAskTell, check_gaussian, place_gaussian, start_wide


class GSM(AbstractAskTell):
    r"""Gaussian score matching: the nearest Gaussian with the target's score at a draw.

    In closed form for each draw, averaged over a batch; there is nothing to tune. It is
    fast on targets that are nearly Gaussian; on others it keeps on moving, since each
    batch pulls elsewhere: [`vijax.BaM`][] then settles, with a rate that falls. The loss
    is as there.

    **Reference:** Modi, Margossian, Yao, Gower, Blei and Saul (2023), *Variational
    inference with Gaussian score matching*,
    [arXiv:2307.07849](https://arxiv.org/abs/2307.07849), equations 10 to 13.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, vi.GSM(), key=jax.random.key(0), max_steps=100)
        fit.mean, fit.std
        ```
    """

    num_draws: int = eqx.field(static=True)

    def __init__(self, num_draws: int = 4):
        """**Arguments:**

        - `num_draws`: how many draws a step.

        **Raises:** `ValueError` if it is not positive.
        """
        self.num_draws = as_whole("num_draws", num_draws, 1)

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
        steps = _match(e, g)
        left = steps - e
        # The mean of `e e' - left left'`, without a matrix for each draw.
        covariance = xp.eye(dim, dtype=e.dtype) + (e.T @ e - left.T @ left) / count
        root = cholesky(covariance)
        return score_matching.stepped(state, xp.mean(steps, axis=0), root), loss

    place = place_gaussian


def _match(e: AnyArray, g: AnyArray) -> AnyArray:
    """How far the standard normal moves to have the score `g` at each point `e`."""
    xp = namespace(e)
    along = -xp.sum(e * g, axis=1)
    size = xp.sum(g * g, axis=1) + along**2
    # The positive root of rho (1 + rho) = size.
    rho = 0.5 * xp.sqrt(1 + 4 * size) - 0.5
    gap = g + e
    part = xp.sum(g * gap, axis=1) / (1 + rho + along)
    return (gap + e * part[:, None]) / (1 + rho)[:, None]
