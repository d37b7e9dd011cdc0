from typing import Any

import numpy as np
from jaxtyping import Float

from ..._misc import as_flag, as_whole
from ..._run.results import name_of
from .base import as_axes, check_one_run, new_axes


# By these names a later call finds what earlier ones drew on the same axis.
_RAW, _SMOOTH, _STOP = "vijax losses", "vijax smoothed losses", "vijax stop"


def plot_loss(
    fit: Any,
    *,
    window: int | None = None,
    log: bool | None = None,
    ax: Any = None,
    label: str | None = None,
) -> Any:
    """The losses of a run: faintly as they are, and their running mean.

    The first tenth of the steps does not count for the limits of the y-axis, since it
    would dwarf what comes after. A dashed line marks where a run ended before it had
    made all of its steps, and says why. To overlay several runs, call it again with the
    same `ax`: the limits then suit all of them.

    **Arguments:**

    - `fit`: a [`vijax.Fit`][], or an array of losses.
    - `window`: the mean is over so many steps, skipped ones (NaN) left out, and drawn in
        the middle of them. Default: a hundredth of the run, but ten of a short one.
        Keyword only.
    - `log`: whether the y-axis is logarithmic; it then shows the first tenth as well.
        Default: if all losses are positive and their running mean still spans a ratio of
        1,000 after the first tenth. Keyword only.
    - `ax`: the `matplotlib` axes to draw on. Default: those of a new figure. Keyword
        only.
    - `label`: the name of the run in a legend. Keyword only.

    **Returns:**

    The axes.

    **Raises:** `ValueError` if there are no finite losses, or `window` is not between 1
    and their number; `ImportError` without matplotlib.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, "advi", key=jax.random.key(0), max_steps=200)
        ax = vi.plot_loss(fit, label="a Gaussian")
        ax.set_title("A first fit")
        ```
    """
    losses, log = _losses(fit), None if log is None else as_flag("log", log)
    window = _window(window, losses.size)
    means = _window_means(losses, window)
    axis = None if ax is None else as_axes(ax, ["the losses"], "ax")[0]
    raw = [*_drawn(axis, _RAW), losses]
    smooth = [*_drawn(axis, _SMOOTH), means]
    log = _is_log(axis, raw, smooth, asked=log)
    limits = _limits(raw, smooth, log=log)
    axis = axis or new_axes(1, 6.0, 3.5)[0]

    steps = np.arange(1, losses.size + 1)
    middles = np.arange(means.size) + (window + 1) / 2
    style = {"marker": "." if losses.size == 1 else None}  # One point makes no line.
    faint = {"alpha": 0.25, "lw": 0.6, "zorder": 1.8}
    (line,) = axis.plot(steps, losses, gid=_RAW, **faint, **style)
    color = line.get_color()
    axis.plot(middles, means, color=color, label=label, gid=_SMOOTH, zorder=2.2)
    reason = name_of(fit.result) if hasattr(fit, "result") else "unknown"
    if reason not in ("max_steps", "running", "unknown"):
        _mark_stop(axis, losses.size, reason, color)
    axis.set(yscale="log" if log else "linear", ylim=limits, xlabel="step", ylabel="loss")
    if label is not None:
        axis.legend(loc="upper right", edgecolor="none", framealpha=0.85)
    return axis


def _losses(fit: Any) -> Float[np.ndarray, " steps"]:
    """The losses of each step, NaN where they are not finite."""
    try:
        losses = np.asarray(getattr(fit, "losses", fit), dtype=float)
    except (TypeError, ValueError, OverflowError):
        losses = np.zeros(())
    if losses.ndim == 0:
        kind = type(fit).__name__
        raise ValueError(
            f"`fit` must be a `vi.Fit` or an array of losses, but it is a {kind}."
        )
    check_one_run(losses)
    if hasattr(fit, "num_steps"):
        losses = losses[: int(fit.num_steps)]  # Out of `jax.jit` they are padded.
    if not np.isfinite(losses).any():
        raise ValueError(f"None of the {losses.size} losses is finite: nothing to draw.")
    return np.where(np.isfinite(losses), losses, np.nan)


def _window(window: int | None, num_steps: int) -> int:
    if window is None:
        return max(1, min(10, num_steps // 10), num_steps // 100)
    window = as_whole("window", window, 1)
    if window > num_steps:
        raise ValueError(f"`window` is {window}, but there are only {num_steps} steps.")
    return window


def _window_means(
    losses: Float[np.ndarray, " steps"], window: int
) -> Float[np.ndarray, " windows"]:
    """The mean of what is finite in each full window; NaN where nothing is."""
    finite = np.isfinite(losses)
    sums = _window_sums(np.where(finite, losses, 0.0), window)
    counts = _window_sums(finite.astype(float), window)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _window_sums(
    x: Float[np.ndarray, " steps"], window: int
) -> Float[np.ndarray, " windows"]:
    # A window is the end of one block and the start of the next. Differences of one
    # cumulative sum would lose small losses to the rounding of a huge first one.
    blocks = np.pad(x, (0, -x.size % window)).reshape(-1, window)
    starts = np.cumsum(blocks, axis=1).ravel()
    ends = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    count = x.size - window + 1
    sums = ends[:count] + starts[window - 1 :][:count]
    sums[::window] = ends[:count:window]  # One whole block.
    return sums


def _drawn(axis: Any, gid: str) -> list[np.ndarray]:
    lines = [] if axis is None else axis.get_lines()
    return [np.asarray(x.get_ydata(), float) for x in lines if x.get_gid() == gid]


def _later(y: np.ndarray) -> np.ndarray:
    """What is finite after the first tenth, or else at all."""
    late = y[y.size // 10 :]
    late = late[np.isfinite(late)]
    return late if late.size else y[np.isfinite(y)]


def _is_log(axis: Any, raw: list, smooth: list, *, asked: bool | None) -> bool:
    lowest = min(np.nanmin(y) for y in raw)
    if asked and lowest <= 0:
        raise ValueError(
            "`log=True` is for positive losses, but the smallest on this axis is "
            f"{lowest:g}. Leave `log` out."
        )
    if asked is not None or lowest <= 0:
        return bool(asked)
    late = np.concatenate([_later(y) for y in smooth])
    was_log = axis is not None and axis.get_yscale() == "log"
    return bool(was_log or late.max() > 1_000 * late.min())


def _limits(raw: list, smooth: list, *, log: bool) -> tuple[float, float]:
    """Limits for all of the running means, and for the noise but for single spikes."""
    noise = [np.quantile(_later(y), [0.005, 0.995]) for y in raw]
    shown = np.concatenate([*noise, *(_later(y) for y in smooth)])
    low, high = shown.min(), shown.max()
    if log:
        high = max(np.nanmax(y) for y in raw)
        margin = (high / low) ** 0.05 if high > low else 2.0
        return low / margin, high * margin
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _mark_stop(axis: Any, step: int, reason: str, color: Any) -> None:
    axis.axvline(step, color=color, ls="--", lw=0.9, alpha=0.8, gid=_STOP)
    others = [text.xy[0] for text in axis.texts if text.get_gid() == _STOP]
    # Runs that end at about the same step have their words side by side.
    close = [x for x in others if abs(x - step) < 0.05 * max(step, *others)]
    axis.annotate(
        reason,
        (min([step, *close]), 0),
        xycoords=axis.get_xaxis_transform(),
        xytext=(-2 - 12 * len(close), 5),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="bottom",
        fontsize="small",
        color=color,
        bbox={"facecolor": axis.get_facecolor(), "alpha": 0.85, "lw": 0, "pad": 1},
        gid=_STOP,
    )
