import equinox as eqx
from jaxtyping import Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._target import Target
from .base import AbstractObjective, as_num_draws, mean_over_draws


class ELBO(AbstractObjective):
    r"""The negative evidence lower bound, $\mathbb{E}_q[\log q - \log p]$.

    Its gradient is the reparameterization gradient.

    **Reference:** Kingma and Welling (2014), *Auto-encoding variational Bayes*,
    [arXiv:1312.6114](https://arxiv.org/abs/1312.6114), equation 6.

    !!! Example

        ```python
        import optax
        import vijax as vi

        method = vi.Descent(vi.ELBO(num_draws=8), optax.adam(1e-2))
        ```
    """

    num_draws: int = eqx.field(default=1, static=True, converter=as_num_draws)

    def __call__(self, key: Key, family: AbstractFamily, target: Target) -> Scalar:
        def loss(key: Key) -> Scalar:
            x, log_q = family.sample_and_log_prob(key)
            return log_q - target.log_density(x)

        return mean_over_draws(loss, key, self.num_draws)
