from collections.abc import Sequence
from typing import Any

import jax.tree_util as jtu
import numpy as np

from .base import as_axes, check_one_run, new_axes, select


def plot_trackers(
    fit: Any, names: str | Sequence[str] | None = None, *, axes: Any = None
) -> np.ndarray:
    """What the trackers of a run saw, a panel for each.

    Up to fifty entries of a tracker are a line each. More than ten get their median and
    the band between their 5 % and 95 % quantiles besides.

    **Arguments:**

    - `fit`: a [`vijax.Fit`][] with trackers.
    - `names`: the trackers to draw. Default: all. One that returns a pytree has a panel
        for each leaf, called `name[key]`, which may be chosen by that name.
    - `axes`: the `matplotlib` axes to draw on, one for each panel. Default: those of a
        new figure. Keyword only.

    **Returns:**

    A flat array of the axes.

    **Raises:** `ValueError` if nothing was tracked, there is no such tracker, or the
    number of `axes` is wrong; `ImportError` without matplotlib.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        track = {"std": lambda key, family, target: family.std}
        fit = vi.fit(target, "advi", key=jax.random.key(0), max_steps=200, track=track)
        (ax,) = vi.plot_trackers(fit)
        ax.set_ylabel("standard deviation")
        ```
    """
    steps, panels = _records(fit)
    titles = select(panels, names, "the trackers are")
    where = {"loc": "best"}
    if axes is None:
        # Beside the panel, where no line runs through it and our layout makes room.
        where = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "handlelength": 1}
    axes = new_axes(len(titles), 4.0, 2.8) if axes is None else as_axes(axes, titles)
    for axis, title in zip(axes, titles, strict=True):
        handles, labels = _draw_tracker(axis, steps, panels[title])
        if labels:
            axis.legend(handles, labels, fontsize="small", frameon=False, **where)
        axis.set(title=title, xlabel="step")
    return axes


def _records(fit: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The steps, and by panel what was recorded there, of shape `(records, entries)`."""
    if not hasattr(fit, "trackers"):
        raise ValueError(f"`fit` must be a `vi.Fit`, but it is a {type(fit).__name__}.")
    if not fit.trackers:
        raise ValueError(
            "Nothing was tracked. Say what to record: `vi.fit(..., "
            'track={"std": lambda key, family, target: family.std})`.'
        )
    steps = np.asarray(fit.tracked_steps)
    check_one_run(steps)
    made = steps > 0  # Out of `jax.jit` they are padded.
    if not made.any():
        raise ValueError(
            "The trackers have no record yet: the run was shorter than `track_every`."
        )
    panels = {}
    for name, tree in fit.trackers.items():
        for path, leaf in jtu.tree_flatten_with_path(tree)[0]:
            keys = (jtu.keystr((entry,), simple=True) for entry in path)
            values = np.asarray(leaf, dtype=float)[made]
            title = name + "".join(f"[{key}]" for key in keys)
            panels[title] = values.reshape(len(values), -1)
    return steps[made], panels


def _draw_tracker(
    axis: Any, steps: np.ndarray, values: np.ndarray
) -> tuple[list, list[str]]:
    """Draw one panel, and say what to put in its legend."""
    count = values.shape[1]
    style = {"marker": "." if steps.size == 1 else None}  # One point makes no line.
    if count <= 10:
        lines = axis.plot(steps, values, lw=1.2, **style)
        return lines, [str(i) for i in range(count)] if count > 1 else []
    values = np.where(np.isfinite(values), values, np.nan)  # `inf - inf` would warn.
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95], axis=1)
    if count <= 50:
        axis.plot(steps, values, color="0.7", lw=0.5, alpha=0.5, **style)
    (line,) = axis.plot(steps, median, zorder=2.5, **style)
    color = line.get_color()
    band = axis.fill_between(steps, low, high, color=color, alpha=0.25, lw=0, zorder=2.2)
    return [line, band], ["median", "5–95 %"]
