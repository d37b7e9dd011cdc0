"""Pictures of densities."""

import sys
import warnings
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray
from matplotlib.colors import to_hex

import vijax as vi

from .plotting import run, titles, words


pytestmark = pytest.mark.usefixtures("tidy")


def mixture(rng, size=4_000):
    low = rng.random(size) < 0.2
    return np.where(low, rng.normal(-0.3, 0.1, size), rng.normal(0.5, 0.1, size))


def only_curve(source):
    (axis,) = vi.plot_densities(source)
    (line,) = axis.get_lines()
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def peaks(x, y):
    inner = (y[1:-1] > y[:-2]) & (y[1:-1] >= y[2:]) & (y[1:-1] > 0.05 * y.max())
    return x[1:-1][inner], y[1:-1][inner]


def test_both_modes_of_a_mixture(rng):
    x, y = only_curve({"x": mixture(rng)})
    assert abs(np.trapezoid(y, x) - 1) < 0.01
    at, heights = peaks(x, y)
    at_low, at_high = at
    assert abs(at_low + 0.3) < 0.05
    assert abs(at_high - 0.5) < 0.05
    height = 1 / (0.1 * np.sqrt(2 * np.pi))
    assert np.allclose(heights, [0.2 * height, 0.8 * height], rtol=0.12)
    assert np.interp(0.1, x, y) < 0.1


def test_repeated_draws_are_no_detail(rng):
    # Of 600 particles, resampled. ArviZ's own bandwidths make 14 peaks of them or more.
    x, y = only_curve({"x": rng.choice(mixture(rng, 600), 4_000)})
    assert abs(np.trapezoid(y, x) - 1) < 0.01
    at, heights = peaks(x, y)
    assert len(at) == 2
    assert np.allclose(at, [-0.3, 0.5], atol=0.08)
    # Each once is the same picture as each ten times.
    draws = mixture(rng, 500)
    x, y = only_curve({"x": draws})
    again_x, again_y = only_curve({"x": np.repeat(draws, 10)})
    assert np.allclose(np.interp(x, again_x, again_y), y, atol=0.02 * y.max())


def test_modes_that_are_far_apart_keep_their_width(rng):
    near = rng.random(4_000) < 0.5
    draws = np.where(near, rng.normal(-10, 0.1, 4_000), rng.normal(10, 0.1, 4_000))
    _, heights = peaks(*only_curve({"x": draws}))
    assert len(heights) == 2
    assert np.allclose(heights, 0.5 / (0.1 * np.sqrt(2 * np.pi)), rtol=0.25)


def test_heavy_tails_and_bounds(rng):
    x, y = only_curve({"x": rng.standard_cauchy(4_000)})
    assert -60 < x[0] < -10 < 10 < x[-1] < 60
    assert abs(y.max() - 1 / np.pi) < 0.05
    draws = rng.exponential(size=4_000)
    x, y = only_curve({"x": draws})
    assert x[0] >= draws.min()
    assert abs(y[0] - 1) < 0.15


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_densities_of_any_scale_and_few_draws(scale, rng):
    for size in (2, 3, 30, 1_000):
        x, y = only_curve({"x": scale * (5 + rng.normal(size=size))})
        assert abs(np.trapezoid(y, x) - 1) < 0.02
    # A spike that is narrower than what can be drawn keeps its mass. (The rest is less
    # than half a percent of its height.)
    spike = np.where(np.arange(4_000) < 500, rng.normal(size=4_000), 0.0)
    x, y = only_curve({"x": scale * spike})
    assert abs(np.trapezoid(y, x) - 3_500 / 4_000) < 0.02


@pytest.mark.parametrize("value", [2.0, 0.0, -1e8])
def test_constant_draws_are_a_vertical_line(value, rng):
    sources = {"one": {"x": np.full(50, value)}, "other": {"x": rng.normal(size=50)}}
    (axis,) = vi.plot_densities(sources)
    one, other = axis.get_lines()
    assert list(one.get_xdata()) == [value, value]
    assert to_hex(one.get_color()) != to_hex(other.get_color())
    low, high = axis.get_xlim()
    assert low < value < high


def test_a_panel_for_each_scalar():
    draws = np.random.default_rng(0).normal(size=(100, 2, 3))
    source = {"alpha": draws[:, 0, 0], "beta": draws[:, 0], "w": draws}
    axes = vi.plot_densities(source)
    indices = [f"w[{i}, {j}]" for i in range(2) for j in range(3)]
    expected = ["alpha", "beta[0]", "beta[1]", "beta[2]", *indices]
    assert titles(axes) == expected
    assert len(axes[0].figure.axes) == 10
    for axis in axes:
        assert axis.get_ylim()[0] == 0
    x, y = axes[8].get_lines()[0].get_data()
    assert (x[np.argmax(y)] > 0) == (np.median(draws[:, 1, 1]) > 0)
    chosen = vi.plot_densities(source, ["w[1, 2]", "beta"])
    assert titles(chosen) == ["w[1, 2]", "beta[0]", "beta[1]", "beta[2]"]
    assert axes[0].figure.legends == []


def test_every_kind_of_source_is_drawn_alike(getkey):
    fit = run(getkey())
    draws = fit.draw(200, key=getkey())
    tree = vi.to_arviz(draws)
    halves = {k: np.asarray(v).reshape(2, 100, -1) for k, v in draws.params.items()}
    two_chains = xarray.Dataset(
        {k: (("chain", "draw", "i"), v) for k, v in halves.items()}
    )
    swapped = two_chains.transpose("i", "draw", "chain")
    sources = {
        "draws": draws,
        "dictionary": {k: np.asarray(v) for k, v in draws.params.items()},
        "jax": draws.params,
        "tree": tree,
        "posterior": tree.posterior,
        "dataset": two_chains,
        "swapped": swapped,
    }
    axes = vi.plot_densities(sources)
    assert titles(axes) == ["x[0]", "x[1]"]
    for axis in axes:
        first, *others = axis.get_lines()
        assert len(others) == 6
        for line in others:
            assert np.allclose(line.get_ydata(), first.get_ydata(), rtol=1e-6)
    (legend,) = axes[0].figure.legends
    assert words(legend) == list(sources)
    for source in sources.values():
        (line,) = vi.plot_densities(source, "x[1]")[0].get_lines()
        expected = axes[1].get_lines()[0].get_ydata()
        assert np.allclose(line.get_ydata(), expected, rtol=1e-6)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="ArviZ 1.x has trees only")
def test_the_older_inference_data(getkey):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It announces its own refactoring.
        import arviz
    draws = run(getkey()).draw(50, key=getkey())
    data: Any = arviz.InferenceData.from_datatree(vi.to_arviz(draws))
    for sources in (data, {"old": data, "new": draws}):
        assert titles(vi.plot_densities(sources)) == ["x[0]", "x[1]"]


def test_what_sources_share(rng):
    draws = rng.normal(size=(50, 3))
    one, two = {"c": draws[:, 0], "a": draws, "b": draws}, {"b": draws[:, :2], "a": draws}
    axes = vi.plot_densities({"one": one, "two": two})
    assert titles(axes) == ["a[0]", "a[1]", "a[2]", "b[0]", "b[1]"]
    _, axis = plt.subplots()
    vi.plot_densities({"one": one, "two": two}, "a[0]", axes=axis)
    assert words(axis.get_legend()) == ["one", "two"]
    # Names with brackets of their own, as some models have them.
    assert titles(vi.plot_densities({"a[0]": draws}, "a[0]"))[0] == "a[0][0]"


def test_more_panels_than_a_figure_takes(rng):
    source = {"x": rng.normal(size=(20, 25))}
    with pytest.raises(ValueError, match=r"25 panels.*takes 24.*`names=\['x\[0\]'\]`"):
        vi.plot_densities(source)
    assert plt.get_fignums() == []
    assert len(vi.plot_densities({"x": source["x"][:, :24]})) == 24
    _, grid = plt.subplots(5, 5)
    assert len(vi.plot_densities(source, axes=grid)) == 25
