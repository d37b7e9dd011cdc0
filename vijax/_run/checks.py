"""What a run is asked for, checked before anything compiles."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
import numpy as np

from .._family.base import AbstractFamily
from .._loop.base import AbstractStop
from .._method.base import AbstractMethod
from .._misc import check_function, is_traced
from .files import as_path, check_no_other


def check_method(method: Any) -> None:
    """Raise unless `method` is one."""
    if not isinstance(method, AbstractMethod):
        raise ValueError(
            "`method` must be a method such as `vi.Descent(vi.ELBO(), optax.adam(1e-2))`,"
            f' or a name such as "advi", but it is {method!r}.'
        )


def check_finite(family: AbstractFamily) -> None:
    """Raise if a family that is to be the start holds NaN or infinities."""
    for path, leaf in jtu.tree_flatten_with_path(
        eqx.filter(family, eqx.is_inexact_array)
    )[0]:
        if not is_traced(leaf) and not np.all(np.isfinite(leaf)):
            raise ValueError(
                f"`family{jtu.keystr(path)}` has entries that are NaN or infinite. Start "
                "from finite parameters, or pass a recipe such as `vi.MeanField`."
            )


def check_stop(stop: Any) -> None:
    """Raise unless `stop` is a stopping rule or `None`."""
    if stop is not None and not isinstance(stop, AbstractStop):
        raise ValueError(
            "`stop` must be a stopping rule such as `vi.LossConvergence()`, but it is "
            f"{stop!r}. To stop by a function of your own, raise `StopIteration` in one "
            "of the `callbacks`."
        )


def check_track(track: Any) -> dict[str, Callable]:
    """The trackers as a dictionary."""
    track = {} if track is None else track
    is_named = isinstance(track, Mapping) and all(isinstance(k, str) for k in track)
    if not is_named or not all(callable(f) for f in track.values()):
        raise ValueError(
            "`track` must be a dictionary {name: fn} of functions "
            f"`fn(key, family, target)`, but it is {track!r}."
        )
    for name, fn in track.items():
        check_function(f"track[{name!r}]", fn, "fn(key, family, target)", 3)
    return dict(track)


def check_callbacks(callbacks: Any) -> tuple[Callable, ...]:
    """The callbacks as a tuple."""
    if callable(callbacks):
        callbacks = (callbacks,)
    if not isinstance(callbacks, Sequence) or not all(callable(f) for f in callbacks):
        raise ValueError(
            f"`callbacks` must be functions `fn(fit_so_far)`, but they are {callbacks!r}."
        )
    for fn in callbacks:
        check_function("callbacks", fn, "fn(fit_so_far)", 1)
    return tuple(callbacks)


def check_folder(name: str, path: Any) -> None:
    """Raise unless a file can be made at `path`, or where a link there leads."""
    if path is None:
        return
    path = as_path(name, path)
    check_no_other(name, path)
    file = pathlib.Path(os.path.realpath(path)) if path.is_symlink() else path
    if not file.absolute().parent.is_dir():
        raise ValueError(
            f"`{name}` is {str(path)!r}, but there is no folder {str(file.parent)!r}. "
            "Make it first."
        )
