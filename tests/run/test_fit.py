import _thread
import copy
import signal
import threading
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import vijax as vi

from ..helpers import correlated_target, diagonal_target, DIM, LOC, same, SCALE


method = vi.Descent(vi.StickTheLanding(), optax.adam(0.05))


def run(target, **kwargs):
    """A fit without a progress bar."""
    kwargs = {"method": method, "family": vi.MeanField, "progress": False} | kwargs
    return vi.fit(target, **kwargs)


def test_mean_field_finds_a_diagonal_gaussian(getkey):
    fit = run(diagonal_target(), key=getkey(), max_steps=2_000)
    assert jnp.allclose(fit.mean["x"], jnp.array(LOC), atol=1e-3)
    assert jnp.allclose(fit.std["x"], jnp.array(SCALE), rtol=1e-3)
    assert fit.result == vi.RESULTS.max_steps
    assert len(fit.losses) == fit.num_steps == 2_000


def _precision(getkey):
    a = jr.normal(getkey(), (DIM, DIM))
    return a @ a.T + jnp.eye(DIM)


def test_mean_field_has_the_conditional_variances(getkey):
    precision = _precision(getkey)
    target = correlated_target(jnp.array(LOC), precision)
    schedule = optax.exponential_decay(0.05, 1_000, 0.1)
    descent = vi.Descent(vi.StickTheLanding(16), optax.adam(schedule))
    fit = run(target, method=descent, key=getkey(), max_steps=4_000)
    assert jnp.allclose(fit.mean["x"], jnp.array(LOC), atol=0.01)
    assert jnp.allclose(fit.std["x"] ** 2, 1 / jnp.diagonal(precision), rtol=0.02)
    # Which are not the marginal ones.
    marginal = jnp.diagonal(jnp.linalg.inv(precision))
    assert jnp.max(marginal * jnp.diagonal(precision)) > 1.1


def test_full_rank_is_exact_on_a_gaussian(getkey):
    precision = _precision(getkey)
    target = correlated_target(jnp.array(LOC), precision)
    descent = vi.Descent(vi.StickTheLanding(8), optax.adam(0.02))
    fit = run(target, method=descent, family=vi.FullRank, key=getkey(), max_steps=4_000)
    assert jnp.allclose(fit.mean["x"], jnp.array(LOC), atol=1e-3)
    assert jnp.allclose(fit.family.covariance, jnp.linalg.inv(precision), atol=1e-3)


@pytest.mark.parametrize("batch_size", [None, 20])
def test_conjugate_normal(batch_size, getkey):
    y = 2.0 + 3.0 * jr.normal(getkey(), (200,))
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, y: -0.5 * ((y - params["mu"]) / 3.0) ** 2,
        {"mu": vi.Param()},
        y,
        batch_size=batch_size,
    )
    fit = run(target, method="advi", key=getkey(), max_steps=5_000)
    precision = 1 + 200 / 9
    mean, std = jnp.sum(y) / 9 / precision, precision**-0.5
    # A batch's own optimum is sqrt(10) posterior standard deviations off: about a fifth
    # of 5,000 steps is averaged.
    tolerance = 0.02 if batch_size is None else 0.3
    assert abs(fit.mean["mu"] - mean) < tolerance * std
    assert abs(fit.std["mu"] / std - 1) < (0.02 if batch_size is None else 0.1)
    assert abs(mean) > 3 * std  # The prior or the scaling would show.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_precision_is_that_of_the_parameters(dtype, getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum((params["x"] - 1) ** 2),
        {"x": np.zeros(2, dtype)},
    )
    fit = run(target, key=getkey(), max_steps=500, method="fullrank_advi")
    assert fit.family.mean.dtype == fit.losses.dtype == dtype
    draws = fit.draw(100, key=getkey())
    assert draws.x.dtype == draws.log_p.dtype == draws.need_log_q().dtype == dtype
    assert jnp.allclose(fit.family.mean, 1.0, atol=0.15)


def test_the_number_of_traces(getkey):
    traces = 0

    def log_density(params, data):
        nonlocal traces
        traces += 1
        return -0.5 * jnp.sum((params["x"] - data) ** 2)

    def fit(data, max_steps, learning_rate=0.05):
        target = vi.from_log_density(log_density, {"x": vi.Param(DIM)}, data)
        schedule = lambda count: learning_rate / (1 + count)
        descent = vi.Descent(
            vi.ELBO(), optax.chain(optax.clip(9.0), optax.adam(schedule))
        )
        stop = vi.LossConvergence()
        return run(target, method=descent, key=getkey(), max_steps=max_steps, stop=stop)

    first = fit(jnp.zeros(DIM), 50)
    first.draw(10, key=getkey())
    before = traces
    # Once to check it, once to look for a start, once in the loop, once for the draws.
    assert before <= 4
    second = fit(jnp.arange(3.0), 70)
    second.draw(10, key=getkey())
    second.resume(30, progress=False)
    vi.fit(
        second.target.with_data(jnp.ones(DIM)),
        second.problem.method,
        key=getkey(),
        max_steps=20,
        stop=vi.LossConvergence(),
        progress=False,
    )
    assert traces == before
    fit(jnp.zeros(DIM), 50, learning_rate=0.01)
    assert traces > before  # Another method is another program.


def test_an_optimizer_sees_the_present_values_of_globals(getkey):
    # Two lambdas of the same source are not the same if a global changed in between.
    scope: dict[str, Any] = {"optax": optax}
    source = "make = lambda: optax.sgd(lambda count: rate)"
    ends = []
    for rate in (0.0, 0.1):
        exec(source, scope | {"rate": rate}, scope)
        scope["rate"] = rate
        descent = vi.Descent(vi.ELBO(), scope["make"]())
        key = jr.key(0)
        ends.append(run(diagonal_target(), method=descent, key=key, max_steps=5))
    assert jnp.all(ends[0].family.mean == 0)
    assert jnp.all(ends[1].family.mean != 0)


def test_same_key_same_result_whatever_the_host_does(getkey):
    key, target = getkey(), diagonal_target()
    fits = [
        run(target, key=key, max_steps=257),
        run(
            target, key=key, max_steps=257, callbacks=[lambda fit: None], callback_every=7
        ),
        run(target, key=key, max_steps=257, progress=True),
        run(target, key=key, max_steps=100).resume(157, progress=False),
        run(target, key=key, max_steps=0).resume(257, progress=False),
    ]
    assert all(same(fits[0], other) for other in fits[1:])
    assert not same(fits[0], run(target, key=getkey(), max_steps=257))


@pytest.mark.parametrize("name", ["advi", "fullrank_advi", "auto"])
@pytest.mark.parametrize("first", [1, 64, pytest.param(199, marks=pytest.mark.slow)])
def test_resuming_is_going_on(name, first, getkey):
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, y: -0.5 * (y - params["mu"]) ** 2,
        {"mu": vi.Param()},
        jnp.arange(30.0),
        batch_size=4,
    )
    settings = {
        "method": name,
        "family": None,
        "key": getkey(),
        "stop": vi.LossConvergence(),
        "track": {"mean": lambda key, family, target: family.mean},
        "track_every": 9,
    }
    whole = run(target, max_steps=200, **settings)
    parts = run(target, max_steps=first, **settings).resume(200 - first, progress=False)
    assert same(whole, parts)
    assert whole.trackers["mean"].shape == (22, 1)


def test_resuming_with_another_method_and_rule(getkey):
    target = diagonal_target()
    slow = vi.Descent(vi.ELBO(), optax.sgd(1e-9))
    fit = run(target, method=slow, key=getkey(), max_steps=300)
    assert jnp.allclose(fit.family.mean, 0, atol=1e-3)
    rule = vi.ParameterConvergence(tolerance=1e-2, diff="absolute")
    fit = fit.resume(3_000, method=method, stop=rule, progress=False)
    assert fit.result == vi.RESULTS.converged
    assert jnp.allclose(fit.family.mean, jnp.array(LOC), atol=0.1)
    assert len(fit.losses) == fit.num_steps > 300
    further = fit.resume(50, stop=None, progress=False)
    assert further.result == vi.RESULTS.max_steps


@pytest.mark.parametrize("at", [1, 2, 9, 10, 11, 100])
@pytest.mark.parametrize(
    ("raises", "result"),
    [
        (StopIteration("I was slow, sorry"), "stopped"),
        (KeyboardInterrupt(), "interrupted"),
    ],
    ids=["stop", "keyboard"],
)
def test_ending_a_run_by_hand_keeps_every_step(at, raises, result, getkey):
    def callback(fit):
        if fit.num_steps == at:
            raise raises

    key = getkey()
    fit = run(
        diagonal_target(), key=key, max_steps=150, callbacks=callback, callback_every=1
    )
    assert fit.result == getattr(vi.RESULTS, result)
    assert len(fit.losses) == fit.num_steps == at
    whole = run(diagonal_target(), key=key, max_steps=150)
    assert same(fit.resume(150 - at, progress=False), whole)


def test_a_real_interruption_keeps_the_fit(getkey):
    # Minutes of work; interrupted once it is well under way.
    target = diagonal_target()
    run(target, key=getkey(), max_steps=10)
    # A shell's background jobs, such as CI may be, start with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(1.0, _thread.interrupt_main)
    interrupt.start()
    began = time.monotonic()
    fit = run(target, key=getkey(), max_steps=50_000_000)
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 20
    assert fit.result == vi.RESULTS.interrupted
    assert len(fit.losses) == fit.num_steps > 1_000
    assert jnp.all(jnp.isfinite(fit.losses))


def test_callbacks_see_the_fit_so_far(getkey):
    seen = []
    run(
        diagonal_target(),
        key=getkey(),
        max_steps=25,
        callbacks=[lambda fit: seen.append(fit)],
        callback_every=10,
        track={"std": lambda key, family, target: family.std},
        track_every=4,
    )
    assert [int(fit.num_steps) for fit in seen] == [10, 20]
    assert [len(fit.losses) for fit in seen] == [10, 20]
    assert [list(fit.tracked_steps) for fit in seen] == [[4, 8], [4, 8, 12, 16, 20]]
    assert all(fit.result == vi.RESULTS.running for fit in seen)
    assert seen[0].draw(5, key=getkey()).x.shape == (5, DIM)


def test_an_error_in_a_callback_carries_the_fit(getkey):
    def callback(fit):
        if fit.num_steps == 5_000:
            raise ZeroDivisionError("mine")

    key = getkey()
    with pytest.raises(vi.FitError, match="ZeroDivisionError after 5000 steps") as info:
        run(diagonal_target(), key=key, callbacks=callback)
    assert isinstance(info.value.__cause__, ZeroDivisionError)
    fit = info.value.fit
    assert len(fit.losses) == fit.num_steps == 5_000
    assert same(fit, run(diagonal_target(), key=key, max_steps=5_000))


def test_trackers_record_in_the_loop(getkey):
    key = getkey()
    settings = {"key": key, "max_steps": 100}
    fit = run(
        diagonal_target(),
        track={
            "moments": lambda key, family, target: {"m": family.mean, "s": family.std},
            "noise": lambda key, family, target: jr.normal(key),
            "log_p": lambda key, family, target: target.log_density(family.mean),
        },
        track_every=30,
        **settings,
    )
    assert list(fit.tracked_steps) == [30, 60, 90]
    assert fit.trackers["moments"]["m"].shape == (3, DIM)
    assert len(set(fit.trackers["noise"].tolist())) == 3
    at_60 = run(diagonal_target(), key=key, max_steps=60)
    assert jnp.array_equal(fit.trackers["moments"]["s"][1], at_60.family.std)
    # Looking changes nothing.
    without = run(diagonal_target(), **settings)
    assert eqx.tree_equal(fit.progress, without.progress)


def test_a_long_run_keeps_all_records(getkey):
    # More steps than one chunk has room for, with and without trackers.
    track = {"mean": lambda key, family, target: family.mean}
    fit = run(diagonal_target(), key=getkey(), max_steps=140_000, track=track)
    assert len(fit.losses) == fit.num_steps == 140_000
    assert fit.trackers["mean"].shape == (14_000, DIM)
    assert np.array_equal(fit.tracked_steps, 10 * np.arange(1, 14_001))
    assert jnp.array_equal(fit.trackers["mean"][-1], fit.family.mean)


@pytest.mark.parametrize(
    "stop",
    [None, pytest.param(vi.LossConvergence(), marks=pytest.mark.slow)],
    ids=["no rule", "rule"],
)
def test_a_thousand_fits_are_one_program(stop, getkey):
    target = diagonal_target()
    keys = jr.split(getkey(), 1_000)
    one = lambda key: run(target, key=key, max_steps=20, stop=stop, throw=False)
    many = eqx.filter_vmap(one)(keys)
    assert many.losses.shape == (1_000, 20)
    assert jnp.all(many.result == vi.RESULTS.max_steps)
    # The data are not there a thousand times, yet each fit can be drawn from.
    shapes = [leaf.shape for leaf in jax.tree.leaves(many)]
    assert (1_000, DIM) in shapes
    assert many.target.data[0].shape == (DIM,)
    picked = jax.tree.map(lambda leaf: leaf[7], many)
    alone = run(target, key=keys[7], max_steps=20, stop=stop)
    assert jnp.allclose(picked.family.mean, alone.family.mean, rtol=1e-10)
    assert picked.draw(5, key=getkey()).log_p.shape == (5,)
    further = picked.resume(10, progress=False)
    longer = run(target, key=keys[7], max_steps=30, stop=stop)
    assert jnp.allclose(further.losses, longer.losses, rtol=1e-8)


@pytest.mark.slow
def test_fits_of_many_data_sets_are_one_program(getkey):
    y = jr.normal(getkey(), (50, 200)) + jnp.arange(50.0)[:, None]
    log_prior = lambda params: -0.5 * (params["mu"] / 100) ** 2
    log_likelihood = lambda params, y: -0.5 * (y - params["mu"]) ** 2

    @jax.jit
    def means(y, keys):
        def one(y, key):
            target = vi.from_likelihood(log_prior, log_likelihood, {"mu": vi.Param()}, y)
            fit = vi.fit(target, "advi", key=key, throw=False)
            return fit.mean["mu"]

        return jax.vmap(one)(y, keys)

    got = means(y, jr.split(getkey(), 50))
    assert jnp.allclose(got, jnp.mean(y, axis=1), atol=0.02)


def test_inside_jit_it_is_the_same_fit(getkey):
    target, key = diagonal_target(), getkey()
    outside = run(target, key=key, max_steps=40)
    inside = jax.jit(lambda key: run(target, key=key, max_steps=50, throw=False))(key)
    assert jnp.allclose(outside.losses, inside.losses[:40], rtol=1e-10)
    stop = vi.ParameterConvergence(every=10, tolerance=100.0, diff="absolute")
    stopped = jax.jit(lambda key: run(target, key=key, max_steps=50, stop=stop).losses)(
        key
    )
    assert jnp.sum(jnp.isfinite(stopped)) == 10
    assert stopped.shape == (50,)


def test_a_failure_inside_jit(getkey):
    target = vi.from_log_density(
        lambda params: jnp.where(jnp.abs(params["x"]) < 1e-9, 0.0, jnp.nan) * params["x"],
        {"x": vi.Param()},
    )
    fit = jax.jit(lambda key: run(target, key=key, max_steps=150, throw=False))(getkey())
    assert fit.result == vi.RESULTS.nonfinite
    with pytest.raises(eqx.EquinoxRuntimeError, match="infinite or NaN"):
        eqx.filter_jit(lambda key: run(target, key=key, max_steps=150).losses)(getkey())


@pytest.mark.parametrize("bad", [{"callbacks": [print]}, {"checkpoint": "x"}])
def test_what_needs_the_host_is_refused_inside_jit(bad, getkey):
    with pytest.raises(ValueError, match="inside"):
        jax.jit(lambda key: run(diagonal_target(), key=key, **bad).losses)(getkey())


class Counting(vi.AbstractMethod):
    """A method whose state is a Python number."""

    def init(self, key, family, target):
        return {"steps": 0}

    def step(self, key, family, target, state):
        return family, {"steps": state["steps"] + 1}, jnp.array(0.0)


class Forgetful(Counting):
    """A method that returns another state than it is given."""

    def step(self, key, family, target, state):
        return family, {"other": 0}, jnp.array(0.0)


class AfterSeven(vi.AbstractStop):
    """A rule whose memory is a Python number."""

    def init(self, family):
        return 0

    def update(self, state, num_steps, loss, family):
        return state + 1, state == 6


def test_numbers_in_a_state_are_carried(getkey):
    settings = {"method": Counting(), "key": getkey(), "max_steps": 50}
    assert run(diagonal_target(), **settings).state["steps"] == 50
    stopped = run(diagonal_target(), stop=AfterSeven(), **settings)
    assert stopped.result == vi.RESULTS.converged
    assert stopped.num_steps == 7


def test_a_state_of_another_structure_is_refused(getkey):
    with pytest.raises(ValueError, match="`Forgetful.step` must return a state of the"):
        run(diagonal_target(), method=Forgetful(), key=getkey())


@pytest.mark.slow
def test_several_fits_in_one_say_so(getkey):
    one = lambda key: run(diagonal_target(), key=key, max_steps=5)
    many = eqx.filter_vmap(one)(jr.split(getkey(), 3))
    uses = lambda f: f.mean, lambda f: f.draw(5, key=getkey()), lambda f: f.resume(5)
    for use in uses:
        with pytest.raises(ValueError, match="These are 3 fits in one"):
            use(many)
    means = eqx.filter_vmap(lambda f: f.mean["x"])(many)
    assert means.shape == (3, DIM)


def test_a_fit_prints_in_a_line(getkey):
    fit = run(diagonal_target(), key=getkey(), max_steps=5)
    assert repr(fit) == (
        "Fit(family=MeanField of dim 3, result=max_steps, num_steps=5, num_skipped=0)"
    )


def test_a_fit_can_be_copied_and_passed_to_jit(getkey):
    fit = copy.deepcopy(run(diagonal_target(), key=getkey(), max_steps=5))
    traces = 0

    @jax.jit
    def mean(fit):
        nonlocal traces
        traces += 1
        return fit.mean["x"]

    assert jnp.array_equal(mean(fit), fit.mean["x"])
    mean(fit)
    assert traces == 1


def test_a_tracker_written_anew_is_the_same(getkey):
    traces = 0

    def log_density(params):
        nonlocal traces
        traces += 1
        return -0.5 * params["x"] ** 2

    target = vi.from_log_density(log_density, {"x": vi.Param()})
    counts = []
    for _ in range(2):
        track = {"std": lambda key, family, target: family.std}
        run(target, key=getkey(), max_steps=20, track=track)
        counts.append(traces)
    assert counts[0] == counts[1]


def test_max_steps_zero(getkey):
    fit = run(diagonal_target(), key=getkey(), max_steps=0)
    assert len(fit.losses) == fit.num_steps == 0
    assert jnp.allclose(fit.family.mean, 0)


def test_a_family_that_is_given_is_where_it_starts(getkey):
    start = vi.FullRank(jnp.array(LOC), scale=jnp.array(SCALE))
    fit = run(diagonal_target(), family=start, key=getkey(), max_steps=0)
    assert eqx.tree_equal(fit.family, start)
