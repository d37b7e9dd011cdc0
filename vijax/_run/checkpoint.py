"""Saving a fit, and what of it a file holds."""

import os
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
from jaxtyping import PyTree
from numpyro.distributions.transforms import Transform

from .._method.base import label
from .._misc import is_any_array
from .archive import write
from .checks import check_folder
from .files import as_path


# What a file calls the method of the fit that stands until another one is over.
BEFORE = "the method before"
# How the names of the arrays of a method's state begin.
STATE = "[0][0].state"
# What those of the modes of the default have in them, of which there may be more, and of
# what more starts came to, which it did not have at first.
MODES, SURVEY = ".modes.gaussians.", ".survey."


def parts_of(fit: Any) -> tuple[PyTree, PyTree, dict[str, str]]:
    """The arrays of a fit, those whose length may differ, and what must agree besides."""
    problem = fit.problem
    fixed: tuple = eqx.filter((fit.progress, fit.result, problem.key), is_any_array)
    growing: tuple = (fit.losses, fit.trackers, fit.tracked_steps)
    target = problem.target
    params = []

    def look():  # Not at what `jax.eval_shape` returns, which has its names sorted.
        parts = target.unravel(target.model.initial())
        params.extend(f"{name}{list(part.shape)}" for name, part in parts.items())

    jax.eval_shape(look)
    supports = [type(t).__name__ for t in _transforms(target.model)]
    context = {
        "the method": label(problem.method),
        "the family": type(fit.progress.family).__name__,
        "what the parameters are": ", ".join(params),
        "how they are constrained": ", ".join(supports),
        "the batch size": str(target.minibatch),
    }
    for path, leaf in jtu.tree_flatten_with_path(problem.target.data)[0]:
        context[f"`data{jtu.keystr(path)}`"] = f"{leaf.dtype}{list(leaf.shape)}"
    if fit.before is not None:
        fixed_before, growing_before, of_before = parts_of(fit.before)
        fixed, growing = (*fixed, fixed_before), (*growing, growing_before)
        context[BEFORE] = of_before["the method"]
    return fixed, growing, context


def _transforms(model: Any) -> list[Transform]:
    is_transform = lambda leaf: isinstance(leaf, Transform)
    leaves = jax.tree.leaves(model, is_leaf=is_transform)
    return [leaf for leaf in leaves if is_transform(leaf)]


def save(path: str | os.PathLike, fit: Any) -> None:
    """Save a fit to a file, all or nothing.

    The file holds the family, the method's state, the losses, the trackers and the key:
    all that an exact [`vijax.Fit.resume`][] needs. It does not hold the data or any
    code.

    **Arguments:**

    - `path`: the file, a string or a `pathlib.Path`; `~` is your home. One that exists is
        replaced and keeps its permissions; a link to one stays a link.
    - `fit`: a [`vijax.Fit`][].

    **Raises:** `ValueError` if `fit` is none, `path` is no path, or a folder, a device or
    a pipe, or its folder does not exist; `OSError` if the disk is full or the file may
    not be written, and then what was there is there still.

    !!! Example

        ```python
        import pathlib
        import tempfile

        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, key=jax.random.key(0), max_steps=100)
        path = pathlib.Path(tempfile.mkdtemp()) / "fit.npz"
        vi.save(path, fit)
        fit = vi.load(path, like=fit).resume(100)
        ```
    """
    if not hasattr(fit, "progress"):
        raise ValueError(f"`fit` must be a `vi.Fit`, but it is a {type(fit).__name__}.")
    file = as_path("path", path)
    check_folder("path", file)
    write(file, *parts_of(fit))
