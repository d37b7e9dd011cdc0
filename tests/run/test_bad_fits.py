"""Bad input to fits: to run them, go on with them, save and load them."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import logging

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from ..bad_input import at_once_tests, density, fit, on_the_way_tests, target


pytestmark = pytest.mark.usefixtures("as_for_users")


at_once = {
    "fit: no target": (
        lambda key: vi.fit(density, key=key),
        r"`target` must be a `vi\.Target`.*function.*from_log_density",
    ),
    "fit: key is an integer": (
        lambda key: fit(0),
        r"`key` must be a JAX random key such as `jax\.random\.key\(0\)`.*0",
    ),
    "fit: key is None": (
        lambda key: fit(None),
        r"`key` must be a JAX random key such as `jax\.random\.key\(0\)`.*None",
    ),
    "fit: unknown method": (
        lambda key: fit(key, method="nuts"),
        "no method called 'nuts'.*auto, nested, advi, fullrank_advi, svgd, asvgd",
    ),
    "fit: method is an objective": (
        lambda key: fit(key, method=vi.ELBO()),
        r"`method` must be a method.*ELBO\(\)",
    ),
    "fit: method is a class": (
        lambda key: fit(key, method=vi.Descent),
        "`method` must be a method.*Descent",
    ),
    "fit: method is None": (
        lambda key: vi.fit(target(), None, key=key),
        "`method` must be a method.*None",
    ),
    "fit: family is a string": (
        lambda key: fit(key, family="mean field"),
        "`family` must be a family, or a recipe.*'mean field'",
    ),
    "fit: max_steps negative": (
        lambda key: fit(key, max_steps=-1),
        "`max_steps` must be a whole number of at least 0.*-1",
    ),
    "fit: max_steps float": (
        lambda key: fit(key, max_steps=1e3),
        "`max_steps` must be a whole number of at least 0.*1000.0",
    ),
    "fit: stop is a lambda": (
        lambda key: fit(key, stop=lambda *_: False),
        "`stop` must be a stopping rule.*StopIteration",
    ),
    "fit: track is a list": (
        lambda key: fit(key, track=[lambda *_: 0.0]),
        r"`track` must be a dictionary \{name: fn\}",
    ),
    "fit: track is a function": (
        lambda key: fit(key, track=lambda *_: 0.0),
        r"`track` must be a dictionary \{name: fn\}",
    ),
    "fit: track holds no functions": (
        lambda key: fit(key, track={"a": 1.0}),
        r"`track` must be a dictionary \{name: fn\}.*'a': 1",
    ),
    "fit: track_every": (
        lambda key: fit(key, track_every=0),
        "`track_every` must be a whole number of at least 1.*0",
    ),
    "fit: callbacks": (
        lambda key: fit(key, callbacks=1),
        r"`callbacks` must be functions `fn\(fit_so_far\)`.*1",
    ),
    "fit: callbacks hold no functions": (
        lambda key: fit(key, callbacks=[print, None]),
        r"`callbacks` must be functions `fn\(fit_so_far\)`.*None",
    ),
    "fit: callback_every": (
        lambda key: fit(key, callback_every=0),
        "`callback_every` must be a whole number of at least 1.*0",
    ),
    "fit: checkpoint in no folder": (
        lambda key: fit(key, checkpoint="no/such/folder/fit.npz"),
        "`checkpoint` is 'no/such/folder/fit.npz'.*no folder 'no/such/folder'",
    ),
    "save: no fit": (
        lambda key: vi.save("fit.npz", 3),
        r"`fit` must be a `vi\.Fit`.*int",
    ),
}


test_fails_before_anything_compiles = at_once_tests(at_once)


def test_the_watch_for_compilations_sees_one(caplog):
    # Or the test above would test nothing.
    with caplog.at_level(logging.DEBUG), jax.log_compiles():
        jax.jit(lambda x: x * 12.3)(np.ones(3))
    assert any("XLA" in record.getMessage() for record in caplog.records)


on_the_way = {
    "family: dim": (
        lambda key: fit(key, family=vi.MeanField(jnp.zeros(3))),
        r"`family` has 3 coordinates but `target` has 2.*vi\.MeanField",
    ),
    "family: dim of a recipe": (
        lambda key: fit(key, family=lambda loc: vi.FullRank(jnp.zeros(3))),
        "`family` has 3 coordinates but `target` has 2",
    ),
    "family: a recipe that returns something else": (
        lambda key: fit(key, family=lambda loc: loc),
        r"`family` must be a family, or a recipe.*the recipe returned",
    ),
    "family: a recipe that returns nothing": (
        lambda key: fit(key, family=lambda loc: None),
        r"`family` must be a family, or a recipe.*the recipe returned a NoneType",
    ),
    "family: an array": (
        lambda key: fit(key, family=jnp.zeros(2)),
        "`family` must be a family, or a recipe",
    ),
    # NaN at the starting point, given by a family instead of `initial`.
    "family: NaN": (
        lambda key: fit(key, family=vi.MeanField(jnp.array([0.0, jnp.nan]))),
        "(?i)nan|finite",
    ),
    "key: an array of keys": (
        lambda key: fit(jr.split(key, 2)),
        r"`key` must be one key.*\(2,\).*filter_vmap",
    ),
    "key: an array of old keys": (
        lambda key: fit(jr.split(jr.PRNGKey(0), 2)),
        "`key` must be",
    ),
    "key: numbers that are no key": (
        lambda key: fit(np.zeros(3, np.uint32)),
        "`key` must be",
    ),
}


test_fails_in_words = on_the_way_tests(on_the_way)


def test_old_style_keys_work():
    runs = [fit(jr.PRNGKey(3)), fit(np.asarray(jr.PRNGKey(3))), fit(jr.key(3))]
    assert all(np.array_equal(run.losses, runs[2].losses) for run in runs)
    draws = [runs[0].draw(5, key=key) for key in (jr.PRNGKey(1), jr.key(1))]
    assert np.array_equal(draws[0].x, draws[1].x)


# {name: (the log density, the words that tell what is wrong)}.
hopeless = {
    "gradient": (
        lambda params: -(params["a"] ** 2) + jnp.sqrt(-1.0 - params["b"] ** 2),
        r"log density is nan.*gradient is not finite in `b`.*b 0\..*initial=",
    ),
    "value": (
        lambda params: jnp.log(0.0 * params["a"] ** 2) - params["b"] ** 2,
        r"log density is -inf.*initial=",
    ),
}


@pytest.mark.parametrize("name", hopeless)
def test_no_finite_starting_point(name, getkey):
    fn, match = hopeless[name]
    nowhere = vi.from_log_density(fn, {"a": vi.Param(), "b": vi.Param()})
    with pytest.raises(ValueError, match=f"(?s){match}") as e:
        fit(getkey(), fitted=nowhere)
    if name == "gradient":
        assert "not finite in `a`" not in str(e.value)


def test_a_run_that_fails_names_the_parameter(getkey):
    nowhere = vi.from_log_density(hopeless["gradient"][0], {"a": 0.0, "b": 0.0})
    family = vi.MeanField(jnp.zeros(2))
    match = "(?s)gradient that is not finite in `b`.*learning rate"
    with pytest.raises(vi.FitError, match=match) as e:
        fit(getkey(), fitted=nowhere, family=family, max_steps=200)
    assert eqx.tree_equal(e.value.fit.family, family)
    assert e.value.fit.result == vi.RESULTS.nonfinite


def test_a_callback_that_raises(getkey):
    def broken(fit_so_far):
        raise RuntimeError("my own mistake")

    with pytest.raises(vi.FitError, match="RuntimeError.*my own mistake") as e:
        fit(getkey(), callbacks=broken, callback_every=2)
    assert e.value.fit.num_steps == 2
    assert isinstance(e.value.__cause__, RuntimeError)


def test_not_inside_jit(getkey, tmp_path):
    match = "`callbacks` and `checkpoint` need the host.*jax.jit"
    for options in ({"callbacks": print}, {"checkpoint": tmp_path / "fit.npz"}):
        with pytest.raises(ValueError, match=match):
            jax.jit(lambda key, options=options: fit(key, **options).losses)(getkey())
    with pytest.raises(ValueError, match="`resume` works on the host"):
        jax.jit(lambda key: fit(key).resume(3).losses)(getkey())


def test_resume_of_several_fits(getkey):
    fits = eqx.filter_vmap(lambda key: fit(key, throw=False))(jr.split(getkey(), 2))
    with pytest.raises(ValueError, match="2 fits in one.*jax.tree.map"):
        fits.resume(3)


def test_what_is_asked_of_a_fit(getkey, tmp_path):
    run = fit(getkey())
    with pytest.raises(ValueError, match="`max_steps`.*whole number.*-1"):
        run.resume(-1, progress=False)
    with pytest.raises(ValueError, match="`stop` must be a stopping rule.*3"):
        run.resume(3, stop=3, progress=False)
    with pytest.raises(ValueError, match="`method` must be a method.*0.1"):
        run.resume(3, method=0.1, progress=False)
    with pytest.raises(ValueError, match="`callbacks` must be functions"):
        run.resume(3, callbacks=1, progress=False)
    for num_draws in (0, -1, True, 10.0):
        match = f"`num_draws` must be a whole number of at least 1.*{num_draws}"
        with pytest.raises(ValueError, match=match):
            run.draw(num_draws, key=getkey())
    with pytest.raises(ValueError, match="`key` must be a JAX random key.*0"):
        run.draw(10, key=0)
    with pytest.raises(ValueError, match="at least 2 draws.*only 1"):
        vi.elbo(run.draw(1, key=getkey()))
    with pytest.raises(ValueError, match="tail of 24 weights.*at least 25"):
        vi.pareto_khat(run.draw(24, key=getkey()))
    with pytest.raises(ValueError, match="`path` is .*no folder"):
        vi.save(tmp_path / "no" / "fit.npz", run)
    with pytest.raises(FileNotFoundError):
        vi.load(tmp_path / "fit.npz", like=run)
    (tmp_path / "fit.npz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a file that this version of vijax wrote"):
        vi.load(tmp_path / "fit.npz", like=run)


def test_load_of_another_run(getkey, tmp_path):
    run, path = fit(getkey()), tmp_path / "fit.npz"
    vi.save(path, run)
    wider = vi.from_log_density(density, {"x": vi.Param(3)})
    like = fit(getkey(), fitted=wider, max_steps=0)
    with pytest.raises(ValueError, match="(?s)does not match `like`.*2.*3"):
        vi.load(path, like=like)


def test_resume_takes_names(getkey):
    run = fit(getkey(), max_steps=3).resume(3, method="advi", progress=False)
    assert type(run.problem.method) is vi.Averaging
    with pytest.raises(ValueError, match="There is no method called 'avi'"):
        run.resume(3, method="avi", progress=False)
