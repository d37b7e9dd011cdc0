from jaxtyping import Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._misc import as_key
from .._target.target import Target
from .base import AbstractObjective


class FixedDraws(AbstractObjective):
    """Another objective with its randomness drawn once, so that it is deterministic.

    A deterministic loss suits second-order optimizers: with [`vijax.ELBO`][] and
    `optax.lbfgs()` this is DADVI. What is minimized is a sample average, whose optimum
    is a Monte Carlo error away from the truth; take many draws. Batches of rows make the
    loss random again, and are not for such optimizers.

    **Reference:** Giordano, Ingram and Broderick (2024), *Black box variational
    inference with a deterministic objective*, [arXiv:2304.05527](
    https://arxiv.org/abs/2304.05527).

    !!! Example

        ```python
        import jax.random as jr
        import optax
        import vijax as vi

        objective = vi.FixedDraws(vi.ELBO(num_draws=64), jr.key(0))
        method = vi.Descent(objective, optax.lbfgs())
        ```
    """

    objective: AbstractObjective
    key: Key

    def __init__(self, objective: AbstractObjective, key: Key):
        """**Arguments:**

        - `objective`: the objective whose draws are fixed.
        - `key`: the randomness it is given at every step.

        **Raises:** `ValueError` if either is something else.
        """
        if not isinstance(objective, AbstractObjective):
            raise ValueError(
                "`objective` must be an objective such as `vi.ELBO(num_draws=64)`, but "
                f"it is {objective!r}."
            )
        self.objective = objective
        self.key = as_key(key)

    def __call__(self, key: Key, family: AbstractFamily, target: Target) -> Scalar:
        del key
        return self.objective(self.key, family, target)
