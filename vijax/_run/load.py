"""Loading a fit that was saved."""

import os
from typing import Any, TypeVar

import equinox as eqx

from .archive import read, read_context
from .checkpoint import parts_of
from .richer_family import in_the_stage_of


T = TypeVar("T")


def load(path: str | os.PathLike, *, like: T) -> T:
    """Load a fit that [`vijax.save`][] or a checkpoint wrote.

    **Arguments:**

    - `path`: the file.
    - `like`: a fit of the same model, method, family, stopping rule and trackers, which
        supplies the data and the code. In a new process make one with
        `vi.fit(..., max_steps=0)`: also for a fit of `"auto"` that went on with a flow.
        Keyword only.

    **Returns:**

    The fit, bit for bit.

    **Raises:** `ValueError`, saying what differs, if the file does not match `like` or
    is none of ours; `FileNotFoundError` if there is none.

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
    fit = in_the_stage_of(fit, read_context(path).get("the method", ""))
    fixed, growing, context = parts_of(fit)
    fixed, growing = read(path, fixed, growing, context)
    progress, result, key = eqx.combine(
        fixed, (fit.progress, fit.result, fit.problem.key)
    )
    problem = eqx.tree_at(lambda p: p.key, fit.problem, key)
    return type(fit)(problem, progress, *growing, result)
