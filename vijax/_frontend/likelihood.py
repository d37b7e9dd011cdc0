from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Scalar

from .._custom_types import Data, Params
from .._target.minibatch import as_minibatch, leading_lengths
from .._target.param import ParamSpace
from .._target.target import Target
from .base import AbstractDensity, check_real, check_scalar, ParamModel, shape_of


class _Likelihood(AbstractDensity):
    log_prior: Callable
    log_likelihood: Callable

    def __call__(self, params: Params, data: Data, weight: Any) -> Scalar:
        rows = self.log_likelihood(params, data)
        return weight * jnp.sum(rows) + self.log_prior(params)

    def rows(self, params: Params, data: Data) -> Params:
        rows = self.log_likelihood(params, data)
        return {"rows": jnp.sum(rows, axis=tuple(range(1, rows.ndim)))}

    def check(self, space: ParamSpace, data: Data, *, in_batches: bool) -> None:
        if not jtu.tree_leaves(data):
            raise ValueError(
                "`data` has no arrays. Without data use `vi.from_log_density`."
            )
        if any(leaf.ndim == 0 for leaf in jtu.tree_leaves(data)):
            raise ValueError(
                "Every array in `data` needs a leading axis, which runs over the rows, "
                "but one is a scalar. Write a list of numbers as `np.asarray(list)`, and "
                "constants of the model in `log_likelihood` itself."
            )
        lengths = leading_lengths(data)
        num_rows = max(lengths.values())
        # Arrays of one row may stand beside a matrix whose columns they tell apart.
        broadcast = {1} if in_batches or _are_broadcast(data) else set()
        if set(lengths.values()) - broadcast > {num_rows}:
            raise ValueError(
                "The arrays in `data` must share their leading axis, which runs over "
                f"the rows, but their lengths are {lengths}."
            )
        if 0 in lengths.values():
            raise ValueError("`data` has no rows. Give one row at least.")
        check_scalar("log_prior", self.log_prior, space)
        out = shape_of("log_likelihood", self.log_likelihood, space, data)
        shape = getattr(out, "shape", None)
        if not shape or shape[0] != num_rows:
            got = f"shape {shape}" if shape is not None else f"a {type(out).__name__}"
            raise ValueError(
                f"`log_likelihood` must return one value a row, of shape ({num_rows},) "
                f"or ({num_rows}, ...), but it returned {got}. Do not add up over the "
                "rows: that is done for you, and scaled when rows come in batches."
            )
        check_real("log_likelihood", out.dtype)


def _are_broadcast(data: Data) -> bool:
    shapes = [leaf.shape for leaf in jtu.tree_leaves(data)]
    try:
        return len({len(shape) for shape in shapes}) == 1 and bool(
            np.broadcast_shapes(*shapes)
        )
    except ValueError:
        return False


def from_likelihood(
    log_prior: Callable[[Params], Scalar],
    log_likelihood: Callable[[Params, Any], Array],
    params: Mapping[str, Any],
    data: Data,
    *,
    batch_size: Any = None,
) -> Target:
    """A target from a prior and the likelihood of independent rows of data.

    **Arguments:**

    - `log_prior`: a function `log_prior(params)` that returns a scalar. `params` is a
        dictionary of arrays inside their supports.
    - `log_likelihood`: a function `log_likelihood(params, rows)` that returns one value
        a row. Further axes are added up.
    - `params`: `{name: vi.Param or example array}`, as in [`vijax.from_log_density`][].
    - `data`: any pytree of arrays that share their leading axis, which runs over rows.
    - `batch_size`: how many rows a step sees, in shuffled epochs, scaled to all the
        rows; or a tuple over several axes, or a [`vijax.Minibatch`][]. Default: all rows
        at every step. Keyword only.

    **Returns:**

    A [`vijax.Target`][]. Its log density is that of all the rows, whatever
    `batch_size` is; only the steps of a fit see batches.

    **Raises:** `ValueError` if the functions do not return what is said above or ask for
    an unknown name, if lengths disagree, if `batch_size` is not from 1 to the number of
    rows, or if data hold NaN.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi
        from jax.scipy.stats import norm

        target = vi.from_likelihood(
            lambda params: norm.logpdf(params["mu"], 0.0, 10.0),
            lambda params, y: norm.logpdf(y, params["mu"], 1.0),
            {"mu": vi.Param()},
            jnp.arange(1000.0),
            batch_size=100,
        )
        ```
    """
    model = ParamModel(_Likelihood(log_prior, log_likelihood), ParamSpace(params))
    return Target(model, data, as_minibatch(batch_size))
