"""Fits to batches: what each step sees, streams of data, and going on with others."""

import functools
import itertools as it

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from ..helpers import same
from .minibatches import (
    encoded,
    factorization_target,
    linear_target,
    normal_target,
    other_target,
)


class Recorder(vi.AbstractMethod):
    """Fits nothing, but writes down what each step saw. Of some row it is afraid."""

    room: int = eqx.field(static=True)
    afraid_of: int = eqx.field(static=True, default=-1)

    def init(self, key, family, target):
        shape = jax.eval_shape(lambda: target.batch(key).data).shape
        return jnp.full((self.room, *shape), -1.0), jnp.zeros((), jnp.int32)

    def step(self, key, family, target, state):
        seen, count = state
        is_bad = jnp.any(target.data == self.afraid_of)
        state = seen.at[count].set(target.data), count + 1
        return family, state, jnp.where(is_bad, jnp.nan, 0.0)


def record(target, key, max_steps, *, room=60, afraid_of=-1, **options):
    method = Recorder(room, afraid_of)
    options = {"progress": False, "family": vi.MeanField} | options
    return vi.fit(target, method, key=key, max_steps=max_steps, **options)


def recorded(fit):
    return np.asarray(fit.state[0])


def test_the_epochs_of_a_fit_go_on(getkey, tmp_path):
    target, key = linear_target(np.arange(10.0), 3), getkey()
    whole = record(target, key, 60)
    epochs = np.sort(recorded(whole).reshape(20, 9), axis=1)
    assert np.all(epochs >= 0)
    assert np.all(np.diff(epochs, axis=1) > 0)
    assert len({epoch.tobytes() for epoch in recorded(whole).reshape(20, 9)}) == 20
    # Wherever it is cut, by whatever: bit for bit the same.
    resume = lambda fit, number: fit.resume(number, progress=False)
    assert same(resume(record(target, key, 25), 35), whole)
    assert same(resume(resume(record(target, key, 1), 2), 57), whole)
    assert same(
        record(target, key, 60, callbacks=lambda fit: None, callback_every=7), whole
    )
    path = tmp_path / "fit"
    vi.save(path, record(target, key, 31))
    loaded = vi.load(path, like=record(target, getkey(), 0))
    assert same(resume(loaded, 29), whole)
    # The same key, the same batches; another one, others.
    assert same(record(target, key, 60), whole)
    other = record(target, getkey(), 60)
    assert not np.array_equal(recorded(other), recorded(whole))


def test_a_fit_with_seeds_sees_what_the_seeds_say(getkey):
    target = linear_target(encoded(9, 8), ((3, 1), (4, 2)))
    seen = recorded(record(target, getkey(), 30, room=30))
    key = getkey()
    expected = [target.batch(key, step).data for step in range(30)]
    assert np.array_equal(seen, expected)


def test_skipped_steps_have_their_turn_too(getkey):
    target, key = linear_target(np.arange(10.0), 3), getkey()
    expected = recorded(record(target, key, 60))
    with pytest.warns(UserWarning, match="of 60 steps were not finite"):
        fit = record(target, key, 60, afraid_of=4)
    kept = [rows for rows in expected if 4 not in rows]
    assert 5 < fit.num_skipped == 60 - len(kept) <= 20
    assert np.array_equal(recorded(fit)[: len(kept)], kept)


@pytest.mark.slow
def test_many_fits_at_once_have_batches_of_their_own(getkey):
    target, keys = linear_target(np.arange(10.0), 3), jr.split(getkey(), 5)
    many = eqx.filter_vmap(lambda key: record(target, key, 60, throw=False))(keys)
    seen = recorded(many)
    assert seen.shape == (5, 60, 3)
    assert len({run.tobytes() for run in seen}) == 5
    assert np.array_equal(seen[3], recorded(record(target, keys[3], 60)))
    assert many.target.data.shape == (10,)  # Not there five times.


@pytest.mark.slow
@pytest.mark.parametrize("replace", [False, True])
def test_resuming_a_factorization_is_going_on(replace, getkey, tmp_path):
    minibatch = vi.Minibatch((4, (2, 3)), replace=replace, total_size=(12, None))
    run = functools.partial(
        vi.fit, factorization_target(minibatch), "advi", progress=False
    )
    key, path = getkey(), tmp_path / "fit"
    whole = run(key=key, max_steps=50)
    assert np.all(np.isfinite(whole.losses))
    vi.save(path, run(key=key, max_steps=19))
    like = run(key=getkey(), max_steps=0)
    assert same(vi.load(path, like=like).resume(31, progress=False), whole)


@pytest.mark.slow
def test_a_file_of_other_batches_is_refused(getkey, tmp_path):
    path, y = tmp_path / "fit", np.arange(10.0)
    vi.save(path, record(linear_target(y, 3, total_size=100), getkey(), 2))
    others = {"total_size": 200}, {"total_size": 100, "replace": True}
    for options in others:
        like = record(linear_target(y, 3, **options), getkey(), 0)
        with pytest.raises(ValueError, match="batch size"):
            vi.load(path, like=like)


def posterior(y):
    precision = 1 + len(y) / 9
    return np.sum(y) / 9 / precision, precision**-0.5


def test_new_data_by_a_callback_do_not_compile_again(getkey):
    traces = 0

    def log_likelihood(params, y):
        nonlocal traces
        traces += 1
        return -0.5 * ((y - params["mu"]) / 3.0) ** 2

    chunks = [np.arange(50.0) + i for i in range(5)]
    stream = iter(chunks)
    minibatch = vi.Minibatch(10, total_size=1_000)
    target = normal_target(next(stream), minibatch, log_likelihood)
    seen = []

    def following(fit):
        seen.append(np.asarray(fit.target.data))
        return fit.target.with_data(next(stream))

    settings = {"key": getkey(), "progress": False, "callback_every": 20}
    vi.fit(target, "advi", max_steps=20, **settings)
    before = traces
    fit = vi.fit(target, "advi", max_steps=80, callbacks=following, **settings)
    assert traces == before
    assert fit.num_steps == len(fit.losses) == 80
    # Each callback saw what the steps before it saw, and the fit ends with the last one.
    assert np.array_equal(seen, chunks[:4])
    assert np.array_equal(fit.target.data, chunks[4])
    assert fit.target.weight == 20.0
    draws = fit.draw(3, key=getkey())
    expected = [fit.target.log_density(x) for x in draws.x]
    assert np.allclose(draws.log_p, expected, rtol=1e-10)


@pytest.mark.slow
def test_a_stream_of_chunks_has_the_posterior_of_all(getkey):
    y = 2.0 + 3.0 * np.asarray(jr.normal(getkey(), (1_000,)))
    chunks = list(y.reshape(4, 250) + np.array([1.0, -1.0, -1.0, 1.0])[:, None])
    mean, std = posterior(np.concatenate(chunks))
    stream = it.cycle(chunks)
    target = normal_target(next(stream), vi.Minibatch(100, total_size=1_000))
    fit = vi.fit(
        target,
        "advi",
        key=getkey(),
        max_steps=5_000,
        callbacks=lambda fit: fit.target.with_data(next(stream)),
        callback_every=20,
        progress=False,
    )
    assert abs(fit.mean["mu"] - mean) < 0.4 * std
    assert abs(fit.std["mu"] / std - 1) < 0.1
    # A chunk alone, or one that is not scaled, has another posterior by far.
    assert all(abs(posterior(chunk)[0] - mean) > 5 * std for chunk in chunks)
    assert all(posterior(chunk)[1] > 1.9 * std for chunk in chunks)


def test_a_target_from_a_callback_is_one_from_resume(getkey):
    target, key = linear_target(np.arange(10.0), 3), getkey()
    new = target.with_data(100 + np.arange(10.0))
    first = record(target, key, 25)
    resumed = first.resume(35, target=new, progress=False)
    seen = recorded(resumed)
    # The epoch goes on where it was, with other rows.
    whole = recorded(record(target, key, 60))
    assert np.array_equal(seen[:25], whole[:25])
    assert np.array_equal(seen[25:], 100 + whole[25:])
    assert resumed.target.data[0] == 100
    assert first.target.data[0] == 0
    # Of several callbacks' answers those that are no target are no matter.
    give = lambda fit: new if fit.num_steps == 25 else "nothing"
    callbacks = [lambda fit: 1.0, give, lambda fit: None]
    called = record(target, key, 60, callbacks=callbacks, callback_every=5)
    assert same(called, resumed)
    assert called.target.data[0] == 100
    # On the last step it counts too, for what comes next.
    last = record(target, key, 25, callbacks=give, callback_every=5)
    assert same(last, first)
    assert same(last.resume(35, progress=False), resumed)


@pytest.mark.slow
def test_resuming_with_other_data_finds_their_posterior(getkey):
    target = normal_target(2.0 + np.arange(100.0) / 50, vi.Minibatch(20, total_size=400))
    fit = vi.fit(target, "advi", key=getkey(), max_steps=40, progress=False)
    y = -5.0 - np.arange(100.0) / 50
    fit = fit.resume(3_000, target=target.with_data(y), progress=False)
    mean, std = posterior(np.tile(y, 4))
    assert abs(fit.mean["mu"] - mean) < 0.4 * std
    assert abs(fit.std["mu"] / std - 1) < 0.1
    # Other batches, and more rows, are another target too.
    wider = fit.target.with_data(np.tile(y, 3)).with_batch_size(50)
    wider = fit.resume(10, target=wider, progress=False)
    assert wider.num_steps == len(wider.losses) == 3_050
    assert wider.target.batch(getkey()).data.shape == (50,)


@pytest.mark.usefixtures("as_for_users")
def test_a_target_of_another_dimension_is_refused(getkey):
    target, key = linear_target(np.arange(10.0), 3), getkey()
    wrong = lambda fit: other_target(3) if fit.num_steps == 20 else None
    with pytest.raises(vi.FitError, match="3 coordinates.*the run has 1") as info:
        record(target, key, 60, callbacks=wrong, callback_every=10)
    fit = info.value.fit
    assert isinstance(info.value.__cause__, ValueError)
    assert fit.num_steps == len(fit.losses) == 20
    assert fit.target.data.shape == (10,)
    assert same(fit.resume(40, progress=False), record(target, key, 60))
    with pytest.raises(ValueError, match="3 coordinates.*the run has 1"):
        fit.resume(40, target=other_target(3), progress=False)
