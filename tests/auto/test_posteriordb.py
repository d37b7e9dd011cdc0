"""Real posteriors with reference draws, where the database is at hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi

from ..posteriordb import module, NAMES, ROOT


pytestmark = pytest.mark.skipif(
    not (ROOT / "models.py").exists(), reason="POSTERIORDB names no database"
)


@pytest.fixture
def lenient():
    # The models mix ranks and dtypes, as their users may.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NAMES)
def test_stein_identity(name, lenient):
    # At draws of the posterior the score s has E[s] = 0 and E[(x - E[x]) s'] = -I.
    posterior = module("models").POSTERIORS[name]
    target = vi.from_numpyro(posterior.model, **posterior.data())
    latents = posterior.latents(module("reference").load(name))
    latents = {key: jnp.asarray(value)[::4] for key, value in latents.items()}
    x = jax.jit(jax.vmap(target.unconstrain))(latents)
    score = jax.jit(
        lambda x: jax.lax.map(jax.grad(target.log_density), x, batch_size=100)
    )(x)
    assert jnp.all(jnp.isfinite(score))
    root = len(x) ** 0.5
    stderr = score.std(axis=0) / root
    products = (x - x.mean(axis=0))[:, :, None] * score[:, None, :]
    error = products.mean(axis=0) + jnp.eye(target.dim)
    # The largest of d + d² standard normals, at odds of one in ten thousand.
    bar = 4.0 + 0.5 * np.log10(target.dim + 1)
    if name != "eight_schools-eight_schools_centered":  # Its scores have no variance.
        assert jnp.max(jnp.abs(score.mean(axis=0) / stderr)) < bar
        assert jnp.max(jnp.abs(error / (products.std(axis=0) / root))) < bar


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_excellent_and_its_report_is_true(name, lenient):
    # z < 0.1 and r < log 1.1, see the README of the database.
    posterior = module("models").POSTERIORS[name]
    target = vi.from_numpyro(posterior.model, **posterior.data())
    fit = vi.fit(target, key=jax.random.key(11), progress=False)
    params = fit.draw(16_384, key=jax.random.key(12)).params
    reference = module("reference").load(name)
    for scalar, values in posterior.read(params).items():
        truth, scale = reference[scalar].mean(), reference[scalar].std(ddof=1)
        assert abs(values.mean() - truth) < 0.1 * scale, scalar
        assert abs(np.log(values.std() / scale)) < np.log(1.1), scalar
    assert vi.report(fit, key=jax.random.key(13)).trustworthy
