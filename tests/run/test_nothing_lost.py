"""Whatever ends a run of the default, and wherever: there is a fit, and resuming it comes
to what an uninterrupted run does, bit for bit."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.stats import norm

import vijax as vi
from vijax._auto import budget
from vijax._draws import draw
from vijax._run import compiled_run, host, richer_family
from vijax._solver import natural_gradient
from vijax._survey import climb, survey
from vijax._target.probe import HostProbe

from ..helpers import same


# A thousand runs: without the type checker of our tests they take half as long.
pytestmark = pytest.mark.usefixtures("as_for_users")

Y = np.array([28.0, 8.0, -3.0, 7.0])


def funnel():
    """A hierarchy whose Gaussian has poor weights, so that a flow follows."""

    def log_density(params, y):
        scale = jnp.exp(params["log_tau"])
        theta = norm.logpdf(params["theta"], 0.0, scale)
        return norm.logpdf(params["log_tau"]) + jnp.sum(
            theta + norm.logpdf(y, params["theta"], 9.0)
        )

    params = {"log_tau": vi.Param(), "theta": vi.Param(4)}
    return vi.from_log_density(log_density, params, Y)


def rows():
    """One whose steps see batches."""
    y = np.random.default_rng(0).normal(2.0, 1.0, 400)
    return vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2 / 100,
        lambda params, y: -0.5 * (y - params["mu"]) ** 2,
        {"mu": vi.Param()},
        y,
        batch_size=20,
    )


@pytest.fixture
def small(monkeypatch):
    """Stages of few steps and draws, so that there are few places."""
    for module in (budget, richer_family):
        monkeypatch.setattr(module, "FLOW_STEPS", 30)
        monkeypatch.setattr(module, "MORE_STEPS", 60)
    for module in (draw, richer_family):
        monkeypatch.setattr(module, "NUM_DRAWS", 192)
    monkeypatch.setattr(natural_gradient, "_MAX_ITERATIONS", 5)
    # After so few, the neck of a funnel would be a second mode.
    monkeypatch.setattr(survey, "_ASCENT", 0)
    monkeypatch.setattr(survey, "_SHORT_ASCENT", 0)
    monkeypatch.setattr(climb, "_LAST", 12)


@pytest.fixture
def fewer(monkeypatch):
    """Fewer draws, but enough to see that weights are good."""
    for module in (draw, richer_family):
        monkeypatch.setattr(module, "NUM_DRAWS", 1_024)
    monkeypatch.setattr(climb, "_LAST", 12)


class Places:
    """The calls in which a run can be ended, counted; one of them ends it."""

    def __init__(self, monkeypatch, at=None, error=None):
        self.count = itertools.count()
        self.made = 0
        self._at, self._error = at, error
        self._wrap(monkeypatch, HostProbe, "_block")
        self._wrap(monkeypatch, compiled_run, "advance")
        self._wrap(monkeypatch, host, "save")
        self._wrap(monkeypatch, richer_family, "flow_from")
        self._wrap(monkeypatch, richer_family, "judge")

    def _wrap(self, monkeypatch, owner, name):
        call = getattr(owner, name)

        def counted(*args, **kwargs):
            number = next(self.count)
            self.made = number + 1
            if number == self._at:
                raise self._error  # pyright: ignore[reportGeneralTypeIssues]
            return call(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)


def fitted(target, path):
    return vi.fit(target, key=jr.key(3), progress=False, checkpoint=path)


def agree(first, second):
    """Whether two fits are the same, and what they answer."""
    # How they are corrected is found anew from the same bits.
    draws = [fit.draw(64, key=jr.key(0), corrected=False).x for fit in (first, second)]
    return (
        same(first, second)
        and first.result == second.result
        and np.array_equal(*draws)
        and type(first.family) is type(second.family)
    )


def places_of(target, path):
    with pytest.MonkeyPatch.context() as patch:
        places = Places(patch)
        fit = fitted(target, path)
        return fit, places.made


def ended_at(target, path, at, error):
    """What is left of a run that was ended at a place, and whether anything is."""
    with pytest.MonkeyPatch.context() as patch:
        Places(patch, at, error)
        try:
            return fitted(target, path)
        except vi.FitError as e:
            return e.fit if e.__cause__ is error else None
        except (MemoryError, KeyboardInterrupt):
            # Before the first step nothing was computed.
            return None


# In turns.
ERRORS = KeyboardInterrupt(), MemoryError("none left")


@pytest.mark.parametrize(
    ("make", "every"),
    [
        (funnel, 61),
        (rows, 4),
        pytest.param(funnel, 1, marks=pytest.mark.slow),
        pytest.param(rows, 1, marks=pytest.mark.slow),
    ],
)
def test_every_place(make, every, small, tmp_path):
    target, path = make(), tmp_path / "run.npz"
    whole, count = places_of(target, path)
    assert whole.result == vi.RESULTS.converged
    if make is funnel:
        assert isinstance(whole.family, vi.Affine)
    nothing = 0
    for at in range(0, count, every):
        left = ended_at(target, path, at, ERRORS[at // every % 2])
        if left is None:
            nothing += 1
            continue
        assert agree(left.resume(progress=False), whole), at
    # One look at the start, and the first step of a stage.
    assert nothing <= 4


@pytest.mark.parametrize(
    "every",
    [97, pytest.param(9, marks=pytest.mark.slow)],
)
def test_every_place_where_globals_are_found(every, fewer, tmp_path):
    target, path = funnel(), tmp_path / "run.npz"
    whole, count = places_of(target, path)
    assert whole.globals == ("log_tau",)
    like = vi.fit(target, key=jr.key(3), max_steps=0, progress=False)
    nested = 0
    for at in range(4, count, every):
        left = ended_at(target, path, at, KeyboardInterrupt())
        assert left is not None
        vi.save(path, left)
        loaded = vi.load(path, like=like)
        nested += isinstance(loaded.problem.method, vi.Nested)
        assert agree(loaded.resume(progress=False), whole), at
    assert nested > 0


@pytest.mark.parametrize("change", ["method", "stop"])
def test_all_the_rows_go_on_with_what_a_part_had_come_to(change, small, tmp_path):
    target = rows()
    left = ended_at(target, tmp_path / "run.npz", 8, KeyboardInterrupt())
    assert left is not None
    assert left.before is not None
    other: dict[str, Any] = {"method": "advi"} if change == "method" else {"stop": None}
    fit = left.resume(3_000, progress=False, **other)
    assert fit.before is None
    assert 1_000 < fit.num_steps <= 3_000
    assert fit.target.minibatch is not None
    y = np.asarray(target.data)
    precision = y.size + 0.01
    off = (float(fit.family.mean[0]) - y.sum() / precision) * precision**0.5
    assert abs(off) < 0.5


def test_a_checkpoint_of_any_stage_goes_on_to_the_same(small, tmp_path):
    target, path = funnel(), tmp_path / "run.npz"
    whole, count = places_of(target, path)
    like = vi.fit(target, key=jr.key(3), max_steps=0, progress=False)
    for at in range(150, count, 90):
        left = ended_at(target, path, at, KeyboardInterrupt())
        if left is not None:
            vi.save(path, left)
            loaded = vi.load(path, like=like)
            assert agree(loaded.resume(progress=False), whole), at


def test_a_flow_that_cannot_be_compiled_leaves_the_gaussian(small, monkeypatch):
    def advance(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(compiled_run, "advance", advance)
    with pytest.warns(UserWarning, match="flow could not be tried.*RESOURCE_EXHAUSTED"):
        fit = vi.fit(funnel(), key=jr.key(3), progress=False)
    assert isinstance(fit.family, vi.FullRank)
    assert fit.result == vi.RESULTS.converged
    assert not vi.report(fit, key=jr.key(0)).trustworthy
    # It has had its chance.
    assert same(fit.resume(progress=False), fit)


def test_until_a_flow_is_done_the_gaussian_stands(small):
    seen = []
    fit = vi.fit(
        funnel(),
        key=jr.key(3),
        progress=False,
        callbacks=lambda fit: seen.append((type(fit.family), fit.before is not None)),
        callback_every=10,
    )
    assert (vi.FullRank, True) in seen
    assert isinstance(fit.family, vi.Affine)
    assert fit.before is None
