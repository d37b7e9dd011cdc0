import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi
from vijax._kernel.stein import stein_force as stein_force_of

from ..helpers import diagonal_target, DIM, kernels, LOC, SCALE


every_kernel = pytest.mark.parametrize("make", kernels.values(), ids=kernels.keys())
follows = pytest.mark.parametrize("make", [vi.RBF, vi.IMQ])


fitted = eqx.filter_jit(lambda kernel, x: kernel.fitted(x))
stein_force = eqx.filter_jit(stein_force_of)


@eqx.filter_jit
def gram(kernel, x):
    return jax.vmap(lambda a: jax.vmap(lambda b: kernel(a, b))(x))(x)


@eqx.filter_jit
def formula(kernel, x, y):
    """The kernel's own form of its values and repulsion."""
    return kernel.values_and_repulsion(x, y)


@eqx.filter_jit
def by_hand(kernel, x, y):
    """The kernel at each particle, and its derivatives with respect to them."""
    return jax.vmap(jax.value_and_grad(kernel), in_axes=(0, None))(x, y)


def exact_median(x):
    """The median of the squared distances of all pairs."""
    x = np.asarray(x, np.float64)
    one, other = np.triu_indices(len(x), k=1)
    return np.median(np.sum((x[one] - x[other]) ** 2, axis=1))


@every_kernel
def test_gram_matrix_is_symmetric_and_positive_semidefinite(make, getkey):
    x = 1.0 + 2.0 * jr.normal(getkey(), (25, DIM))
    matrix = np.asarray(gram(fitted(make(), x), x))
    assert matrix.shape == (25, 25)
    assert np.allclose(matrix, matrix.T, rtol=1e-12)
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert np.min(eigenvalues) > -1e-10 * np.max(eigenvalues)
    assert np.max(eigenvalues) > 0


@every_kernel
def test_values_and_repulsion_are_those_of_the_kernel(make, getkey):
    x = 1.0 + 2.0 * jr.normal(getkey(), (12, DIM))
    kernel = fitted(make(), x)
    for y in (x[3], jr.normal(getkey(), (DIM,))):
        values, away = formula(kernel, x, y)
        true_values, grads = by_hand(kernel, x, y)
        assert np.allclose(values, true_values, rtol=1e-10)
        assert np.allclose(away, np.sum(grads, axis=0), rtol=1e-8, atol=1e-10)


@every_kernel
def test_far_from_the_origin_in_single_precision(make, getkey):
    # Without care the distances of numbers of size 1e4 would be off by their own size.
    x = (1e4 + jr.normal(getkey(), (30, DIM))).astype(jnp.float32)
    kernel, exact_x = fitted(make(), x), x.astype(jnp.float64)
    exact = fitted(make(), exact_x)
    got = formula(kernel, x, x[0])
    assert got[0].dtype == got[1].dtype == jnp.float32
    (values, away), (true_values, grads) = jax.tree.map(
        np.asarray, (got, by_hand(exact, exact_x, exact_x[0]))
    )
    assert np.max(np.abs(values - true_values)) < 1e-3 * np.max(true_values)
    error = np.max(np.abs(away - np.sum(grads, axis=0)))
    assert error < 1e-3 * np.sum(np.max(np.abs(grads), axis=1))


def test_two_far_modes_in_single_precision(getkey):
    # A hundred bandwidths apart is not far: half a percent of the kernel at the least.
    x = jr.normal(getkey(), (30, DIM)).at[:15].add(100.0).astype(jnp.float32)
    exact_x = x.astype(jnp.float64)
    for kernel in (vi.RBF(1.0), vi.IMQ(1.0)):
        values, _ = formula(kernel, x, x[0])
        true_values, _ = by_hand(kernel, exact_x, exact_x[0])
        assert np.max(np.abs(np.asarray(values) - np.asarray(true_values))) < 5e-3


@pytest.mark.parametrize("num_particles", [1, 2])
@every_kernel
def test_equal_particles_are_no_trouble(make, num_particles):
    x = jnp.full((num_particles, DIM), 0.3)
    kernel = fitted(make(), x)
    values, away = map(np.asarray, formula(kernel, x, x[0]))
    assert np.allclose(values, values[0], rtol=1e-10)
    assert np.all(values > 0)
    assert np.all(np.isfinite(away))
    force = stein_force(make(), x, diagonal_target(), 1.0)
    force = np.asarray(force)
    assert force.shape == x.shape
    assert np.all(np.isfinite(force))
    assert np.allclose(force, force[:1], rtol=1e-10)


@every_kernel
def test_two_equal_among_others(make, getkey):
    x = jr.normal(getkey(), (10, DIM)).at[1].set(0.5).at[0].set(0.5)
    force = stein_force(make(), x, diagonal_target(), 1.0)
    assert np.all(np.isfinite(force))
    assert np.allclose(force[0], force[1], rtol=1e-10)


def test_rbf_is_a_gaussian():
    x, y = jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0])
    assert jnp.allclose(vi.RBF(0.5)(x, y), np.exp(-5 / (2 * 0.25)))
    assert jnp.allclose(vi.RBF(3)(x, y), np.exp(-5 / 18))


def test_imq_is_an_inverse_multiquadric():
    x, y = jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0])
    assert jnp.allclose(vi.IMQ(2.0)(x, y), (1 + 5 / 4) ** -0.5)
    assert jnp.allclose(vi.IMQ(0.5, exponent=-0.9)(x, y), (1 + 20) ** -0.9)


def test_linear_kernel_is_linear():
    x, y = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    assert vi.LinearKernel()(x, y) == 12


@pytest.mark.parametrize("order", ["random", "sorted", "clustered"])
@pytest.mark.parametrize("num_particles", [3, 45, 2_000])
@follows
def test_the_bandwidth_follows_the_median(make, num_particles, order, getkey):
    # From all the pairs of a few particles, and about from a thousand of many.
    x = jr.normal(getkey(), (num_particles, DIM)) * jnp.array([1.0, 3.0, 0.2])[None]
    if order == "clustered":
        x = x.at[num_particles // 4 :].add(10.0)
    elif order == "sorted":
        x = x[jnp.argsort(x[:, 1])]
    scale = 2 * np.log(num_particles + 1) if make is vi.RBF else 1.0
    bandwidth = fitted(make(), x).bandwidth
    assert bandwidth is not None
    ratio = bandwidth**2 / (exact_median(x) / scale)
    if num_particles <= 45:
        assert jnp.allclose(ratio, 1.0, rtol=1e-10)
    else:
        assert 0.75 < ratio < 1.33


@follows
def test_the_bandwidth_depends_on_the_order_only_a_little(make, getkey):
    x, rng = jr.normal(getkey(), (500, DIM)), np.random.default_rng(0)
    shuffled = lambda x: jnp.asarray(rng.permutation(np.asarray(x)))
    bandwidths = [float(fitted(make(), shuffled(x)).bandwidth) for _ in range(4)]
    assert all(0.85 < bandwidth / bandwidths[0] < 1.15 for bandwidth in bandwidths)
    few = x[:40]
    again = fitted(make(), shuffled(few)).bandwidth
    assert np.allclose(fitted(make(), few).bandwidth, again, rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-6, 1e-2, 1e5])
@follows
def test_units_do_not_matter(make, factor, getkey):
    x = jr.normal(getkey(), (300, DIM))
    kernel, scaled = fitted(make(), x), fitted(make(), factor * x)
    assert np.allclose(scaled.bandwidth, factor * kernel.bandwidth, rtol=1e-10)
    value, repels = map(np.asarray, formula(kernel, x, x[7]))
    other, other_repels = map(np.asarray, formula(scaled, factor * x, factor * x[7]))
    assert np.allclose(other, value, rtol=1e-8)
    assert np.allclose(factor * other_repels, repels, rtol=1e-8, atol=1e-8)


@follows
def test_a_bandwidth_that_is_given_stays(make, getkey):
    x = jr.normal(getkey(), (50, DIM))
    assert fitted(make(0.3), x).bandwidth == 0.3
    assert make(0.3).bandwidth.shape == ()
    assert make().bandwidth is None


def test_an_exponent_stays(getkey):
    assert fitted(vi.IMQ(exponent=-0.2), jr.normal(getkey(), (5, 2))).exponent == -0.2


def test_a_mixture_is_a_weighted_sum(getkey):
    x = jr.normal(getkey(), (20, DIM))
    parts = [vi.RBF(), vi.IMQ(exponent=-0.4), vi.RBF(2.0)]
    terms = np.stack([gram(fitted(part, x), x) for part in parts])
    mixture = fitted(vi.MixtureKernel(parts, [0.5, 2.0, 0.1]), x)
    weighted = np.tensordot(np.array([0.5, 2.0, 0.1]), terms, 1)
    assert np.allclose(gram(mixture, x), weighted, rtol=1e-12)
    # The weights are equal, of sum one, where none are given.
    equal = fitted(vi.MixtureKernel(parts), x)
    assert np.allclose(gram(equal, x), np.mean(terms, axis=0), rtol=1e-12)
    one = fitted(vi.MixtureKernel([vi.RBF()]), x)
    assert np.allclose(gram(one, x), terms[0], rtol=1e-12)


class Scaled(vi.AbstractKernel):
    """A kernel of somebody else's, by `__call__` and `fitted` alone."""

    scale: jax.Array

    def __call__(self, x, y):
        return jnp.exp(-jnp.sum(((x - y) / self.scale) ** 2))

    def fitted(self, x):
        return Scaled(jnp.std(x, axis=0))


def test_a_kernel_of_ones_own(getkey):
    x = jr.normal(getkey(), (15, DIM)) * jnp.array([1.0, 5.0, 0.1])[None]
    given = Scaled(jnp.ones(DIM))
    own = fitted(given, x)
    values, away = formula(own, x, x[2])
    true_values, grads = by_hand(own, x, x[2])
    assert np.allclose(values, true_values)
    assert np.allclose(away, np.sum(grads, axis=0))

    # Its bandwidth follows the particles, whatever it came with.
    def expected(y):
        values, grads = by_hand(own, x, y)
        scores = (jnp.array(LOC)[None] - x) / jnp.array(SCALE)[None] ** 2
        return (values @ scores + jnp.sum(grads, axis=0)) / 15

    force = stein_force(given, x, diagonal_target(), 1.0)
    assert np.allclose(force, jax.vmap(expected)(x))
    mixture = vi.MixtureKernel([given, lambda x, y: jnp.dot(x, y)], [1.0, 0.5])
    value = fitted(mixture, x)(x[0], x[1])
    assert np.allclose(value, own(x[0], x[1]) + 0.5 * jnp.dot(x[0], x[1]))


def test_a_function_is_a_kernel(getkey):
    x = jr.normal(getkey(), (15, DIM))
    method = vi.SVGD(lambda x, y: jnp.exp(-jnp.sum((x - y) ** 2) / (2 * 0.7**2)))
    force = stein_force(method.kernel, x, diagonal_target(), 1.0)
    expected = stein_force(vi.RBF(0.7), x, diagonal_target(), 1.0)
    assert jnp.allclose(force, expected, rtol=1e-10)


def test_a_kernel_needs_a_value():
    with pytest.raises(TypeError, match="abstract"):
        vi.AbstractKernel()  # pyright: ignore[reportAbstractUsage]  # That is the point.
