from collections.abc import Callable

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._kernel.base import AbstractKernel, as_kernel
from .._kernel.rbf import RBF
from .._kernel.stein import check_temperature, squared_norm, stein_force
from .._target.target import Target
from .base import AbstractObjective, as_num_draws


class SteinForce(AbstractObjective):
    """The Stein force on a family's draws, which flows on into its parameters.

    With [`vijax.Descent`][] this is amortized Stein variational gradient descent: it
    works with any family that can be reparameterized, and asks it for no density. Its
    value is the mean squared length of the force; its gradient moves the draws along it,
    $-\\mathbb{E}[\\phi(x) \\cdot \\partial x / \\partial\\theta]$. The variance comes
    out too small; more draws, or a `temperature` above one, widen it.

    **Reference:** Feng, Wang and Liu (2017), *Learning to draw samples with amortized
    Stein variational gradient descent*, [arXiv:1707.06626](
    https://arxiv.org/abs/1707.06626), equation 6.

    !!! Example

        ```python
        import optax
        import vijax as vi

        method = vi.Descent(vi.SteinForce(num_draws=100), optax.adam(1e-2))
        ```
    """

    num_draws: int = eqx.field(static=True)
    kernel: AbstractKernel
    temperature: float

    def __init__(
        self,
        num_draws: int = 100,
        kernel: AbstractKernel | Callable | None = None,
        *,
        temperature: float | int = 1.0,
    ):
        """**Arguments:**

        - `num_draws`: how many draws a step pushes against each other.
        - `kernel`: as in [`vijax.SVGD`][]. Default: [`vijax.RBF`][].
        - `temperature`: above one the posterior is flattened. Keyword only.

        **Raises:** `ValueError` for anything else.
        """
        self.num_draws = as_num_draws(num_draws)
        self.kernel = RBF() if kernel is None else as_kernel(kernel)
        self.temperature = check_temperature(temperature)

    def __call__(self, key: Key, family: AbstractFamily, target: Target) -> Scalar:
        x = jax.vmap(family.sample)(jr.split(key, self.num_draws))
        at = lax.stop_gradient(x)
        force = stein_force(self.kernel, at, target, self.temperature)
        surrogate = -jnp.mean(jnp.sum(lax.stop_gradient(force) * x, axis=1))
        return with_gradient_of(lax.stop_gradient(squared_norm(force)), surrogate)


def with_gradient_of(value: Scalar, surrogate: Scalar) -> Scalar:
    """A scalar equal to `value`, whose derivative is that of `surrogate`."""
    return value + (surrogate - lax.stop_gradient(surrogate))
