import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpyro.distributions import constraints

import vijax as vi

from ..helpers import correlated_target, diagonal_target, DIM, drivers, LOC, SCALE


def test_averaging_is_the_weighted_mean_of_the_iterates(getkey):
    # By Shamir and Zhang's recursion the weight of iterate t is proportional to
    # (t + power - 1)! / (t - 1)!: here, for power 2, to t (t + 1).
    key = getkey()
    inner = vi.Descent(vi.ELBO(), optax.adam(0.1))
    settings = {"family": vi.MeanField, "key": key, "max_steps": 50, "progress": False}
    track = {"loc": lambda key, family, target: family.loc}
    target = diagonal_target()
    raw = vi.fit(target, inner, track=track, track_every=1, **settings)
    averaged = vi.fit(target, vi.Averaging(inner, power=2), **settings)
    t = jnp.arange(1.0, 51.0)
    weights = t * (t + 1) / jnp.sum(t * (t + 1))
    assert jnp.allclose(averaged.family.loc, weights @ raw.trackers["loc"], rtol=1e-6)
    assert jnp.array_equal(averaged.losses, raw.losses)
    assert jnp.array_equal(averaged.state.iterate.loc, raw.family.loc)


@pytest.mark.slow
def test_averaging_comes_closer_than_the_last_iterate(getkey):
    inner = vi.Descent(vi.ELBO(), optax.sgd(0.05))
    errors = []
    for method in (inner, vi.Averaging(inner)):
        one = lambda key, method=method: (
            vi.fit(
                diagonal_target(), method, vi.MeanField, key=key, max_steps=2_000
            ).family.loc
        )
        locs = jax.vmap(one)(jr.split(getkey(), 20))
        errors.append(jnp.sqrt(jnp.mean((locs - jnp.array(LOC)[None]) ** 2)))
    assert errors[1] < 0.4 * errors[0]


def _gaussian(getkey, dim, condition):
    """A Gaussian with random axes whose variances span `condition`."""
    axes, _ = jnp.linalg.qr(jr.normal(getkey(), (dim, dim)))
    variances = jnp.logspace(0, -jnp.log10(condition), dim)
    loc = 3 * jr.normal(getkey(), (dim,))
    return loc, (axes * variances[None]) @ axes.T


@pytest.mark.parametrize(
    "name",
    ["advi", "ADVI", "fullrank_advi", pytest.param("auto", marks=pytest.mark.slow)],
)
def test_names_converge_without_tuning(name, getkey):
    loc, covariance = _gaussian(getkey, 5, 30)
    precision = jnp.linalg.inv(covariance)
    target = correlated_target(loc, precision)
    fit = vi.fit(target, name, key=getkey(), progress=False)
    mean_field = name.lower() == "advi"
    exact = jnp.diagonal(covariance) ** 0.5
    std = jnp.diagonal(precision) ** -0.5 if mean_field else exact
    assert isinstance(fit.family, vi.MeanField if mean_field else vi.FullRank)
    assert jnp.all(jnp.abs(fit.family.mean - loc) < 0.1 * std)
    assert jnp.all(jnp.abs(jnp.log(fit.family.std / std)) < 0.05)


@pytest.mark.parametrize(
    ("dim", "family"),
    [pytest.param(201, vi.FullRank, marks=pytest.mark.slow), (1_001, vi.MeanField)],
)
def test_auto_is_mean_field_in_many_dimensions(dim, family, getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(dim)}
    )
    fit = vi.fit(target, key=getkey(), max_steps=0, progress=False)
    assert type(fit.family) is family


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_coefficients", [4, pytest.param(50, marks=pytest.mark.slow)]
)
def test_auto_on_a_linear_regression(num_coefficients, getkey):
    # The best Gaussian is known. Let v be the variance of log sigma, and R and nu the
    # residual sum of squares and its degrees of freedom. As beta has the covariance
    # inv(x' x) / E[sigma**-2], log sigma is best where E[sigma**-2] = nu / R, that is
    # E[log sigma] = log(R / nu) / 2 + v; and v = 1 / (2 rows).
    num_rows = 200
    x = jr.normal(getkey(), (num_rows, num_coefficients))
    y = x @ jr.normal(getkey(), (num_coefficients,)) + 0.7 * jr.normal(getkey(), (200,))
    target = vi.from_likelihood(
        lambda params: -jnp.log(params["sigma"]),
        lambda params, rows: jax.scipy.stats.norm.logpdf(
            rows["y"], rows["x"] @ params["beta"], params["sigma"]
        ),
        {"beta": vi.Param(num_coefficients), "sigma": vi.Param((), constraints.positive)},
        {"x": x, "y": y},
    )
    fit = vi.fit(target, key=getkey(), progress=False)
    beta, residual, _, _ = np.linalg.lstsq(np.asarray(x), np.asarray(y))
    variance = residual.item() / (num_rows - num_coefficients)
    log_sigma, log_sigma_std = 0.5 * np.log(variance), (2 * num_rows) ** -0.5
    std = np.diagonal(np.linalg.inv(x.T @ x) * variance) ** 0.5
    error = fit.mean["sigma"] - (log_sigma + log_sigma_std**2)
    assert abs(error) < 0.2 * log_sigma_std
    assert abs(np.log(fit.std["sigma"] / log_sigma_std)) < 0.05
    assert np.all(np.abs(fit.mean["beta"] - beta) < 0.05 * std)
    assert np.all(np.abs(np.log(fit.std["beta"] / std)) < 0.05)


@pytest.mark.slow
def test_names_converge_from_far_and_to_narrow(getkey):
    # Posterior standard deviations of 0.002, twenty units from the start.
    y = 20.0 + jr.normal(getkey(), (250_000,))
    statistics = jnp.mean(y), y.size * 1.0
    target = vi.from_log_density(
        lambda params, data: -0.5 * data[1] * (params["mu"] - data[0]) ** 2,
        {"mu": vi.Param()},
        statistics,
    )
    fit = vi.fit(target, "advi", key=getkey(), progress=False)
    assert abs(fit.mean["mu"] - statistics[0]) < 0.1 * 0.002
    assert abs(jnp.log(fit.std["mu"] / 0.002)) < 0.05


def test_a_recipe_with_arguments(getkey):
    recipe = functools.partial(vi.FullRank, scale=0.7)
    fit = vi.fit(diagonal_target(), "advi", recipe, key=getkey(), max_steps=0)
    assert jnp.allclose(fit.family.std, 0.7)
    fit = vi.fit(
        diagonal_target(),
        "advi",
        lambda loc: vi.MeanField(loc + 1.0),
        key=getkey(),
        max_steps=0,
    )
    assert jnp.allclose(fit.family.mean, jnp.ones(DIM))


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(optax.cosine_decay_schedule(0.05, 1_000)),
        optax.chain(optax.clip_by_global_norm(10.0), optax.rmsprop(0.01)),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.05),
        optax.lion(optax.exponential_decay(0.02, 200, 0.5)),
        optax.contrib.schedule_free_adamw(0.05),
        optax.adamax(0.05),
        optax.adamw(0.05, mask=lambda params: jax.tree.map(lambda leaf: False, params)),
    ],
    ids=["cosine", "chain", "inject", "lion", "schedule free", "adamax", "masked"],
)
def test_any_optax_optimizer(optimizer, getkey):
    method = vi.Descent(vi.StickTheLanding(4), optimizer)
    fit = vi.fit(diagonal_target(), method, key=getkey(), max_steps=1_000, progress=False)
    assert jnp.allclose(fit.family.mean, jnp.array(LOC), atol=0.2)


class Newton(vi.AbstractAskTell):
    """One of somebody's own: Newton's steps for the mean, with the curvature given."""

    num_draws: int = eqx.field(static=True, default=6)

    def check(self, family, target):
        del target
        assert isinstance(family, vi.FullRank)

    def step_noise(self, dim):
        return (self.num_draws, dim)

    def begin(self, noise, family):
        del noise
        return family.loc, family.tril

    def ask(self, noise, state):
        loc, tril = state
        return loc + noise @ tril.T, self.num_draws

    def tell(self, noise, state, probes):
        loc, tril = state
        # In units of the Gaussian, the score at `e` is `mean - e`.
        step = tril @ (probes.score @ tril + noise).mean(axis=0)
        return (loc + step, tril), -probes.log_p.mean()

    def place(self, family, state):
        return eqx.tree_at(lambda family: family.loc, family, state[0])


@pytest.mark.parametrize("driver", drivers)
def test_a_method_of_ones_own_that_asks_and_tells(driver, getkey):
    family = vi.FullRank(jnp.zeros(DIM), scale=jnp.array(SCALE))
    fit = drivers[driver](
        diagonal_target(), Newton(), key=getkey(), family=family, max_steps=3
    )
    assert fit.num_steps == 3
    assert jnp.allclose(fit.family.mean, jnp.array(LOC), atol=1e-12)
