"""The kernel Stein discrepancy against its definition, and what its test sees."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi
from vijax._kernel.base import median_squared_distance

from ..helpers import correlated_target


def gaussian(dim):
    return vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(dim)}
    )


def test_it_is_the_mean_of_the_stein_kernel(getkey):
    precision = jnp.array([[2.0, 0.9], [0.9, 1.0]])
    target = correlated_target(jnp.array([1.0, 0.0]), precision)
    x = np.asarray(jr.normal(getkey(), (7, 2)))
    # In coordinates of unit covariance, with a thousandth added to the correlations.
    covariance = np.cov(x.T, bias=True)
    covariance += 1e-3 * np.diag(np.diagonal(covariance))
    root = np.linalg.cholesky(covariance)
    u = jnp.asarray(np.linalg.solve(root, x.T).T)
    bandwidth = median_squared_distance(u)
    kernel = lambda a, b: (1 + jnp.sum((a - b) ** 2) / bandwidth) ** -0.5
    score = jax.grad(lambda u: target.log_density(jnp.asarray(root) @ u))

    def stein(a, b):
        of_a, of_b = jax.grad(kernel, 0)(a, b), jax.grad(kernel, 1)(a, b)
        mixed = jax.jacfwd(jax.grad(kernel, 0), 1)(a, b)
        inner = score(a) @ score(b) * kernel(a, b)
        return inner + score(a) @ of_b + score(b) @ of_a + jnp.trace(mixed)

    pairs = np.array([[stein(a, b) for b in u] for a in u])
    found = vi.kernel_stein_discrepancy(x, target, key=getkey())
    assert np.isclose(found.value, np.sqrt(pairs.mean()), rtol=1e-6)
    assert np.isclose(found.squared, (pairs.sum() - np.trace(pairs)) / 42, rtol=1e-6)


@pytest.mark.slow
def test_independent_draws_have_uniform_pvalues(getkey):
    target = gaussian(3)
    pvalues = [
        float(
            vi.kernel_stein_discrepancy(
                jr.normal(getkey(), (200, 3)), target, key=getkey()
            ).pvalue
        )
        for _ in range(60)
    ]
    assert abs(np.mean(pvalues) - 0.5) < 4 / (12 * 60) ** 0.5
    assert 0.1 < np.std(pvalues) < 0.4


@pytest.mark.parametrize(
    "change",
    [lambda x: 1.3 * x, lambda x: 0.75 * x, lambda x: x + 0.25],
    ids=["too wide", "too narrow", "shifted"],
)
def test_it_sees_wrong_moments(change, getkey):
    x = change(jr.normal(getkey(), (500, 3)))
    found = vi.kernel_stein_discrepancy(x, gaussian(3), key=getkey())
    assert found.pvalue < 0.002
    assert found.squared > 0.005


@pytest.mark.slow
def test_particles_do_better_than_draws(getkey):
    target = gaussian(2)
    fit = vi.fit(target, vi.SVGD(), key=getkey(), max_steps=500, progress=False)
    of_particles = vi.kernel_stein_discrepancy(fit.family.x, target, key=getkey())
    of_draws = vi.kernel_stein_discrepancy(
        jr.normal(getkey(), (100, 2)), target, key=getkey()
    )
    assert of_particles.value < 0.7 * of_draws.value
    assert of_particles.pvalue > 0.2


@pytest.mark.slow
def test_many_points_and_bad_scores(getkey):
    x = jr.normal(getkey(), (5_001, 1))
    assert vi.kernel_stein_discrepancy(x, gaussian(1), key=getkey()).pvalue > 1e-3
    target = vi.from_log_density(
        lambda params: jnp.sum(jnp.sqrt(params["x"])), {"x": vi.Param(1)}
    )
    found = vi.kernel_stein_discrepancy(x[:9], target, key=getkey())
    assert found.value == jnp.inf
    assert found.pvalue == 0


def test_errors(getkey):
    target = gaussian(2)
    for x in (jnp.zeros(2), jnp.zeros((1, 2)), jnp.zeros((5, 3))):
        with pytest.raises(ValueError, match=r"shape \(points, 2\)"):
            vi.kernel_stein_discrepancy(x, target, key=getkey())
    with pytest.raises(ValueError, match="only 1 differ.*corrected=False"):
        vi.kernel_stein_discrepancy(jnp.zeros((5, 2)), target, key=getkey())
