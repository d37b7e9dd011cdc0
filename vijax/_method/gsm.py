import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._misc import as_whole, lenient_promotion
from .._solver.score_matching import whitened_scores
from .._target.target import Target
from .base import AbstractMethod, check_gaussian, F, moved, start_wide


class GSM(AbstractMethod):
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

    def init(self, key: Key, family: AbstractFamily, target: Target) -> None:
        del key
        check_gaussian(self, family, target)

    def step(
        self, key: Key, family: F, target: Target, state: None
    ) -> tuple[F, None, Scalar]:
        assert isinstance(family, FullRank)
        loc, tril, dim = family.loc, family.tril, family.dim
        e, g, loss = whitened_scores(key, family, target, self.num_draws)
        with lenient_promotion():
            steps, changes = jax.vmap(_match)(e, g)
            covariance = jnp.eye(dim, dtype=loc.dtype) + jnp.mean(changes, axis=0)
            root = jnp.linalg.cholesky(covariance)
            after = moved(family, loc + tril @ jnp.mean(steps, axis=0), tril @ root)
            return after, state, loss


def _match(e: Array, g: Array) -> tuple[Array, Array]:
    """The change of mean and covariance of a standard normal that gives it the score `g`
    at the point `e`."""
    along = -jnp.dot(e, g)
    size = jnp.dot(g, g) + along**2
    # The positive root of rho (1 + rho) = size.
    rho = 0.5 * jnp.sqrt(1 + 4 * size) - 0.5
    gap = g + e
    step = (gap + e * jnp.dot(g, gap) / (1 + rho + along)) / (1 + rho)
    left = step - e
    return step, jnp.outer(e, e) - jnp.outer(left, left)
