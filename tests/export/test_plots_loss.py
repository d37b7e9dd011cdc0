"""Pictures of the loss."""

import equinox as eqx
import matplotlib.pyplot as plt
import numpy as np
import pytest

import vijax as vi

from .plotting import ended, gaussian, run, words


pytestmark = pytest.mark.usefixtures("tidy")


def loss_lines(axis):
    """The raw lines and the smoothed ones: two a run, marks of stops left out."""
    lines = [line for line in axis.get_lines() if line.get_linestyle() != "--"]
    return lines[0::2], lines[1::2]


def dashed(axis):
    return [line for line in axis.get_lines() if line.get_linestyle() == "--"]


def limits_hold(axis, values):
    low, high = axis.get_ylim()
    return low <= np.min(values) and np.max(values) <= high


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


@pytest.mark.slow
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
