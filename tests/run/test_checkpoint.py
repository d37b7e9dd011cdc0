import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.distributions import constraints

import vijax as vi

from ..helpers import diagonal_target, same


method = vi.Descent(vi.ELBO(), optax.adam(0.05))
track = {"mean": lambda key, family, target: family.mean}


def run(key, **kwargs):
    settings = {
        "method": method,
        "stop": vi.LossConvergence(),
        "track": track,
        "max_steps": 50,
        "progress": False,
    }
    return vi.fit(diagonal_target(), key=key, **(settings | kwargs))


def test_saved_loaded_and_resumed_is_one_run(tmp_path, getkey):
    key = getkey()
    path = tmp_path / "fit.npz"
    fit = run(key)
    vi.save(path, fit)
    # In a new process only this much is known; not even the key.
    like = run(getkey(), max_steps=0)
    loaded = vi.load(path, like=like)
    assert same(loaded, fit)
    assert loaded.result == vi.RESULTS.max_steps
    assert loaded.problem.key == key
    assert same(loaded.resume(30, progress=False), run(key, max_steps=80))
    assert jnp.array_equal(loaded.draw(5, key=key).x, fit.draw(5, key=key).x)


def test_a_checkpoint_is_the_fit(tmp_path, getkey):
    path = tmp_path / "run"
    fit = run(getkey(), checkpoint=path)
    assert same(vi.load(path, like=fit), fit)
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_checkpoint_is_written_on_the_way(tmp_path, getkey, monkeypatch):
    monkeypatch.setattr("vijax._run.host._CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "run"
    seen = []

    def callback(fit):
        loaded = vi.load(path, like=fit)
        seen.append((int(fit.num_steps), int(loaded.num_steps)))

    run(getkey(), checkpoint=path, callbacks=callback, callback_every=10)
    assert seen == [(n, n) for n in (10, 20, 30, 40, 50)]


def test_a_checkpoint_survives_an_interruption(tmp_path, getkey):
    def callback(fit):
        raise KeyboardInterrupt

    path, key = tmp_path / "run", getkey()
    fit = run(key, checkpoint=path, callbacks=callback, callback_every=20)
    loaded = vi.load(path, like=fit)
    assert loaded.result == vi.RESULTS.interrupted
    assert same(loaded.resume(30, progress=False), run(key))


def test_writing_is_all_or_nothing(tmp_path, getkey, monkeypatch):
    path = tmp_path / "fit"
    fit = run(getkey())
    vi.save(path, fit)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        vi.save(path, fit.resume(10, progress=False))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    # During a run the error brings the fit along.
    with pytest.raises(vi.FitError, match="No space left") as info:
        run(getkey(), checkpoint=path)
    assert info.value.fit.num_steps == 50


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"family": vi.FullRank}, "the family is MeanField in the file, but FullRank in"),
        (
            {"method": vi.Averaging(method)},
            "file, but Averaging",
        ),
        (
            {"method": vi.Descent(vi.StickTheLanding(), optax.adam(0.05))},
            r"the method is Descent\(ELBO\) in the file, but Descent\(StickTheLanding\)",
        ),
        ({"stop": None}, r"stop_state.* in the file, but absent in `like`"),
        ({"track": None}, r"'mean'.* in the file, but absent in `like`"),
        (
            {"method": vi.Descent(vi.ELBO(), optax.sgd(0.1, momentum=0.9))},
            r"state.* is .* in the file, but .* in `like`",
        ),
    ],
    ids=["family", "method", "objective", "stop", "track", "optimizer"],
)
def test_a_file_that_does_not_match_is_refused(other, message, tmp_path, getkey):
    path = tmp_path / "fit"
    vi.save(path, run(getkey()))
    with pytest.raises(ValueError, match=message):
        vi.load(path, like=run(getkey(), **other))


def test_a_file_of_other_data_is_refused(tmp_path, getkey):
    path = tmp_path / "fit"
    vi.save(path, run(getkey()))
    target = diagonal_target((1.0, 2.0), (1.0, 1.0))
    like = vi.fit(target, method, key=getkey(), max_steps=0, progress=False)
    with pytest.raises(ValueError, match=r"`data\[0\]` is float64\[3\] in the file, but"):
        vi.load(path, like=like)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"m": vi.Param(), "t": vi.Param((), constraints.positive)}, "what the param"),
        ({"m": vi.Param(), "s": vi.Param((), constraints.unit_interval)}, "how they are"),
        ({"s": vi.Param(), "m": vi.Param((), constraints.positive)}, "what the param"),
    ],
    ids=["name", "support", "order"],
)
def test_a_file_of_another_model_is_refused(params, message, tmp_path, getkey):
    def fit(params):
        log_density = lambda params: -(params["m"] ** 2)
        target = vi.from_log_density(log_density, params)
        return vi.fit(target, method, key=getkey(), max_steps=3, progress=False)

    path = tmp_path / "fit"
    vi.save(path, fit({"m": vi.Param(), "s": vi.Param((), constraints.positive)}))
    with pytest.raises(ValueError, match=f"does not match `like`: {message}"):
        vi.load(path, like=fit(params))


@pytest.mark.parametrize("damage", ["truncated", "text", "other"])
def test_a_damaged_file_is_refused(damage, tmp_path, getkey):
    path = tmp_path / "fit"
    fit = run(getkey())
    vi.save(path, fit)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "text":
        path.write_text("hello")
    else:
        with path.open("wb") as file:
            np.savez(file, header=np.array(json.dumps({"format": "theirs"})))
    with pytest.raises(ValueError, match="not a file that this version of vijax wrote"):
        vi.load(path, like=fit)


def test_old_and_new_kinds_of_keys(tmp_path, getkey):
    fit = run(jax.random.PRNGKey(3))
    path = tmp_path / "fit"
    vi.save(path, fit)
    assert same(vi.load(path, like=run(getkey(), max_steps=0)), fit)
    assert same(fit, run(jax.random.key(3)))
