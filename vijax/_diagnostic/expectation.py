from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._draws.draws import Draws
from .base import check_several, Estimate


@eqx.filter_jit
def _mean_and_stderr(values: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
    is_inexact = lambda v: jnp.issubdtype(v.dtype, jnp.inexact)
    values = jax.tree.map(lambda v: v if is_inexact(v) else v.astype(float), values)
    stderr = lambda v: jnp.std(v, axis=0, ddof=1) / v.shape[0] ** 0.5
    mean = jax.tree.map(lambda v: jnp.mean(v, axis=0), values)
    return mean, jax.tree.map(stderr, values)


def expectation(draws: Draws, fn: Callable[..., PyTree[Array]], *args: Any) -> Estimate:
    r"""The expectation of a function of the parameters, with its standard error.

    The error is that of drawing. It knows nothing of how far the family is from the
    target, nor of how far particles are from rest.

    **Arguments:**

    - `draws`: two draws at least.
    - `fn`: a function `fn(params, *args)` of one draw's parameters that returns any
        pytree of arrays; of booleans for a probability.
    - `args`: passed on, such as other data: as in [`vijax.Draws`][]`.evaluate`.

    **Returns:**

    An [`vijax.Estimate`][] whose `mean` and `stderr` have the structure and the shapes
    of what `fn` returns.

    **Raises:** `ValueError` for fewer than two draws.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 100, key=jax.random.key(0))
        vi.expectation(draws, lambda params: params["x"] ** 2)
        vi.expectation(draws, lambda params, at: params["x"] > at, 0.1)
        ```
    """
    check_several(draws)
    return Estimate(*_mean_and_stderr(draws.evaluate(fn, *args)))
