import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import pytest

import vijax as vi

from ..helpers import (
    correlated_target,
    diagonal_target,
    DIM,
    elbos,
    LOC,
    SCALE,
    tree_allclose,
)


every_elbo = pytest.mark.parametrize("make", elbos.values(), ids=elbos.keys())


def _exact(target_loc, target_scale, q):
    # E_q[log q - log p] is known when both are Gaussian.
    moment = q.std**2 + (q.mean - target_loc) ** 2
    return 0.5 * jnp.sum(moment / target_scale**2) - q.entropy


@every_elbo
@pytest.mark.parametrize("family", [vi.MeanField, vi.FullRank])
def test_value_and_gradient_are_unbiased(make, family, getkey):
    loc, scale = jnp.array(LOC), jnp.array(SCALE)
    target, start = diagonal_target(), family(jnp.zeros(DIM), scale=0.8)

    def estimate(key):
        make_key, key = jr.split(key)
        loss = lambda q: make(make_key)(key, q, target)
        return eqx.filter_value_and_grad(loss)(start)

    value, grads = jax.jit(jax.vmap(estimate))(jr.split(getkey(), 50))
    exact = lambda q: _exact(loc, scale, q)
    true_value, true_grads = eqx.filter_value_and_grad(exact)(start)
    pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(true_grads), strict=True)
    for got, want in [(value, true_value), *pairs]:
        mean, stderr = jnp.mean(got, axis=0), jnp.std(got, axis=0) / jnp.sqrt(50)
        assert jnp.all(jnp.abs(mean - want) <= 5 * stderr + 1e-12)


@every_elbo
def test_gradient_is_unbiased_under_batches_of_rows(make, getkey):
    y = jr.normal(getkey(), (40,)) + 3.0
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, y: -0.5 * (y - params["mu"]) ** 2,
        {"mu": vi.Param()},
        y,
        batch_size=5,
    )
    start = vi.MeanField(jnp.zeros(1), scale=0.5)

    def estimate(seen, key):
        make_key, batch_key, key = jr.split(key, 3)
        objective = make(make_key)
        seen = seen.batch(batch_key) if seen.minibatch else seen
        return eqx.filter_grad(lambda q: objective(key, q, seen))(start)

    keys = jr.split(getkey(), 300)
    grads = jax.jit(jax.vmap(lambda key: estimate(target, key)))(keys).loc
    exact = jnp.array([-jnp.sum(y)])  # (41 mu - sum y) at mu = 0.
    stderr = jnp.std(grads, axis=0) / 300**0.5
    assert jnp.all(jnp.abs(jnp.mean(grads, axis=0) - exact) < 5 * stderr)
    assert jnp.all(stderr < 0.1 * jnp.abs(exact))


@pytest.mark.parametrize("num_draws", [1, 4])
def test_sticking_the_landing_has_no_variance_at_the_optimum(num_draws, getkey):
    target, family = diagonal_target(), vi.MeanField(jnp.array(LOC), jnp.array(SCALE))
    loss = lambda q: vi.StickTheLanding(num_draws)(getkey(), q, target)
    grads = eqx.filter_grad(loss)(family)
    assert tree_allclose(grads, jax.tree.map(jnp.zeros_like, grads), atol=1e-12)


def test_sticking_the_landing_has_no_variance_at_the_optimum_of_full_rank(getkey):
    tril = jnp.array([[0.5, 0.0, 0.0], [0.2, 0.4, 0.0], [-0.1, 0.3, 0.6]])
    target = correlated_target(jnp.array(LOC), jnp.linalg.inv(tril @ tril.T))
    family = vi.FullRank(jnp.array(LOC), tril)
    loss = lambda q: vi.StickTheLanding(4)(getkey(), q, target)
    grads = eqx.filter_grad(loss)(family)
    assert tree_allclose(grads, jax.tree.map(jnp.zeros_like, grads), atol=1e-12)
    # Not so the reparameterization gradient, though it has the same expectation.
    noisy = eqx.filter_grad(lambda q: vi.ELBO(4)(getkey(), q, target))(family)
    assert jnp.max(jnp.abs(noisy.log_diag)) > 0.01


def test_more_draws_mean_less_variance(getkey):
    target, family = diagonal_target(), vi.MeanField(jnp.zeros(DIM), scale=1.0)
    keys = jr.split(getkey(), 4_000)
    values = lambda n: jax.vmap(lambda k: vi.ELBO(n)(k, family, target))
    spread = lambda n: jnp.var(jax.jit(values(n))(keys))
    assert 12 < spread(1) / spread(16) < 21


def test_fixed_draws_have_a_closed_form_on_a_diagonal_gaussian(getkey):
    # With draws z_i: loc + s * mean(z) = target loc, and s**2 var(z) = scale**2 up to
    # the entropy's gradient 1: s = scale / std(z), loc = target loc - s mean(z).
    key, num_draws = getkey(), 32
    objective = vi.FixedDraws(vi.ELBO(num_draws), key)
    z = jax.vmap(lambda k: jr.normal(k, (DIM,)))(jr.split(key, num_draws))
    fit = vi.fit(
        diagonal_target(),
        vi.Descent(objective, optax.lbfgs()),
        vi.MeanField,
        key=getkey(),
        max_steps=60,
        progress=False,
    )
    scale = jnp.array(SCALE) / jnp.std(z, axis=0)
    assert jnp.allclose(fit.family.std, scale, rtol=1e-6)
    loc = jnp.array(LOC) - scale * jnp.mean(z, axis=0)
    assert jnp.allclose(fit.family.mean, loc, atol=1e-6)
    assert jnp.all(jnp.diff(fit.losses) < 1e-9)


@pytest.mark.parametrize("family", [vi.MeanField, vi.FullRank])
def test_antithetic_draws_leave_no_noise_in_the_location(family, getkey):
    # The log density's gradient is linear: each pair's mean is that in the center.
    target, start = diagonal_target(), family(jnp.zeros(DIM), scale=0.8)
    gradient = lambda objective: jax.vmap(
        lambda key: eqx.filter_grad(lambda q: objective(key, q, target))(start).loc
    )(jr.split(getkey(), 50))
    exact = -jnp.array(LOC) / jnp.array(SCALE) ** 2
    got = gradient(vi.ELBO(2, antithetic=True))
    assert jnp.allclose(got, exact[None], rtol=1e-12, atol=1e-12)
    assert jnp.all(jnp.std(gradient(vi.ELBO(2)), axis=0) > 0.1)


@pytest.mark.slow
def test_antithetic_draws_are_as_many_as_asked_for(getkey):
    # A log density odd about the location cancels in each pair, an even one does not.
    start = vi.MeanField(jnp.ones(1), scale=0.5)
    draw = lambda objective, power: jax.vmap(
        lambda key: objective(
            key,
            start,
            vi.from_log_density(
                lambda params: (
                    start.log_prob(params["x"]) - jnp.sum((params["x"] - 1) ** power)
                ),
                {"x": vi.Param(1)},
            ),
        )
    )(jr.split(getkey(), 2_000))
    pairs = vi.ELBO(8, antithetic=True)
    assert jnp.max(jnp.abs(draw(pairs, 3))) < 1e-12
    # Eight draws in pairs are four independent ones for what is even.
    ratio = jnp.var(draw(vi.ELBO(8), 2)) / jnp.var(draw(pairs, 2))
    assert 0.4 < ratio < 0.6


@pytest.mark.parametrize("num_draws", [1, 3, 7])
def test_antithetic_draws_come_in_pairs(num_draws):
    with pytest.raises(
        ValueError, match=f"`num_draws` must be even, but it is {num_draws}"
    ):
        vi.ELBO(num_draws, antithetic=True)
    assert vi.ELBO(num_draws).num_draws == num_draws


def test_antithetic_draws_under_fixed_draws_and_a_fit(getkey):
    method = vi.Descent(
        vi.FixedDraws(vi.ELBO(8, antithetic=True), getkey()), optax.lbfgs()
    )
    fit = vi.fit(
        diagonal_target(),
        method,
        vi.MeanField,
        key=getkey(),
        max_steps=60,
        progress=False,
    )
    assert jnp.allclose(fit.family.mean, jnp.array(LOC), atol=1e-6)
