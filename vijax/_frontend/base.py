"""A model whose parameters and supports are named beforehand."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Scalar

from .._custom_types import Data, Params, Point
from .._target.model import AbstractModel, OnHost
from .._target.param import ParamSpace


class AbstractDensity(eqx.Module):
    """A log density of parameters inside their supports."""

    @abc.abstractmethod
    def __call__(self, params: Params, data: Data, weight: Any) -> Scalar:
        """The log density; `weight` multiplies what depends on the data."""

    @abc.abstractmethod
    def rows(self, params: Params, data: Data) -> Params | None:
        """What each row adds, by name; `None` where that is unknown."""

    @abc.abstractmethod
    def check(self, space: ParamSpace, data: Data, *, in_batches: bool) -> None:
        """Raise a `ValueError` unless the density can be called with these."""

    def on_host(self, space: ParamSpace) -> OnHost | None:
        """Values and scores without a program of JAX, if that is where they are from."""
        del space


class ParamModel(AbstractModel):
    """A density of the user's own parameters, whose supports are known beforehand."""

    density: AbstractDensity
    space: ParamSpace

    @property
    def dim(self) -> int:
        return self.space.dim

    def initial(self) -> Point:
        return self.space.initial()

    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        params, log_jacobian = self.space.constrain(x)
        return self.density(params, data, weight).astype(x.dtype) + log_jacobian

    def unravel(self, x: Point) -> Params:
        return self.space.unravel(x)

    def constrain(self, x: Point, data: Data) -> Params:
        del data
        return self.space.constrain(x)[0]

    def unconstrain(self, params: Params, data: Data) -> Point:
        del data
        return self.space.unconstrain(params)

    def log_likelihood(self, params: Params, data: Data) -> Params:
        # These data may be other ones than those of the target.
        self.density.check(self.space, data, in_batches=False)
        rows = self.density.rows(params, data)
        return super().log_likelihood(params, data) if rows is None else rows

    @property
    def on_host(self) -> OnHost | None:
        return self.density.on_host(self.space)

    def check(self, data: Data, *, in_batches: bool) -> None:
        self.density.check(self.space, data, in_batches=in_batches)
        check_gradient(self, data)


@eqx.filter_jit
def _gradient(model: AbstractModel, x: Point, data: Data) -> Point:
    return jax.grad(model.log_density)(x, data, 1.0)


def check_gradient(model: AbstractModel, data: Data) -> None:
    """Raise unless the log density has the gradient that every method follows."""
    x = jax.eval_shape(model.initial)
    try:
        # Compiled functions remember their traces for equal shapes.
        eqx.filter_eval_shape(_gradient, model, x, data)
    except Exception as e:
        raise ValueError(
            "The log density can be computed, but not its gradient, which every method "
            f"follows: {type(e).__name__}: {e} Write a `lax.while_loop` as a `lax.scan` "
            "or `lax.fori_loop` over a fixed number of steps, and give what runs on the "
            "host, by `jax.pure_callback`, its own gradient with `jax.custom_vjp`, or "
            "make the target with `vi.from_host`."
        ) from e


def shape_of(name: str, fn: Callable, space: ParamSpace, *args: Any) -> Any:
    """What `fn(params, *args)` returns, as shapes; nothing is computed.

    Traces `fn` itself, so that JAX remembers the trace for equal shapes.
    """
    if not callable(fn):
        raise ValueError(
            f"`{name}` must be a function of `params`, but it is a {type(fn).__name__}."
        )
    try:
        return jax.eval_shape(fn, space.example, *args)
    except Exception as e:
        describe = lambda leaf: f"{leaf.dtype}{list(leaf.shape)}"
        given = [f"`params` {jax.tree.map(describe, space.example)}"]
        given += [f"`data` {jax.tree.map(describe, arg)}" for arg in args]
        raise ValueError(
            f"`{name}` raised {type(e).__name__}: {e}. It was called with "
            f"{' and '.join(given)}. The names, the shapes and the number of its "
            "arguments must agree with these, and it must compute with `jax.numpy`."
        ) from e


def check_scalar(name: str, fn: Callable, space: ParamSpace, *args: Any) -> None:
    """Raise unless `fn(params, *args)` is a real scalar."""
    out = shape_of(name, fn, space, *args)
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape != ():
        got = f"shape {shape}" if shape is not None else f"a {type(out).__name__}"
        raise ValueError(
            f"`{name}` must return a scalar, of shape (), but it returned {got}. "
            "Add up the terms, e.g. with `jnp.sum(...)`."
        )
    check_real(name, dtype)


def check_real(name: str, dtype: Any) -> None:
    """Raise unless `dtype` is that of real numbers."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"`{name}` must return real floating-point numbers, but it returned dtype "
            f"{dtype}. Cast the result, e.g. with `.astype(float)`."
        )
