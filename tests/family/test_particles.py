import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import scipy.stats
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS

import vijax as vi

from ..helpers import diagonal_target, DIM


# Three scales, far from the origin.
X = np.random.default_rng(0).normal(size=(17, DIM)) * [1.0, 3.0, 0.2] + [5.0, 0.0, -2.0]


def test_moments_are_those_of_the_distribution():
    # Divided by the number of particles: any of them is as likely as any other.
    particles = vi.Particles(X)
    assert (particles.dim, particles.num_particles) == (DIM, 17)
    assert np.allclose(particles.mean, np.mean(X, axis=0), rtol=1e-12)
    assert np.allclose(particles.std, np.std(X, axis=0), rtol=1e-12)
    assert np.allclose(particles.covariance, np.cov(X.T, ddof=0), rtol=1e-10)
    # A Gaussian around each adds its own variance.
    smooth = vi.Particles(X, bandwidth=np.array([0.5, 2.0, 1.0]))
    expected = np.cov(X.T, ddof=0) + np.diag([0.25, 4.0, 1.0])
    assert np.allclose(smooth.covariance, expected, rtol=1e-10)
    assert np.allclose(smooth.std, np.sqrt(np.diagonal(expected)), rtol=1e-10)
    assert np.allclose(smooth.mean, particles.mean)
    one = vi.Particles(X[:1])
    assert np.all(one.std == 0)


def test_particles_keep_their_dtype():
    particles = vi.Particles(X.astype("f4"), bandwidth=0.5)
    leaves = jax.tree.leaves(particles)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    moments = particles.mean, particles.std, particles.covariance
    assert {moment.dtype for moment in moments} == {jnp.dtype("float32")}
    at = jnp.zeros(DIM, jnp.float32)
    assert jax.eval_shape(particles.log_prob, at).dtype == jnp.float32
    assert jax.eval_shape(particles.sample, jr.key(0)).dtype == jnp.float32


def test_each_particle_is_as_likely(getkey):
    particles = vi.Particles(X)
    draws = np.asarray(jax.jit(jax.vmap(particles.sample))(jr.split(getkey(), 20_000)))
    counts = np.array([np.sum(np.all(draws == x, axis=1)) for x in X])
    assert np.sum(counts) == 20_000
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    # Independent of the one before: pairs of successive draws too.
    number = np.argmax(np.all(draws[:, None] == X[None], axis=2), axis=1)
    pairs = np.bincount(17 * number[:-1:2] + number[1::2], minlength=17**2)
    assert scipy.stats.chisquare(pairs).pvalue > 1e-4


def test_smooth_draws_are_those_of_the_mixture(getkey):
    particles = vi.Particles(jnp.array([[0.0], [10.0]]), bandwidth=0.5)
    draws = np.asarray(jax.jit(jax.vmap(particles.sample))(jr.split(getkey(), 20_000)))[
        :, 0
    ]
    mixture = lambda x: np.mean(scipy.stats.norm.cdf(x[:, None], [0, 10], 0.5), axis=1)
    assert scipy.stats.kstest(draws, mixture).pvalue > 1e-4


def test_density_is_that_of_scipy(getkey):
    at = 5.0 + 2.0 * jr.normal(getkey(), (20, 1))
    kde = scipy.stats.gaussian_kde(X[:, 0], bw_method=0.4)
    smooth = vi.Particles(X[:, :1], bandwidth=0.4 * np.std(X[:, 0], ddof=1))
    log_probs = jax.jit(jax.vmap(smooth.log_prob))(at)
    assert np.allclose(log_probs, kde.logpdf(np.asarray(at)[:, 0]), rtol=1e-8)


def test_density_is_that_of_a_mixture(getkey):
    bandwidth = np.array([0.5, 2.0, 1.0])
    smooth = vi.Particles(X, bandwidth=bandwidth)
    at = X[:5] + np.asarray(jr.normal(getkey(), (5, DIM)))
    parts = scipy.stats.norm.logpdf(at[:, None], X[None], bandwidth).sum(axis=2)
    expected = scipy.special.logsumexp(parts, axis=1) - np.log(17)
    assert np.allclose(
        jax.jit(jax.vmap(smooth.log_prob))(jnp.asarray(at)), expected, rtol=1e-10
    )
    # Far away, where every single density is zero in floating point.
    assert np.isfinite(vi.Particles(X, 0.01).log_prob(jnp.full(DIM, 1e4)))


def test_no_density_without_a_bandwidth(getkey):
    particles, target = vi.Particles(X), diagonal_target()
    match = r"(?s)no density.*vi\.SVGD\(\).*bandwidth="
    with pytest.raises(ValueError, match=match):
        particles.log_prob(jnp.zeros(DIM))
    with pytest.raises(ValueError, match=match):
        particles.sample_and_log_prob(getkey())
    draws = vi.draw(particles, target, 30, key=getkey())
    assert draws.log_q is None
    assert np.allclose(draws.log_p, jax.jit(jax.vmap(target.log_density))(draws.x))
    match = r"(?s)no log density.*particles.*vi\.Particles\(.*bandwidth=.*vi\.draw"
    for use in (vi.elbo, vi.pareto_khat, lambda draws: draws.log_weights):
        with pytest.raises(ValueError, match=match):
            use(draws)
    # And what these messages advise does work.
    smooth = vi.Particles(particles.x, bandwidth=0.1)
    draws = vi.draw(smooth, target, 30, key=getkey())
    assert np.all(np.isfinite(draws.log_weights))
    assert np.isfinite(vi.elbo(draws).mean)


def test_draws_without_a_density_go_to_arviz(getkey):
    fit = vi.fit(
        diagonal_target(),
        vi.SVGD(num_particles=9),
        key=getkey(),
        max_steps=3,
        progress=False,
    )
    draws = fit.draw(20, key=getkey())
    tree = vi.to_arviz(draws)
    assert tree.posterior["x"].shape == (1, 20, DIM)
    assert list(tree.sample_stats.data_vars) == ["log_p"]
    assert np.array_equal(tree.sample_stats["log_p"][0], draws.log_p)
    assert tree.attrs["method"] == "SVGD"
    assert tree.attrs["family"] == "Particles"
    assert "elbo" not in tree.attrs
    # The same draws with `log_q` have it.
    smooth = vi.draw(vi.Particles(X, bandwidth=0.5), fit.target, 20, key=getkey())
    assert "elbo" in vi.to_arviz(smooth).attrs


def test_moments_by_name_and_functions_of_draws(getkey):
    target = vi.from_log_density(
        lambda params: -jnp.sum(params["a"] ** 2) - params["b"],
        {"a": vi.Param(2), "b": vi.Param((), constraints.positive)},
    )
    particles = vi.Particles(X)
    fit = vi.fit(target, vi.SVGD(), particles, key=getkey(), max_steps=0, progress=False)
    assert np.allclose(fit.mean["a"], np.mean(X[:, :2], axis=0))
    assert np.allclose(fit.std["b"], np.std(X[:, 2]))
    draws = fit.draw(40, key=getkey())
    got = draws.evaluate(lambda params, power: params["b"] ** power, 2)
    assert np.allclose(got, np.exp(2 * draws.x[:, 2]))
    assert np.all(np.isin(np.asarray(draws.x), X))


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_a_mixture_of_gaussians_can_be_fitted(scale, getkey):
    # With a bandwidth particles are a family like others, and every array of theirs is
    # trained: none must leave its range on the way.
    target = diagonal_target((0.5, 1.0), (scale, scale))
    start = vi.Particles(jr.normal(getkey(), (3, 2)), bandwidth=0.5)
    method = vi.Descent(vi.ELBO(8), optax.adam(optax.exponential_decay(0.05, 900, 0.3)))
    fit = vi.fit(target, method, start, key=getkey(), max_steps=3_000, progress=False)
    assert np.all(np.abs(fit.mean["x"] - np.array([0.5, 1.0])) < 0.3 * scale)
    assert np.all(np.abs(np.log(fit.std["x"] / scale)) < 0.3)


def constrained_target():
    return vi.from_log_density(
        lambda params: -params["rate"] - jnp.sum(params["cut"] ** 2),
        {
            "rate": vi.Param((), constraints.positive),
            "weights": vi.Param((2, 3), constraints.simplex),
            "cut": vi.Param(3, constraints.ordered_vector),
        },
    )


def constrained_samples(num_draws, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "rate": rng.gamma(3.0, size=num_draws),
        "weights": rng.dirichlet(np.ones(3), size=(num_draws, 2)),
        "cut": np.cumsum(0.1 + rng.gamma(1.0, size=(num_draws, 3)), axis=1),
    }


def back(particles, target):
    return jax.jit(jax.vmap(target.constrain))(particles.x)


def agree(particles, target, samples):
    got = back(particles, target)
    for name, values in samples.items():
        assert np.allclose(got[name], values, rtol=1e-7, atol=1e-9), name


def test_samples_become_particles_and_back():
    target, samples = constrained_target(), constrained_samples(11)
    particles = vi.to_particles(samples, target)
    assert isinstance(particles, vi.Particles)
    assert particles.x.shape == (11, target.dim) == (11, 1 + 2 * 2 + 3)
    assert not particles.has_density
    agree(particles, target, samples)
    assert np.allclose(particles.x[:, 0], np.log(samples["rate"]))


def test_chains_become_one_set_of_particles():
    target, samples = constrained_target(), constrained_samples(12)
    chains = {name: a.reshape(3, 4, *a.shape[1:]) for name, a in samples.items()}
    agree(vi.to_particles(chains, target), target, samples)


def test_other_names_and_containers_are_no_trouble():
    target, samples = constrained_target(), constrained_samples(6)
    more = {"log_lik": np.zeros((6, 100)), "name": np.array(["a"] * 6)} | samples
    more["rate"] = jnp.asarray(more["rate"], jnp.float32)
    more["cut"] = more["cut"].tolist()
    particles = vi.to_particles(more, target)
    assert particles.x.dtype == jnp.float64
    agree(particles, target, samples | {"rate": np.asarray(more["rate"], np.float64)})
    integers = {"x": np.arange(8).reshape(4, 2)}
    plane = vi.from_log_density(
        lambda params: -jnp.sum(params["x"] ** 2), {"x": jnp.ones(2)}
    )
    assert np.array_equal(vi.to_particles(integers, plane).x, integers["x"])


def test_data_and_precision_of_the_target():
    target = vi.from_likelihood(
        lambda params: -params["s"],
        lambda params, y: -0.5 * (y / params["s"]) ** 2,
        {"s": vi.Param((), constraints.positive)},
        np.ones(10),
        batch_size=5,
    )
    samples = {"s": np.array([0.5, 2.0])}
    agree(vi.to_particles(samples, target), target, samples)
    single = vi.from_log_density(
        lambda params: -(params["x"] ** 2), {"x": np.ones((), "f4")}
    )
    assert vi.to_particles({"x": np.ones(3)}, single).x.dtype == jnp.float32


def test_from_our_own_arviz_data(getkey):
    target = constrained_target()
    family = vi.MeanField(jnp.zeros(target.dim), scale=0.5)
    draws = vi.draw(family, target, 25, key=getkey())
    for data in (vi.to_arviz(draws), vi.to_arviz(draws).posterior):
        particles = vi.to_particles(data, target)
        assert np.allclose(particles.x, draws.x, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.slow
def test_from_a_run_of_numpyro(getkey):
    def model():
        numpyro.sample("rate", dist.Gamma(4.0, 1.0))
        numpyro.sample("loc", dist.Normal(0.0, 2.0).expand([2]).to_event(1))

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        mcmc = MCMC(
            NUTS(model, max_tree_depth=5),
            num_warmup=150,
            num_samples=200,
            num_chains=2,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(getkey())
    target = vi.from_log_density(
        lambda params: (
            3 * jnp.log(params["rate"]) - params["rate"] - jnp.sum(params["loc"] ** 2) / 8
        ),
        {"loc": vi.Param(2), "rate": vi.Param((), constraints.positive)},
    )
    samples = mcmc.get_samples()
    particles = vi.to_particles(samples, target)
    assert particles.num_particles == 400
    agree(particles, target, samples)
    grouped = vi.to_particles(mcmc.get_samples(group_by_chain=True), target)
    assert np.array_equal(grouped.x, particles.x)
    draws = vi.draw(particles, target, 2_000, key=getkey())
    assert abs(np.mean(draws.params["rate"]) - 4) < 0.8
    # As a start for the force, which has little left to do.
    fit = vi.fit(
        target, vi.SVGD(), particles, key=getkey(), max_steps=200, progress=False
    )
    assert fit.family.x.shape == (400, 3)
    assert abs(fit.mean["rate"] - 1.2561) < 0.1
    assert fit.losses[0] < 1.0


# {name: (what is done to good samples, what the message must hold)}.
bad_samples = {
    "missing": (
        lambda s: {k: v for k, v in s.items() if k != "cut"},
        "(?s)`samples` has no `cut`. Its names are rate, weights; the target's are",
    ),
    "none": (lambda s: {}, "(?s)`samples` has no (`(rate|weights|cut)`(, )?){3}"),
    "shape": (
        lambda s: s | {"cut": s["cut"][:, :2]},
        r"(?s)`cut` have shape \(9, 2\).*\(draws, ...\).*\(3,\)",
    ),
    "a single draw without its axis": (
        lambda s: {k: v[0] for k, v in s.items()},
        r"(?s)have shape (\(\)|\(3,\)|\(2, 3\)),.*\(draws, ...\)",
    ),
    "draws last": (
        lambda s: s | {"cut": s["cut"].T},
        r"(?s)`cut` have shape \(3, 9\)",
    ),
    "too many axes": (
        lambda s: {k: v.reshape(1, 3, 3, *v.shape[1:]) for k, v in s.items()},
        r"(?s)have shape \(1, 3, 3.*\(chains, draws, ...\)",
    ),
    "fewer draws of one": (
        lambda s: s | {"rate": s["rate"][:5]},
        "(?s)number of draws.*'rate': 5",
    ),
    "other chains of one": (
        lambda s: (
            {k: v.reshape(9, 1, *v.shape[1:]) for k, v in s.items()}
            | {"rate": s["rate"].reshape(1, 9)}
        ),
        "(?s)chains|number of draws",
    ),
    "no draws": (
        lambda s: {k: v[:0] for k, v in s.items()},
        "(?s)draw",
    ),
    "negative": (
        lambda s: s | {"rate": np.where(np.arange(9) < 2, -1.0, s["rate"])},
        "(?s)2 of 9 samples of `rate`.*support",
    ),
    "on the edge": (
        lambda s: s | {"rate": np.where(np.arange(9) < 1, 0.0, s["rate"])},
        "(?s)1 of 9 samples of `rate`.*support",
    ),
    "not finite": (
        lambda s: s | {"rate": np.where(np.arange(9) < 3, np.nan, s["rate"])},
        "(?s)3 of 9 samples of `rate` are not finite",
    ),
    "not in order": (
        lambda s: s | {"cut": s["cut"][:, ::-1]},
        "(?s)9 of 9 samples of `cut`.*support",
    ),
    "not of sum one": (
        lambda s: s | {"weights": 1.5 * s["weights"]},
        "(?s)9 of 9 samples of `weights`.*support",
    ),
    "words": (
        lambda s: s | {"rate": np.array(["a"] * 9)},
        "(?s)`rate`",
    ),
}


@pytest.mark.parametrize("name", bad_samples)
def test_bad_samples(name):
    spoil, match = bad_samples[name]
    samples = spoil(constrained_samples(9))
    with pytest.raises(ValueError, match=match):
        vi.to_particles(samples, constrained_target())


def test_a_list_is_no_set_of_samples():
    with pytest.raises(ValueError, match="(?s)`samples` must be a dictionary.*list"):
        vi.to_particles([1.0, 2.0], constrained_target())


def test_particles_and_target_of_other_dimensions(getkey):
    with pytest.raises(ValueError, match="`family` has 3 coordinates.*has 2"):
        vi.draw(vi.Particles(X), diagonal_target((0.0, 0.0), (1.0, 1.0)), 5, key=getkey())
