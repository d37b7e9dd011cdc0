"""Methods inside whitened coordinates, and what the coordinates do for them."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

import vijax as vi

from ..helpers import correlated_target


LOC = jnp.array([3.0, -200.0])
PRECISION = jnp.array([[1e4, 90.0], [90.0, 1.0]])
COVARIANCE = jnp.linalg.inv(PRECISION)
# Not quite right, so that a method still has something to do.
ROUGH = vi.FullRank(LOC + jnp.array([0.01, 2.0]), jnp.linalg.cholesky(2 * COVARIANCE))


@pytest.mark.parametrize("method", [vi.BaM(), vi.GSM()], ids=["BaM", "GSM"])
def test_score_matching_arrives_at_once(method, getkey):
    target, key = correlated_target(LOC, PRECISION), getkey()
    settings = {"key": key, "max_steps": 100, "progress": False}
    fit = vi.fit(target, vi.Whitened(method, ROUGH), **settings)
    assert isinstance(fit.family, vi.FullRank)
    ratio = fit.family.covariance / COVARIANCE
    assert np.allclose(fit.family.mean, LOC, atol=1e-4)
    assert np.allclose(ratio, 1, atol=1e-4)
    # Without them it is still far off after as many steps.
    plain = vi.fit(target, method, **settings)
    assert np.max(np.abs(plain.family.covariance / COVARIANCE - 1)) > 0.1


@pytest.mark.slow
def test_particles_find_a_narrow_direction(getkey):
    target, key = correlated_target(LOC, PRECISION), getkey()
    method = vi.SVGD(num_particles=100)
    fit = vi.fit(
        target, vi.Whitened(method, ROUGH), key=key, max_steps=600, progress=False
    )
    assert isinstance(fit.family, vi.Particles)
    std = np.sqrt(np.diagonal(COVARIANCE))
    assert np.all(np.abs(fit.mean["x"] - LOC) / std < 0.1)
    # Of a hundred particles a few percent of the spread are missing.
    ratio = fit.std["x"] / std
    assert np.all((ratio > 0.88) & (ratio < 1.02))
    correlation = fit.family.covariance[0, 1] / np.prod(fit.std["x"])
    assert abs(correlation - COVARIANCE[0, 1] / np.prod(std)) < 0.03
    # The draws are the model's own parameters.
    draws = fit.draw(50, key=getkey())
    assert np.all(np.abs(draws.params["x"] - LOC[None]) / std < 5)
    assert vi.report(fit, key=getkey()).trustworthy


def test_the_loss_is_that_of_the_model(getkey):
    target = correlated_target(LOC, PRECISION)
    method = vi.Descent(vi.StickTheLanding(64), optax.sgd(0.0))
    rough = vi.FullRank(LOC, jnp.linalg.cholesky(COVARIANCE))
    whitened = vi.Whitened(method, rough)
    family = vi.Affine(vi.FullRank(jnp.zeros(2), 1.0), rough.loc, rough.tril)
    settings = {"key": getkey(), "max_steps": 1, "progress": False}
    fit = vi.fit(target, whitened, family, **settings)
    # The family is the target, whose density lacks its constant.
    evidence = jnp.log(2 * jnp.pi) - 0.5 * jnp.linalg.slogdet(PRECISION)[1]
    assert np.isclose(-fit.losses[0], evidence, atol=1e-6)


def test_a_method_that_ends_by_itself_ends(getkey):
    target = correlated_target(LOC, PRECISION)
    fit = vi.fit(
        target, vi.Whitened(vi.NaturalGradient(), ROUGH), key=getkey(), progress=False
    )
    assert fit.result == vi.RESULTS.converged
    assert np.allclose(fit.family.covariance / COVARIANCE, 1, atol=1e-6)


@pytest.mark.slow
def test_save_and_resume(getkey, tmp_path):
    target, key = correlated_target(LOC, PRECISION), getkey()
    method = vi.Whitened(vi.SVGD(num_particles=10), ROUGH)
    run = lambda steps: vi.fit(target, method, key=key, max_steps=steps, progress=False)
    vi.save(tmp_path / "fit", run(13))
    loaded = vi.load(tmp_path / "fit", like=run(0))
    resumed = loaded.resume(20, progress=False)
    assert np.array_equal(resumed.family.x, run(33).family.x)


@pytest.mark.slow
def test_inside_jit(getkey):
    @jax.jit
    def mean(key):
        rough = vi.FullRank(LOC, 1.0)
        method = vi.Whitened(vi.GSM(), rough)
        target = correlated_target(LOC, PRECISION)
        return vi.fit(target, method, key=key, max_steps=5, throw=False).family.mean

    assert np.all(np.isfinite(mean(getkey())))


def test_errors(getkey, monkeypatch):
    # What users see, who do not check types at runtime.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"`method` must be a method"):
        vi.Whitened("svgd", ROUGH)  # pyright: ignore[reportArgumentType]
    flow = vi.Coupling(vi.MeanField(jnp.zeros(2)), key=getkey())
    with pytest.raises(ValueError, match=r"`rough` must be a family.*Coupling"):
        vi.Whitened(vi.SVGD(), flow)
    with pytest.raises(ValueError, match="positive definite.*fewer particles"):
        vi.Whitened(vi.SVGD(), vi.Particles(jnp.ones((1, 2))))
    method = vi.Whitened(vi.Descent(vi.ELBO(), optax.adam(0.1)), ROUGH)
    target = correlated_target(LOC, PRECISION)
    with pytest.raises(ValueError, match=r"inside a `vi.Affine`.*`MeanField`"):
        vi.fit(target, method, vi.MeanField, key=getkey(), progress=False)
