"""Axes for pictures. Matplotlib is imported inside: it is optional."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..._misc import as_names, listed


def as_axes(axes: Any, titles: Sequence[str], argument: str = "axes") -> np.ndarray:
    flat = np.asarray(axes, dtype=object).ravel()
    for axis in flat:
        if not hasattr(axis, "get_xaxis_transform"):
            raise ValueError(
                f"`{argument}` must be axes of matplotlib, e.g. from `plt.subplots()`, "
                f"but it holds a {type(axis).__name__}."
            )
    if flat.size != len(titles):
        raise ValueError(
            f"`{argument}` has {flat.size} axes, but {len(titles)} are needed, for "
            f"{listed(titles)}."
        )
    return flat


def new_axes(count: int, width: float, height: float) -> np.ndarray:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            'Plots need matplotlib, which is not installed: `pip install "vijax[plot]"`.'
        ) from error
    columns = count if count <= 3 else min(4, math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    size = columns * width, rows * height
    _, grid = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False
    )
    for unused in grid.ravel()[count:]:
        unused.remove()
    return grid.ravel()[:count]


def select(
    titles: Mapping[str, Any], names: str | Sequence[str] | None, known: str
) -> list[str]:
    """The panels asked for, by their titles or by what they are entries of."""
    if names is None:
        return list(titles)
    chosen = []
    names = [names] if isinstance(names, str) else names
    for name in as_names("names", names, f"`[{next(iter(titles))!r}]`"):
        found = [t for t in titles if t == name or t.startswith(f"{name}[")]
        if not found:
            raise ValueError(f"`names` has {name!r}, but {known} {listed(titles)}.")
        chosen += found
    if not chosen:
        raise ValueError("`names` is empty. Leave it out to draw everything.")
    return list(dict.fromkeys(chosen))


def check_one_run(over_steps: np.ndarray) -> None:
    if over_steps.ndim != 1:
        raise ValueError(
            f"These are several runs in one, of shape {over_steps.shape}. Take one of "
            "them: `jax.tree.map(lambda leaf: leaf[0], fits)`."
        )
