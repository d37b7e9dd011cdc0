import sys
import warnings
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray
from matplotlib.colors import to_hex

import vijax as vi


matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def tidy():
    """Every picture can be drawn, and settings are as they were."""
    before = matplotlib.rcParams.copy()
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
    assert matplotlib.rcParams == before


@pytest.fixture
def as_for_users():
    """Without the type checker of our tests, which would speak up first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def rng(request):
    return np.random.default_rng(len(request.node.name))


def gaussian():
    return vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(2)}
    )


def run(key, **options):
    options = {"max_steps": 100, "progress": False} | options
    return vi.fit(gaussian(), "fullrank_advi", key=key, **options)


def ended(result, num_steps=500):
    """As much of a fit as a picture of its loss looks at."""
    losses = np.linspace(3.0, 1.0, num_steps)
    return SimpleNamespace(
        losses=losses, result=getattr(vi.RESULTS, result), num_steps=num_steps
    )


def loss_lines(axis):
    """The raw lines and the smoothed ones: two a run, marks of stops left out."""
    lines = [line for line in axis.get_lines() if line.get_linestyle() != "--"]
    return lines[0::2], lines[1::2]


def words(of: Any):
    return [text.get_text() for text in of.texts]


def dashed(axis):
    return [line for line in axis.get_lines() if line.get_linestyle() == "--"]


def limits_hold(axis, values):
    low, high = axis.get_ylim()
    return low <= np.min(values) and np.max(values) <= high


# The loss.


@pytest.mark.parametrize("window", [1, 2, 7, 50, 99, 100])
def test_smoothed_losses_are_window_means(window, rng):
    losses = rng.normal(size=100)
    losses[[3, 40, 41, 99]] = np.nan, np.inf, np.nan, -np.inf
    axis = vi.plot_loss(losses, window=window)
    (raw,), (smooth,) = loss_lines(axis)
    pieces = [losses[i : i + window] for i in range(100 - window + 1)]
    kept = [piece[np.isfinite(piece)] for piece in pieces]
    means = [piece.mean() if piece.size else np.nan for piece in kept]
    middles = [np.mean(np.arange(i, i + window)) + 1 for i in range(len(pieces))]
    assert np.allclose(smooth.get_ydata(), means, rtol=1e-12, equal_nan=True)
    assert np.allclose(smooth.get_xdata(), middles)
    finite = np.isfinite(losses)
    assert np.array_equal(raw.get_xdata(), np.arange(1, 101))
    assert np.array_equal(raw.get_ydata()[finite], losses[finite])
    assert np.isnan(raw.get_ydata()[~finite]).all()
    assert raw.get_alpha() < 0.5
    assert raw.get_color() == smooth.get_color()
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", "loss")
    assert axis.get_legend() is None


@pytest.mark.parametrize(
    ("num_steps", "window"), [(1, 1), (5, 1), (200, 10), (1_000, 10), (10_000, 100)]
)
def test_default_window(num_steps, window):
    _, (smooth,) = loss_lines(vi.plot_loss(np.arange(1.0, num_steps + 1)))
    assert len(smooth.get_xdata()) == num_steps - window + 1


def test_a_huge_first_loss_costs_no_digits():
    losses = np.concatenate([[1e18], np.linspace(1.0, 2.0, 999)])
    _, (smooth,) = loss_lines(vi.plot_loss(losses, window=10, log=False))
    assert np.allclose(smooth.get_ydata()[500], losses[500:510].mean(), rtol=1e-12)


def test_limits_leave_out_the_transient_and_single_spikes(rng):
    losses = 170 + rng.normal(size=5_000)
    losses[:300] += np.geomspace(1e6, 1, 300)
    losses[3_000] += 60
    axis = vi.plot_loss(losses)
    assert axis.get_yscale() == "linear"
    _, (smooth,) = loss_lines(axis)
    assert limits_hold(axis, smooth.get_ydata()[500:])
    assert limits_hold(axis, [168, 172])  # Two standard deviations of the noise.
    low, high = axis.get_ylim()
    assert 165 < low < high < 175


def test_a_run_that_still_falls_is_seen(rng):
    losses = np.linspace(1e4, 0.0, 5_000) + rng.normal(size=5_000)
    assert limits_hold(vi.plot_loss(losses), [0.0, 8_900.0])


def test_limits_of_flat_and_of_short_runs():
    for losses in (np.full(50, 3.0), np.zeros(50), [2.0]):
        axis = vi.plot_loss(losses)
        assert limits_hold(axis, losses)
        assert np.diff(axis.get_ylim()) > 0
    # Nothing but its first step is finite.
    assert limits_hold(vi.plot_loss([5.0] + 99 * [np.nan]), [5.0])


def test_overlaid_runs_share_limits_and_a_legend(rng):
    high, low = 100 + rng.normal(size=2_000), rng.normal(size=1_000)
    figure, axis = plt.subplots()
    assert vi.plot_loss(high, ax=axis, label="high") is axis
    assert not limits_hold(axis, low)
    vi.plot_loss(low, ax=axis, label="low")
    assert limits_hold(axis, [-2, 2, 98, 102])
    raw, smooth = loss_lines(axis)
    assert raw[0].get_color() != raw[1].get_color()
    assert [line.get_label() for line in smooth] == ["high", "low"]
    assert words(axis.get_legend()) == ["high", "low"]
    axis.clear()
    noisy, spiky = 10 * rng.normal(size=2_000), rng.normal(size=2_000)
    spiky[1_000] = 1e4
    vi.plot_loss(noisy, ax=axis)
    vi.plot_loss(low, ax=axis)
    assert limits_hold(axis, [-20.0, 20.0])  # The noise of the first run.
    axis.clear()
    vi.plot_loss(spiky, ax=axis)
    vi.plot_loss(low, ax=axis)
    _, smooth = loss_lines(axis)
    assert limits_hold(axis, smooth[0].get_ydata())  # All of the first one's mean.
    axis.clear()
    vi.plot_loss(low, ax=axis)
    assert not limits_hold(axis, high)
    assert plt.get_fignums() == [figure.number]


def test_logarithmic_axis(rng):
    noise = np.exp(0.3 * rng.normal(size=2_000))
    force = np.geomspace(1e3, 1e-6, 2_000) * noise
    axis = vi.plot_loss(force)
    assert axis.get_yscale() == "log"
    assert limits_hold(axis, np.geomspace(1e3, 1e-6, 2_000))
    vi.plot_loss(noise, ax=axis)  # The first run still asks for it.
    assert axis.get_yscale() == "log"
    vi.plot_loss(noise - 10, ax=axis)  # Cannot stay so.
    assert axis.get_yscale() == "linear"
    assert limits_hold(axis, [-9.5])
    assert vi.plot_loss(force, log=False).get_yscale() == "linear"
    assert vi.plot_loss(noise).get_yscale() == "linear"
    axis = vi.plot_loss(noise, log=True)
    assert axis.get_yscale() == "log"
    assert vi.plot_loss(noise, ax=axis).get_yscale() == "log"  # Stays so.
    assert vi.plot_loss(force - 1e-3).get_yscale() == "linear"
    # A transient alone is no reason for it.
    settled = 170 + np.concatenate([np.geomspace(1e8, 1, 100), np.zeros(1_900)]) + noise
    assert vi.plot_loss(settled).get_yscale() == "linear"
    assert np.diff(vi.plot_loss(np.full(9, 3.0), log=True).get_ylim()) > 0


@pytest.mark.parametrize(
    "reason", ["converged", "stopped", "interrupted", "nonfinite", "failed"]
)
def test_the_stop_is_marked(reason):
    axis = vi.plot_loss(ended(reason))
    (mark,) = dashed(axis)
    assert list(mark.get_xdata()) == [500, 500]
    assert words(axis) == [reason]


@pytest.mark.parametrize("given", [ended("max_steps"), ended("running"), [3.0, 2.0, 1.0]])
def test_no_stop_no_mark(given):
    axis = vi.plot_loss(given)
    assert not dashed(axis)
    assert not axis.texts


def test_words_of_stops_at_one_step_do_not_overlap():
    axis = None
    for num_steps in (500, 505, 300, 490):
        axis = vi.plot_loss(ended("converged", num_steps), ax=axis)
    assert axis is not None
    renderer = axis.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axis.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_real_fits(getkey):
    def stop(fit):
        raise StopIteration

    fit = run(getkey(), callbacks=[stop], callback_every=50)
    axis = vi.plot_loss(fit)
    (raw,), _ = loss_lines(axis)
    assert np.array_equal(raw.get_ydata(), fit.losses)
    assert words(axis) == ["stopped"]
    assert not dashed(vi.plot_loss(run(getkey())))


def test_a_fit_out_of_jit_is_not_padded(getkey):
    rule = vi.LossConvergence()
    track = {"mean": lambda key, family, target: family.mean}
    fit = eqx.filter_jit(
        lambda key: vi.fit(
            gaussian(), "advi", key=key, stop=rule, track=track, max_steps=9_000
        )
    )(getkey())
    made = int(fit.num_steps)
    assert made < fit.losses.size  # Or this shows nothing.
    axis = vi.plot_loss(fit)
    assert words(axis) == ["converged"]
    assert list(dashed(axis)[0].get_xdata()) == [made, made]
    (axis,) = vi.plot_trackers(fit)
    steps = axis.get_lines()[0].get_xdata()
    assert steps[0] == 10
    assert steps[-1] == made // 10 * 10


# Trackers.


def tracked(**trackers):
    num_records = len(jax.tree.leaves(trackers)[0])
    steps = 10 * np.arange(1, num_records + 1)
    return SimpleNamespace(trackers=trackers, tracked_steps=steps)


def titles(axes):
    return [axis.get_title() for axis in axes]


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


def test_the_axes_given_are_drawn_on_and_returned():
    fit, sources = tracked(a=np.ones(5), b=np.ones(5)), {"a": np.eye(5), "b": np.ones(5)}
    _, grid = plt.subplots(1, 2)
    for given in (grid, list(grid), grid[None, :]):
        assert list(vi.plot_trackers(fit, axes=given)) == list(grid)
        names = ["a[0]", "b"]
        assert list(vi.plot_densities(sources, names, axes=given)) == list(grid)
    assert list(vi.plot_trackers(fit, "a", axes=grid[0])) == [grid[0]]
    assert list(vi.plot_densities(sources, "b", axes=grid[0])) == [grid[0]]
    assert vi.plot_loss([3.0, 2.0], ax=grid[1]) is grid[1]
    assert plt.get_fignums() == [1]


# Densities.


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


# What is wrong.


_ok = {"x": np.arange(9.0)}

errors = {
    "loss: no fit": (lambda: vi.plot_loss("run"), "`fit` must be.*but it is a str"),
    "loss: a number": (lambda: vi.plot_loss(3.0), "`fit` must be.*but it is a float"),
    "loss: several": (
        lambda: vi.plot_loss(np.ones((3, 4))),
        r"several runs in one, of shape \(3, 4\).*jax\.tree\.map",
    ),
    "loss: none": (lambda: vi.plot_loss([]), "None of the 0 losses"),
    "loss: no finite one": (
        lambda: vi.plot_loss([np.nan, np.inf]),
        "None of the 2 losses is finite",
    ),
    "loss: window of zero": (
        lambda: vi.plot_loss(np.ones(5), window=0),
        "`window` must be a whole number of at least 1, but it is 0",
    ),
    "loss: window of a fraction": (
        lambda: vi.plot_loss(np.ones(5), window=1.5),  # pyright: ignore[reportArgumentType]  # That is what is tried.
        "`window` must be a whole number.*1.5",
    ),
    "loss: wide window": (
        lambda: vi.plot_loss(np.ones(5), window=6),
        "`window` is 6, but there are only 5 steps",
    ),
    "loss: logarithm": (
        lambda: vi.plot_loss([3.0, -2.0], log=True),
        "`log=True` is for positive losses.*-2",
    ),
    "loss: axes": (
        lambda: vi.plot_loss([3.0], ax="here"),
        "`ax` must be axes of matplotlib.*a str",
    ),
    "trackers: no fit": (
        lambda: vi.plot_trackers([3.0]),
        r"`fit` must be a `vi\.Fit`.*a list",
    ),
    "trackers: none": (
        lambda: vi.plot_trackers(SimpleNamespace(trackers={})),
        "Nothing was tracked.*track=",
    ),
    "trackers: no record": (
        lambda: vi.plot_trackers(tracked(std=np.zeros((0, 2)))),
        "no record yet.*`track_every`",
    ),
    "trackers: several fits": (
        lambda: vi.plot_trackers(
            SimpleNamespace(trackers=_ok, tracked_steps=np.ones((3, 9)))
        ),
        r"several runs in one, of shape \(3, 9\)",
    ),
    "trackers: name": (
        lambda: vi.plot_trackers(tracked(std={"a": np.ones(3)}, mean=np.ones(3)), "sd"),
        r"`names` has 'sd', but the trackers are std\[a\], mean",
    ),
    "trackers: no names": (
        lambda: vi.plot_trackers(tracked(std=np.ones(3)), []),
        "`names` is empty",
    ),
    "trackers: axes": (
        lambda: vi.plot_trackers(
            tracked(std=np.ones(3)), axes=plt.figure().subplots(1, 2)
        ),
        "`axes` has 2 axes, but 1 are needed, for std",
    ),
    "densities: empty": (lambda: vi.plot_densities({}), "`sources` is empty"),
    "densities: a fit": (
        lambda: vi.plot_densities(ended("stopped")),
        r"a SimpleNamespace that is none of these.*fit\.draw",
    ),
    "densities: fits": (
        lambda: vi.plot_densities({"a": ended("stopped")}),
        r"A source must be.*fit\.draw",
    ),
    "densities: a fit among draws": (
        lambda: vi.plot_densities({"a": _ok, "b": ended("stopped")}),
        "a SimpleNamespace that is none",
    ),
    "densities: a list": (lambda: vi.plot_densities([_ok, _ok]), "a list that is none"),
    "densities: a number": (lambda: vi.plot_densities({"x": 3.0}), "a dict that is none"),
    "densities: no draws": (
        lambda: vi.plot_densities({"x": np.zeros(0)}),
        "a dict that is none",
    ),
    "densities: no chains": (
        lambda: vi.plot_densities(xarray.Dataset({"x": ("time", np.ones(3))})),
        "over chain and draw, but there is a Dataset that is none",
    ),
    "densities: nothing shared": (
        lambda: vi.plot_densities({"one": _ok, "two": {"y": np.ones(3)}}),
        "no parameter in common. They have one: x; two: y",
    ),
    "densities: name": (
        lambda: vi.plot_densities(_ok, ["x", "y"]),
        "`names` has 'y', but what all sources have is x",
    ),
    "densities: not finite": (
        lambda: vi.plot_densities(
            {"a": _ok, "b": {"x": np.array([1.0, np.nan, np.inf])}}
        ),
        "2 of the 3 draws of `x`.*not finite",
    ),
    "densities: axes": (
        lambda: vi.plot_densities(_ok, axes=[]),
        "`axes` has 0 axes, but 1 are needed, for x",
    ),
}


@pytest.mark.parametrize(("call", "match"), errors.values(), ids=errors.keys())
def test_bad_input(call, match, as_for_users):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        call()
    # No half of a picture is left over.
    assert not any(plt.figure(i).axes[0].get_lines() for i in plt.get_fignums())


def test_several_fits_in_one(getkey):
    track = {"std": lambda key, family, target: family.std}
    one = lambda key: vi.fit(
        gaussian(), "advi", key=key, max_steps=20, track=track, throw=False
    )
    fits = eqx.filter_vmap(one)(jr.split(getkey(), 3))
    for plot in (vi.plot_loss, vi.plot_trackers):
        with pytest.raises(ValueError, match="several runs in one"):
            plot(fits)
        plot(jax.tree.map(lambda leaf: leaf[1], fits))


def test_what_is_not_finite_matters_only_where_it_is_drawn():
    source = {"x": np.arange(9.0), "y": np.full(9, np.nan)}
    assert titles(vi.plot_densities(source, "x")) == ["x"]


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for plot in (
        lambda: vi.plot_loss([1.0]),
        lambda: vi.plot_trackers(tracked(a=np.ones(3))),
        lambda: vi.plot_densities(_ok),
    ):
        with pytest.raises(ImportError, match=r'pip install "vijax\[plot\]"'):
            plot()
