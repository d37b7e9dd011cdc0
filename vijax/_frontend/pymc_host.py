"""What PyTensor computes itself, on the host, where it has no form of it in JAX.

PyMC and PyTensor are imported inside, since they are optional.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .host_call import host_call, host_density
from .pymc_forms import NoForm


class NoGradient(NoForm):
    """Neither JAX nor PyTensor can differentiate an Op."""

    def __init__(self, other: NoForm):
        Exception.__init__(self, str(other))


class _Compiled:
    """A graph as a function of PyTensor's, a point at a time."""

    def __init__(self, inputs: Sequence[Any], outputs: Sequence[Any], *, bounds: bool):
        from pymc.model import Model
        from pymc.pytensorf import compile

        # PyMC reads off a model whether its checks of parameters are wanted.
        with Model(check_bounds=bounds):
            self._fn: Any = compile(list(inputs), list(outputs), on_unused_input="ignore")
        self._dtypes = [var.type.dtype for var in inputs]
        # Its inputs lie in one place, whichever thread it is that calls.
        self._lock = threading.Lock()

    def __call__(self, *args: ArrayLike) -> list[np.ndarray]:
        pairs = zip(args, self._dtypes, strict=True)
        cast = [np.asarray(arg, dtype) for arg, dtype in pairs]
        with self._lock, np.errstate(all="ignore"):
            return [np.array(out) for out in self._fn(*cast)]

    def over(self, args: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """What it makes of each point: arguments are as a `Block` is given them."""
        at = lambda x, i: x[i if len(x) > 1 else 0]
        return [self(*(at(x, i) for x in args)) for i in range(len(args[0]))]


class HostDensity:
    """A log density of values and data, with its gradient.

    **Raises:** `NoGradient` if there is none.
    """

    def __init__(
        self,
        values: Sequence[Any],
        inputs: Sequence[Any],
        log_density: Any,
        *,
        bounds: bool,
        because: NoForm,
    ):
        from pytensor.gradient import grad

        try:
            slopes: Any = grad(log_density, list(values), disconnected_inputs="ignore")
        except Exception as e:
            raise NoGradient(because) from e
        self._fn = _Compiled([*values, *inputs], [log_density, *slopes], bounds=bounds)
        self._shapes = [var.type.shape for var in values]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])

    def block(
        self, x: Float[np.ndarray, "points dim"], *data: np.ndarray
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "points dim"]]:
        """Values and scores at a block of points, one after another."""
        parts = np.split(x, self._ends[:-1], axis=1)
        pairs = zip(parts, self._shapes, strict=True)
        values = [part.reshape(-1, *shape) for part, shape in pairs]
        outs = self._fn.over([*values, *data])
        scores = [np.concatenate([s.ravel() for s in slopes]) for _, *slopes in outs]
        return np.array([float(value) for value, *_ in outs]), np.array(scores, float)

    def __call__(self, *args: Array) -> tuple[Array]:
        """The log density, as a function of JAX of the values and the data."""
        values, data = args[: len(self._shapes)], args[len(self._shapes) :]
        x = jnp.concatenate([value.ravel() for value in values])
        return (host_density(self.block, x, tuple(data)),)


def on_host(
    inputs: Sequence[Any], outputs: Sequence[Any], example: Callable, *, bounds: bool
) -> Callable:
    """`outputs` as a function of JAX of `inputs`, without derivatives.

    `example` returns values of the inputs, of the shapes that they have.
    """
    fn = _Compiled(inputs, outputs, bounds=bounds)
    shapes = [var.type.shape for var in outputs]
    if any(None in shape for shape in shapes):
        # Not every Op says what shape it returns.
        shapes = [out.shape for out in fn(*example())]

    def block(*args: np.ndarray) -> list[np.ndarray]:
        return list(map(np.stack, zip(*fn.over(args), strict=True)))

    def call(*args: Array) -> tuple[Array, ...]:
        dtypes = [jax.dtypes.canonicalize_dtype(var.type.dtype) for var in outputs]
        pairs = zip(shapes, dtypes, strict=True)
        like = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in pairs]
        return host_call(block, like, *args)

    return call
