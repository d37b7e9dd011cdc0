"""Steps that are not finite: skipped, counted, and at last the end."""

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import optax
import pytest

import vijax as vi

from ..helpers import diagonal_target


class FaultyAt(vi.AbstractObjective):
    """The ELBO, but not finite at some steps: in the loss, or in its gradient only."""

    good: vi.ELBO
    run_key: jax.Array
    steps: tuple[int, ...] = eqx.field(static=True)
    where: str = eqx.field(static=True)

    def __call__(self, key, family, target):
        value = self.good(key, family, target)
        bad = jax.vmap(lambda i: jr.fold_in(self.run_key, i))(jnp.array(self.steps))
        is_bad = jnp.any(jnp.all(jr.key_data(bad) == jr.key_data(key)[None], axis=1))
        return jnp.where(is_bad, jnp.nan if self.where == "nan" else jnp.inf, value)


def faulty_fit(key, steps, where, **kwargs):
    objective = FaultyAt(vi.ELBO(), key, tuple(steps), where)
    method = vi.Descent(objective, optax.adam(0.05))
    start = vi.MeanField(jnp.zeros(3), scale=1.0)
    return vi.fit(diagonal_target(), method, start, key=key, progress=False, **kwargs)


@pytest.mark.parametrize("where", ["nan", "infinity"])
@pytest.mark.parametrize("at", [1, 2, 50])
def test_a_step_that_is_not_finite_is_skipped_and_counted(where, at, getkey):
    key = getkey()
    fit = faulty_fit(key, [at], where, max_steps=100)
    assert fit.result == vi.RESULTS.max_steps
    assert fit.num_skipped == 1
    assert len(fit.losses) == fit.num_steps == 100
    assert not jnp.isfinite(fit.losses[at - 1])
    assert jnp.sum(jnp.isfinite(fit.losses)) == 99
    # Nothing of that step has entered: the family and the optimizer are as before it.
    before, after = (faulty_fit(key, [at], where, max_steps=n) for n in (at - 1, at))
    assert eqx.tree_equal((before.family, before.state), (after.family, after.state))


def test_a_gradient_that_is_not_finite_is_skipped_too(getkey):
    # sqrt has an infinite slope at zero, while the loss itself is fine.
    target = vi.from_log_density(
        lambda params: -0.5 * params["x"] ** 2 - 0.0 * jnp.sqrt(jnp.abs(params["x"] * 0)),
        {"x": vi.Param()},
    )
    start = vi.MeanField(jnp.ones(1), scale=1.0)
    method = vi.Descent(vi.ELBO(), optax.adam(0.05))
    with pytest.warns(UserWarning, match="30 of 30 steps were not finite"):
        fit = vi.fit(target, method, start, key=getkey(), max_steps=30, progress=False)
    assert fit.num_skipped == 30
    assert eqx.tree_equal(fit.family, start)


def test_an_infinite_gradient_under_a_finite_loss_does_not_enter(getkey):
    def log_density(params):
        x = params["x"]
        # Where x > 0, a root of zero with slope one: its value is 0, its gradient inf.
        inside = jnp.where(x > 0, x - lax.stop_gradient(x), 1.0)
        return -0.5 * x**2 + jnp.where(x > 0, jnp.sqrt(inside), 0.0)

    target = vi.from_log_density(log_density, {"x": vi.Param()})
    start = vi.MeanField(jnp.zeros(1), scale=1.0)
    # Of the sign of a gradient: infinities move it like any number.
    method = vi.Descent(vi.ELBO(), optax.lion(0.1))
    with pytest.warns(UserWarning, match="of 40 steps were not finite"):
        fit = vi.fit(target, method, start, key=getkey(), max_steps=40, progress=False)
    assert 5 < fit.num_skipped < 40
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(fit.state)]
    assert all(finite)
    assert int(jnp.sum(jnp.isnan(fit.losses))) == fit.num_skipped


@pytest.mark.parametrize("optimizer", [optax.lion(0.1), optax.sgd(0.1), optax.adam(0.1)])
def test_an_optimizer_never_sees_an_infinite_gradient(optimizer, getkey):
    target = vi.from_log_density(
        lambda params: jnp.where(params["x"] > 0, jnp.inf, -1.0) * jnp.abs(params["x"]),
        {"x": vi.Param()},
    )
    start = vi.MeanField(jnp.zeros(1), scale=1.0)
    method = vi.Descent(vi.ELBO(), optimizer)
    with pytest.warns(UserWarning, match="of 40 steps were not finite"):
        fit = vi.fit(target, method, start, key=getkey(), max_steps=40, progress=False)
    assert 0 < fit.num_skipped < 40
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(fit.progress)]
    assert all(finite)


@pytest.mark.slow
def test_skipping_is_as_if_done_one_step_at_a_time(getkey):
    key = getkey()
    bad = [1, 4, 5, 6, 40, 128, 129, 130, 200, 250]
    track = {"loc": lambda key, family, target: family.loc}
    fit = faulty_fit(key, bad, "nan", max_steps=250, track=track, track_every=1)
    method, family = fit.problem.method, vi.MeanField(jnp.zeros(3), scale=1.0)
    state = method.init(key, family, fit.target)
    step = eqx.filter_jit(method.step)
    locs = []
    for i in range(1, 251):
        new = step(jr.fold_in(key, i), family, fit.target, state)
        assert bool(jnp.isfinite(new[2])) == (i not in bad)
        if i not in bad:
            family, state, _ = new
        locs.append(family.loc)
    assert jnp.allclose(fit.family.loc, family.loc, rtol=1e-10)
    assert jnp.allclose(fit.trackers["loc"], jnp.stack(locs), rtol=1e-10)
    assert fit.tracked_steps.tolist() == list(range(1, 251))
    assert (jnp.flatnonzero(~jnp.isfinite(fit.losses)) + 1).tolist() == bad
    assert fit.num_skipped == len(bad)
    # The same in pieces, and side by side.
    pieces = faulty_fit(key, bad, "nan", max_steps=250, callbacks=id, callback_every=3)
    assert eqx.tree_equal(pieces.progress, fit.progress)
    many = eqx.filter_vmap(
        lambda start: vi.fit(
            diagonal_target(),
            method,
            vi.MeanField(start, scale=1.0),
            key=key,
            max_steps=250,
            track=track,
            track_every=1,
        )
    )(jnp.zeros((2, 3)))
    assert jnp.allclose(many.trackers["loc"][1], jnp.stack(locs), rtol=1e-10)
    assert many.num_skipped.tolist() == [len(bad)] * 2


def test_a_hundred_in_a_row_end_the_run(getkey):
    key = getkey()
    bad = range(51, 400)
    with pytest.raises(vi.FitError, match="the last good one") as info:
        faulty_fit(key, bad, "nan", max_steps=1_000)
    fit = info.value.fit
    assert fit.result == vi.RESULTS.nonfinite
    assert len(fit.losses) == fit.num_steps == 150
    assert fit.num_skipped == 100
    good = faulty_fit(key, bad, "nan", max_steps=50)
    assert eqx.tree_equal(fit.family, good.family)
    quiet = faulty_fit(key, bad, "nan", max_steps=1_000, throw=False)
    assert quiet.result == vi.RESULTS.nonfinite
    # Looking in between does not start the count anew.
    watched = faulty_fit(
        key,
        bad,
        "nan",
        max_steps=1_000,
        throw=False,
        callbacks=lambda fit: None,
        callback_every=10,
    )
    assert watched.num_steps == 150
    # Going on is allowed, and starts the count anew.
    with pytest.warns(UserWarning, match="60 of 60 steps"):
        assert quiet.resume(60, progress=False).num_steps == 210


def test_the_message_names_the_parameter(getkey):
    def log_density(params):
        return (
            -0.5 * params["good"] ** 2
            + jnp.where(jnp.abs(params["bad"]) < 1e-9, 0.0, jnp.nan) * params["bad"]
        )

    target = vi.from_log_density(log_density, {"good": vi.Param(), "bad": vi.Param()})
    with pytest.raises(vi.FitError, match="64 a gradient that is not finite in `bad`"):
        vi.fit(target, "advi", key=getkey(), progress=False)


def test_the_message_names_entries_and_a_learning_rate_where_there_is_one(getkey):
    where = jnp.zeros((3, 4), bool).at[1, 2].set(True).at[2].set(True)

    def log_density(params):
        x = params["x"]
        factor = jnp.where(where & (jnp.abs(x) > 1e-9), jnp.nan, 1.0)
        return -0.5 * jnp.sum((factor * x) ** 2) - params["good"] ** 2

    params = {"good": vi.Param(), "x": vi.Param((3, 4))}
    target = vi.from_log_density(log_density, params)
    words = r"64 a gradient that is not finite in `x\[1, 2\]` and 4 more"
    with pytest.raises(vi.FitError, match=f"{words}.*learning rate"):
        vi.fit(target, "advi", key=getkey(), progress=False)
    start = vi.FullRank(jnp.zeros(13))
    with pytest.raises(vi.FitError, match=words) as info:
        vi.fit(target, vi.NaturalGradient(), start, key=getkey(), progress=False)
    assert "learning rate" not in str(info.value)


def test_the_message_names_entries_without_a_density(getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"][:70] ** 2), {"x": vi.Param(140)}
    )
    method = vi.Descent(vi.ELBO(), optax.sgd(0.2))
    words = r"does not change with `x\[70\]` and 69 more: the posterior is"
    with pytest.raises(vi.FitError, match=words):
        vi.fit(target, method, key=getkey(), progress=False)


def test_a_start_outside_is_replaced_by_one_inside(getkey):
    # Not finite at the usual start, zero; finite at about half of all random points.
    def log_density(params):
        return jnp.log(params["x"] - 0.1) - params["x"]

    target = vi.from_log_density(log_density, {"x": vi.Param()})
    start = vi.fit(target, "advi", key=getkey(), max_steps=0, progress=False)
    assert start.family.mean[0] > 0.1
    assert target.log_density(start.family.mean) > -jnp.inf


def test_the_message_names_a_parameter_without_a_density(getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * params["used"] ** 2, {"used": vi.Param(), "not": vi.Param()}
    )
    # Its scale grows by a factor of e each step, until it is no number.
    method = vi.Descent(vi.ELBO(), optax.sgd(1.0))
    with pytest.raises(vi.FitError, match="does not change with `not`: the posterior is"):
        vi.fit(target, method, key=getkey(), progress=False)


@pytest.mark.slow
def test_nan_debugging_finds_nothing_in_a_healthy_run(getkey):
    with jax.debug_nans(True):
        vi.fit(
            diagonal_target(),
            key=getkey(),
            max_steps=20,
            stop=vi.LossConvergence(),
            progress=False,
        )
