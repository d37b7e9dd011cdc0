"""What a family is, and how Cholesky factors and scales are held."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from .._arrays import namespace
from .._custom_types import AnyArray, Key, Point
from .._host_distributions import AbstractHostDistribution
from .._misc import as_numbers, eager, is_traced


class AbstractFamily(eqx.Module):
    """A distribution over $\\mathbb{R}^{dim}$ whose array leaves are its parameters.

    Methods act on a single point; use `jax.vmap` for many. To add a family implement
    `dim`, `log_prob` and `sample_and_log_prob`, with parameters that may take any real
    value (`log_scale`, not `scale`). The class itself is a recipe `loc -> family` where
    its constructor takes a location first.
    """

    def __hash__(self) -> int:
        # Arrays have no hash, and `jax.jit(family.log_prob)` asks for one. What hashes
        # alike is compared.
        return id(self)

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """The number of coordinates of a point."""

    @abc.abstractmethod
    def log_prob(self, x: Point) -> Scalar:
        """The normalized log density at `x`, of shape `(dim,)`."""

    @abc.abstractmethod
    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        """A reparameterized draw, of shape `(dim,)`, and the log density there."""

    @property
    def has_density(self) -> bool:
        """Whether `log_prob` can be asked for. Bare particles have none."""
        return True

    def on_host(self) -> AbstractHostDistribution | None:
        """The same in NumPy, which compiles nothing; `None` where it has no such form."""

    def mirror(self, x: Point) -> Point:
        """The image of a draw in the center of symmetry, where there is one: as likely a
        draw as `x`, and differentiable with it."""
        raise ValueError(
            f"`{type(self).__name__}` has no center of symmetry, which antithetic draws "
            "are mirrored in. Use `antithetic=False`."
        )

    def outward(self, z: Point) -> tuple[Point, Scalar]:
        """The point that has coordinates `z`, in which the family is a standard normal,
        or nearly; and the logarithm of the determinant of this map."""
        raise ValueError(_no_coordinates(self))

    def inward(self, x: Point) -> Point:
        """The coordinates of a point, which `outward` leads back from."""
        raise ValueError(_no_coordinates(self))

    def sample(self, key: Key) -> Point:
        """A reparameterized draw. (The unused density is removed by the compiler.)"""
        return self.sample_and_log_prob(key)[0]


def _no_coordinates(family: AbstractFamily) -> str:
    return (
        f"`{type(family).__name__}` has no coordinates in which it is a standard normal, "
        "or nearly. Flows have, and `MeanField`, `FullRank`, `StudentT` and "
        "`NestedGaussian`."
    )


def check_family(name: str, family: Any) -> None:
    """Raise unless `family`, the argument `name`, is one."""
    if not isinstance(family, AbstractFamily):
        raise ValueError(
            f"`{name}` must be a family such as `vi.MeanField(jnp.zeros(dim))`, but it "
            f"is {family!r}."
        )


def check_loc(loc: Any) -> Array:
    """`loc` as a vector of floating-point numbers."""
    loc = as_numbers("loc", loc)
    if loc.ndim != 1 or loc.size == 0 or not jnp.issubdtype(loc.dtype, jnp.floating):
        raise ValueError(
            "`loc` must be a vector of floating-point numbers, one a coordinate, but it "
            f"has shape {loc.shape} and dtype {loc.dtype}. For one coordinate write "
            "e.g. `jnp.zeros(1)`."
        )
    # Moves the numbers, and compiles nothing.
    return loc if isinstance(loc, jax.Array) else jax.device_put(_canonical(loc))


def _canonical(x: np.ndarray) -> np.ndarray:
    return x.astype(jax.dtypes.canonicalize_dtype(x.dtype))


def check_scale(scale: Any, dim: int, name: str = "scale") -> None:
    """Raise unless `scale`, the argument `name`, holds positive numbers that broadcast to
    `(dim,)`."""
    scale = as_numbers(name, scale)
    if jnp.shape(scale) not in ((), (1,), (dim,)):
        raise ValueError(
            f"`{name}` has shape {jnp.shape(scale)}, but it must be a number or have "
            f"shape ({dim},), one entry a coordinate."
        )
    if not is_traced(scale):
        values = np.asarray(scale)
        if not np.all((values > 0) & np.isfinite(values)):
            raise ValueError(
                f"`{name}` holds standard deviations, which must be positive and finite, "
                f"but it is {scale}."
            )


def tril_parts(
    loc: ArrayLike, scale: ArrayLike, name: str = "scale"
) -> tuple[Point, Point, Float[Array, "dim dim"]]:
    """A location, and the two parts of a Cholesky factor: the logarithm of its diagonal,
    and what is below that in units of the diagonal entry of its row.

    Raises a `ValueError` unless `scale`, the argument `name`, is a factor, or positive
    and broadcasts to `(dim,)`.
    """
    loc, scale = check_loc(loc), as_numbers(name, scale)
    dim, shape = loc.size, scale.shape
    xp, done = eager(scale)
    if len(shape) != 2:
        check_scale(scale, dim, name)
        scale = xp.asarray(scale, loc.dtype)
        log_diag = xp.broadcast_to(xp.log(scale), loc.shape)
        return loc, *done((log_diag, xp.zeros((dim, dim), loc.dtype)))
    if shape != (dim, dim):
        raise ValueError(
            f"`{name}` has shape {shape}, but a Cholesky factor for `loc` has shape "
            f"{(dim, dim)}."
        )
    tril = xp.asarray(scale, loc.dtype)
    check_scale(xp.diagonal(tril), dim, name)
    if xp is np and np.any(np.triu(tril, 1)):
        raise ValueError(
            f"`{name}` has entries above its diagonal, but a Cholesky factor is lower "
            "triangular. Pass e.g. `jnp.linalg.cholesky(covariance)`."
        )
    diagonal = xp.diagonal(tril)
    below = xp.tril(tril / diagonal[:, None], -1)
    return loc, *done((xp.log(diagonal), below))


def unit_tril(
    log_diag: Float[AnyArray, " dim"], below: Float[AnyArray, "dim dim"]
) -> AnyArray:
    """The Cholesky factor of these parts."""
    xp = namespace(log_diag)
    unit = xp.tril(below, -1) + xp.eye(log_diag.size, dtype=log_diag.dtype)
    return xp.exp(log_diag)[:, None] * unit


def wide(x: Any) -> np.ndarray:
    """An array on the host, with 64 bits."""
    return np.asarray(x, np.float64)


def wide_tril(family: Any) -> np.ndarray:
    """The Cholesky factor of a family that holds one in parts."""
    return unit_tril(wide(family.log_diag), wide(family.below))


def has_moment(family: AbstractFamily, name: str) -> bool:
    """Whether a family has `"mean"`, `"std"` or `"covariance"` in closed form: one that
    transforms another has what that has."""
    try:
        eqx.filter_eval_shape(lambda family: getattr(family, name), family)
    except AttributeError:
        return False
    return True
