"""The one loop: a number of steps as one compiled program."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._method.base import AbstractMethod, State
from .._misc import all_finite, float_dtype, strengthen, tree_where
from .._target import Target
from .base import AbstractStop


# After so many non-finite steps in a row nothing is to be hoped for.
MAX_NONFINITE = 100
# How many steps' keys are made at once.
_BLOCK = 128


class Problem(eqx.Module):
    """What stays the same throughout a run."""

    target: Target
    method: AbstractMethod
    key: Key
    stop: AbstractStop | None
    track: dict[str, Callable]
    track_every: int = eqx.field(static=True)


class Progress(eqx.Module):
    """What one step hands to the next: all that an exact resume needs."""

    family: AbstractFamily
    state: State
    stop_state: PyTree
    num_steps: Int[Array, ""]
    num_skipped: Int[Array, ""]
    num_nonfinite: Int[Array, ""]
    met: Bool[Array, ""]

    @property
    def failed(self) -> Bool[Array, ""]:
        """Whether too many steps in a row were not finite."""
        return self.num_nonfinite >= MAX_NONFINITE

    def cleared(self) -> "Progress":
        """Ready to go on after a rule was met, or after a failure."""
        get = lambda progress: (progress.met, progress.num_nonfinite)
        new = jax.device_put((np.array(False), np.array(0, np.int32)))
        return eqx.tree_at(get, self, new)


class Records(eqx.Module):
    """The losses of the steps and what the trackers saw. Only first entries count."""

    losses: Float[Array, " steps"]
    tracked: dict[str, PyTree[Array]]
    tracked_steps: Int[Array, " records"]
    num_tracked: Int[Array, ""]


def begin(problem: Problem, family: AbstractFamily) -> Progress:
    """The progress of a run before its first step."""
    family = strengthen(family)
    state = problem.method.init(jr.fold_in(problem.key, 0), family, problem.target)
    zero = jnp.zeros((), jnp.int32)
    return Progress(
        family=family,
        state=strengthen(state),
        stop_state=None if problem.stop is None else problem.stop.init(family),
        num_steps=zero,
        num_skipped=zero,
        num_nonfinite=zero,
        met=jnp.array(False),
    )


def _keys(problem: Problem, num_steps: Int[Array, ""]) -> Key:
    """The keys of the steps that follow `num_steps`.

    Each comes from the step's own number, so that chunks and resuming change nothing.
    They are made side by side, since one at a time costs more than a small step does.
    """

    def of_step(i):
        key = jr.fold_in(problem.key, i)
        return key if problem.target.minibatch is None else jr.split(key)

    return jax.vmap(of_step)(num_steps + jnp.arange(1, _BLOCK + 1, dtype=jnp.int32))


def _one_step(problem: Problem, old: Progress, key: Key) -> tuple[Progress, Array]:
    num_steps = old.num_steps + 1
    seen = problem.target
    if seen.minibatch is not None:
        seen, key = seen.batch(key[0]), key[1]
    family, state, loss = problem.method.step(key, old.family, seen, old.state)
    if jax.tree.structure(family) != jax.tree.structure(old.family):
        raise ValueError(
            f"`{type(problem.method).__name__}.step` must return a family of the "
            f"structure it was given, but {old.family} became {family}."
        )
    finite = jnp.isfinite(loss) & all_finite(family)
    family, state = tree_where(finite, (family, state), (old.family, old.state))
    stop_state, met = old.stop_state, jnp.array(False)
    if problem.stop is not None:
        stop_state, met = problem.stop.update(stop_state, num_steps, loss, family)
        stop_state = tree_where(finite, stop_state, old.stop_state)
    new = Progress(
        family=family,
        state=state,
        stop_state=stop_state,
        num_steps=num_steps,
        num_skipped=old.num_skipped + (~finite).astype(jnp.int32),
        num_nonfinite=jnp.where(finite, 0, old.num_nonfinite + 1),
        met=met & finite,
    )
    return new, loss


def _track(
    problem: Problem, progress: Progress, records: Records, capacity: int
) -> Records:
    if not problem.track:
        return records

    def record() -> Records:
        at = jnp.minimum(records.num_tracked, capacity - 1)
        seen = _observe(problem, progress.family, progress.num_steps)
        write = lambda buffer, value: buffer.at[at].set(value.astype(buffer.dtype))
        return Records(
            losses=records.losses,
            tracked=jax.tree.map(write, records.tracked, seen),
            tracked_steps=records.tracked_steps.at[at].set(progress.num_steps),
            num_tracked=records.num_tracked + 1,
        )

    due = progress.num_steps % problem.track_every == 0
    return lax.cond(due, record, lambda: records)


def _observe(
    problem: Problem, family: AbstractFamily, num_steps: Int[Array, ""]
) -> dict[str, PyTree[Array]]:
    # Not the key of the step itself, so that tracking changes no fit.
    key = jr.fold_in(jr.fold_in(problem.key, num_steps), 1)
    out = {}
    for i, (name, fn) in enumerate(problem.track.items()):
        value = fn(jr.fold_in(key, i), family, problem.target)
        out[name] = jax.tree.map(jnp.asarray, value)
    return out


def no_records(
    problem: Problem, family: AbstractFamily, room: int
) -> dict[str, PyTree[Array]]:
    """Empty records of the trackers, with room for so many."""
    if not problem.track:
        return {}
    zero = jnp.zeros((), jnp.int32)
    shapes = eqx.filter_eval_shape(_observe, problem, family, zero)
    return jax.tree.map(lambda x: jnp.zeros((room, *x.shape), x.dtype), shapes)


def _empty(
    problem: Problem, progress: Progress, num_losses: int, num_records: int
) -> Records:
    return Records(
        losses=jnp.full(num_losses, jnp.nan, float_dtype(progress.family)),
        tracked=no_records(problem, progress.family, num_records),
        tracked_steps=jnp.zeros(num_records, jnp.int32),
        num_tracked=jnp.zeros((), jnp.int32),
    )


@eqx.filter_jit
def advance(
    problem: Problem,
    progress: Progress,
    num_steps: Int[Any, ""],
    num_losses: int,
    num_records: int,
) -> tuple[Progress, Records]:
    """Make up to `num_steps` steps: fewer if the rule is met or too many steps fail.

    **Arguments:**

    - `problem`, `progress`: the run so far.
    - `num_steps`: how many steps; traced, so that every number is the same program.
    - `num_losses`, `num_records`: how many losses and tracker records there is room for.

    **Returns:**

    The progress after these steps, and their records.
    """
    arrays, static = eqx.partition(progress, eqx.is_array)
    start = progress.num_steps

    def running(loop) -> Bool[Array, ""]:
        progress = eqx.combine(loop[0], static)
        made = progress.num_steps - start
        return (made < num_steps) & ~progress.met & ~progress.failed

    def block(loop):
        first = loop[0].num_steps
        keys = _keys(problem, first)
        within = lambda loop: running(loop) & (loop[0].num_steps - first < _BLOCK)
        body = lambda loop: one_step(loop, keys[loop[0].num_steps - first])
        return lax.while_loop(within, body, loop)

    def one_step(loop, key: Key):
        arrays, records = loop
        old = eqx.combine(arrays, static)
        new, loss = _one_step(problem, old, key)
        at = old.num_steps - start
        losses = records.losses.at[at].set(loss.astype(records.losses.dtype))
        records = eqx.tree_at(lambda r: r.losses, records, losses)
        records = _track(problem, new, records, num_records)
        return eqx.filter(new, eqx.is_array), records

    empty = _empty(problem, progress, num_losses, num_records)
    arrays, records = lax.while_loop(running, block, (arrays, empty))
    return eqx.combine(arrays, static), records
