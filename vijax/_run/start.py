"""Where a run starts: a finite point, a family there, the method's first state."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, PyTree

from .._closures import closures_as_pytrees
from .._custom_types import Key, Point
from .._draws.draw import check_dimensions
from .._family.base import AbstractFamily
from .._keys import key_for
from .._loop.base import Problem, Progress
from .._loop.chunk import begin, no_records
from .._method.base import Recipe
from .._misc import all_finite, check_function
from .._target.target import Target
from .points import others_of, with_points


# How many points are tried.
TRIES = 100
# Numbers that no method folds into the key of its start.
_SEARCHING = 0x5EA7
_PLACING = 0x91AC


def value_and_grad(target: Target, key: Key, x: Point) -> tuple[Array, Point]:
    """The log density at `x` and its gradient, as a step may see them."""
    return jax.value_and_grad(target.batch(key).log_density)(x)


@eqx.filter_jit
def find_point(key: Key, target: Target) -> tuple[Point, Bool[Array, ""]]:
    """A point where the log density and its gradient are finite, and whether it is one.

    The model's own starting point if that will do; else uniform draws from (-2, 2).
    """
    initial = target.model.initial()
    key = key_for(key, _SEARCHING)

    def searching(loop) -> Bool[Array, ""]:
        _, found, tries = loop
        return ~found & (tries < TRIES)

    def draw(loop):
        _, _, tries = loop
        try_key = jr.fold_in(key, tries)
        other = jr.uniform(try_key, initial.shape, initial.dtype, -2.0, 2.0)
        x = jnp.where(tries == 0, initial, other)
        return x, all_finite(value_and_grad(target, try_key, x)), tries + 1

    loop = initial, jnp.array(False), jnp.zeros((), jnp.int32)
    x, found, _ = lax.while_loop(searching, draw, loop)
    return jnp.where(found, x, initial), found


def build(problem: Problem, recipe: Recipe | None, loc: Point) -> AbstractFamily:
    """The family that a recipe, or else the method, makes at `loc`."""
    if recipe is None:
        key = key_for(problem.key, _PLACING)
        family = problem.method.start(key, others_of(loc, problem.target))
    else:
        family = recipe(others_of(loc, problem.target))
    if not isinstance(family, AbstractFamily):
        raise ValueError(
            "`family` must be a family, or a recipe `loc -> family` such as "
            f"`vi.MeanField`, but the recipe returned a {type(family).__name__}."
        )
    family = with_points(family, loc, problem.target)
    check_dimensions(family, problem.target)
    return family


@eqx.filter_jit
def start(
    problem: Problem, family: AbstractFamily | Recipe | None, point: Point | None = None
) -> tuple[Progress, dict[str, PyTree[Array]]]:
    """The progress before the first step, and empty records of the trackers.

    A family that is given is taken as it is; a recipe, or the method where there is
    none, is given `point`, or else the model's own starting point.
    """
    if not isinstance(family, AbstractFamily):
        loc = problem.target.model.initial() if point is None else point
        family = build(problem, family, loc)
    return begin(problem, family), no_records(problem, family, 0)


def as_recipe(family: Any) -> AbstractFamily | Recipe | None:
    """A recipe that equals others like it, so that they share a compiled program."""
    if family is None or isinstance(family, AbstractFamily):
        return family
    if not callable(family):
        raise ValueError(
            "`family` must be a family, or a recipe `loc -> family` such as "
            f"`vi.MeanField`, but it is {family!r}."
        )
    check_function("family", family, "loc -> family", 1)
    if isinstance(family, functools.partial):
        return eqx.Partial(family.func, *family.args, **family.keywords)
    return closures_as_pytrees(family)
