"""Parameters: shapes, supports, and the way to one unconstrained vector."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from .._custom_types import Params, Point
from .._misc import as_array, as_numbers, as_whole, eager, is_traced, lenient_promotion
from .support import check_bounds, find_transform, is_inside


class Param(eqx.Module):
    """One named parameter of a model: its shape, and the values that it may take.

    !!! Example

        ```python
        from numpyro.distributions import constraints
        import vijax as vi

        params = {
            "mu": vi.Param(),
            "tau": vi.Param(support=constraints.positive),
            "weights": vi.Param((3,), constraints.simplex, initial=[0.2, 0.3, 0.5]),
        }
        ```
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    support: Any
    initial: Array | np.ndarray | None

    def __init__(
        self,
        shape: int | tuple[int, ...] = (),
        support: Any = constraints.real,
        initial: ArrayLike | list | None = None,
    ):
        """**Arguments:**

        - `shape`: the shape of the parameter. Default: a scalar. For supports of
            vectors and matrices (simplex, ordered, correlation, …) it includes their
            own axes.
        - `support`: any constraint in `numpyro.distributions.constraints` for which
            NumPyro's `biject_to` has a transform. Default: all of the real numbers.
        - `initial`: where to start, inside `support`. Default: zero on the
            unconstrained scale.

        **Raises:** `ValueError` for a discrete or unknown support, a shape that does
        not fit it, or an `initial` of another shape or with NaN or infinities.
        """
        self.shape = _as_shape(shape)
        self.support = support
        self.initial = initial = as_array(initial)
        check_bounds(support)
        transform = find_transform(support, self.shape)
        if initial is not None:
            as_numbers("initial", initial)
            if initial.shape != self.shape:
                raise ValueError(
                    f"`initial` has shape {initial.shape}, but the parameter has "
                    f"shape {self.shape}. Make the two equal."
                )
            if not is_traced(initial) and not is_inside(initial, support, transform):
                raise ValueError(
                    f"`initial` is {initial}, which is not strictly inside the support "
                    f"{support} (NaN and infinities never are). Give a point that is."
                )

    @property
    def transform(self) -> Transform:
        """The map from unconstrained values into `support`."""
        return find_transform(self.support, self.shape)


def _as_shape(shape: Any) -> tuple[int, ...]:
    is_several = isinstance(shape, Sequence | np.ndarray)
    try:
        if isinstance(shape, str | bytes):
            raise ValueError("Letters are no numbers.")
        axes = tuple(shape) if is_several else (shape,)
        return tuple(as_whole("shape", axis, 0) for axis in axes)
    except (TypeError, ValueError) as e:
        raise ValueError(
            f"`shape` must be a whole number or a tuple of them, but it is {shape!r}. "
            "A support is the second argument: `vi.Param((), constraints.positive)`."
        ) from e


def _as_param(name: str, value: Any) -> tuple[Param, np.dtype | None]:
    if isinstance(value, Param):
        return value, None
    if isinstance(value, constraints.Constraint):
        raise ValueError(
            f"`params[{name!r}]` is a support. Write `vi.Param(support=...)` around it, "
            "with a shape unless it is a scalar."
        )
    array = as_array(value)
    if array is None or array.dtype.kind in "OSU":
        raise ValueError(
            f"`params[{name!r}]` must be a `vi.Param` or an example array, but it is a "
            f"{type(value).__name__}."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"`params[{name!r}]` has dtype {array.dtype}, which is not floating-point. "
            f"Continuous parameters are needed: write e.g. `{name}=jnp.zeros(...)` or "
            "`vi.Param(shape)`, and sum discrete parameters out of the density."
        )
    dtype = array.dtype if isinstance(value, (jax.Array, np.ndarray)) else None
    try:
        return Param(array.shape, initial=array), dtype
    except ValueError as e:
        raise ValueError(f"`params[{name!r}]`: {e}") from e


def named_parts(
    x: Point, names: Sequence[str], shapes: Sequence[tuple[int, ...]]
) -> Params:
    """A vector as arrays of these names and shapes, one after the other."""
    sizes = [math.prod(shape) for shape in shapes]
    shape = getattr(x, "shape", None)
    if shape != (sum(sizes),):
        given = f"is {x!r}" if shape is None else f"has shape {shape}"
        raise ValueError(
            f"A point of this target has shape ({sum(sizes)},), but this one, `x`, "
            f"{given}."
        )
    ends = itertools.accumulate(sizes)
    return {
        name: x[end - size : end].reshape(shape)
        for name, shape, size, end in zip(names, shapes, sizes, ends, strict=True)
    }


class ParamSpace(eqx.Module):
    """Named parameters laid out in one flat unconstrained vector.

    Names are in the order given; each parameter takes as many coordinates as its
    unconstrained value has.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)
    transforms: tuple[Transform, ...]
    initials: tuple[np.ndarray | Array | None, ...]

    def __init__(self, params: Mapping[str, Any]):
        if not isinstance(params, Mapping) or not params:
            raise ValueError(
                "`params` must be a dictionary {name: vi.Param or example array} with at "
                f"least one entry, but it is {params!r}."
            )
        pairs = [_as_param(name, value) for name, value in params.items()]
        dtypes = {dtype for _, dtype in pairs if dtype is not None}
        default = jax.dtypes.canonicalize_dtype(float)
        dtype = np.result_type(*dtypes) if dtypes else default
        self.dtype = np.dtype(jax.dtypes.canonicalize_dtype(dtype))
        self.names = tuple(params)
        self.shapes = tuple(param.shape for param, _ in pairs)
        self.transforms = tuple(param.transform for param, _ in pairs)
        cast = lambda x: None if x is None else jax.device_put(x.astype(self.dtype))
        self.initials = tuple(cast(param.initial) for param, _ in pairs)

    @property
    def unconstrained_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each parameter's unconstrained value."""
        pairs = zip(self.transforms, self.shapes, strict=True)
        return tuple(tuple(t.inverse_shape(shape)) for t, shape in pairs)

    @property
    def dim(self) -> int:
        """The number of unconstrained coordinates."""
        return sum(int(np.prod(shape)) for shape in self.unconstrained_shapes)

    @property
    def example(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What a model's density is called with, as shapes."""
        pairs = zip(self.names, self.shapes, strict=True)
        return {name: jax.ShapeDtypeStruct(shape, self.dtype) for name, shape in pairs}

    def _dtype_within(self, transform: Transform) -> np.dtype:
        # NumPyro's transforms of vectors and matrices make arrays of the default dtype.
        default = jax.dtypes.canonicalize_dtype(float)
        return self.dtype if transform.domain.event_dim == 0 else np.dtype(default)

    def unravel(self, x: Point) -> Params:
        """The named parts of `x`, unconstrained."""
        return named_parts(x, self.names, self.unconstrained_shapes)

    def constrain(self, x: Point) -> tuple[Params, Scalar]:
        """The named parameters, and the log-Jacobian of the map to them."""
        parts = self.unravel(x)
        params, log_jacobian = {}, jnp.zeros((), x.dtype)
        with lenient_promotion():
            for name, transform in zip(self.names, self.transforms, strict=True):
                part = parts[name].astype(self._dtype_within(transform))
                value = jnp.asarray(transform(part))
                log_det = transform.log_abs_det_jacobian(part, value)
                params[name] = value.astype(x.dtype)
                log_jacobian = log_jacobian + jnp.sum(log_det).astype(x.dtype)
        return params, log_jacobian

    def _invert(self, values: Iterable[ArrayLike | None]) -> Float[Array, " dim"]:
        parts = []
        with lenient_promotion():
            for transform, value, shape in zip(
                self.transforms, values, self.unconstrained_shapes, strict=True
            ):
                if value is None:
                    part = np.zeros(shape, self.dtype)
                else:
                    dtype = self._dtype_within(transform)
                    part = transform.inv(jnp.asarray(value, dtype))
                parts.append(part)
        # What is known is put together on the host, which compiles nothing.
        xp, done = eager(parts)
        flat = [xp.ravel(xp.asarray(part, self.dtype)) for part in parts]
        return done(xp.concatenate(flat))

    def initial(self) -> Float[Array, " dim"]:
        """The unconstrained starting point."""
        return self._invert(self.initials)

    def unconstrain(self, params: Params) -> Float[Array, " dim"]:
        """The unconstrained point of named parameters."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            if np.shape(params[name]) != shape:
                raise ValueError(
                    f"`params[{name!r}]` has shape {np.shape(params[name])}, but the "
                    f"parameter has shape {shape}."
                )
        return self._invert(params[name] for name in self.names)
