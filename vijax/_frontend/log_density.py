from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Scalar

from .._custom_types import Data, Params
from .._target.param import ParamSpace
from .._target.target import Target
from .base import AbstractDensity, check_scalar, ParamModel


class _LogDensity(AbstractDensity):
    fn: Callable

    def __call__(self, params: Params, data: Data, weight: Any) -> Scalar:
        value = self.fn(params) if data is None else self.fn(params, data)
        return weight * jnp.asarray(value)

    def rows(self, params: Params, data: Data) -> None:
        del params, data

    def check(self, space: ParamSpace, data: Data, *, in_batches: bool) -> None:
        if in_batches:
            raise ValueError(
                "A log density as a whole cannot see its data in batches: what is to be "
                "scaled to all the rows is unknown. Make the target with "
                "`vi.from_likelihood(log_prior, log_likelihood, params, data)`."
            )
        args = () if data is None else (data,)
        check_scalar("log_density", self.fn, space, *args)


def from_log_density(
    log_density: Callable[..., Scalar], params: Mapping[str, Any], data: Data = None
) -> Target:
    """A target from a log density.

    Use it when the density cannot be split into a prior and rows of data; with rows,
    [`vijax.from_likelihood`][] can also see them in batches.

    **Arguments:**

    - `log_density`: a function `log_density(params)`, or `log_density(params, data)`
        where data are given, that returns the unnormalized log density as a scalar.
        `params` is a dictionary of arrays *inside their supports*; the log-Jacobian of
        the change to unconstrained coordinates is added for you.
    - `params`: `{name: vi.Param(shape, support)}`. In place of a `vi.Param`, an example
        array means a parameter of its shape on all of the reals, started at its value.
    - `data`: any pytree of arrays. Put data here rather than close over them: then the
        same compiled fit serves new data.

    **Returns:**

    A [`vijax.Target`][].

    **Raises:** `ValueError` if `log_density` does not return a real scalar or asks for
    an unknown name, if a parameter is not continuous, or if data hold NaN.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi
        from jax.scipy.stats import norm

        def log_density(params, y):
            return norm.logpdf(params["mu"]) + norm.logpdf(y, params["mu"]).sum()

        target = vi.from_log_density(log_density, {"mu": vi.Param()}, jnp.ones(10))
        ```
    """
    return Target(ParamModel(_LogDensity(log_density), ParamSpace(params)), data)
