# pyright: reportArgumentType=false
# Arguments of the wrong type are tried at the end.

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS
from numpyro.infer.hmc import hmc
from numpyro.infer.util import potential_energy

import vijax as vi
from vijax._misc import lenient_promotion

from ..helpers import correlated_target, tree_allclose


MEAN = np.array([3.0, -200.0, 0.0, 0.05])
STD = np.array([1.0, 300.0, 0.002, 0.05])
CORRELATION = 0.95 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
COVARIANCE = STD[:, None] * CORRELATION * STD


def gaussian():
    return correlated_target(jnp.array(MEAN), jnp.array(np.linalg.inv(COVARIANCE)))


def exact(dtype=None):
    tril = np.linalg.cholesky(COVARIANCE)
    return vi.FullRank(jnp.array(MEAN, dtype), jnp.array(tril, dtype))


def unfitted(key, family, target=None, method: Any = "auto"):
    """A fit of no steps: what it approximates with is given."""
    options = {"max_steps": 0, "progress": False}
    return vi.fit(target or gaussian(), method, family, key=key, **options)


def draws_of(x, log_p: Any = 0.0, target=None):
    """Draws whose points are given."""
    log_p = jnp.broadcast_to(jnp.asarray(log_p, x.dtype), x.shape[:1])
    return vi.Draws(x, None, log_p, target or gaussian())


def points(key, num_draws):
    """Draws of the posterior."""
    z = jr.normal(key, (num_draws, 4))
    return jnp.array(MEAN)[None] + z @ jnp.linalg.cholesky(COVARIANCE).T


def run_numpyro(key, kernel, init_params):
    """The draws, the matrix used, and how many leapfrog steps a draw took."""
    with lenient_promotion():
        options: Any = {"chain_method": "vectorized", "progress_bar": False}
        mcmc = MCMC(kernel, num_warmup=150, num_samples=500, num_chains=4, **options)
        mcmc.run(key, init_params=init_params, extra_fields=("num_steps",))
    state: Any = mcmc.last_state
    used = state.adapt_state.inverse_mass_matrix
    return mcmc.get_samples(), used, np.mean(mcmc.get_extra_fields()["num_steps"])


def check_moments(x, mean, covariance):
    """In units of the standard deviations: NUTS is about as good as independent draws."""
    x = np.asarray(x).reshape(-1, len(mean))
    std = np.sqrt(np.diagonal(covariance))
    assert np.max(np.abs(x.mean(axis=0) - mean) / std) < 0.1
    assert np.max(np.abs(np.cov(x.T) - covariance) / np.outer(std, std)) < 0.15


def test_the_family_knows_its_covariance(getkey):
    start = vi.to_nuts(unfitted(getkey(), exact()), key=getkey())
    assert start.dense
    assert np.allclose(start.inverse_mass_matrix, COVARIANCE, rtol=1e-12, atol=0)
    assert start.positions.shape == (4, 4)
    start = vi.to_nuts(unfitted(getkey(), exact()), dense=False, key=getkey())
    assert not start.dense
    assert np.allclose(start.inverse_mass_matrix, STD**2, rtol=1e-12, atol=0)


def test_no_correlations_no_matrix(getkey):
    fit = unfitted(getkey(), vi.MeanField(jnp.array(MEAN), jnp.array(STD)))
    start = vi.to_nuts(fit, key=getkey())
    assert np.allclose(start.inverse_mass_matrix, STD**2, rtol=1e-12, atol=0)
    start = vi.to_nuts(fit, dense=True, key=getkey())
    assert np.allclose(start.inverse_mass_matrix, np.diag(STD**2), rtol=1e-12, atol=0)


class Opaque(vi.AbstractFamily):
    """A family that knows none of its moments."""

    family: vi.AbstractFamily

    @property
    def dim(self):
        return self.family.dim

    def log_prob(self, x):
        return self.family.log_prob(x)

    def sample_and_log_prob(self, key):
        return self.family.sample_and_log_prob(key)


@pytest.mark.parametrize("of_a_fit", [True, False])
def test_the_covariance_of_draws(of_a_fit, getkey):
    # Of scales from 0.002 to 300: what is added must not drown the small ones.
    if of_a_fit:
        approximation, num_draws = unfitted(getkey(), Opaque(exact())), 1_000
    else:
        approximation, num_draws = draws_of(points(getkey(), 40_000)), 40_000
    matrix = vi.to_nuts(approximation, key=getkey()).inverse_mass_matrix
    whitener = np.linalg.inv(np.linalg.cholesky(COVARIANCE))
    whitened = whitener @ matrix @ whitener.T
    assert np.max(np.abs(whitened - np.eye(4))) < 5 * (2 / num_draws) ** 0.5


def test_variances_of_draws(getkey):
    x = points(getkey(), 500)
    matrix = vi.to_nuts(draws_of(x), dense=False).inverse_mass_matrix
    assert np.allclose(matrix, np.var(x, axis=0, ddof=1), rtol=1e-12, atol=0)


def test_when_the_matrix_is_dense():
    rng = np.random.default_rng(0)

    def is_dense(dim, num_draws, dense=None):
        target = vi.from_log_density(
            lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(dim)}
        )
        x = jnp.array(rng.normal(size=(num_draws, dim)))
        return vi.to_nuts(draws_of(x, target=target), dense=dense).dense

    assert is_dense(4, 20)
    assert not is_dense(4, 19)
    assert is_dense(200, 1_000)
    assert not is_dense(201, 1_005)
    assert is_dense(201, 1_005, dense=True)
    assert not is_dense(4, 1_000, dense=False)
    assert is_dense(1, 20)


def test_a_fit_draws_enough_for_the_matrix_asked_for(getkey):
    dim = 210
    target = correlated_target(jnp.zeros(dim), jnp.eye(dim))
    fit = unfitted(getkey(), Opaque(vi.MeanField(jnp.zeros(dim), 1.0)), target)
    assert not vi.to_nuts(fit, key=getkey()).dense
    matrix = vi.to_nuts(fit, dense=True, key=getkey()).inverse_mass_matrix
    # Noise, and no more of it than of ten draws a coordinate.
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[-1] / eigenvalues[0] < 4


def test_starting_points(getkey):
    draws = draws_of(points(getkey(), 50))
    first = vi.to_nuts(draws, num_chains=5)
    assert np.array_equal(first.positions, draws.x[:5])
    picks = [vi.to_nuts(draws, key=getkey()).positions for _ in range(2)]
    assert not np.array_equal(picks[0], picks[1])
    for x in picks:
        assert len(np.unique(x, axis=0)) == 4
        assert all(row in np.asarray(draws.x) for row in np.asarray(x))
    # Neither one twice, nor where the target is nought.
    log_p = draws.log_p.at[2].set(-jnp.inf)
    again = draws_of(draws.x.at[1].set(draws.x[0]), log_p)
    rest = jnp.array([0, 3, 4, 5])
    assert np.array_equal(vi.to_nuts(again).positions, draws.x[rest])


def test_starting_points_of_a_fit(getkey):
    fit, key = unfitted(getkey(), exact()), getkey()
    x = vi.to_nuts(fit, num_chains=200, key=key).positions
    assert np.array_equal(x, vi.to_nuts(fit, num_chains=200, key=key).positions)
    assert not np.array_equal(x, vi.to_nuts(fit, num_chains=200, key=getkey()).positions)
    z = (np.asarray(x) - MEAN) / STD
    assert np.max(np.abs(z.mean(axis=0))) < 5 / 200**0.5
    assert np.max(np.abs(z.std(axis=0) - 1)) < 5 / 400**0.5


def test_particles(getkey):
    x = points(getkey(), 60)
    particles = vi.Particles(x)
    start = vi.to_nuts(vi.draw(particles, gaussian(), 1_000, key=getkey()), key=getkey())
    assert start.dense
    scale = np.outer(particles.std, particles.std)
    error = (start.inverse_mass_matrix - particles.covariance) / scale
    assert np.max(np.abs(error)) < 0.2
    assert len(np.unique(start.positions, axis=0)) == 4
    # However often they are drawn, no more is known than what they are.
    few = unfitted(getkey(), vi.Particles(x[:19]), method=vi.SVGD())
    start = vi.to_nuts(few, key=getkey())
    assert not start.dense
    assert len(np.unique(start.positions, axis=0)) == 4
    with pytest.raises(ValueError, match="needs 20 distinct draws, but there are 19"):
        vi.to_nuts(few, dense=True, key=getkey())
    with pytest.raises(ValueError, match="4 chains need .* there are 3 among 150"):
        vi.to_nuts(draws_of(jnp.tile(x[:3], (50, 1))))


def test_a_cholesky_factor_in_single_precision(getkey):
    # Correlations of one to the precision of the numbers, on very unequal scales.
    noise = 1e-5 * jr.normal(getkey(), (500, 30), jnp.float32)
    scale = np.exp(np.linspace(-8, 8, 30, dtype=np.float32))
    x = (noise + jr.normal(getkey(), (500, 1), jnp.float32)) * scale[None]
    target = vi.from_log_density(lambda params: params["x"][0], {"x": vi.Param(30)})
    matrix = vi.to_nuts(draws_of(x, target=target)).inverse_mass_matrix
    covariance = np.cov(np.asarray(x, float).T)
    bare = jnp.linalg.cholesky(jnp.asarray(covariance, jnp.float32))
    assert not np.all(np.isfinite(bare))
    assert matrix.dtype == jnp.float32
    assert np.all(np.isfinite(jnp.linalg.cholesky(matrix)))
    std = np.sqrt(np.diagonal(covariance))
    assert np.max(np.abs(np.asarray(matrix) - covariance) / np.outer(std, std)) < 1e-4


@pytest.mark.slow
def test_numpyro_on_flat_vectors(getkey):
    target = gaussian()
    start = vi.to_nuts(unfitted(getkey(), exact()), key=getkey())
    kernel = NUTS(
        potential_fn=lambda x: -target.log_density(x),
        inverse_mass_matrix=start.inverse_mass_matrix,
        dense_mass=start.dense,
        adapt_mass_matrix=False,
    )
    x, used, num_steps = run_numpyro(getkey(), kernel, start.positions)
    assert np.array_equal(used, np.stack([start.inverse_mass_matrix] * 4))
    check_moments(x, MEAN, COVARIANCE)
    assert num_steps < 8  # As many as a standard normal takes.


# The same model twice, its names not in alphabetical order.
ZETA_STD = (100.0, 0.01)


def model():
    scale = numpyro.sample("scale", dist.LogNormal(1.0, 0.05))
    noise = dist.Normal(jnp.zeros(2), jnp.array(ZETA_STD)).to_event(1)
    zeta: Any = numpyro.sample("zeta", noise)
    numpyro.sample("mid", dist.Normal(0.02 * zeta[0] + 40 * jnp.log(scale), 0.3))


def log_density(params: Any):
    log_scale = jnp.log(params["scale"])
    total = dist.LogNormal(1.0, 0.05).log_prob(params["scale"])
    zeta = dist.Normal(jnp.zeros(2), jnp.array(ZETA_STD)).log_prob(params["zeta"])
    mid = dist.Normal(0.02 * params["zeta"][0] + 40 * log_scale, 0.3)
    return total + jnp.sum(zeta) + mid.log_prob(params["mid"])


def model_target():
    params = {
        "zeta": vi.Param(2),
        "scale": vi.Param(support=constraints.positive),
        "mid": vi.Param(),
    }
    return vi.from_log_density(log_density, params)


def model_posterior():
    """The mean and the covariance of zeta[0], zeta[1], log(scale) and mid."""
    tril = np.diag([100.0, 0.01, 0.05, 0.3])
    tril[3, 0], tril[3, 2] = 0.02 * 100.0, 40 * 0.05
    return np.array([0.0, 0.0, 1.0, 40.0]), tril @ tril.T


def start_of_model(key, **options):
    mean, covariance = model_posterior()
    family = vi.FullRank(jnp.array(mean), jnp.array(np.linalg.cholesky(covariance)))
    return vi.to_nuts(unfitted(key, family, model_target()), key=key, **options)


# As NumPyro has it: mid, scale, zeta[0], zeta[1].
BY_HAND = np.array(
    [
        [4.0 + 4.0 + 0.09, 0.1, 200.0, 0.0],
        [0.1, 0.0025, 0.0, 0.0],
        [200.0, 0.0, 10_000.0, 0.0],
        [0.0, 0.0, 0.0, 0.0001],
    ]
)
NAMES = ("mid", "scale", "zeta")


@pytest.mark.slow
def test_numpyro_on_a_model(getkey):
    start = start_of_model(getkey())
    matrix = start.inverse_mass_matrix_by_site[NAMES]
    assert np.allclose(matrix, BY_HAND, rtol=1e-12, atol=0)
    kernel = NUTS(
        model,
        inverse_mass_matrix=start.inverse_mass_matrix_by_site,
        dense_mass=start.dense,
        adapt_mass_matrix=False,
    )
    by_site = start.positions_by_site
    samples, used, num_steps = run_numpyro(getkey(), kernel, by_site)
    assert np.allclose(used[NAMES], np.stack([BY_HAND] * 4), rtol=1e-12, atol=0)
    parts = [*samples["zeta"].T, np.log(samples["scale"]), samples["mid"]]
    check_moments(np.stack(parts, axis=1), *model_posterior())
    assert num_steps < 8


@pytest.mark.slow
def test_variances_by_site(getkey):
    start = start_of_model(getkey(), dense=False)
    init, _ = hmc(lambda z: sum(jnp.sum(part**2) for part in z.values()), algo="NUTS")
    one = jax.tree.map(lambda x: x[0], start.positions_by_site)
    matrix = start.inverse_mass_matrix_by_site
    with lenient_promotion():
        state = init(one, 0, inverse_mass_matrix=matrix, dense_mass=[])
    used = state.adapt_state.inverse_mass_matrix
    assert np.allclose(used[NAMES], np.diagonal(BY_HAND), rtol=1e-12, atol=0)


def test_points_by_site_are_the_same_points(getkey):
    target = model_target()
    start = start_of_model(getkey(), num_chains=7)
    potential_of = lambda z: potential_energy(model, (), {}, z)
    with lenient_promotion():
        by_numpyro = jax.jit(jax.vmap(potential_of))(start.positions_by_site)
    by_us = -jax.jit(jax.vmap(target.log_density))(start.positions)
    assert np.ptp(by_us) > 1
    assert np.allclose(by_numpyro, by_us, rtol=1e-10)


@pytest.mark.slow
def test_blackjax(getkey):
    blackjax = pytest.importorskip("blackjax")
    target = gaussian()
    start = vi.to_nuts(unfitted(getkey(), exact()), key=getkey())
    blocks = (inspect.getdoc(vi.to_nuts) or "").split("```")
    (block,) = (block for block in blocks if "blackjax.window_adaptation" in block)
    names: dict[str, Any] = {"keys": [getkey()] * 3, "target": target, "start": start}
    names |= {"blackjax": blackjax, "jax": jax}

    def chain(key, state, parameters):
        kernel = blackjax.nuts(target.log_density, **parameters)

        def one(state, key):
            state, info = kernel.step(key, state)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(one, state, jr.split(key, 400))[1]

    with lenient_promotion():
        exec(inspect.cleandoc(block), names)
        parameters = names["parameters"]
        keys = jr.split(getkey(), 4)
        run = jax.jit(jax.vmap(chain))
        x, num_steps = run(keys, names["states"], parameters)
        # With the identity a step is as short as the narrowest scale, and the way as long
        # as the widest.
        untold = {
            "inverse_mass_matrix": jnp.stack([jnp.eye(4)] * 4),
            "step_size": jnp.full(4, 0.0005),
        }
        _, num_untold = run(keys, names["states"], untold)
    used = parameters["inverse_mass_matrix"]
    assert np.allclose(used, np.stack([COVARIANCE] * 4), rtol=1e-6, atol=0)
    check_moments(x, MEAN, COVARIANCE)
    assert np.mean(num_steps) < 8
    assert np.mean(num_untold) > 500


def some_draws(key, num_draws=100):
    return draws_of(points(key, num_draws))


def not_finite(key):
    return draws_of(points(key, 100).at[3:5, 1].set(jnp.nan))


def several(key):
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), unfitted(key, exact()))


def collapsed(key):
    return draws_of(points(key, 100).at[:, 2].set(1.0), target=model_target())


# {name: (what the user does, the words that tell what is wrong)}.
def funnel():
    """Neal's funnel in ten dimensions: where `v` is low, everything else is narrow."""

    def log_density(params):
        v, x = params["v"], params["x"]
        return -0.5 * (v / 3) ** 2 - 0.5 * jnp.sum(x**2) * jnp.exp(-v) - 4.5 * v

    return vi.from_log_density(log_density, {"v": vi.Param(), "x": vi.Param((9,))})


@pytest.mark.slow
def test_there_is_no_funnel_in_the_coordinates_of_its_fit(getkey):
    fit = vi.fit(funnel(), "nested", key=getkey(), progress=False)
    start = vi.to_nuts(fit, neutra=True, key=getkey())
    assert isinstance(start.family, vi.NestedGaussian)
    assert start.inverse_mass_matrix_by_site == {}
    # Of v, what whitens it is a first guess.
    scales = np.sqrt(np.diagonal(start.inverse_mass_matrix))
    correlations = start.inverse_mass_matrix / np.outer(scales, scales)
    assert np.all(np.abs(scales[1:] - 1) < 0.2)
    assert np.all(np.abs(correlations - np.eye(10)) < 0.2)
    x = jax.vmap(start.unconstrained)(start.positions)
    assert np.allclose(x[:, 0], start.positions_by_site["v"], atol=1e-9)
    assert np.allclose(x[:, 1:], start.positions_by_site["x"], atol=1e-9)
    kernel = NUTS(
        potential_fn=lambda z: -start.log_density(z),
        inverse_mass_matrix=start.inverse_mass_matrix,
        dense_mass=start.dense,
        adapt_mass_matrix=False,
    )
    with lenient_promotion():
        mcmc = MCMC(
            kernel,
            num_warmup=150,
            num_samples=1_000,
            num_chains=4,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(getkey(), init_params=start.positions, extra_fields=("diverging",))
    assert not np.any(mcmc.get_extra_fields()["diverging"])
    draws = jax.vmap(start.constrain)(mcmc.get_samples())
    v, x = np.asarray(draws["v"]), np.asarray(draws["x"])
    # 4,000 draws that are hardly correlated; without `neutra` the mean of v is some
    # standard errors of three effective draws off.
    assert abs(np.mean(v)) < 0.25
    assert abs(np.std(v) - 3) < 0.2
    unit = x / np.exp(v / 2)[:, None]
    assert np.all(np.abs(np.std(unit, axis=0) - 1) < 0.1)


@pytest.mark.parametrize("name", ["FullRank", "Coupling"])
def test_in_any_coordinates_it_is_the_target(name, getkey):
    target, family = gaussian(), exact()
    if name == "Coupling":
        inner = vi.Coupling(vi.MeanField(jnp.zeros(4), scale=1.0), key=getkey())
        family = vi.Affine(inner, family.loc, family.tril)
    start = vi.to_nuts(unfitted(getkey(), family), neutra=True, key=getkey())
    assert np.max(np.abs(start.inverse_mass_matrix - np.eye(4))) < 0.2
    # A standard normal again, up to one constant.
    z = start.positions
    values = jax.jit(jax.vmap(start.log_density))(z)
    constants = np.asarray(values) + 0.5 * np.sum(np.asarray(z) ** 2, axis=1)
    assert np.ptp(constants) < 1e-6
    params = jax.jit(jax.vmap(start.constrain))(z)
    x = jax.vmap(start.unconstrained)(z)
    assert tree_allclose(params, jax.vmap(target.constrain)(x))


bad_input = {
    "coordinates of draws": (
        lambda key: vi.to_nuts(some_draws(key), neutra=True),
        "`vi.Draws` have none. Pass the `vi.Fit`",
    ),
    "coordinates of a mixture": (
        lambda key: vi.to_nuts(
            unfitted(key, vi.Mixture([exact(), exact()])), neutra=True, key=key
        ),
        "`Mixture` has no coordinates",
    ),
    "neutra of another type": (
        lambda key: vi.to_nuts(some_draws(key), neutra="yes"),
        "`neutra` must be True or False, but it is 'yes'",
    ),
    "a family": (
        lambda key: vi.to_nuts(exact(), key=key),
        r"must be a `vi\.Fit` or a `vi\.Draws`, but it is a FullRank.*vi\.draw\(family",
    ),
    "an array": (
        lambda key: vi.to_nuts(np.zeros((50, 4)), key=key),
        r"must be a `vi\.Fit` or a `vi\.Draws`, but it is a ndarray",
    ),
    "several fits": (
        lambda key: vi.to_nuts(several(key), key=key),
        "3 fits in one.*jax.tree.map",
    ),
    "traced": (
        lambda key: jax.jit(lambda x: vi.to_nuts(draws_of(x)).positions)(points(key, 50)),
        "on the host.*jax.jit",
    ),
    "a fit without a key": (
        lambda key: vi.to_nuts(unfitted(key, exact())),
        r"`key` must be a JAX random key.*None",
    ),
    "a number as key": (
        lambda key: vi.to_nuts(some_draws(key), key=0),
        r"`key` must be a JAX random key.*0",
    ),
    "no chains": (
        lambda key: vi.to_nuts(some_draws(key), num_chains=0),
        "`num_chains` must be a whole number of at least 1.*0",
    ),
    "half a chain": (
        lambda key: vi.to_nuts(some_draws(key), num_chains=1.5),
        "`num_chains` must be a whole number of at least 1.*1.5",
    ),
    "dense of another type": (
        lambda key: vi.to_nuts(some_draws(key), dense="yes"),
        "`dense` must be True, False or None, but it is 'yes'",
    ),
    "fewer draws than chains": (
        lambda key: vi.to_nuts(some_draws(key, 20), num_chains=21),
        "21 chains need .* but there are 20 among 20.*`num_chains`",
    ),
    "too few draws": (
        lambda key: vi.to_nuts(some_draws(key, 9)),
        "9 draws, which is too few for variances. Draw 10 at least",
    ),
    "too few draws for a matrix": (
        lambda key: vi.to_nuts(some_draws(key, 19), dense=True),
        "for 4 coordinates needs 20 distinct draws, but there are 19.*dense=False",
    ),
    "draws that are not finite": (
        lambda key: vi.to_nuts(not_finite(key)),
        "2 of 100 draws are NaN or infinite.*fit.result",
    ),
    "log densities that are not finite": (
        lambda key: vi.to_nuts(
            draws_of(points(key, 100), jnp.full(100, -jnp.inf).at[:3].set(0.0))
        ),
        "4 chains need .* finite, but there are 3 among 100 draws",
    ),
    "no spread": (
        lambda key: vi.to_nuts(collapsed(key)),
        "no positive, finite variance in `scale`. It has collapsed",
    ),
}


@pytest.mark.usefixtures("as_for_users")
@pytest.mark.parametrize("name", bad_input)
def test_fails_in_words(name, getkey):
    act, match = bad_input[name]
    with pytest.raises(ValueError, match=f"(?s){match}"):
        act(getkey())
