"""More starts find the modes that the first ones did not, and say what is left."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

import vijax as vi
from vijax._keys import Seed
from vijax._run.surveyed import surveyed
from vijax._survey.optima import Optimum
from vijax._survey.survey import _Surveying
from vijax._target.probe import HostProbe

from ..helpers import same
from ..run.forge import Forged


def mixture(centers, scales, weights):
    """A target of Gaussians, and a function of draws: the part nearest to each center."""
    centers, weights = np.asarray(centers, float), np.asarray(weights, float)
    sds = np.broadcast_to(np.asarray(scales, float)[:, None], centers.shape)

    def log_density(params):
        each = jnp.sum(norm.logpdf(params["x"][None], centers, sds), axis=1)
        return logsumexp(jnp.log(weights / weights.sum()) + each)

    def parts(draws):
        gaps = np.sum((np.asarray(draws.x)[:, None] - centers) ** 2, axis=2)
        return np.bincount(np.argmin(gaps, axis=1), minlength=len(centers)) / len(gaps)

    return vi.from_log_density(log_density, {"x": vi.Param(centers.shape[1])}), parts


# {name: (centers, scales, weights)}.
MIXTURES = {
    "corners": (list(itertools.product([-3.0, 3.0], repeat=5)), [0.5] * 32, [1] * 32),
    "a row": ([[5.0 * i, 0.0] for i in range(10)], [0.5] * 10, [1] * 10),
    "unlike widths": ([[0.0, 0.0], [4.0, 0.0]], [1.0, 0.1], [1, 1]),
    "a tenth": ([[0.0] * 5, [8.0, *[0.0] * 4]], [1.0, 1.0], [9, 1]),
    "far away": ([[0.0] * 3, [300.0] * 3], [1.0, 1.0], [3, 2]),
    "among twenty": ([[0.0] * 20, [*[6.0] * 3, *[0.0] * 17]], [1.0, 1.0], [3, 2]),
    # What is far and narrow is hit by few starts in so many dimensions.
    "narrow": (
        np.random.default_rng(3).uniform(-7, 7, (4, 9)),
        [0.9, 1.1, 1.0, 0.65],
        [3, 2, 2, 2],
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_all_modes_are_kept_with_their_weights(name, getkey):
    centers, scales, weights = MIXTURES[name]
    target, parts = mixture(centers, scales, weights)
    fit = vi.fit(target, key=getkey(), progress=False)
    assert int(fit.state.modes.num_modes) == len(centers)
    true = np.array(weights) / np.sum(weights)
    found = parts(fit.draw(8_000, key=getkey()))
    # Twelve standard errors of a part of independent draws, were there that many.
    assert np.sum(np.abs(found - true)) / 2 < 0.06
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert report.num_modes == len(centers)
    assert abs(report.log_evidence.mean) < 0.02


def test_orders_of_labels(getkey):
    y = np.concatenate(
        [np.random.default_rng(i).normal(3.0 * i - 3.0, 0.5, 25) for i in range(3)]
    )

    def log_density(params):
        m, s = params["m"], params["log_s"]
        prior = jnp.sum(norm.logpdf(m, 0.0, 5.0)) + norm.logpdf(s)
        each = norm.logpdf(y[:, None], m[None], jnp.exp(s)[None, None])
        return prior + jnp.sum(logsumexp(each, axis=1))

    target = vi.from_log_density(log_density, {"m": vi.Param(3), "log_s": vi.Param()})
    fit = vi.fit(target, key=getkey(), progress=False)
    m = np.asarray(fit.draw(8_000, key=getkey()).params["m"])
    orders = np.argsort(m, axis=1) @ np.array([9, 3, 1])
    _, counts = np.unique(orders, return_counts=True)
    assert counts.shape == (6,)
    assert np.all(np.abs(counts / len(m) - 1 / 6) < 0.04)
    assert vi.report(fit, key=getkey()).trustworthy


def ridge():
    """A target whose paths seem to rest along a bent ridge."""

    def log_density(params):
        bent = params["y"] - 0.5 * params["x"] ** 2
        return norm.logpdf(params["x"], 0.0, 2.0) + norm.logpdf(bent, 0.0, 0.7)

    return vi.from_log_density(log_density, {"x": vi.Param(), "y": vi.Param()})


@pytest.mark.slow
def test_a_ridge_is_no_row_of_modes(getkey):
    # A mixture of Gaussians there is trusted too soon.
    fit = vi.fit(ridge(), key=getkey(), progress=False)
    draws = fit.draw(16_000, key=getkey()).params
    report = vi.report(fit, key=getkey())
    assert report.num_modes == 1
    assert report.trustworthy
    for name, std in {"x": 2.0, "y": np.sqrt(0.49 + 8.0)}.items():
        assert abs(np.std(draws[name]) / std - 1) < 0.1


def test_what_rests_is_verified(getkey):
    # Within this budget no flow follows the Gaussian.
    method = vi.Auto(max_evaluations=30_000)
    fit = vi.fit(ridge(), method, key=getkey(), progress=False)
    probe, numbers = HostProbe(ridge()), {"x": np.array(0), "y": np.array(1)}
    survey = _Surveying(fit.state, probe, Seed(getkey()), numbers, 500_000)
    x = np.array([4.0, 8.0])
    log_p = probe(x[None]).log_p[0]
    survey.optima.take_in([Optimum(x, log_p, x, 0.3 * np.eye(2), -4.0)], survey.modes)
    assert any(optimum.x is x for optimum in survey.optima.apart)
    assert not survey.follow()
    assert not survey.optima.apart
    assert len(survey.modes.gaussians.elbo) == 1


def test_what_is_easy_costs_little(getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(10)}
    )
    fit = vi.fit(target, key=getkey(), progress=False)
    survey = fit.state.survey
    assert int(survey.num_starts) >= 60
    assert int(survey.num_apart) == int(survey.num_once) == 0
    assert float(survey.left) == 0
    assert int(fit.state.num_evaluations) < 2_000


def test_in_a_trace_the_report_looks(getkey):
    target, _ = mixture([[0.0] * 2, [60.0] * 2], [1.0, 1.0], [1, 1])
    fitted = jax.jit(lambda key: vi.fit(target, key=key, max_steps=300))
    fit = fitted(getkey())
    assert int(fit.state.survey.num_starts) == 0
    assert int(fit.state.modes.num_modes) == 1
    report = vi.report(fit, key=getkey())
    assert not report.trustworthy
    assert "another mode" in report.problems[0]


def test_many_modes_are_saved_and_loaded(getkey, tmp_path):
    target, _ = mixture(*MIXTURES["a row"])
    key, path = getkey(), tmp_path / "fit.npz"
    fit = vi.fit(target, key=key, progress=False)
    vi.save(path, fit)
    like = vi.fit(target, key=key, max_steps=0, progress=False)
    loaded = vi.load(path, like=like)
    assert same(loaded, fit)
    assert same(loaded.resume(progress=False), fit)
    # A mode without its weight.
    forged = Forged(path)
    elbo = forged.get(".modes.gaussians.elbo")[:-1]
    forged.put(".modes.gaussians.elbo", elbo)
    forged.describe(".modes.gaussians.elbo", f"float64[{len(elbo)}]")
    path.write_bytes(forged.whole())
    with pytest.raises(ValueError, match="different numbers of modes"):
        vi.load(path, like=like)


def test_who_has_looked_does_not_look_again(getkey):
    # Even where no start came to rest.
    target, _ = mixture([[0.0, 0.0]], [1.0], [1])
    fit = vi.fit(target, key=getkey(), progress=False)
    get = lambda fit: fit.progress.state.survey.num_at_rest
    fit = eqx.tree_at(get, fit, np.zeros((), np.int32))
    assert surveyed(fit, show=False) is fit
