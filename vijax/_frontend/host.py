import warnings
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar
from numpyro.distributions.transforms import IdentityTransform

from .._closures import ComparedByValue
from .._custom_types import Data, Params, Point
from .._misc import check_function, in_blocks, is_traced
from .._target.param import ParamSpace
from .._target.target import Target
from .base import AbstractDensity, ParamModel
from .host_call import host_density


Values = Float[np.ndarray, " points"]
Points = Float[np.ndarray, "points size"]
# How many points are transformed side by side.
_BLOCK = 64
_RETURNS = "a pair `(values, scores)` of NumPy arrays"


class _ReturnError(ValueError):
    """`fn` returned something else."""


class _Function(ComparedByValue):
    """The user's function. Equal to another one of the same function."""

    def __init__(self, fn: Callable):
        self.fn = fn
        try:
            hash(fn)
            self._identity = fn
        except TypeError:  # An object that can be called, and holds arrays.
            self._identity = id(fn)

    def __repr__(self):
        return f"_Function({self.fn!r})"

    def __call__(self, x: np.ndarray) -> tuple[Values, Points]:
        """Values and scores at some points, of shapes that are as they should be."""
        # An array of its own: some functions write into what they are given.
        x = np.array(x, np.float64)
        try:
            # Far out much overflows, and is taken to lie outside.
            with np.errstate(all="ignore"):
                out = self.fn(x.copy())
        except Exception as e:
            e.add_note(
                f"Raised by the `fn` of `vi.from_host` at points of shape {x.shape}."
            )
            raise
        if not isinstance(out, tuple | list) or len(out) != 2:
            got = f"a {type(out).__name__}"
            got += f" of {len(out)}" if isinstance(out, tuple | list) else ""
            raise _ReturnError(f"`fn` must return {_RETURNS}, but it returned {got}.")
        values, scores = out
        return (
            _as_reals("values", values, x.shape[:1], x),
            _as_reals("scores", scores, x.shape, x),
        )


def _as_reals(
    name: str, value: Any, shape: tuple[int, ...], x: np.ndarray
) -> Float[np.ndarray, "..."]:
    try:
        array = np.asarray(value)
    except ValueError:  # Lists within it differ in length.
        array = np.asarray(None)
    if array.dtype.kind not in "fiu":
        raise _ReturnError(
            f"`fn` must return {_RETURNS}, of real numbers, but its {name} have dtype "
            f"{array.dtype}."
        )
    if array.shape != shape:
        raise _ReturnError(
            f"`fn` must return {_RETURNS}: at points of shape {x.shape} a value each, "
            f"of shape {x.shape[:1]}, and the gradient at each, of shape {x.shape}. But "
            f"its {name} have shape {array.shape}."
        )
    # A copy: some functions fill the same array at each call.
    return np.array(array, np.float64)


def _flat(space: ParamSpace, x: Point) -> tuple[Array, Scalar]:
    """The constrained values in the order of `params`, and the log-Jacobian."""
    params, log_jacobian = space.constrain(x)
    return jnp.concatenate([params[name].ravel() for name in space.names]), log_jacobian


@eqx.filter_jit
def _constrained(space: ParamSpace, x: ArrayLike) -> tuple[Array, Array]:
    return jax.vmap(lambda x: _flat(space, x))(x)


@eqx.filter_jit
def _pulled_back(space: ParamSpace, x: ArrayLike, scores: ArrayLike) -> Array:
    def one(x: Point, score: Array) -> Array:
        back = jax.vjp(lambda x: _flat(space, x), x)[1]
        return back((score, jnp.ones((), x.dtype)))[0]

    return jax.vmap(one)(jnp.asarray(x), jnp.asarray(scores))


def _is_real(space: ParamSpace) -> bool:
    """Whether all supports are the real numbers, so that nothing is transformed."""
    bare = lambda t: bare(t.base_transform) if hasattr(t, "base_transform") else t
    return all(isinstance(bare(t), IdentityTransform) for t in space.transforms)


class _HostDensity(AbstractDensity):
    fn: _Function = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, params: Params, data: Data, weight: Any) -> Scalar:
        del data
        x = jnp.concatenate([params[name].ravel() for name in self.names])
        return weight * host_density(self.fn, x)

    def rows(self, params: Params, data: Data) -> None:
        del params, data

    def on_host(self, space: ParamSpace) -> Callable:
        def real(x: Points, data: Data = None) -> tuple[Values, Points]:
            del data
            return self.fn(x)

        def constrained(x: Points, data: Data = None) -> tuple[Values, Points]:
            del data
            # What overflows in float32 is infinite, as anything that JAX computes.
            with np.errstate(over="ignore"):
                x = x.astype(space.dtype)
                change = lambda x: _constrained(space, x)
                flat, log_jacobian = in_blocks(change, _BLOCK, x)
                values, slopes = self.fn(flat)
                back = lambda x, slopes: _pulled_back(space, x, slopes)
                scores = in_blocks(back, _BLOCK, x, slopes.astype(space.dtype))
            return values + log_jacobian, scores.astype(np.float64)

        return real if _is_real(space) else constrained

    def check(self, space: ParamSpace, data: Data, *, in_batches: bool) -> None:
        if in_batches or data is not None:
            raise ValueError(
                "A target of `vi.from_host` has no `data`, and no batches of them: what "
                "`fn` sees is its own affair. Make the target anew with another `fn`."
            )


def _look(density: _HostDensity, space: ParamSpace) -> None:
    """Call the function at the start, and nearby, to see what it is worth."""
    if is_traced(space):
        return
    on_host = density.on_host(space)
    start = np.asarray(space.initial(), np.float64)
    try:
        step = _step(start, on_host(start[None])[1][0])
        values, scores = on_host(np.stack([start, start + step]))
    except _ReturnError:
        raise
    except Exception as e:
        raise ValueError(
            f"`fn` raised {type(e).__name__}: {e}. It was called with a NumPy array of "
            "float64 of shape `(points, size)`, a point a row."
        ) from e
    _check_scores(values, scores, step)


def _step(start: Float[np.ndarray, " dim"], score: np.ndarray) -> np.ndarray:
    """A short way uphill."""
    with np.errstate(all="ignore"):
        up = score / np.max(np.abs(score))
    up = up if np.all(np.isfinite(up)) else np.ones_like(start)
    return 1e-3 * (1 + np.max(np.abs(start))) * up


def _check_scores(values: Values, scores: Points, step: np.ndarray) -> None:
    """Warn if scores are no gradient of the values."""
    # Exact for any parabola, however narrow.
    expected, rise = np.mean(scores, axis=0) @ step, values[1] - values[0]
    if not np.isfinite(expected) or not np.isfinite(rise):
        return
    size = max(abs(expected), abs(rise))
    # What is lost in rounding says nothing, if `fn` computes in float32, too.
    if size > 1e-4 * (1 + abs(values[0])) and abs(expected - rise) > 0.1 * size:
        warnings.warn(
            "The scores of `fn` seem not to be the gradient of its values: over a short "
            f"way from the starting point they say that the log density rises by "
            f"{expected:.3g}, but it rises by {rise:.3g}.",
            stacklevel=4,
        )


def from_host(
    fn: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], params: Mapping[str, Any]
) -> Target:
    r"""A target from a function of NumPy arrays, of which nothing of JAX is asked.

    Use it for models that JAX cannot trace: Stan through BridgeStan, a simulator with
    adjoints, a density in another language or behind a network.

    **Arguments:**

    - `fn`: a function `fn(x)` of a block of points, one a row, as a float64 array of
        shape `(points, size)`. It returns `(values, scores)`: the unnormalized log
        density at each point, of shape `(points,)`, and its gradient with respect to
        the point, of shape `(points, size)`. What is not finite lies outside, and
        NumPy's warnings of it are not shown.
        A row of `x` has the values of all parameters *inside their supports*, raveled, in
        the order of `params`; density and gradient are with respect to these. The
        log-Jacobian of the change to unconstrained coordinates is added for you, and
        the gradient is taken there: a density that is already on the unconstrained scale
        needs parameters on all of the reals, and nothing is changed then.
        It must not call JAX itself, which may wait for the program that calls it.
    - `params`: `{name: vi.Param or example array}`, as in [`vijax.from_log_density`][].

    **Returns:**

    A [`vijax.Target`][]. A block of points is one call of `fn`, also in programs of JAX:
    its draws under `jax.vmap`. They can be differentiated once.

    **Raises:** `ValueError` if `fn` raises at the starting point, or does not return what
    is said above. **Warns** if the scores there are clearly no gradient of the values.

    !!! Example

        ```python
        import numpy as np
        import vijax as vi

        y = np.array([1.2, 0.7, 1.9])

        def fn(x):
            mu, scale = x[:, :1], np.exp(x[:, 1:])
            z = (y - mu) / scale
            values = -0.5 * (mu**2 + x[:, 1:] ** 2) - x[:, 1:] * y.size
            values = values - 0.5 * np.sum(z**2, axis=1, keepdims=True)
            by_mu = np.sum(z / scale, axis=1, keepdims=True) - mu
            by_log_scale = np.sum(z**2 - 1, axis=1, keepdims=True) - x[:, 1:]
            return values[:, 0], np.concatenate([by_mu, by_log_scale], axis=1)

        target = vi.from_host(fn, {"mu": vi.Param(), "log_scale": vi.Param()})
        ```
    """
    check_function("fn", fn, "fn(x) -> (values, scores)", 1)
    space = ParamSpace(params)
    density = _HostDensity(_Function(fn), space.names)
    target = Target(ParamModel(density, space))
    _look(density, space)
    return target
