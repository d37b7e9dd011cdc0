"""Bad input to families."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi

from ..bad_input import at_once_tests, density, fit, on_the_way_tests, target


pytestmark = pytest.mark.usefixtures("as_for_users")


at_once = {
    "to_particles: no target": (
        lambda key: vi.to_particles({"x": np.ones((3, 2))}, density),
        r"`target` must be a `vi\.Target`.*function",
    ),
    "to_particles: no samples": (
        lambda key: vi.to_particles(np.ones((3, 2)), target()),
        "`samples` must be a dictionary.*ArviZ.*ndarray",
    ),
}


test_fails_before_anything_compiles = at_once_tests(at_once)


on_the_way = {
    "MeanField: loc is a scalar": (
        lambda key: vi.MeanField(1.0),
        r"`loc` must be a vector.*shape \(\).*jnp\.zeros\(1\)",
    ),
    "MeanField: loc of integers": (
        lambda key: vi.MeanField(jnp.arange(3)),
        "`loc` must be a vector of floating-point.*int64",
    ),
    "FullRank: loc is a matrix": (
        lambda key: vi.FullRank(jnp.zeros((2, 2))),
        r"`loc` must be a vector.*\(2, 2\)",
    ),
    "MeanField: negative scale": (
        lambda key: vi.MeanField(jnp.zeros(2), -0.1),
        "`scale` holds standard deviations, which must be positive.*-0.1",
    ),
    "MeanField: one scale is zero": (
        lambda key: vi.MeanField(jnp.zeros(2), jnp.array([1.0, 0.0])),
        "`scale` holds standard deviations, which must be positive",
    ),
    "FullRank: negative scale": (
        lambda key: vi.FullRank(jnp.zeros(2), -0.1),
        "`scale` holds standard deviations, which must be positive.*-0.1",
    ),
    "FullRank: NaN scale": (
        lambda key: vi.FullRank(jnp.zeros(2), np.nan),
        "`scale` holds standard deviations, which must be positive.*nan",
    ),
    "FullRank: negative diagonal": (
        lambda key: vi.FullRank(jnp.zeros(2), -jnp.eye(2)),
        "`scale` holds standard deviations, which must be positive",
    ),
    "FullRank: shape of the factor": (
        lambda key: vi.FullRank(jnp.zeros(2), jnp.eye(3)),
        r"`scale` has shape \(3, 3\).*\(2, 2\)",
    ),
    "FullRank: length of the scales": (
        lambda key: vi.FullRank(jnp.zeros(2), jnp.ones(3)),
        r"`scale`.*\(3,\).*\(2,\)",
    ),
    "MeanField: length of the scales": (
        lambda key: vi.MeanField(jnp.zeros(2), jnp.ones(3)),
        r"`scale`.*\(3,\).*\(2,\)",
    ),
    "MeanField: a matrix of scales": (
        lambda key: vi.MeanField(jnp.zeros(2), jnp.ones((2, 2))),
        r"`scale`.*\(2, 2\).*\(2,\)",
    ),
    "Particles: a vector": (
        lambda key: vi.Particles(jnp.zeros(3)),
        r"`x` must be a matrix.*\(particles, dim\).*\(3,\)",
    ),
    "Particles: none": (
        lambda key: vi.Particles(jnp.zeros((0, 3))),
        r"`x` must be a matrix.*\(0, 3\)",
    ),
    "Particles: integers": (
        lambda key: vi.Particles([[1, 2], [3, 4]]),
        r"`x` must be a matrix of floating-point.*int64",
    ),
    "Particles: bandwidth zero": (
        lambda key: vi.Particles(jnp.ones((3, 2)), bandwidth=0.0),
        "`bandwidth`.*positive.*0.0",
    ),
    "Particles: length of the bandwidths": (
        lambda key: vi.Particles(jnp.ones((3, 2)), bandwidth=jnp.ones(3)),
        r"`bandwidth`.*\(3,\).*\(2,\)",
    ),
    "Particles: NaN as a start": (
        lambda key: fit(key, method=vi.SVGD(), family=vi.Particles([[0.0, np.nan]])),
        r"`family\.x` has entries that are NaN",
    ),
}


test_fails_in_words = on_the_way_tests(on_the_way)
