import jax.random as jr
from jaxtyping import Array, Bool, Scalar

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._linalg import mirrored
from .._misc import lenient_promotion
from .._solver import natural_gradient
from .._target.probe import probe
from .._target.target import Target
from .base import AbstractMethod, check_gaussian, F, moved


class NaturalGradient(AbstractMethod):
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

    def init(
        self, key: Key, family: AbstractFamily, target: Target
    ) -> natural_gradient.Ascent:
        del key
        gaussian = check_gaussian(self, family, target)
        return natural_gradient.begin(gaussian.loc, gaussian.tril)

    def step(
        self, key: Key, family: F, target: Target, state: natural_gradient.Ascent
    ) -> tuple[F, natural_gradient.Ascent, Scalar]:
        shape = natural_gradient.BATCH // 2, state.loc.size
        e = mirrored(jr.normal(key, shape, state.loc.dtype))
        with lenient_promotion():
            x = natural_gradient.ask(e, state)
        probes = probe(target, x, len(e))
        with lenient_promotion():
            after = natural_gradient.tell(e, state, probes)
            elbo = natural_gradient.batch_elbo(e, state, probes)
            return moved(family, after.loc, after.tril), after, -elbo

    def done(self, state: natural_gradient.Ascent) -> Bool[Array, ""]:
        return state.done
