from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from ..helpers import diagonal_target, DIM, families, tree_allclose, TRIL, untrained


every_family = pytest.mark.parametrize("make", families.values(), ids=families.keys())


@every_family
def test_joint_density_agrees_with_density(make, getkey):
    family = make()
    x, log_q = jax.jit(family.sample_and_log_prob)(getkey())
    assert x.shape == (family.dim,)
    assert tree_allclose(log_q, jax.jit(family.log_prob)(x))


@every_family
def test_the_same_in_numpy(make, getkey):
    family = make()
    known = family.on_host()
    if known is None:
        assert isinstance(family, vi.Particles)
        return
    num_draws = 20_000
    x, log_q = known.draw(np.random.default_rng(0), num_draws)
    assert x.shape == (num_draws, DIM)
    assert x.dtype == log_q.dtype == np.float64
    few = jnp.asarray(x[:50])
    np.testing.assert_allclose(
        log_q[:50], jax.jit(jax.vmap(family.log_prob))(few), rtol=1e-9
    )
    np.testing.assert_allclose(known.log_prob(x[:50]), log_q[:50], rtol=1e-9)
    slopes = jax.jit(jax.vmap(jax.grad(family.log_prob)))(few)
    np.testing.assert_allclose(known.score(x[:50]), slopes, rtol=1e-7, atol=1e-9)
    # And the draws are the family's: moments against draws of the other kind.
    other = jax.jit(jax.vmap(family.sample))(jr.split(getkey(), num_draws))
    noise = 5 * np.std(x, axis=0) * (2 / num_draws) ** 0.5
    assert np.all(np.abs(np.mean(x, axis=0) - np.mean(other, axis=0)) < noise)
    assert np.all(np.abs(np.std(x, axis=0) / np.std(other, axis=0) - 1) < 0.05)
    between = np.corrcoef(x.T) - np.corrcoef(np.asarray(other).T)
    assert np.all(np.abs(between) < 0.05)
    # Any part of them is a sample too.
    part = x[: num_draws // 10]
    off = np.abs(np.mean(part, axis=0) - np.mean(x, axis=0))
    assert np.all(off < 5 * np.std(x, axis=0) * (10 / num_draws) ** 0.5)
    assert known.draw(np.random.default_rng(0), 0)[0].shape == (0, DIM)


@every_family
def test_density_integrates_to_one(make, getkey):
    # Importance sampling from a wider Gaussian.
    family = make()
    centre = jnp.mean(jax.jit(jax.vmap(family.sample))(jr.split(getkey(), 2_000)), axis=0)
    x = centre[None, :] + 1.5 * jr.normal(getkey(), (200_000, DIM))
    log_proposal = jax.scipy.stats.norm.logpdf(x, centre[None, :], 1.5).sum(axis=1)
    weights = jnp.exp(jax.jit(jax.vmap(family.log_prob))(x) - log_proposal)
    stderr = jnp.std(weights) / jnp.sqrt(weights.size)
    assert stderr < 0.02
    assert abs(jnp.mean(weights) - 1) < 5 * stderr


@pytest.mark.parametrize("name", families)
def test_every_parameter_has_a_gradient(name, getkey):
    loss = lambda family, key: jnp.sum(family.sample(key) ** 2)
    grads = eqx.filter_jit(eqx.filter_grad(loss))(families[name](), getkey())
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        is_trained = jax.tree_util.keystr(path) not in untrained.get(name, ())
        assert jnp.any(grad != 0) == is_trained, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", [name for name in families if name != "Coupling"])
def test_closed_form_moments_are_those_of_draws(name, getkey):
    family = families[name]()
    n = 100_000
    x, log_q = jax.jit(jax.vmap(family.sample_and_log_prob))(jr.split(getkey(), n))
    std = jnp.std(x, axis=0)
    moments = eqx.filter_jit(lambda family: (family.mean, family.std, family.covariance))
    own_mean, own_std, own_covariance = moments(family)
    assert jnp.all(jnp.abs(jnp.mean(x, axis=0) - own_mean) < 5 * std / n**0.5)
    assert jnp.allclose(std, own_std, rtol=5 / (2 * n) ** 0.5)
    # The standard error of a covariance is at most sqrt(2) sd sd / sqrt(n).
    size = jnp.outer(own_std, own_std)
    error = jnp.abs(jnp.cov(x.T) - own_covariance)
    assert jnp.all(error < 5 * size * (2 / n) ** 0.5)
    has_entropy = isinstance(family, vi.MeanField | vi.FullRank)
    assert hasattr(family, "entropy") == has_entropy
    if not has_entropy:
        return
    stderr = jnp.std(log_q) / n**0.5
    assert abs(jnp.mean(-log_q) - family.entropy) < 5 * stderr


def test_full_rank_density_is_that_of_scipy(getkey):
    family = families["FullRank"]()
    x = jr.normal(getkey(), (DIM,))
    expected = jax.scipy.stats.multivariate_normal.logpdf(
        x, family.mean, family.covariance
    )
    assert jnp.allclose(family.log_prob(x), expected, rtol=1e-12)


def test_full_rank_from_a_cholesky_factor():
    tril = jnp.array([[2.0, 0.0], [1.0, 3.0]])
    family = vi.FullRank(jnp.zeros(2), tril)
    assert jnp.allclose(family.tril, tril)
    with pytest.raises(ValueError, match="above its diagonal"):
        vi.FullRank(jnp.zeros(2), tril.T)
    assert jnp.allclose(family.std, jnp.array([2.0, 10**0.5]))


@pytest.mark.parametrize("family", [vi.MeanField, vi.FullRank])
def test_parameters_keep_the_dtype_of_the_location(family):
    leaves = jax.tree.leaves(family(jnp.zeros(2, jnp.float32), scale=0.3))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert not any(leaf.weak_type for leaf in leaves)


@pytest.mark.parametrize("name", ["MeanField", "FullRank"])
def test_the_mirror_image_of_a_draw_is_as_likely_and_moves_with_it(name, getkey):
    family, x = families[name](), jr.normal(getkey(), (DIM,))
    image = family.mirror(x)
    assert tree_allclose((x + image) / 2, family.mean)
    assert tree_allclose(family.log_prob(image), family.log_prob(x))
    # Both images follow the location, and the scale in opposite directions.
    key = getkey()
    path = lambda family: family.mirror(family.sample(key))
    moved = eqx.tree_at(lambda family: family.loc, family, family.loc + 1.0)
    assert tree_allclose(path(moved), path(family) + 1.0)
    assert tree_allclose(path(family), 2 * family.mean - family.sample(key))


with_coordinates = [name for name in families if name not in ("Particles", "Mixture")]


@pytest.mark.parametrize("name", with_coordinates)
def test_coordinates_there_and_back(name, getkey):
    family = families[name]()
    z = jr.normal(getkey(), (4, DIM))
    x, log_det = jax.jit(jax.vmap(family.outward))(z)
    np.testing.assert_allclose(jax.jit(jax.vmap(family.inward))(x), z, atol=1e-9)
    slopes = jax.jit(jax.vmap(jax.jacfwd(lambda z: family.outward(z)[0])))(z)
    np.testing.assert_allclose(np.linalg.slogdet(slopes)[1], log_det, atol=1e-9)


@pytest.mark.parametrize("name", with_coordinates)
def test_coordinates_in_which_the_family_is_nearly_a_standard_normal(name, getkey):
    family = families[name]()
    x = jax.jit(jax.vmap(family.sample))(jr.split(getkey(), 20_000))
    z = np.asarray(jax.jit(jax.vmap(family.inward))(x))
    # Heavy tails stay, and a base or globals that are no standard normal.
    assert np.all(np.abs(np.mean(z, axis=0)) < 0.4)
    assert np.all(np.abs(np.log(np.std(z, axis=0))) < 0.4)
    assert np.all(np.abs(np.corrcoef(z.T) - np.eye(DIM)) < 0.3)


@pytest.mark.parametrize("name", ["MeanField", "FullRank", "NestedGaussian"])
def test_a_density_in_coordinates_on_the_host(name, getkey):
    family, target = families[name](), diagonal_target()
    known = family.on_host()
    z = jr.normal(getkey(), (5, DIM))

    def inside(z):
        x, log_det = family.outward(z)
        return target.log_density(x) + log_det

    x = np.asarray(jax.jit(jax.vmap(lambda z: family.outward(z)[0]))(z))
    there, back = known.out_and_back(np.asarray(z))
    np.testing.assert_allclose(there, x, rtol=1e-9)
    np.testing.assert_allclose(known.inside(x), z, rtol=1e-7)
    log_p, score = jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))(x)
    seen = back(np.asarray(log_p), np.asarray(score))
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(inside)))(z)
    assert np.ptp(seen[0] - np.asarray(value)) < 1e-8
    np.testing.assert_allclose(seen[1], slope, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["Particles", "Mixture"])
def test_no_coordinates(name):
    for way in (families[name]().outward, families[name]().inward):
        with pytest.raises(ValueError, match=f"`{name}` has no coordinates"):
            way(jnp.zeros(DIM))


def test_a_family_without_a_center_has_no_mirror(getkey):
    with pytest.raises(ValueError, match="`Particles` has no center.*antithetic=False"):
        families["Particles"]().mirror(jnp.zeros(DIM))
    target = vi.from_log_density(
        lambda params: -jnp.sum(params["x"] ** 2), {"x": jnp.ones(DIM)}
    )
    with pytest.raises(ValueError, match="`Particles` has no center.*antithetic=False"):
        vi.ELBO(4, antithetic=True)(getkey(), families["Particles"](), target)


@pytest.mark.parametrize("name", families)
def test_has_density(name):
    assert families[name]().has_density
    assert not vi.Particles(jnp.zeros((2, 2))).has_density


def test_student_t_density_is_that_of_scipy(getkey):
    from scipy.stats import multivariate_t

    family, x = families["StudentT"](), jr.normal(getkey(), (DIM,))
    shape: Any = TRIL @ TRIL.T  # Typed as a number.
    expected = multivariate_t(np.arange(1.0, DIM + 1), shape, df=8).logpdf(x)
    assert jnp.allclose(family.log_prob(x), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="`df` must be positive"):
        vi.StudentT(jnp.zeros(1), df=-1.0)
    assert jnp.isinf(vi.StudentT(jnp.zeros(1), df=2).std[0])


def test_mixture_errors_and_weights():
    parts = [vi.FullRank(jnp.zeros(2)), vi.FullRank(jnp.ones(2))]
    assert jnp.allclose(vi.Mixture(parts).weights, 0.5)
    assert jnp.allclose(vi.Mixture(parts, [1.0, 3.0]).weights, jnp.array([0.25, 0.75]))
    with pytest.raises(ValueError, match="`components` must be families of one kind"):
        vi.Mixture([*parts, vi.MeanField(jnp.zeros(2))])
    with pytest.raises(ValueError, match="`weights` has shape"):
        vi.Mixture(parts, [1.0])
    with pytest.raises(ValueError, match="`weights` must be positive"):
        vi.Mixture(parts, [1.0, 0.0])


def test_affine_is_the_family_that_it_says(getkey):
    # A Gaussian seen through an affine map is the Gaussian of the product of factors.
    inner, loc = jnp.array([0.1, -0.2, 0.3]), jnp.arange(1.0, DIM + 1)
    expected = vi.FullRank(loc + 2 * TRIL @ inner, 2 * TRIL @ TRIL)
    family, x = families["Affine"](), jr.normal(getkey(), (DIM,))
    assert jnp.allclose(family.log_prob(x), expected.log_prob(x))
    assert jnp.allclose(family.covariance, expected.covariance)
    with pytest.raises(ValueError, match="has 3 coordinates but `loc` has 2"):
        vi.Affine(vi.MeanField(jnp.zeros(3)), jnp.zeros(2), jnp.ones(2))


def test_a_flow_starts_as_its_base(getkey):
    base = vi.MeanField(jnp.zeros(DIM), scale=1.0)
    flow, x = vi.Coupling(base, key=getkey()), jr.normal(getkey(), (DIM,))
    assert jnp.allclose(flow.log_prob(x), base.log_prob(x))


def test_any_two_coordinates_are_apart_in_some_layer_of_a_flow(getkey):
    # Where they never are, one cannot say how wide the other is: a funnel needs that.
    flow = vi.Coupling(vi.MeanField(jnp.zeros(6), scale=1.0), key=getkey())
    kept = flow.layers.kept
    apart = jnp.any(kept[:, :, None] != kept[:, None, :], axis=0)
    assert jnp.array_equal(apart, ~jnp.eye(6, dtype=bool))
    assert jnp.array_equal(kept[::2] + kept[1::2], jnp.ones((3, 6)))
    assert jnp.all(jnp.sum(kept, axis=1) == 3)
