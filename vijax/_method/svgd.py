from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Scalar

from .._closures import closures_as_pytrees
from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._family.particles import Particles
from .._kernel.base import AbstractKernel, as_kernel
from .._kernel.rbf import RBF
from .._kernel.stein import check_temperature, squared_norm, stein_force
from .._misc import as_real, as_whole, lenient_promotion
from .._target.target import Target
from .base import AbstractMethod, as_optimizer, default_optimizer, F


class SVGD(AbstractMethod):
    r"""Stein variational gradient descent: particles drawn uphill that keep apart.

    Each particle follows the Stein force

    $$\phi(x_i) = \frac{1}{n} \sum_j
      k(x_j, x_i) \nabla \log p(x_j) / T + \nabla_{x_j} k(x_j, x_i).$$

    It needs no family of densities, so it finds several modes where they are near enough
    for particles to reach them, and it has no density afterwards. In many dimensions the
    particles' variance is too small. The loss is the mean squared length of the force:
    zero once the particles are at rest. It also works with batches of rows.

    To stop early use [`vijax.ParameterConvergence`][] with `diff="absolute"`, and a
    tolerance that is small beside the posterior's width. [`vijax.LossConvergence`][]
    waits until the loss falls no further, which without the noise of batches takes
    longer than the particles deserve.

    **Reference:** Liu and Wang (2016), *Stein variational gradient descent*,
    [arXiv:1608.04471](https://arxiv.org/abs/1608.04471), equation 8.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        method = vi.SVGD(num_particles=50)
        fit = vi.fit(target, method, key=jax.random.key(0), max_steps=500)
        fit.family.x  # (50, 1)
        ```
    """

    kernel: AbstractKernel
    optimizer: Any
    num_particles: int = eqx.field(static=True)
    jitter: float
    temperature: float

    def __init__(
        self,
        kernel: AbstractKernel | Callable | None = None,
        optimizer: optax.GradientTransformation | None = None,
        *,
        num_particles: int = 100,
        jitter: float | int = 1.0,
        temperature: float | int = 1.0,
    ):
        """**Arguments:**

        - `kernel`: a kernel, or a function `kernel(x, y)` of two points that returns a
            scalar. Default: [`vijax.RBF`][], whose bandwidth follows the particles.
        - `optimizer`: an Optax gradient transformation. Default: Adam with a rate of
            `0.1 / (1 + t / 300)`.
        - `num_particles`: how many particles to start with, where `vi.fit` is given no
            [`vijax.Particles`][]. Keyword only.
        - `jitter`: the standard deviation of the particles around the model's starting
            point at first, on the unconstrained scale. Keyword only.
        - `temperature`: $T$: above one the posterior is flattened. Keyword only.

        **Raises:** `ValueError` for anything else.
        """
        if not 0 <= as_real(jitter) < float("inf"):
            raise ValueError(
                f"`jitter` must be finite and not negative, but it is {jitter!r}."
            )
        self.kernel = RBF() if kernel is None else as_kernel(kernel)
        chosen = default_optimizer() if optimizer is None else as_optimizer(optimizer)
        self.optimizer = closures_as_pytrees(chosen)
        self.num_particles = as_whole("num_particles", num_particles, 1)
        self.jitter = float(jitter)
        self.temperature = check_temperature(temperature)

    def start(self, key: Key, loc: Point) -> Particles:
        noise = jr.normal(key, (self.num_particles, loc.size), loc.dtype)
        return Particles(loc[None] + self.jitter * noise)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> optax.OptState:
        del key, target
        if not isinstance(family, Particles):
            raise ValueError(
                f"Cannot use `vi.SVGD` with `{type(family).__name__}`. This is because "
                "it moves particles: pass no family, or a `vi.Particles`. To move "
                "another family by the Stein force use `vi.Descent(vi.SteinForce(), "
                "optimizer)`."
            )
        return self.optimizer.init(family.x)

    def step(
        self, key: Key, family: F, target: Target, state: optax.OptState
    ) -> tuple[F, optax.OptState, Scalar]:
        del key
        assert isinstance(family, Particles)
        x = family.x
        force = stein_force(self.kernel, x, target, self.temperature)
        loss = squared_norm(force)
        with lenient_promotion():
            try:
                updates, state = self.optimizer.update(-force, state, x, value=loss)
            except TypeError as e:
                raise ValueError(
                    "`optimizer` asks for more than gradients, as a line search does. "
                    "The Stein force is no gradient of a loss whose values could be "
                    "searched: use e.g. `optax.adam(0.05)`."
                ) from e
        x = x + jnp.asarray(updates, x.dtype)
        return eqx.tree_at(lambda family: family.x, family, x), state, loss
