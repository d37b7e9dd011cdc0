from typing import Generic

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._family.particles import Particles
from .._misc import as_real
from .._target.target import Target
from .base import AbstractMethod, F, State


class _AveragingState(eqx.Module, Generic[F]):
    iterate: F
    inner: State
    num_steps: Float[Array, ""]


class Averaging(AbstractMethod):
    r"""Another method, whose answer is a running average of where it has been.

    A stochastic optimizer ends by jumping around the optimum; the average of its
    iterates comes closer. The weight of the $t$-th iterate grows like
    $t^{\text{power}}$, so that about the last `1 / (power + 1)` of the run counts,
    whatever its length: nothing needs to know when the run will end.

    **Reference:** Shamir and Zhang (2013), *Stochastic gradient descent for non-smooth
    optimization*, [arXiv:1212.1824](https://arxiv.org/abs/1212.1824), section 4:
    $\bar\theta_t = (1 - w)\,\bar\theta_{t-1} + w\,\theta_t$ with
    $w = (\text{power} + 1) / (t + \text{power})$.

    !!! Example

        ```python
        import optax
        import vijax as vi

        method = vi.Averaging(vi.Descent(vi.ELBO(), optax.adam(1e-2)))
        ```
    """

    method: AbstractMethod
    power: float = eqx.field(static=True)

    def __init__(self, method: AbstractMethod, power: float | int = 3.0):
        """**Arguments:**

        - `method`: the method whose iterates are averaged.
        - `power`: how much more the late iterates count; zero for a plain average.

        **Raises:** `ValueError` for a negative or infinite `power`, or no method.
        """
        if not isinstance(method, AbstractMethod):
            raise ValueError(
                "`method` must be a method such as `vi.Descent(...)`, but it is "
                f"{method!r}."
            )
        if not 0 <= as_real(power) < float("inf"):
            raise ValueError(
                f"`power` must not be negative, and finite, but it is {power!r}."
            )
        self.method = method
        self.power = float(power)

    @property
    def can_estimate(self) -> bool:
        return self.method.can_estimate

    def start(self, key: Key, loc: Point) -> AbstractFamily:
        return self.method.start(key, loc)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> State:
        return _AveragingState(
            iterate=family,
            inner=self.method.init(key, family, target),
            num_steps=jnp.zeros(()),
        )

    def step(
        self, key: Key, family: F, target: Target, state: _AveragingState
    ) -> tuple[F, _AveragingState, Scalar]:
        iterate, inner, loss = self.method.step(key, state.iterate, target, state.inner)
        if isinstance(family, Particles):
            raise ValueError(
                "Cannot use `vi.Averaging` with `Particles`. This is because the average "
                "of where particles have been is narrower than where they are: use "
                f"`vi.{type(self.method).__name__}` alone."
            )
        num_steps = state.num_steps + 1
        weight = (self.power + 1) / (num_steps + self.power)

        def average(old, new):
            if not eqx.is_inexact_array(new):
                return new
            return old + weight.astype(old.dtype) * (new - old)

        family = jax.tree.map(average, family, iterate)
        return family, _AveragingState(iterate, inner, num_steps), loss
