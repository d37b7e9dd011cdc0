import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpyro.distributions import constraints

import vijax as vi
import vijax._misc
from vijax._kernel.stein import stein_force

from ..helpers import correlated_target, diagonal_target, DIM, kernels, LOC, same, SCALE


CORRELATED = np.array([[1.0, 1.2], [1.2, 4.0]])
CENTER = np.array([1.0, -2.0])


def gaussian(loc: Any = CENTER, covariance: Any = CORRELATED):
    return correlated_target(jnp.array(loc), jnp.linalg.inv(jnp.array(covariance)))


def run(target, key, method=None, **kwargs):
    method = vi.SVGD(num_particles=50) if method is None else method
    return vi.fit(target, method, key=key, progress=False, **kwargs)


def naive_force(kernel, x, score, temperature):
    """The Stein force by its definition, in two loops."""
    x, kernel = np.asarray(x), kernel.fitted(x)
    value_and_grad = jax.jit(jax.value_and_grad(kernel))
    force = np.zeros_like(x)
    for i in range(len(x)):
        for j in range(len(x)):
            value, grad = value_and_grad(x[j], x[i])
            force[i] += float(value) * score(x[j]) / temperature + np.asarray(grad)
    return force / len(x)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("make", kernels.values(), ids=kernels.keys())
def test_the_force_is_that_of_two_loops(make, temperature, getkey):
    x = 0.5 + jr.normal(getkey(), (7, DIM))
    target = diagonal_target()
    score = lambda x: (np.array(LOC) - x) / np.array(SCALE) ** 2
    force = eqx.filter_jit(stein_force)(make(), x, target, temperature)
    expected = naive_force(make(), x, score, temperature)
    assert np.allclose(force, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["RBF", "LinearKernel", "MixtureKernel"])
def test_the_force_in_blocks_is_the_force(name, getkey, monkeypatch):
    x, target = jr.normal(getkey(), (23, DIM)), diagonal_target()
    force = lambda x: stein_force(kernels[name](), x, target, 1.0)
    whole = jax.jit(force)(x)
    monkeypatch.setattr(vijax._misc, "_VECTORIZED_SIZE", 100)  # Two rows of 2 x 23.
    pieces = jax.jit(lambda x: force(x))(x)
    assert np.allclose(whole, pieces, rtol=1e-10, atol=1e-12)


# A method that is not SVGD's own, so that only `__call__` is there, and many dimensions.
@pytest.mark.parametrize(
    ("kernel", "dim"),
    [(vi.RBF(), 2), (vi.RBF(), 50), (lambda x, y: jnp.exp(-jnp.sum((x - y) ** 2)), 20)],
    ids=["RBF", "RBF, 50 dimensions", "function"],
)
def test_ten_thousand_particles_need_no_matrix_of_all_pairs(kernel, dim):
    n = 10_000
    target, method = diagonal_target((0.0,) * dim, (1.0,) * dim), vi.SVGD(kernel)
    force = lambda x: stein_force(method.kernel, x, target, 1.0)
    x = jax.ShapeDtypeStruct((n, dim), jnp.float64)
    memory = jax.jit(force).lower(x).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < n**2 * 8 / 2.5


def test_a_step_goes_along_the_force_and_tells_its_size(getkey):
    target, x = diagonal_target(), jr.normal(getkey(), (9, DIM))
    method = vi.SVGD(vi.RBF(0.8), optax.sgd(0.1), temperature=3.0)
    family = vi.Particles(x)
    state = method.init(getkey(), family, target)
    moved, _, loss = eqx.filter_jit(method.step)(getkey(), family, target, state)
    score = lambda x: (np.array(LOC) - x) / np.array(SCALE) ** 2
    force = naive_force(vi.RBF(0.8), x, score, 3.0)
    assert np.allclose(moved.x, x + 0.1 * force, rtol=1e-10)
    assert np.isclose(loss, np.mean(np.sum(force**2, axis=1)))


# The wrong sign would drive the particles away, and without repulsion their standard
# deviation would vanish. What they lack is as known for this kernel: a few percent.
@pytest.mark.parametrize(
    ("dim", "least"),
    [
        pytest.param(1, 0.97, marks=pytest.mark.slow),
        pytest.param(2, 0.96, marks=pytest.mark.slow),
        (3, 0.94),
    ],
)
def test_it_finds_mean_and_standard_deviation(dim, least, getkey):
    loc, scale = (2.0, -1.0, 0.5)[:dim], (1.5, 0.3, 4.0)[:dim]
    method = vi.SVGD(num_particles=200)
    fit = run(diagonal_target(loc, scale), getkey(), method, max_steps=1_500)
    z = np.abs(fit.mean["x"] - np.array(loc)) / np.array(scale)
    assert np.all(z < 0.03)
    ratio = fit.std["x"] / np.array(scale)
    assert np.all((ratio > least) & (ratio < 1.01))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_linear_kernel_is_exact_on_a_gaussian(temperature, getkey):
    method = vi.SVGD(vi.LinearKernel(), num_particles=20, temperature=temperature)
    fit = run(gaussian(), getkey(), method, max_steps=4_000)
    assert np.allclose(fit.mean["x"], CENTER, atol=2e-3)
    assert np.allclose(fit.family.covariance, temperature * CORRELATED, atol=2e-3)


def test_the_temperature_widens(getkey):
    method = vi.SVGD(num_particles=100, temperature=4.0)
    fit = run(diagonal_target((2.0,), (0.5,)), getkey(), method, max_steps=1_500)
    assert 0.95 < fit.std["x"].item() / (2 * 0.5) < 1.02
    assert abs(fit.mean["x"].item() - 2.0) < 0.05


@pytest.mark.slow
def test_moments_of_a_gamma_are_those_of_constrained_draws(getkey):
    target = vi.from_log_density(
        lambda params: 3 * jnp.log(params["rate"]) - params["rate"],
        {"rate": vi.Param((), constraints.positive)},
    )
    fit = run(target, getkey(), vi.SVGD(num_particles=200), max_steps=1_500)
    rate = np.asarray(fit.draw(20_000, key=getkey()).params["rate"])
    assert np.min(rate) > 0
    assert abs(np.mean(rate) / 4 - 1) < 0.03
    assert abs(np.std(rate) / 2 - 1) < 0.06
    # On the unconstrained scale the mean is digamma(4), and the variance trigamma(4).
    assert abs(fit.mean["rate"] - 1.2561) < 0.03
    assert abs(fit.std["rate"] / 0.5327 - 1) < 0.04


@pytest.mark.slow
def test_batches_of_rows_agree_with_all_of_them(getkey):
    y = 2.0 + 3.0 * jr.normal(getkey(), (200,))
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, y: -0.5 * ((y - params["mu"]) / 3.0) ** 2,
        {"mu": vi.Param()},
        y,
    )
    precision = 1 + 200 / 9
    mean, std = float(jnp.sum(y)) / 9 / precision, precision**-0.5
    key = getkey()
    schedule = optax.exponential_decay(0.02, 300, 0.5)
    method = vi.SVGD(optimizer=optax.adam(schedule), num_particles=100)
    for batch_size, tolerance in [(None, 0.05), (20, 0.2)]:
        seen = target.with_batch_size(batch_size)
        fit = run(seen, key, method, max_steps=2_000)
        assert abs(fit.mean["mu"] - mean) < tolerance * std
        assert abs(fit.std["mu"] / std - 1) < 0.1


def test_same_key_same_particles(getkey, tmp_path):
    key, target = getkey(), gaussian()
    fit = run(target, key, max_steps=100)
    assert fit.family.x.shape == (50, 2)
    assert same(fit, run(target, key, max_steps=100))
    other = run(target, getkey(), max_steps=100)
    assert not np.any(np.isclose(fit.family.x, other.family.x, atol=1e-12))
    # In parts, and through a file.
    part = run(target, key, max_steps=37)
    assert same(fit, part.resume(63, progress=False))
    vi.save(tmp_path / "fit", part)
    loaded = vi.load(tmp_path / "fit", like=run(target, getkey(), max_steps=0))
    assert same(fit, loaded.resume(63, progress=False))
    fewer = run(target, key, vi.SVGD(num_particles=40), max_steps=0)
    with pytest.raises(ValueError, match=r"does not match `like`.*(50, ?2).*(40, ?2)"):
        vi.load(tmp_path / "fit", like=fewer)


def test_particles_that_are_given_are_where_it_starts(getkey):
    given = vi.Particles(jnp.array([[5.0, 6.0], [7.0, 8.0], [9.0, 9.5]]), bandwidth=0.3)
    settings = {"method": vi.SVGD(), "family": given}
    fit = run(gaussian(), getkey(), **settings, max_steps=0)
    assert eqx.tree_equal(fit.family, given)
    fit = run(gaussian(), getkey(), **settings, max_steps=1_000)
    assert fit.family.x.shape == (3, 2)
    assert np.allclose(fit.mean["x"], CENTER, atol=0.3)
    assert np.all(fit.family.bandwidth == 0.3)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(1.0, momentum=0.5),
        pytest.param(optax.adagrad(0.5), marks=pytest.mark.slow),
        pytest.param(optax.adamax(0.05), marks=pytest.mark.slow),
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adam(optax.cosine_decay_schedule(0.1, 2_000)),
        ),
    ],
    ids=["sgd", "adagrad", "adamax", "clip, schedule"],
)
def test_any_optax_optimizer(optimizer, getkey):
    method = vi.SVGD(optimizer=optimizer, num_particles=50)
    fit = run(gaussian(), getkey(), method, max_steps=2_000)
    sd = np.sqrt(np.diagonal(CORRELATED))
    assert np.all(np.abs(fit.mean["x"] - CENTER) < 0.1 * sd)
    assert np.all((fit.std["x"] / sd > 0.87) & (fit.std["x"] / sd < 1.02))
    assert fit.losses[-1] < 1e-3


@pytest.mark.slow
def test_going_on_with_another_optimizer(getkey):
    key = getkey()
    idle = vi.SVGD(optimizer=optax.sgd(1e-12), num_particles=50)
    fit = run(gaussian(), key, idle, max_steps=20)
    started = run(gaussian(), key, max_steps=0).family.x
    assert np.allclose(fit.family.x, started, atol=1e-9)
    # The particles are those of before; only their optimizer is new.
    further = fit.resume(30, method=vi.SVGD(num_particles=50), progress=False)
    assert further.num_steps == len(further.losses) == 50
    assert np.max(np.abs(further.family.x - started)) > 0.1
    assert further.family.x.shape == (50, 2)
    fewer = fit.resume(1, method=vi.SVGD(num_particles=7), progress=False)
    assert fewer.family.x.shape == (50, 2)


def test_it_stops_once_the_particles_are_at_rest(getkey):
    stop = vi.ParameterConvergence(every=50, tolerance=1e-2, diff="absolute")
    fit = run(gaussian(), getkey(), max_steps=20_000, stop=stop)
    assert fit.result == vi.RESULTS.converged
    assert 50 < fit.num_steps < 5_000
    assert fit.num_steps % 50 == 0
    assert fit.losses[-1] < 1e-3 < fit.losses[0]


@pytest.mark.slow
def test_the_start_is_scattered_around_the_model_s(getkey):
    method = vi.SVGD(num_particles=4_000, jitter=0.3)
    loc = jnp.array([3.0, -5.0])
    x = np.asarray(method.start(getkey(), loc).x)
    assert x.shape == (4_000, 2)
    assert np.all(np.abs(np.mean(x, axis=0) - np.asarray(loc)) < 5 * 0.3 / 4_000**0.5)
    assert np.allclose(np.std(x, axis=0), 0.3, rtol=0.06)
    assert abs(np.corrcoef(x.T)[0, 1]) < 0.08
    one = vi.SVGD(jitter=0).start(getkey(), loc.astype(jnp.float32)).x
    assert one.dtype == jnp.float32
    assert np.all(np.asarray(one) == np.asarray(loc)[None])
    # By default one, around where the model says.
    target = vi.from_log_density(
        lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param(initial=40.0)}
    )
    fit = run(target, getkey(), vi.SVGD(num_particles=500), max_steps=0)
    assert abs(fit.mean["x"] - 40.0) < 0.25
    assert abs(fit.std["x"] - 1) < 0.2


def test_inside_jit_and_vmap(getkey):
    target, keys = gaussian(), jr.split(getkey(), 3)
    # The default's schedule has 32 bits, of which the last may be another under vmap.
    method = vi.SVGD(num_particles=50, optimizer=optax.adam(0.1, b2=0.99))
    one = lambda key: run(target, key, method, max_steps=60, throw=False)
    many = eqx.filter_jit(eqx.filter_vmap(one))(keys)
    assert many.family.x.shape == (3, 50, 2)
    for i in range(3):
        alone = run(target, keys[i], method, max_steps=60)
        assert np.allclose(many.family.x[i], alone.family.x, rtol=1e-6, atol=1e-9)
        assert np.allclose(many.losses[i], alone.losses, rtol=1e-5)


def test_the_loss_goes_to_zero(getkey):
    fit = run(gaussian(), getkey(), max_steps=2_000)
    assert np.all(fit.losses >= 0)
    assert fit.losses[-1] < 1e-5 < 1e-2 < fit.losses[0]
    force = eqx.filter_jit(stein_force)(vi.RBF(), fit.family.x, fit.target, 1.0)
    assert np.mean(np.sum(np.square(force), axis=1)) < 1e-5


@pytest.mark.slow
def test_it_keeps_single_precision(getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum((params["x"] - 1) ** 2), {"x": np.zeros(2, "f4")}
    )
    kernel = vi.MixtureKernel([vi.RBF(), vi.IMQ(), vi.LinearKernel()])
    for name in ("svgd", vi.SVGD(kernel, num_particles=20)):
        fit = run(target, getkey(), name, max_steps=50)
        assert fit.family.x.dtype == fit.losses.dtype == jnp.float32


def test_other_data_do_not_compile_again(getkey):
    traces = 0

    def log_density(params, data):
        nonlocal traces
        traces += 1
        return -0.5 * jnp.sum((params["x"] - data) ** 2)

    target = vi.from_log_density(log_density, {"x": vi.Param(2)}, jnp.zeros(2))
    fit = run(target, getkey(), vi.SVGD(num_particles=10), max_steps=300)
    before = traces
    target = target.with_data(jnp.array([4.0, 5.0]))
    other = run(target, getkey(), vi.SVGD(num_particles=10), max_steps=400)
    fit.resume(5, target=target, progress=False)
    # The front-end looks at it again, at no cost; nothing else does.
    assert traces <= before + 1
    assert np.allclose(other.mean["x"], jnp.array([4.0, 5.0]), atol=0.2)


wrong = pytest.mark.parametrize("method", [vi.SVGD(), "svgd"], ids=["SVGD", "svgd"])


@wrong
@pytest.mark.parametrize("family", [vi.MeanField, vi.FullRank(jnp.zeros(2))])
def test_it_moves_nothing_but_particles(method, family, getkey):
    with pytest.raises(ValueError, match=r"(?s)Cannot use.*particles.*vi\.SteinForce"):
        run(gaussian(), getkey(), method, family=family)


@wrong
def test_a_single_location_is_no_set_of_particles(method, getkey):
    with pytest.raises(ValueError, match=r"`x` must be a matrix.*pass no family"):
        run(gaussian(), getkey(), method, family=vi.Particles)


@pytest.mark.parametrize(
    "method",
    ["advi", vi.Descent(vi.StickTheLanding(), optax.adam(0.1))],
    ids=["advi", "Descent"],
)
def test_particles_have_no_elbo_to_descend(method, getkey):
    family = vi.Particles(jr.normal(getkey(), (5, 2)))
    with pytest.raises(ValueError, match=r"(?s)no density.*vi\.SVGD\(\).*bandwidth="):
        run(gaussian(), getkey(), method, family=family)
    with pytest.raises(ValueError, match=r"`x` must be a matrix"):
        run(gaussian(), getkey(), method, family=vi.Particles)


def test_no_start_where_the_log_density_is_not_finite(getkey):
    # As `vi.fit` says. The force alone does not see it: here it is that of no target.
    nowhere = vi.from_log_density(
        lambda params: jnp.where(params["x"] > 50.0, -params["x"], -jnp.inf),
        {"x": vi.Param()},
    )
    with pytest.raises(ValueError, match="log density is -inf"):
        run(nowhere, getkey(), vi.SVGD(num_particles=20), max_steps=50)


@pytest.mark.slow
def test_the_names(getkey):
    # The same run by any spelling, and births and deaths come with it.
    key, target = getkey(), gaussian()
    fits = [run(target, key, name, max_steps=30) for name in ("svgd", "SVGD", "Svgd")]
    assert all(same(fits[0], other) for other in fits[1:])
    assert type(fits[0].family) is vi.Particles
    assert fits[0].family.x.shape == (100, 2)
    assert type(fits[0].problem.method) is vi.BirthDeath
    amortized = [run(target, key, name, max_steps=3) for name in ("asvgd", "ASVGD")]
    assert same(*amortized)
    assert type(amortized[0].family) is vi.FullRank


def test_svgd_by_name_on_a_gaussian(getkey):
    fit = run(gaussian(), getkey(), "svgd", max_steps=2_000)
    sd = np.sqrt(np.diagonal(CORRELATED))
    assert np.all(np.abs(fit.mean["x"] - CENTER) < 0.1 * sd)
    assert np.all((fit.std["x"] / sd > 0.9) & (fit.std["x"] / sd < 1.05))
    correlation = fit.family.covariance[0, 1] / np.prod(fit.std["x"])
    assert abs(correlation - 0.6) < 0.05


@pytest.mark.slow
def test_asvgd_by_name_on_a_correlated_gaussian(getkey):
    # The standard deviations come out too small: by a tenth in three dimensions.
    tril = np.array([[0.5, 0.0, 0.0], [0.2, 0.4, 0.0], [-0.1, 0.3, 0.6]])
    sd = np.sqrt(np.sum(tril**2, axis=1))
    target = gaussian(LOC, tril @ tril.T)
    one = lambda key: run(target, key, "asvgd", max_steps=1_000, throw=False).family
    families = eqx.filter_jit(eqx.filter_vmap(one))(jr.split(getkey(), 4))
    z = np.abs(np.asarray(families.loc) - np.array(LOC)) / sd
    assert np.all(z < 0.1)
    stds = np.asarray(jax.vmap(lambda family: family.std)(families))
    assert np.all(stds / sd < 1.0)
    assert np.all(stds / sd > 0.8), stds / sd


class Implicit(vi.AbstractFamily):
    """A family that can be drawn from, and has no density."""

    loc: jax.Array
    slope: jax.Array

    @property
    def dim(self):
        return self.loc.size

    def sample(self, key):
        z = jr.normal(key, self.loc.shape, self.loc.dtype)
        return self.loc + self.slope * jnp.sinh(z)

    def log_prob(self, x):
        raise NotImplementedError

    def sample_and_log_prob(self, key):
        raise NotImplementedError


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_of_the_stein_force_is_that_by_hand(temperature, getkey):
    # The draws are x = loc + slope sinh(z): dx / dloc = 1, dx / dslope = sinh(z).
    num_draws, key, target = 12, getkey(), diagonal_target()
    family = Implicit(jnp.array([0.5, 1.0, 0.0]), jnp.array([1.0, 0.3, 0.5]))
    objective = vi.SteinForce(num_draws, vi.RBF(1.3), temperature=temperature)
    loss = eqx.filter_value_and_grad(lambda family: objective(key, family, target))
    value, grads = eqx.filter_jit(loss)(family)
    x = np.asarray(jax.jit(jax.vmap(family.sample))(jr.split(key, num_draws)))
    score = lambda x: (np.array(LOC) - x) / np.array(SCALE) ** 2
    force = naive_force(vi.RBF(1.3), jnp.asarray(x), score, temperature)
    sinh = (x - np.asarray(family.loc)) / np.asarray(family.slope)
    assert np.allclose(value, np.mean(np.sum(force**2, axis=1)), rtol=1e-8)
    assert np.allclose(grads.loc, -np.mean(force, axis=0), rtol=1e-8)
    assert np.allclose(grads.slope, -np.mean(force * sinh, axis=0), rtol=1e-8)


def test_any_family_follows_the_stein_force(getkey):
    family = Implicit(jnp.zeros(DIM), jnp.ones(DIM))
    method = vi.Descent(
        vi.SteinForce(50), optax.adam(optax.exponential_decay(0.1, 200, 0.5))
    )
    fit = run(diagonal_target(), getkey(), method, family=family, max_steps=1_000)
    assert np.all(np.abs(fit.family.loc - np.array(LOC)) < 0.15 * np.array(SCALE))
    # The variance of sinh(z) is (e**2 - 1) / 2.
    ratio = np.abs(fit.family.slope) * math.sqrt((math.e**2 - 1) / 2) / np.array(SCALE)
    assert np.all((ratio > 0.6) & (ratio < 1.4))


def test_the_arguments_are_kept():
    method: Any = vi.SVGD(vi.IMQ(), num_particles=3, jitter=2, temperature=3)
    assert (method.num_particles, method.jitter, method.temperature) == (3, 2.0, 3.0)
    assert isinstance(method.kernel, vi.IMQ)
    assert isinstance(vi.SVGD().kernel, vi.RBF)
    objective = vi.SteinForce(7, vi.IMQ(), temperature=2)
    assert (objective.num_draws, objective.temperature) == (7, 2.0)
    assert isinstance(objective.kernel, vi.IMQ)
