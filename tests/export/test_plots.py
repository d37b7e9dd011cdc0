"""What all pictures share: the axes given are drawn on, and bad input fails in words."""

import sys
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

import vijax as vi

from .plotting import ended, gaussian, titles, tracked


pytestmark = pytest.mark.usefixtures("tidy")


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
