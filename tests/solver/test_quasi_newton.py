"""BFGS in lockstep, seen as ask and tell: no method and no loop around it."""

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi
from vijax._misc import lenient_promotion
from vijax._solver import quasi_newton
from vijax._target.probe import probe, Probes

from ..helpers import correlated_target


LOC = jnp.array([[1.0, -2.0]])
PRECISION = jnp.array([[2e4, 90.0], [90.0, 1.0]])


@eqx.filter_jit
def climbed(target, others):
    """Paths from the origin and from all but the first of `others`, until they rest."""

    def further(paths):
        with lenient_promotion():
            probes = probe(target, *quasi_newton.ask(paths))
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


class Counted:
    """A density in NumPy, and how often it was seen at a point."""

    def __init__(self, log_density):
        self.seen = []
        self._both = jax.jit(jax.vmap(jax.value_and_grad(log_density)))

    def __call__(self, x, count):
        self.seen.append(count)
        log_p, score = map(np.array, self._both(x))
        # What was not asked for is not known.
        log_p[count:], score[count:] = np.nan, np.nan
        finite = np.isfinite(log_p)
        log_p = np.where(finite, log_p, -np.inf)
        score = np.where(finite[:, None], score, 0.0)
        return Probes(x, log_p, score, finite, np.asarray(count), 2e-16)


def ended(density, starts, most=200):
    with np.errstate(all="ignore"):
        paths = quasi_newton.begin(starts[0], starts)
        for _ in range(most):
            if np.all(paths.done):
                break
            probes = density(*quasi_newton.ask(paths))
            paths = quasi_newton.tell(starts, paths, probes)
    return paths


def test_paths_at_rest_are_not_evaluated_again():
    log_density = lambda x: -0.5 * jnp.sum((x - 1.0) ** 2 / jnp.array([1.0, 1e-4]))
    near, far = np.array([1.0, 1.001]), np.array([300.0, -70.0])
    density, middle = Counted(log_density), np.array([5.0, 0.0])
    paths = ended(density, np.stack([far, near, middle]))
    assert np.all(paths.converged)
    assert np.all(np.abs(paths.x - 1) < [0.15, 0.0015])
    assert density.seen == sorted(density.seen, reverse=True)
    assert set(density.seen) == {1, 2, 3}
    # Each takes as many steps as by itself.
    alone = [ended(Counted(log_density), x[None]) for x in (far, near, middle)]
    assert sum(density.seen) == sum(int(path.num_steps) for path in alone)
    for path, x in zip(alone, paths.x, strict=True):
        np.testing.assert_allclose(path.x[0], x, rtol=1e-9)


def test_a_path_that_is_left_far_behind_ends():
    # Beyond 50 the density is next to nothing, and rises too slowly to get out soon.
    def log_density(x):
        return jnp.where(x[0] > 50, -1e9 - 0.2 * x[0], -0.5 * x[0] ** 2)

    starts = np.array([[1.0], [60.0], [3.0], [-4.0]])
    paths = ended(Counted(log_density), starts)
    assert np.array_equal(paths.converged, [True, False, True, True])
    assert int(paths.num_steps) == 20
    # One that lacks much, as all do at first, goes on.
    wide = lambda x: -1e5 * jnp.sum((x / jnp.array([1.0, 300.0])) ** 2)
    paths = ended(Counted(wide), np.array([[1.0, 9.0], [40.0, -3e4], [20.0, 1e4]]))
    assert np.all(paths.converged)
