"""The one loop: a number of steps as one compiled program."""

from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Int, PyTree

from .._arrays import choose
from .._family.base import AbstractFamily
from .._misc import (
    all_finite,
    as_arrays,
    float_dtype,
    strengthen,
)
from .base import Problem, Progress, Records


# How many steps' keys are made at once.
_BLOCK = 128
# A number that no method folds into the key of its step.
_TRACKING = 0x7BAC
# One that none folds into the key of its start: all the batches of a run come from it.
_BATCHING = 0xBA7C


def begin(problem: Problem, family: AbstractFamily) -> Progress:
    """The progress of a run before its first step."""
    family = strengthen(family)
    state = problem.method.init(jr.fold_in(problem.key, 0), family, problem.target)
    zero = jnp.zeros((), jnp.int32)
    return Progress(
        family=family,
        state=as_arrays(state),
        stop_state=None if problem.stop is None else as_arrays(problem.stop.init(family)),
        num_steps=zero,
        num_skipped=zero,
        num_nonfinite=zero,
        met=jnp.array(False),
    )


def _keys(problem: Problem, num_steps: Int[Array, ""]) -> Array:
    """The keys of the steps that follow `num_steps`.

    Each comes from the step's own number, so that chunks and resuming change nothing.
    They are made side by side, since one at a time costs more than a small step does.
    """
    of_step = lambda i: jr.fold_in(problem.key, i)
    return jax.vmap(of_step)(num_steps + jnp.arange(1, _BLOCK + 1, dtype=jnp.int32))


def _check_same(what: str, old: PyTree, new: PyTree) -> None:
    shapes = lambda tree: jax.tree.map(jnp.shape, eqx.filter(tree, eqx.is_array_like))
    if not eqx.tree_equal(shapes(old), shapes(new)):
        raise ValueError(
            f"{what} of the structure and shapes it was given, but {old} became {new}."
        )


def _one_step(
    problem: Problem, old: Progress, key: Array, batch_key: Array
) -> tuple[Progress, Array, Bool[Array, ""]]:
    """One step, its loss, and whether it is finite. If not, it must not be kept."""
    num_steps = old.num_steps + 1
    seen = problem.target.batch(batch_key, old.num_steps)
    family, state, loss = problem.method.step(key, old.family, seen, old.state)
    loss = jnp.asarray(loss)
    step = f"`{type(problem.method).__name__}.step`"
    if loss.shape != ():
        raise ValueError(
            f"{step} must return a scalar loss, but its shape is {loss.shape}."
        )
    _check_same(f"{step} must return a family", old.family, family)
    _check_same(f"{step} must return a state", old.state, state)
    stop_state, met = old.stop_state, old.met
    if problem.stop is not None:
        stop_state, met = problem.stop.update(stop_state, num_steps, loss, family)
        met = jnp.asarray(met)
        update = f"`{type(problem.stop).__name__}.update`"
        _check_same(f"{update} must return a memory", old.stop_state, stop_state)
    done = problem.method.done(state)
    met = met if done is None else met | done
    new = Progress(
        family=family,
        state=state,
        stop_state=stop_state,
        num_steps=num_steps,
        num_skipped=old.num_skipped,
        num_nonfinite=old.num_nonfinite,
        met=met,
    )
    finite = jnp.isfinite(loss) & all_finite(family)
    cast = lambda new, old: new.astype(old.dtype) if eqx.is_array(old) else old
    return jax.tree.map(cast, as_arrays(new), old), loss, finite


def _track(
    problem: Problem, progress: Progress, records: Records, wanted: Bool[Array, ""]
) -> Records:
    if not problem.track:
        return records

    def record() -> Records:
        at = jnp.minimum(records.num_tracked, records.tracked_steps.size - 1)
        seen = observe(problem, progress.family, progress.num_steps)
        write = lambda buffer, value: buffer.at[at].set(value.astype(buffer.dtype))
        return Records(
            losses=records.losses,
            tracked=jax.tree.map(write, records.tracked, seen),
            tracked_steps=records.tracked_steps.at[at].set(progress.num_steps),
            num_tracked=records.num_tracked + 1,
        )

    due = progress.num_steps % problem.track_every == 0
    return lax.cond(wanted & due, record, lambda: records)


def observe(
    problem: Problem, family: AbstractFamily, num_steps: Int[Array, ""]
) -> dict[str, PyTree[Array]]:
    # Not the key of the step itself, so that tracking changes no fit.
    key = jr.fold_in(jr.fold_in(problem.key, num_steps), _TRACKING)
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
    shapes = eqx.filter_eval_shape(observe, problem, family, zero)
    return jax.tree.map(lambda x: jnp.zeros((room, *x.shape), x.dtype), shapes)


def _empty(
    problem: Problem, progress: Progress, num_losses: int, num_records: int
) -> Records:
    return Records(
        losses=jnp.zeros(num_losses, float_dtype(progress.family)),
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
    start = progress.num_steps
    static = eqx.filter(progress, eqx.is_array, inverse=True)
    split = lambda progress: eqx.filter(progress, eqx.is_array)
    join = lambda arrays: eqx.combine(arrays, static)
    batch_key = jr.fold_in(jr.fold_in(problem.key, 0), _BATCHING)

    def running(loop) -> Bool[Array, ""]:
        arrays, _, _ = loop
        made = arrays.num_steps - start
        return (made < num_steps) & ~arrays.met & ~arrays.failed

    def block(loop):
        arrays, records, limit = loop
        before = join(arrays)
        keys = _keys(problem, before.num_steps)
        last = jnp.minimum(before.num_steps + limit, start + num_steps)

        def going(inner) -> Bool[Array, ""]:
            arrays, _, finite = inner
            return finite & (arrays.num_steps < last) & ~arrays.met

        def step(inner):
            arrays, records, _ = inner
            key = keys[arrays.num_steps - before.num_steps]
            new, loss, finite = _one_step(problem, join(arrays), key, batch_key)
            at = arrays.num_steps - start
            losses = records.losses.at[at].set(loss.astype(records.losses.dtype))
            records = eqx.tree_at(lambda r: r.losses, records, losses)
            return split(new), _track(problem, new, records, finite), finite

        inner = arrays, records, jnp.array(True)
        arrays, records, finite = lax.while_loop(going, step, inner)
        after, limit = _settle(before, join(arrays), finite)
        if problem.track:
            # A step that was skipped leaves the family as it was; recorded all the same.
            skipped = after.num_skipped > before.num_skipped
            records = _track(problem, after, _forget(records, after), skipped)
        return split(after), records, limit

    empty = _empty(problem, progress, num_losses, num_records)
    loop = split(progress), empty, jnp.array(_BLOCK, jnp.int32)
    arrays, records, _ = lax.while_loop(running, block, loop)
    return join(arrays), records


def _settle(
    before: Progress, after: Progress, finite: Bool[Array, ""]
) -> tuple[Progress, Int[Array, ""]]:
    """What a block of steps comes to, and how long the next one may be.

    To choose between the old and the new arrays at each step costs more than a small step
    does. So a block is taken as a whole if all its steps were finite. If not, only its
    last one was not, and it is done again without that one; or, if it was the only one,
    it is skipped. At worst this doubles the work.
    """
    made = after.num_steps - before.num_steps
    skip = ~finite & (made == 1)
    kept = choose(finite, after, before)
    one = skip.astype(jnp.int32)
    get = lambda p: (p.num_steps, p.num_skipped, p.num_nonfinite)
    counts = (
        kept.num_steps + one,
        kept.num_skipped + one,
        jnp.where(finite, 0, before.num_nonfinite + one),
    )
    limit = jnp.where(finite | skip, _BLOCK, made - 1)
    return eqx.tree_at(get, kept, counts), limit


def _forget(records: Records, progress: Progress) -> Records:
    """Without the records of steps that are to be done again."""
    numbers = jnp.arange(records.tracked_steps.size, dtype=jnp.int32)
    kept = (numbers < records.num_tracked) & (records.tracked_steps <= progress.num_steps)
    num_tracked = jnp.sum(kept, dtype=jnp.int32)
    return eqx.tree_at(lambda r: r.num_tracked, records, num_tracked)
