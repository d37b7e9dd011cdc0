"""Files that an earlier version saved are loaded by this one, and the fits go on."""

import json
import pathlib

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm

import vijax as vi


# Written by the version of 2026-11-26, before the package had wings: each fit, and what
# became of its losses and of five of its draws in the steps after that.
SAVED = pathlib.Path(__file__).parent / "saved"
RESUMED = np.load(SAVED / "resumed.npz")

# {file: (how it was fitted, steps, further steps)}
METHODS = {
    "mean_field": (vi.Descent(vi.ELBO(), optax.adam(0.05)), 40, 40),
    "flow": ("auto", 262, 60),
    "particles": (vi.SVGD(num_particles=8), 40, 40),
}


def log_density(params, y):
    a, b = params["a"], params["b"]
    return norm.logpdf(a, 0.0, 2.0) + jnp.sum(norm.logpdf(y, 0.5 * a**2 - b, 1.4))


def begun(name):
    """A fit before its first step, as in a new process."""
    zero = np.zeros((), np.float32)
    y = np.array([0.3, -0.2, 0.5, -0.6], np.float32)
    target = vi.from_log_density(log_density, {"a": zero, "b": zero}, y)
    options = {}
    if name == "mean_field":
        mean = lambda key, family, target: family.mean
        options = {"stop": vi.LossConvergence(), "track": {"mean": mean}}
    method = METHODS[name][0]
    return vi.fit(target, method, key=jr.key(9), max_steps=0, progress=False, **options)


def parts_by_name(file):
    """What a file holds: each array with what is said of it, and the context."""
    header = json.loads(str(file["header"]))
    arrays = {
        name: (about, file[f"leaf{i}"].tobytes())
        for i, (name, about) in enumerate(header["leaves"].items())
    }
    return {**arrays, "context": header["context"]}


@pytest.mark.parametrize(
    "name", ["mean_field", pytest.param("flow", marks=pytest.mark.slow), "particles"]
)
def test_a_fit_of_an_earlier_version_goes_on(name, tmp_path):
    _, num_steps, more = METHODS[name]
    fit = vi.load(SAVED / f"{name}.npz", like=begun(name))
    assert fit.num_steps == num_steps
    assert isinstance(fit.family, vi.Affine if name == "flow" else vi.AbstractFamily)
    # Nothing of the file is lost on the way: written again, it holds the same bits.
    vi.save(tmp_path / "again.npz", fit)
    with np.load(SAVED / f"{name}.npz") as old, np.load(tmp_path / "again.npz") as new:
        before, now = parts_by_name(old), parts_by_name(new)
    assert all(now[part] == before[part] for part in before)
    # What more starts came to is all that is new since.
    assert all(".survey." in part for part in set(now) - set(before))
    resumed = fit.resume(more, progress=False)
    losses, draws = RESUMED[f"{name} losses"], RESUMED[f"{name} draws"]
    assert resumed.num_steps == num_steps + more
    assert jnp.array_equal(resumed.losses[:num_steps], losses[:num_steps])
    # Other processors round otherwise: other random numbers would be off by about one.
    assert np.allclose(resumed.losses, losses, rtol=1e-3, atol=1e-3)
    plain = resumed.draw(5, key=jax.random.key(1), corrected=False)
    assert np.allclose(plain.x, draws, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_a_search_of_an_earlier_version_goes_on():
    # Its state was saved with 32 bits; the host drives it with 64 now.
    zero = np.zeros((), np.float32)
    y = np.array([0.3, -0.2, 0.5, -0.6], np.float32)
    target = vi.from_log_density(log_density, {"a": zero, "b": zero}, y)
    key = jr.key(9)
    # Within this budget a flow is not trained for longer.
    method = vi.Auto(max_evaluations=200_000)
    like = vi.fit(target, method, key=key, max_steps=0, progress=False)
    fit = vi.load(SAVED / "auto.npz", like=like)
    assert fit.num_steps == 20
    x = fit.state.paths.x
    assert x.dtype == np.float64
    assert np.array_equal(x, x.astype(np.float32))
    fit = fit.resume(progress=False)
    assert fit.result == vi.RESULTS.converged
    whole = vi.fit(target, method, key=jr.key(0), progress=False)
    draws = [f.draw(8_000, key=jr.key(1)).x for f in (fit, whole)]
    means = [np.mean(x, axis=0) for x in draws]
    stds = [np.std(x, axis=0) for x in draws]
    assert np.all(np.abs(means[0] - means[1]) < 0.1 * stds[1])
    assert np.all(np.abs(np.log(stds[0] / stds[1])) < 0.1)
