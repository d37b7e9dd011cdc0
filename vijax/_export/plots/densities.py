from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..._draws.draws import Draws
from ..._misc import listed
from .base import as_axes, new_axes, select


_GRID_LEN = 2_048


def plot_densities(
    sources: Any, names: str | Sequence[str] | None = None, *, axes: Any = None
) -> np.ndarray:
    """Marginal densities of posteriors, laid over one another.

    There is a panel for each scalar entry of each parameter. The densities are ArviZ's
    kernel estimates. A curve ends at its outermost draws, or where it falls below half
    a percent of its peak. Draws that are all the same are a vertical line.

    **Arguments:**

    - `sources`: `{label: source}`, or one source: a [`vijax.Draws`][], a dictionary
        `{name: array of shape (draws, ...)}` such as NumPyro's `mcmc.get_samples()`, or
        ArviZ data with a posterior.
    - `names`: what to draw: parameters, or single entries such as `"beta[0]"`. Default:
        all that the sources share.
    - `axes`: the `matplotlib` axes to draw on, one for each panel. Default: those of a
        new figure. Keyword only.

    **Returns:**

    A flat array of the axes.

    **Raises:** `ValueError` if the sources are none or share nothing, there is no such
    name, a draw is not finite, the number of `axes` is wrong, or there would be more
    than 24 panels; `ImportError` without matplotlib.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(2)}
        )
        keys = jax.random.split(jax.random.key(0), 3)
        fit = vi.fit(target, key=keys[0], max_steps=200)
        exact = {"x": jax.random.normal(keys[1], (1_000, 2))}
        axes = vi.plot_densities({"fit": fit.draw(1_000, key=keys[2]), "exact": exact})
        axes[0].figure.suptitle("A Gaussian")
        ```
    """
    labelled = {k: _entries(x) for k, x in _by_label(sources).items()}
    titles = select(_shared(labelled), names, "what all sources have is")
    if axes is None and len(titles) > 24:
        raise ValueError(
            f"There would be {len(titles)} panels, but a figure takes 24. Choose some, "
            f"e.g. `names=[{titles[0]!r}]`, or pass as many `axes`."
        )
    for entries in labelled.values():
        _check_finite({title: entries[title] for title in titles})
    own = axes is None
    axes = new_axes(len(titles), 3.4, 2.6) if own else as_axes(axes, titles)
    for axis, title in zip(axes, titles, strict=True):
        for label, entries in labelled.items():
            _draw_density(axis, entries[title], label)
        axis.set(title=title, yticks=[])
        axis.set_ylim(bottom=0)
    if None not in labelled:
        # Above the panels, where it covers no curve, if the figure is ours.
        above = {"loc": "outside upper center", "ncols": min(4, len(labelled))}
        lines = axes[0].get_lines()[-len(labelled) :]
        owner, where = (axes[0].figure, above) if own else (axes[0], {})
        owner.legend(lines, list(labelled), frameon=False, **where)
    return axes


def _by_label(sources: Any) -> dict[str | None, Any]:
    """The sources by their labels. That of a single one is `None`."""
    if not isinstance(sources, Mapping) or _is_xarray(sources):
        return {None: sources}
    if not sources:
        raise ValueError("`sources` is empty. Pass one source, or `{label: source}`.")
    is_source = lambda x: isinstance(x, Draws | Mapping) or _is_xarray(x)
    return dict(sources) if any(map(is_source, sources.values())) else {None: sources}


def _is_xarray(source: Any) -> bool:
    return hasattr(source, "posterior") or hasattr(source, "data_vars")


def _entries(source: Any) -> dict[str, Float[np.ndarray, " draws"]]:
    """The draws of each scalar entry of each parameter, by its title."""
    values: Any = source.params if isinstance(source, Draws) else source
    values = getattr(values, "posterior", values)
    try:
        if hasattr(values, "data_vars"):
            values = {str(k): _over_draws(x) for k, x in values.data_vars.items()}
        arrays = {k: np.asarray(x, dtype=float) for k, x in values.items()}
        if any(x.ndim == 0 or x.shape[0] == 0 for x in arrays.values()):
            raise ValueError("Nothing runs over draws.")
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            "A source must be a `vi.Draws`, a dictionary `{name: array of shape (draws, "
            "...)}`, or ArviZ data with a posterior over chain and draw, but there is a "
            f"{type(source).__name__} that is none of these. Of a fit, draw first: "
            "`fit.draw(1_000, key=key)`."
        ) from error
    entries = {}
    for name, values in arrays.items():
        for index in np.ndindex(values.shape[1:]):
            title = f"{name}[{', '.join(map(str, index))}]" if index else name
            entries[title] = values[(slice(None), *index)]
    return entries


def _over_draws(values: Any) -> np.ndarray:
    values = values.transpose("chain", "draw", ...).to_numpy()
    return values.reshape(-1, *values.shape[2:])


def _shared(labelled: dict) -> dict[str, Any]:
    first, *others = labelled.values()
    shared = {t: x for t, x in first.items() if all(t in other for other in others)}
    if not shared:
        have = "; ".join(f"{k}: {listed(x)}" for k, x in labelled.items())
        raise ValueError(f"The sources have no parameter in common. They have {have}.")
    return shared


def _check_finite(entries: dict[str, np.ndarray]) -> None:
    for title, draws in entries.items():
        bad = np.count_nonzero(~np.isfinite(draws))
        if bad:
            raise ValueError(
                f"{bad} of the {draws.size} draws of `{title}` are not finite. Find out "
                "why, or leave them out."
            )


def _draw_density(axis: Any, draws: np.ndarray, label: str | None) -> None:
    if np.ptp(draws) <= 1e-10 * np.abs(draws).max():
        # As a plot, since `axvline` does not take the next color.
        across = axis.get_xaxis_transform()
        axis.plot([draws.mean()] * 2, [0, 1], label=label, transform=across)
        return
    grid, density = _density(draws)
    (line,) = axis.plot(grid, density, label=label)
    axis.fill_between(grid, density, color=line.get_color(), alpha=0.12, lw=0)


def _density(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from arviz_stats.base.array import array_stats

    # A grid that reached the last draw of a heavy tail would be too coarse elsewhere.
    low, high = np.quantile(draws, [0.005, 0.995])
    reach = 0.5 * (high - low)
    inside = draws[(draws >= low - reach) & (draws <= high + reach)]
    inside = inside if np.ptp(inside) > 0 else draws
    bandwidth = max(_bandwidth(inside), 2 * float(np.ptp(inside)) / _GRID_LEN)
    grid, density, _ = array_stats.kde(inside, bw=bandwidth, grid_len=_GRID_LEN)
    density = density * inside.size / draws.size
    seen = np.flatnonzero(density > 0.005 * density.max())
    ends = slice(seen[0], seen[-1] + 1)
    return grid[ends], density[ends]


def _bandwidth(draws: np.ndarray) -> float:
    """That of ArviZ, for as many draws as the distinct ones are worth.

    Its rules take repeated draws for the finest detail. So they are asked about evenly
    spaced quantiles instead: without repetitions these are the draws themselves.
    """
    from arviz_stats.base.array import array_stats

    values, counts = np.unique(draws, return_counts=True)
    worth = max(2, round(draws.size**2 / np.sum(counts.astype(float) ** 2)))
    levels = (np.cumsum(counts) - counts / 2) / draws.size
    even = np.interp((np.arange(worth) + 0.5) / worth, levels, values)
    rule = lambda name: float(array_stats.kde(even, bw=name, grid_len=_GRID_LEN)[2])
    # ArviZ's default smears modes that are far apart; "isj" alone is rough in long tails.
    return min(rule("experimental"), 1.5 * rule("isj"))
