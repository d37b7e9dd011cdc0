from typing import Any

from jaxtyping import Bool

from .._custom_types import AnyArray, Key, Point
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._linalg import mirrored
from .._solver import natural_gradient
from .._target.probe import Probes
from .base import AbstractAskTell, check_gaussian, place_gaussian


class NaturalGradient(AbstractAskTell):
    r"""Natural gradients of the ELBO for a Gaussian of full rank, without a rate to tune.

    The scores at draws are regressed on the noise that the draws were made of: the
    intercept is the gradient of the mean, the slope that of the covariance, and the
    residual says how well both are known. From that come the length of a step, a trust
    region, and how many draws the next iteration takes; it ends by itself when the answer
    is stable. A target that is Gaussian is reached in one iteration. It finds the nearest
    optimum: [`vijax.Auto`][] looks for a start first.

    A step is a batch of 64 draws; an iteration is as many steps as it needs.

    **Reference:** Lin, Khan and Schmidt (2019), *Stein's lemma for the
    reparameterization trick with exponential family mixtures*,
    [arXiv:1910.13398](https://arxiv.org/abs/1910.13398): with $x = m + L e$ and
    $r = L^\top \nabla \log p(x) + e$, the natural gradient is $\mathbb{E}[r]$ for $m$ and
    $\mathbb{E}[r e^\top]$ for the covariance, in units of $L$.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, vi.NaturalGradient(), key=jax.random.key(0))
        fit.mean, fit.std
        ```
    """

    def start(self, key: Key, loc: Point) -> AbstractFamily:
        del key
        return FullRank(loc, scale=0.1)

    check = check_gaussian

    def step_noise(self, dim: int) -> tuple[int, ...]:
        return (natural_gradient.BATCH // 2, dim)

    def begin(self, noise: AnyArray, family: Any) -> natural_gradient.Ascent:
        del noise
        return natural_gradient.begin(family.loc, family.tril)

    def ask(
        self, noise: AnyArray, state: natural_gradient.Ascent
    ) -> tuple[AnyArray, int]:
        x = natural_gradient.ask(mirrored(noise), state)
        return x, len(x)

    def tell(
        self, noise: AnyArray, state: natural_gradient.Ascent, probes: Probes
    ) -> tuple[natural_gradient.Ascent, AnyArray]:
        e = mirrored(noise)
        elbo = natural_gradient.batch_elbo(e, state, probes)
        return natural_gradient.tell(e, state, probes), -elbo

    place = place_gaussian

    def done(self, state: natural_gradient.Ascent) -> Bool[AnyArray, ""]:
        return state.done
