import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._misc import as_flag
from .._target.target import Target
from .base import AbstractObjective, as_num_draws, mean_over_draws


class ELBO(AbstractObjective):
    r"""The negative evidence lower bound, $\mathbb{E}_q[\log q - \log p]$.

    Its gradient is the reparameterization gradient. Antithetic draws come in pairs,
    mirrored in the mean of a Gaussian: what is odd in the noise cancels, so that the
    location's gradient has next to none where the target is nearly Gaussian, and the
    scale's has none of what batches of rows bring. What is even is not averaged over as
    many draws: without batches, more draws may be the better buy.

    **Reference:** Kingma and Welling (2014), *Auto-encoding variational Bayes*,
    [arXiv:1312.6114](https://arxiv.org/abs/1312.6114), equation 6.

    !!! Example

        ```python
        import optax
        import vijax as vi

        method = vi.Descent(vi.ELBO(num_draws=8), optax.adam(1e-2))
        ```
    """

    num_draws: int = eqx.field(static=True)
    antithetic: bool = eqx.field(static=True)

    def __init__(self, num_draws: int = 1, *, antithetic: bool = False):
        """**Arguments:**

        - `num_draws`: how many draws a step averages over.
        - `antithetic`: whether they come in mirrored pairs; their number must be even
            then, and the family symmetric. Keyword only.

        **Raises:** `ValueError` for anything else.
        """
        self.num_draws = as_num_draws(num_draws)
        self.antithetic = as_flag("antithetic", antithetic)
        if self.antithetic and self.num_draws % 2:
            raise ValueError(
                "Antithetic draws come in pairs, so that `num_draws` must be even, but "
                f"it is {num_draws}."
            )

    @property
    def num_keys(self) -> int:
        """How many independent draws or pairs there are."""
        return self.num_draws // 2 if self.antithetic else self.num_draws

    def one(self, key: Key, family: AbstractFamily, target: Target) -> Scalar:
        """The loss of one draw, or pair of draws."""
        x, log_q = family.sample_and_log_prob(key)
        if not self.antithetic:
            return log_q - target.log_density(x)
        pair = jnp.stack([x, family.mirror(x)])
        return log_q - jnp.mean(jax.vmap(target.log_density)(pair))

    def __call__(self, key: Key, family: AbstractFamily, target: Target) -> Scalar:
        loss = lambda key: self.one(key, family, target)
        return mean_over_draws(loss, key, self.num_keys)
