"""BFGS in lockstep, seen as ask and tell: no method and no loop around it."""

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi
from vijax._misc import lenient_promotion
from vijax._solver import quasi_newton
from vijax._target.probe import probe

from ..helpers import correlated_target


LOC = jnp.array([[1.0, -2.0]])
PRECISION = jnp.array([[2e4, 90.0], [90.0, 1.0]])


@eqx.filter_jit
def climbed(target, others):
    """Paths from the origin and from all but the first of `others`, until they rest."""

    def further(paths):
        with lenient_promotion():
            probes = probe(target, quasi_newton.ask(paths), len(others))
            return quasi_newton.tell(others + 0.1, paths, probes)

    paths = quasi_newton.begin(jnp.zeros(others.shape[1]), others)
    paths = lax.while_loop(lambda paths: ~jnp.all(paths.done), further, paths)
    with lenient_promotion():
        return paths, *quasi_newton.gaussians(paths)


def test_all_paths_end_at_the_optimum_of_a_gaussian(getkey):
    others = jnp.array([[0.0, 0.0], [3.0, 4.0], [-5.0, 1.0]])
    paths, loc, tril = climbed(correlated_target(LOC[0], PRECISION), others)
    assert jnp.all(paths.converged)
    assert paths.num_steps < 60
    std = jnp.sqrt(jnp.diagonal(jnp.linalg.inv(PRECISION)))
    assert jnp.all(jnp.abs(paths.x - LOC) < 0.15 * std[None])
    # The last steps have seen both directions.
    assert jnp.all(jnp.abs(loc - LOC) < 0.02 * std[None])
    covariance = jnp.einsum("kij,klj->kil", tril, tril)
    scale = jnp.outer(std, std)[None]
    exact = jnp.linalg.inv(PRECISION)[None]
    assert jnp.all(jnp.abs(covariance - exact) < 0.1 * scale)


def test_starts_outside_are_drawn_anew():
    # The origin is outside, and its replacement, 2.6, inside; 1.0 and 1.1 never are.
    target = vi.from_log_density(
        lambda params: jnp.where(params["x"] > 2, -0.5 * (params["x"] - 3) ** 2, jnp.nan),
        {"x": vi.Param()},
    )
    paths, *_ = climbed(target, jnp.array([[2.5], [1.0], [4.0]]))
    assert jnp.array_equal(paths.found, np.array([True, False, True]))
    assert jnp.all(jnp.abs(paths.x[paths.found] - 3) < 0.2)
    assert not paths.converged[1]


@pytest.mark.parametrize("start", [1.0, 40.0])
def test_a_path_on_a_ridge_without_an_end_does_not_converge(start):
    target = vi.from_log_density(lambda params: params["x"], {"x": vi.Param()})
    paths, *_ = climbed(target, jnp.array([[0.0], [start]]))
    assert not jnp.any(paths.converged)
    assert jnp.all(paths.done)
    assert jnp.all(paths.x > 100)
