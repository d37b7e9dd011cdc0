"""Threads of NumPy's linear algebra."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator

import numpy as np
from threadpoolctl import ThreadpoolController

from .target import Target


# Up to so many coordinates other threads cost more than they bring.
_MOST_DIM = 300


@functools.cache
def _controller() -> ThreadpoolController:
    """Of the library that NumPy came with, which no model's own programs use."""
    every = ThreadpoolController()
    folder = pathlib.Path(np.__file__).parent.parent
    paths = [lib.filepath for lib in every.lib_controllers]
    own = [path for path in paths if folder / "numpy.libs" in pathlib.Path(path).parents]
    return every.select(filepath=own)


@contextlib.contextmanager
def one_thread(target: Target) -> Iterator[None]:
    """Within, NumPy takes one thread for the matrices of a target whose coordinates are
    few: others would be woken up for each of many small ones, and wait."""
    if target.dim > _MOST_DIM or target.model.on_host is not None:
        # Large ones, or a model that may be written in NumPy itself.
        yield
        return
    with _controller().limit(limits=1):
        yield
