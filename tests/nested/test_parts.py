"""The parts of nested importance sampling, each against what is known."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
import scipy.optimize

import vijax as vi
from vijax._interpolation import interpolate
from vijax._nested.conditional import solve
from vijax._nested.curvature import all_columns
from vijax._nested.curvature_change import changes
from vijax._nested.restart import climbed
from vijax._nested.split import split
from vijax._nested.t_mixture import first_parts
from vijax._target.coordinates import coordinates_of, names_of
from vijax._target.probe import HostProbe


def test_in_one_dimension_it_is_the_natural_spline():
    rng = np.random.default_rng(0)
    points = np.sort(rng.uniform(-3, 3, 9))
    values = rng.normal(size=(9, 2))
    spline = scipy.interpolate.CubicSpline(points, values, bc_type="natural")
    at = np.linspace(points[0], points[-1], 50)
    found = interpolate(points[:, None], values)
    np.testing.assert_allclose(found(at[:, None]), spline(at), atol=1e-4)
    traced = interpolate(jnp.array(points[:, None]), jnp.array(values))
    np.testing.assert_allclose(traced(jnp.array(at[:, None])), spline(at), atol=1e-4)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_it_goes_through_the_points_and_lines_go_on(dim):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(4 * dim + 3, dim))
    slope, values = rng.normal(size=(dim, 3)), rng.normal(size=(len(points), 3))
    found = interpolate(points, values)(points)
    np.testing.assert_allclose(found, values, atol=1e-3)
    radius = np.max(np.linalg.norm(points, axis=1))
    far = rng.normal(size=(20, dim))
    far *= 1.4 * radius / np.linalg.norm(far, axis=1, keepdims=True)
    line = interpolate(points, 2 + points @ slope)
    np.testing.assert_allclose(line(far), 2 + far @ slope, atol=1e-6)
    # Farther, where nothing is known, it stays as it is.
    np.testing.assert_allclose(line(9 * far), line(far * 1.5 / 1.4), atol=1e-9)


def scaled(strength, num_effects):
    """Effects whose precision is linear in `v`: it changes by the same anywhere."""

    def log_density(params):
        v, x = params["v"], params["x"]
        return -0.5 * v**2 - 0.5 * (1 + strength * v) * jnp.sum(x**2)

    return vi.from_log_density(log_density, {"v": vi.Param(), "x": vi.Param(num_effects)})


def test_how_curvature_changes():
    # By `strength` for each effect where `v` moves by its sd, which is the Frobenius norm
    # below; an effect that moves changes nothing of the others but `v` against itself.
    strength, count = 0.05, 9
    target = scaled(strength, count)
    dim, probe = count + 1, HostProbe(target)
    loc, tril, everybody = np.zeros(dim), np.eye(dim), np.arange(dim)
    none = np.zeros(0, int)
    parts = split(loc, tril, none, everybody)
    found = [
        changes(probe, tril, loc, parts, everybody, np.random.default_rng(seed))
        for seed in range(40)
    ]
    found = np.sqrt(np.mean(np.square(found), axis=0))
    assert found[0] == pytest.approx(strength * count**0.5, rel=0.1)
    assert np.all(found[1:] < 1e-6)
    # Given `v` nothing changes.
    parts = split(loc, tril, everybody[:1], everybody[1:])
    generator = np.random.default_rng(0)
    assert np.all(changes(probe, tril, loc, parts, everybody[1:], generator) < 1e-6)


def test_a_gaussian_has_no_globals_whatever_its_correlations():
    rng = np.random.default_rng(2)
    dim = 6
    half = rng.normal(size=(dim, dim))
    precision = half @ half.T + 0.1 * np.eye(dim)
    matrix = jnp.array(precision)
    log_density = lambda params: -0.5 * params["x"] @ matrix @ params["x"]
    target = vi.from_log_density(log_density, {"x": vi.Param(dim)})
    tril = np.linalg.cholesky(np.linalg.inv(precision))
    everybody = np.arange(dim)
    parts = split(np.zeros(dim), tril, everybody[:0], everybody)
    found = changes(
        HostProbe(target), tril, np.zeros(dim), parts, everybody, np.random.default_rng(0)
    )
    assert np.all(found < 1e-6)


def counts_target(y):
    """Poisson counts of groups with normal effects, given the log of their scale."""

    def log_density(params, y):
        rate = params["mean"] + params["x"]
        x = params["x"] * jnp.exp(-params["log_scale"])
        prior = -0.5 * jnp.sum(x**2) - y.size * params["log_scale"]
        prior -= 0.5 * params["mean"] ** 2
        return prior + jnp.sum(y * rate - jnp.exp(rate))

    params = {"log_scale": vi.Param(), "mean": vi.Param(), "x": vi.Param(y.size)}
    return vi.from_log_density(log_density, params, y)


def test_modes_and_curvature_of_the_locals():
    y = np.array([0.0, 3.0, 7.0, 1.0])
    target = counts_target(y)
    dim = target.dim
    parts = split(np.zeros(dim), np.eye(dim), np.array([0]), np.arange(1, dim))
    g = np.array([[-1.0], [0.0], [0.7]])
    probe, start = HostProbe(target), np.zeros((3, dim - 1))
    found = solve(probe, parts, g, start, all_columns(dim - 1))
    assert found.found.all()
    for i, log_scale in enumerate(g[:, 0]):

        def loss(local, log_scale=log_scale):
            rate = local[0] + local[1:]
            prior = 0.5 * np.sum((local[1:] * np.exp(-log_scale)) ** 2)
            return prior + 0.5 * local[0] ** 2 - np.sum(y * rate - np.exp(rate))

        mode = scipy.optimize.minimize(loss, np.zeros(dim - 1), tol=1e-12).x
        np.testing.assert_allclose(found.modes[i], mode, atol=1e-2)
        rate = np.exp(mode[0] + mode[1:])
        exact = np.diag([1 + rate.sum(), *(rate + np.exp(-2 * log_scale))])
        exact[0, 1:] = exact[1:, 0] = rate
        np.testing.assert_allclose(found.precisions[i], exact, rtol=2e-2, atol=2e-2)


def test_where_there_is_no_mode_none_is_found():
    log_density = lambda params: -0.5 * params["g"] ** 2 + params["x"]
    target = vi.from_log_density(log_density, {"g": vi.Param(), "x": vi.Param()})
    parts = split(np.zeros(2), np.eye(2), np.array([0]), np.array([1]))
    g, start = np.zeros((2, 1)), np.zeros((2, 1))
    assert not solve(HostProbe(target), parts, g, start, all_columns(1)).found.any()


def test_a_mixture_of_student_ts_follows_weights():
    rng = np.random.default_rng(3)
    x = rng.uniform(-8, 8, (4_000, 2))
    modes = np.array([[-3.0, 0.0], [3.0, 1.0]])
    each = -0.5 * np.sum((x[:, None] - modes) ** 2, axis=2) / 0.5**2
    log_p = np.logaddexp(*each.T) - np.log(2 * 2 * np.pi * 0.5**2)
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    parts = first_parts(np.zeros(2), 4 * np.eye(2))
    mixture = parts.and_next(x, weights, rng).of_round(-1)
    fresh, log_q = mixture.draw(rng, 4_000)
    each = -0.5 * np.sum((fresh[:, None] - modes) ** 2, axis=2) / 0.5**2
    log_weights = np.logaddexp(*each.T) - np.log(2 * 2 * np.pi * 0.5**2) - log_q
    w = np.exp(log_weights)
    assert np.mean(w) == pytest.approx(1, abs=0.05)
    assert np.sum(w) ** 2 / np.sum(w**2) / len(w) > 0.6


def test_climbing_goes_where_the_density_rises_to():
    rng = np.random.default_rng(4)
    u = rng.normal(size=(400, 2))
    center, root = np.array([1.5, -1.0]), np.array([[0.8, 0.0], [0.3, 1.2]])
    z = np.linalg.solve(root, (u - center).T)
    found = climbed(u, -0.5 * np.sum(z**2, axis=0) - 100)
    np.testing.assert_allclose(found[0], center, atol=1e-3)
    np.testing.assert_allclose(found[1] @ found[1].T, root @ root.T, atol=1e-3)


def test_coordinates_have_names():
    target = counts_target(np.zeros(3))
    assert names_of(target, [0]) == ("log_scale",)
    assert names_of(target, [3, 1]) == ("mean", "x[1]")
    assert names_of(target, [2, 3, 4]) == ("x",)
    assert coordinates_of(target, ["x", "log_scale"]).tolist() == [0, 2, 3, 4]
    with pytest.raises(ValueError, match="`globals` names `tau`.*are `log_scale`"):
        coordinates_of(target, ["tau"])
