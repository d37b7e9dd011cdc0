"""Loading a fit that was saved."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np

from .._family.base import AbstractFamily
from .._method.base import AbstractOnHost
from .archive import damaged, fill_in, read, Varies
from .checkpoint import BEFORE, MODES, parts_of, STATE, SURVEY
from .files import as_path, check_no_other
from .results import RESULTS
from .richer_family import in_the_stage_of


T = TypeVar("T")


def load(path: str | os.PathLike, *, like: T) -> T:
    """Load a fit that [`vijax.save`][] or a checkpoint wrote.

    **Arguments:**

    - `path`: the file, a string or a `pathlib.Path`; `~` is your home.
    - `like`: a fit of the same model, method, family, stopping rule and trackers, which
        supplies the data and the code. In a new process make one with
        `vi.fit(..., max_steps=0)`: also for a fit of `"auto"` that went on with a flow.
        Keyword only.

    **Returns:**

    The fit, bit for bit.

    **Raises:** `ValueError`, saying what differs, if the file does not match `like`;
    saying what is wrong, if it is none of ours, is damaged, does not have the checksum
    that is written in it, or holds what no fit can be; or if `path` is no path, or a
    folder, a device or a pipe. `FileNotFoundError` or `PermissionError` as `open` does.

    !!! Example

        ```python
        import pathlib
        import tempfile

        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        path = pathlib.Path(tempfile.mkdtemp()) / "run.npz"
        vi.fit(target, key=jax.random.key(0), max_steps=100, checkpoint=path)

        # In a new process, where only the code and the data are there:
        like = vi.fit(target, key=jax.random.key(0), max_steps=0)
        fit = vi.load(path, like=like)
        ```
    """
    fit: Any = like
    if not hasattr(fit, "progress"):
        raise ValueError(f"`like` must be a `vi.Fit`, but it is a {type(fit).__name__}.")
    file = as_path("path", path)
    check_no_other("path", file)
    stored = read(file)
    method, before = stored.context.get("the method", ""), stored.context.get(BEFORE)
    fit = in_the_stage_of(fit, method, before)
    fixed, growing, context = parts_of(fit)
    on_host = isinstance(fit.problem.method, AbstractOnHost)
    varies = Varies(
        in_shape=lambda name: on_host and name.startswith(STATE),
        in_length=lambda name: MODES in name,
        is_new=lambda name: SURVEY in name,
    )
    fixed, growing = fill_in(stored, fixed, growing, context, varies)
    return _rebuilt(file, fit, fixed, growing)


def _rebuilt(file: pathlib.Path, like: Any, fixed: tuple, growing: tuple) -> Any:
    """A fit of these parts, and the one that stands until it is over."""
    rest = like.progress, like.result, like.problem.key
    progress, result, key = eqx.combine(fixed[:3], rest)
    problem = eqx.tree_at(lambda p: p.key, like.problem, key)
    before = None
    if like.before is not None:
        before = _rebuilt(file, like.before, fixed[3], growing[3])
    loaded = type(like)(problem, progress, *growing[:3], result, before)
    for is_wrong, why in _nonsense(loaded, like):
        if is_wrong:
            raise damaged(file, why)
    return loaded


def _nonsense(fit: Any, like: Any) -> Iterator[tuple[bool | np.bool_, str]]:
    """What could be wrong with a file whose parts are what they should be, and whether it
    is. Several fits in one have more axes, in front."""
    progress, losses, steps = fit.progress, fit.losses, fit.tracked_steps
    made, skipped, in_a_row = jax.tree.map(
        np.asarray, (progress.num_steps, progress.num_skipped, progress.num_nonfinite)
    )
    records = [leaf.shape[: steps.ndim] for leaf in jax.tree.leaves(fit.trackers)]
    yield (
        losses.shape[:-1] != made.shape or steps.shape[:-1] != made.shape,
        "it holds losses and steps of another number of fits than it is of",
    )
    yield (
        any(shape != steps.shape for shape in records),
        f"`tracked_steps` is of shape {steps.shape}, but records are of {records}",
    )
    losses, steps, after = np.asarray(losses), np.asarray(steps), made[..., None]
    # A loop inside `jax.jit` has room for more losses, which are NaN, and more records,
    # which are zero.
    beyond = losses[np.arange(losses.shape[-1]) >= after]
    yield (
        np.any(made > losses.shape[-1]) or not np.all(np.isnan(beyond)),
        f"`num_steps` is {made}, but there are {losses.shape[-1]} losses",
    )
    yield (
        not np.all((in_a_row >= 0) & (in_a_row <= skipped) & (skipped <= made)),
        f"of {made} steps {skipped} were skipped, {in_a_row} of them at the end",
    )
    latest = np.maximum.accumulate(steps, axis=-1)
    in_order = (steps == latest) | (steps == 0)
    yield (
        not np.all(in_order & (steps >= 0) & (steps <= after)),
        f"`tracked_steps` do not go up from 0 to `num_steps`, which is {made}",
    )
    result = np.asarray(fit.result._value)
    yield (
        not np.all((result >= 0) & (result < len(RESULTS))),
        f"`result` is {result}, which is none of `vi.RESULTS`",
    )
    yield (
        not _has_whole_modes(progress.state),
        "it holds means, covariances and ELBOs of different numbers of modes",
    )
    yield (
        not _is_finite(progress.family, like.progress.family),
        "its family is not finite",
    )


def _has_whole_modes(state: Any) -> bool:
    """Whether as many means, covariances and ELBOs belong to the modes of the default."""
    lengths: dict[str, set[tuple[int, ...]]] = {}
    for path, leaf in jtu.tree_flatten_with_path(state)[0]:
        before, found, _ = jtu.keystr(path).partition(MODES)
        if found:
            lengths.setdefault(before, set()).add(leaf.shape[:1])
    return all(len(known) == 1 for known in lengths.values())


def _is_finite(family: AbstractFamily, like: AbstractFamily) -> bool:
    """Whether a family is finite wherever `like` is: one of many may have failed from a
    start that was not."""
    numbers = lambda tree: jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    pairs = zip(numbers(family), numbers(like), strict=True)
    return all(np.all(np.isfinite(x) | ~np.isfinite(known)) for x, known in pairs)
