"""Starts around an answer, and its images."""

import jax
import jax.numpy as jnp
import numpy as np

import vijax as vi
from vijax._survey.climb import climb
from vijax._survey.rest import maximum
from vijax._survey.starts import around, between, images
from vijax._target.coordinates import numbers_of
from vijax._target.probe import HostProbe


def test_between_modes_each_coordinate_is_of_one_of_them_or_anywhere():
    loc = np.array([[0.0, 10.0, 5.0], [8.0, -10.0, 5.0]])
    tril = np.stack([0.1 * np.eye(3), 0.2 * np.eye(3)])
    x = between(np.random.default_rng(0), loc, tril, 4_000)
    crossed = x[1::2]
    near = np.min(np.abs(crossed[:, None] - loc) / np.array([[0.1], [0.2]]), axis=1)
    assert np.all(near < 6)
    # All four pairs of the first two coordinates, as often.
    pairs = 2 * (crossed[:, 0] > 4) + (crossed[:, 1] > 0)
    assert np.all(np.abs(np.bincount(pairs) / len(pairs) - 0.25) < 0.05)
    anywhere = x[::2, :2]
    low, high = np.array([-0.6, -10.6]), np.array([8.6, 10.3])
    assert np.all((anywhere >= low) & (anywhere <= high))
    width = high - low
    assert np.all(np.abs(np.mean(anywhere, axis=0) - (low + high) / 2) < 0.05 * width)
    assert np.all(np.abs(np.std(anywhere, axis=0) / width - 12**-0.5) < 0.02)


def test_starts_are_so_many_standard_deviations_off():
    count = 4_000
    loc = np.array([1.0, -2.0, 3.0])
    tril = np.array([[2.0, 0, 0], [1.0, 0.1, 0], [0.0, 3.0, 0.5]])
    generator = np.random.default_rng(0)
    x = around(generator, loc[None], tril[None], np.zeros(count, int))
    z = np.linalg.solve(tril, (x - loc).T).T
    radius = np.sqrt(np.sum(z**2, axis=1))
    assert np.mean(radius < 2) < 0.12
    assert 0.15 < np.mean(radius > 20) < 0.35
    assert radius.max() < 6_000
    # To all sides.
    assert np.all(np.abs(np.mean(np.sign(z), axis=0)) < 0.06)
    sds = np.sqrt(np.sum(tril**2, axis=1))
    assert np.all(np.mean(np.abs(x - loc) > 2 * sds, axis=0) > 0.3)


def test_images_are_of_signs_and_labels():
    params = {"a": vi.Param(), "m": vi.Param(3), "w": vi.Param((2, 3))}
    target = vi.from_log_density(lambda params: 0.0 * params["a"], params)
    numbers = numbers_of(target)
    places, signs = images(numbers)
    x = np.arange(1.0, 11.0)
    seen = {tuple(row) for row in x[places] * signs}
    assert tuple(-x) in seen

    def changed(**parts):
        y = x.copy()
        for name, value in parts.items():
            y[numbers[name]] = value
        return tuple(y)

    a, m, w = (x[numbers[name]] for name in ("a", "m", "w"))
    assert changed(a=-a) in seen
    assert changed(a=-a, w=-w) in seen
    # The first and the last label change places in all that is labelled.
    assert changed(m=m[[2, 1, 0]], w=w[:, [2, 1, 0]]) in seen
    flip = np.array([1, -1, 1])
    assert changed(m=m * flip, w=w * flip) in seen
    assert changed(w=w[::-1]) in seen


def banana(params):
    bent = params["x"][1] - 0.5 * params["x"][0] ** 2
    return -0.125 * params["x"][0] ** 2 - bent**2


def test_paths_end_at_the_maximum_whatever_the_scale():
    scale = np.array([1e3, 1e-3, 1.0])
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum(((params["x"] - 1.0) / scale) ** 2),
        {"x": vi.Param(3)},
    )
    probe, generator = HostProbe(target), np.random.default_rng(0)
    starts = 1.0 + scale * generator.uniform(-50, 50, (16, 3))
    ends = climb(probe, starts, lambda: starts, np.ones(3), np.diag(scale))
    assert ends.converged.all()
    assert np.all(np.abs((ends.x - 1.0) / scale) < 0.2)
    inside = ends.tril / scale[:, None]
    covariance = inside @ np.swapaxes(inside, 1, 2)
    assert np.all(np.abs(covariance - np.eye(3)) < 0.5)
    # A few steps do: those at rest are not seen again.
    assert probe.num_evaluations < 16 * 30


def test_a_maximum_has_its_curvature_and_a_ridge_is_none():
    target = vi.from_log_density(banana, {"x": vi.Param(2)})
    probe, tril = HostProbe(target), np.diag([0.3, 0.6])
    found = maximum(probe, np.array([0.5, 0.2]), tril)
    assert found is not None
    assert np.all(np.abs(found.x) < 0.2)
    curvature = -jax.hessian(target.log_density)(jnp.asarray(found.x))
    assert np.allclose(np.linalg.inv(found.tril @ found.tril.T), curvature, atol=1e-3)
    ridge = maximum(probe, np.array([6.0, 18.0]), 0.1 * tril)
    assert ridge is None or np.all(np.abs(ridge.x) < 0.5)
