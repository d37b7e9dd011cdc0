"""Supports: their transforms from real numbers, and whether they make sense."""

from typing import Any

import jax
import numpy as np
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from .._misc import is_traced, lenient_promotion


def find_transform(support: Any, shape: tuple[int, ...]) -> Transform:
    unknown = ValueError(
        f"NumPyro's `biject_to` has no transform from real numbers to the support "
        f"{support!r}. Use a member of `numpyro.distributions.constraints`, such as "
        "`constraints.positive`."
    )
    if not isinstance(support, constraints.Constraint) or support is constraints.complex:
        raise unknown
    try:
        transform = None if support.is_discrete else biject_to(support)
    except NotImplementedError as e:
        raise unknown from e
    if transform is None:
        raise ValueError(
            f"The support {support} is discrete. Variational inference needs continuous "
            "parameters: sum the discrete one out of the density."
        )
    if isinstance(support, constraints.zero_sum) and support.event_dim < 1:
        raise ValueError(
            f"The support {support} adds up over {support.event_dim} axes. Give "
            "`constraints.zero_sum` a whole number of at least 1."
        )
    misfit = f"A parameter of shape {shape} cannot have the support {support}"
    if len(shape) < support.event_dim:
        raise ValueError(f"{misfit}, which needs {support.event_dim} axes or more.")
    try:
        inverse = tuple(transform.inverse_shape(shape))
        forward = tuple(transform.forward_shape(inverse))
    except ValueError as e:
        raise ValueError(f"{misfit}: {e}") from e
    if forward != shape or any(axis < 0 for axis in inverse):
        raise ValueError(f"{misfit}, whose values have shape {forward}.")
    return transform


def check_bounds(support: Any) -> None:
    """Raise for bounds with nothing between them, or that are no finite numbers."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    names = [n for n in ("lower_bound", "upper_bound") if hasattr(support, n)]
    bounds = [getattr(support, name) for name in names]
    if is_traced(bounds):
        return
    dtype = jax.dtypes.canonicalize_dtype(float)
    try:
        # What overflows there is infinite, and is said to be below.
        with np.errstate(over="ignore"):
            arrays = [np.asarray(bound, float).astype(dtype) for bound in bounds]
    except (TypeError, ValueError, OverflowError) as e:
        raise ValueError(
            f"The support {support} has bounds that are no numbers: {bounds}."
        ) from e
    is_empty = len(arrays) == 2 and not np.all(arrays[0] < arrays[1])
    if is_empty or any(np.any(np.isnan(array)) for array in arrays):
        raise ValueError(
            f"The support {support} has nothing in it: its bounds are {bounds}, of which "
            f"the lower one comes first, in {dtype}."
        )
    if not all(np.all(np.isfinite(array)) for array in arrays):
        raise ValueError(
            f"The support {support} has bounds that are infinite in {dtype}: {bounds}. "
            "Use `constraints.greater_than(low)` or `constraints.less_than(high)` where "
            "only one side is bounded, and `constraints.real` where none is."
        )
    largest = np.iinfo(jax.dtypes.canonicalize_dtype(int)).max
    for bound in bounds:
        if isinstance(bound, list | tuple):
            raise ValueError(
                f"The support {support} has bounds in a list, {bound}, which NumPyro "
                "does not compute with. Write them as an array, `jnp.array(...)`."
            )
        if isinstance(bound, int) and abs(bound) > largest:
            raise ValueError(
                f"The support {support} has a whole number as a bound that is too large "
                f"for JAX: {bound}. Write it as a float, {float(bound):g}."
            )


def is_inside(initial: Any, support: Any, transform: Transform) -> bool:
    if not np.all(np.isfinite(initial)):
        return False
    if support is constraints.real:  # Nothing is left to ask, or to compile.
        return True
    with lenient_promotion():
        inside = np.all(np.asarray(support(initial)))
        return bool(inside) and bool(np.all(np.isfinite(transform.inv(initial))))
