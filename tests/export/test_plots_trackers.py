"""Pictures of what was tracked."""

import numpy as np
import pytest

import vijax as vi

from .plotting import run, titles, tracked, words


pytestmark = pytest.mark.usefixtures("tidy")


def test_a_panel_for_each_tracker(getkey):
    track = {
        "std": lambda key, family, target: family.std,
        "both": lambda key, family, target: {"m": family.mean[0], "k": (family.std,)},
    }
    fit = run(getkey(), track=track)
    axes = vi.plot_trackers(fit)
    assert sorted(titles(axes)) == ["both[k][0]", "both[m]", "std"]
    panels = dict(zip(titles(axes), axes, strict=True))
    assert [len(axis.get_lines()) for axis in panels.values()].count(1) == 1
    lines = panels["std"].get_lines()
    assert len(lines) == 2
    for i, line in enumerate(lines):
        assert np.array_equal(line.get_xdata(), fit.tracked_steps)
        assert np.array_equal(line.get_ydata(), fit.trackers["std"][:, i])
    assert words(panels["std"].get_legend()) == ["0", "1"]
    assert panels["both[m]"].get_legend() is None
    assert panels["std"].get_xlabel() == "step"
    assert len(axes[0].figure.axes) == 3  # The unused one is gone.
    assert titles(vi.plot_trackers(fit, "std")) == ["std"]
    chosen = vi.plot_trackers(fit, ["both[m]", "std", "std"])
    assert titles(chosen) == ["both[m]", "std"]
    assert len(vi.plot_trackers(fit, ["both"])) == 2


@pytest.mark.parametrize(("count", "num_lines"), [(10, 10), (11, 12), (50, 51), (51, 1)])
def test_many_entries_get_a_band(count, num_lines, rng):
    values = rng.normal(size=(40, count))
    (axis,) = vi.plot_trackers(tracked(loc=values))
    lines = axis.get_lines()
    assert len(lines) == num_lines
    assert len(axis.collections) == (count > 10)
    if count > 10:
        assert np.allclose(lines[-1].get_ydata(), np.median(values, axis=1))
        corners = axis.collections[0].get_paths()[0].vertices
        low, high = np.quantile(values, [0.05, 0.95], axis=1)
        assert np.allclose(
            [corners[:, 1].min(), corners[:, 1].max()], [low.min(), high.max()]
        )


def test_odd_trackers(rng):
    values = rng.normal(size=(40, 4, 5))
    values[3, 0, 0], values[4, 0, 1], values[4, 1, 0] = np.nan, np.inf, -np.inf
    (axis,) = vi.plot_trackers(tracked(loc=values))
    median = axis.get_lines()[-1].get_ydata()
    assert list(np.flatnonzero(np.isnan(median))) == [3, 4]
    (axis,) = vi.plot_trackers(tracked(one=np.ones(1), flag=np.array([True])), "one")
    assert axis.get_lines()[0].get_marker() == "."
