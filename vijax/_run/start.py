"""Where a run starts: a finite point, a family there, the method's first state."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PyTree

from .._closures import closures_as_pytrees
from .._custom_types import Key, Point
from .._draws.draws import check_dimensions
from .._family.base import AbstractFamily
from .._loop.base import Problem, Progress
from .._loop.chunk import begin, no_records
from .._method.base import Recipe
from .._misc import all_finite, key_for
from .._target.target import Target


_TRIES = 100
# Numbers that no method folds into the key of its start.
_SEARCHING = 0x5EA7
_PLACING = 0x91AC
_LOOKS = 64


def _value_and_grad(target: Target, key: Key, x: Point) -> tuple[Array, Point]:
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
        return ~found & (tries < _TRIES)

    def draw(loop):
        _, _, tries = loop
        try_key = jr.fold_in(key, tries)
        other = jr.uniform(try_key, initial.shape, initial.dtype, -2.0, 2.0)
        x = jnp.where(tries == 0, initial, other)
        return x, all_finite(_value_and_grad(target, try_key, x)), tries + 1

    loop = initial, jnp.array(False), jnp.zeros((), jnp.int32)
    x, found, _ = lax.while_loop(searching, draw, loop)
    return jnp.where(found, x, initial), found


def build(problem: Problem, recipe: Recipe | None, loc: Point) -> AbstractFamily:
    """The family that a recipe, or else the method, makes at `loc`."""
    if recipe is None:
        key = key_for(problem.key, _PLACING)
        family = problem.method.start(key, loc)
    else:
        family = recipe(loc)
    if not isinstance(family, AbstractFamily):
        raise ValueError(
            "`family` must be a family, or a recipe `loc -> family` such as "
            f"`vi.MeanField`, but the recipe returned a {type(family).__name__}."
        )
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


@eqx.filter_jit
def restart(
    problem: Problem, progress: Progress, *, new_method: bool, new_stop: bool
) -> Progress:
    """The progress with a fresh state of the method, or memory of the stopping rule."""
    key = jr.fold_in(problem.key, progress.num_steps)
    fresh = begin(dataclasses.replace(problem, key=key), progress.family)
    if new_method:
        progress = dataclasses.replace(progress, state=fresh.state)
    if new_stop:
        progress = dataclasses.replace(progress, stop_state=fresh.stop_state)
    return progress


@eqx.filter_jit
def _look(target: Target, key: Key, family: AbstractFamily | None):
    """At some points: the value; by parameter, whether the gradient is finite, whether
    it is zero everywhere, and the place."""
    if family is None:
        x = target.model.initial()[None]
    else:
        x = jax.vmap(family.sample)(jr.split(key, _LOOKS))
    value, grad = jax.vmap(lambda x: _value_and_grad(target, key, x))(x)
    grads = jax.vmap(target.unravel)(grad)
    finite = jax.tree.map(jax.vmap(all_finite), grads)
    flat = jax.tree.map(lambda g: jnp.all(g == 0), grads)
    return value, finite, flat, jax.vmap(target.unravel)(x)


def explain_start(target: Target, key: Key) -> str:
    """Why no starting point could be found, in words that name the parameters."""
    value, finite, _, x = jax.tree.map(np.asarray, _look(target, key, None))
    culprits = ", ".join(f"`{name}`" for name, ok in finite.items() if not ok.all())
    what = f"At the starting point the log density is {value[0]:.6g}"
    if culprits:
        what += f", and its gradient is not finite in {culprits}"
    start = {name: part[0].tolist() for name, part in x.items()}
    return (
        f"{what} (unconstrained: {start}); {_TRIES - 1} random points were no better. "
        "Check the supports of the parameters and the data, or give a good starting "
        "point with `vi.Param(shape, support, initial=...)`."
    )


def explain_failure(problem: Problem, progress: Progress) -> str:
    """Which parameters a failed run stumbles over, from draws of its family."""
    key = jr.fold_in(problem.key, progress.num_steps)
    looks = _look(problem.target, key, progress.family)
    value, finite, flat, _ = jax.tree.map(np.asarray, looks)
    bad = {name: int(np.sum(~ok)) for name, ok in finite.items() if not ok.all()}
    named = ", ".join(f"`{name}` ({count})" for name, count in bad.items())
    unused = ", ".join(f"`{name}`" for name, is_flat in flat.items() if is_flat)
    if unused:
        return (
            f"The log density does not change with {unused}: the posterior is improper, "
            "and the family has no end to its growth. Give each parameter a prior."
        )
    if not bad and np.all(np.isfinite(value)):
        return (
            f"At {_LOOKS} draws from that family the log density and its gradient are "
            "finite: it is the steps that are too large, or the posterior is improper."
        )
    return (
        f"Of {_LOOKS} draws from that family, {int(np.sum(~np.isfinite(value)))} have a "
        "log density that is not finite; the gradient is not finite in "
        f"{named or 'no parameter'}."
    )


def as_recipe(family: Any) -> AbstractFamily | Recipe | None:
    """A recipe that equals others like it, so that they share a compiled program."""
    if family is None or isinstance(family, AbstractFamily):
        return family
    if not callable(family):
        raise ValueError(
            "`family` must be a family, or a recipe `loc -> family` such as "
            f"`vi.MeanField`, but it is {family!r}."
        )
    if isinstance(family, functools.partial):
        return eqx.Partial(family.func, *family.args, **family.keywords)
    return closures_as_pytrees(family)
