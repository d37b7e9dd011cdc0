import equinox as eqx
import jax.lax as lax
from jaxtyping import Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._target.target import Target
from .base import AbstractObjective, as_num_draws, mean_over_draws


class StickTheLanding(AbstractObjective):
    """The negative evidence lower bound, with the score term left out of the gradient.

    The value is that of [`vijax.ELBO`][]. The gradient has the same expectation, and no
    variance once the family equals the target: prefer it where the family can come
    close.

    **Reference:** Roeder, Wu and Duvenaud (2017), *Sticking the landing*,
    [arXiv:1703.09194](https://arxiv.org/abs/1703.09194): the path derivative
    estimator.

    !!! Example

        ```python
        import optax
        import vijax as vi

        method = vi.Descent(vi.StickTheLanding(num_draws=8), optax.adam(1e-2))
        ```
    """

    num_draws: int = eqx.field(default=1, static=True, converter=as_num_draws)

    def __call__(self, key: Key, family: AbstractFamily, target: Target) -> Scalar:
        arrays, rest = eqx.partition(family, eqx.is_array)
        frozen = eqx.combine(lax.stop_gradient(arrays), rest)

        def loss(key: Key) -> Scalar:
            x = family.sample(key)
            return frozen.log_prob(x) - target.log_density(x)

        return mean_over_draws(loss, key, self.num_draws)
