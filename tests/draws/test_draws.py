import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro.distributions import constraints

import vijax as vi
import vijax._misc
from vijax._draws.psis import smoothed

from ..helpers import diagonal_target, DIM, LOC, SCALE


def exact_draws(num_draws, key):
    return vi.draw(
        vi.MeanField(jnp.array(LOC), jnp.array(SCALE)),
        diagonal_target(),
        num_draws,
        key=key,
    )


def test_log_densities_are_those_of_family_and_target(getkey):
    family, target = vi.MeanField(jnp.zeros(DIM), scale=0.5), diagonal_target()
    draws = vi.draw(family, target, 50, key=getkey())
    assert jnp.allclose(draws.need_log_q(), jax.vmap(family.log_prob)(draws.x))
    assert jnp.allclose(draws.log_p, jax.vmap(target.log_density)(draws.x))
    assert jnp.allclose(draws.log_weights, draws.log_p - draws.need_log_q())
    assert len(draws) == 50


def test_log_p_is_against_all_the_data(getkey):
    target = vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, y: -0.5 * (y - params["mu"]) ** 2,
        {"mu": vi.Param()},
        jnp.arange(100.0),
        batch_size=3,
    )
    fit = vi.fit(target, key=getkey(), max_steps=10, progress=False)
    draws = fit.draw(7, key=getkey(), corrected=False)
    mu = draws.x[:, 0]
    y = jnp.arange(100.0)
    expected = -0.5 * (mu**2 + jnp.sum((y[None, :] - mu[:, None]) ** 2, axis=1))
    assert jnp.allclose(draws.log_p, expected, rtol=1e-12)


def test_large_data_are_seen_a_few_draws_at_a_time(getkey, monkeypatch):
    target, key = diagonal_target(), getkey()
    family = vi.MeanField(jnp.zeros(DIM), scale=1.0)
    whole = vi.draw(family, target, 23, key=key)
    monkeypatch.setattr(vijax._misc, "_VECTORIZED_SIZE", 30)  # Five draws of six numbers.
    jax.clear_caches()
    pieces = vi.draw(family, target, 23, key=key)
    assert jnp.allclose(whole.x, pieces.x, rtol=1e-12)
    assert jnp.allclose(whole.log_p, pieces.log_p, rtol=1e-12)


def test_params_are_inside_their_supports_and_moments_are_of_them(getkey):
    # log x ~ N(0, 1): the mean of x is exp(1/2), and not exp of the mean of log x.
    target = vi.from_log_density(
        lambda params: -jnp.log(params["x"]) - 0.5 * jnp.log(params["x"]) ** 2,
        {"x": vi.Param(support=constraints.positive)},
    )
    fit = vi.fit(target, "advi", key=getkey(), max_steps=4_000, progress=False)
    assert abs(fit.mean["x"]) < 0.02
    assert abs(fit.std["x"] - 1) < 0.02
    x = fit.draw(100_000, key=getkey()).params["x"]
    stderr = jnp.std(x) / x.size**0.5
    assert jnp.min(x) > 0
    assert abs(jnp.mean(x) - jnp.exp(0.5)) < 5 * stderr + 0.05


def test_evaluate(getkey):
    draws = exact_draws(40, getkey())
    traces = 0

    def predict(params, inputs, power):
        nonlocal traces
        traces += 1
        return {"p": (inputs @ params["x"]) ** power}

    for rows in (jnp.ones((5, DIM)), jnp.arange(15.0).reshape(5, DIM)):
        got = draws.evaluate(predict, rows, 2)["p"]
        assert jnp.allclose(got, (draws.params["x"] @ rows.T) ** 2)
    assert traces == 1
    assert draws.evaluate(lambda params: params["x"][0]).shape == (40,)


def test_elbo_of_an_exact_family_is_the_log_evidence(getkey):
    draws = exact_draws(100, getkey())
    log_evidence = 0.5 * DIM * jnp.log(2 * jnp.pi) + jnp.sum(jnp.log(jnp.array(SCALE)))
    assert jnp.allclose(vi.elbo(draws).mean, log_evidence, rtol=1e-12)
    assert vi.elbo(draws).stderr < 1e-12


def test_elbo_standard_error_is_the_spread_of_estimates(getkey):
    family, target = vi.MeanField(jnp.zeros(DIM), scale=1.0), diagonal_target()
    one = lambda key: vi.elbo(vi.draw(family, target, 100, key=key))
    estimates = jax.vmap(one)(jr.split(getkey(), 500))
    spread = jnp.std(estimates.mean)
    assert abs(spread / jnp.mean(estimates.stderr) - 1) < 0.15
    loc, scale = jnp.array(LOC), jnp.array(SCALE)
    exact = family.entropy - 0.5 * jnp.sum((1 + loc**2) / scale**2)
    assert abs(jnp.mean(estimates.mean) - exact) < 5 * spread / 500**0.5


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_khat_is_that_of_arviz(scale, getkey):
    from arviz_stats.base.array import array_stats

    log_p = scale * jr.normal(getkey(), (4_000,))
    draws = vi.Draws(jnp.zeros((4_000, DIM)), jnp.zeros(4_000), log_p, diagonal_target())
    khat = vi.pareto_khat(draws)
    _, expected = array_stats.psislw(-np.asarray(log_p)[None, :], r_eff=1)
    assert np.allclose(khat.mean, expected, rtol=1e-10)
    assert np.isclose(khat.log_weights_std, jnp.std(log_p, ddof=1))


def test_a_tail_of_equal_weights_is_bounded(getkey):
    # As where the target is flat in places, and the family too.
    log_p = jnp.minimum(jr.normal(getkey(), (1_000,)), 0.5)
    draws = vi.Draws(jnp.zeros((1_000, DIM)), jnp.zeros(1_000), log_p, diagonal_target())
    assert vi.pareto_khat(draws).mean == -1
    plain = log_p - jax.scipy.special.logsumexp(log_p)
    smooth, _ = smoothed(np.asarray(log_p))
    np.testing.assert_allclose(smooth, plain, atol=1e-12)


def test_one_draw_with_all_the_weight(getkey):
    log_p = jnp.full(1_000, -1e4).at[3].set(0.0)
    draws = vi.Draws(jnp.zeros((1_000, DIM)), jnp.zeros(1_000), log_p, diagonal_target())
    assert vi.pareto_khat(draws).mean == np.inf
    assert smoothed(np.asarray(log_p))[0][3] == 0


@pytest.mark.parametrize("k", [0.3, 0.6, 0.9])
def test_khat_of_weights_with_a_known_tail(k, getkey):
    # Pareto weights of shape k: the log weights are exponential with mean k.
    log_p = k * jr.exponential(getkey(), (20_000,))
    draws = vi.Draws(jnp.zeros((20_000, 3)), jnp.zeros(20_000), log_p, diagonal_target())
    khat = vi.pareto_khat(draws)
    assert abs(khat.mean - k) < 4 * khat.stderr
    assert khat.stderr < 0.1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_khat_of_a_perfect_fit_is_good(dtype, getkey):
    family = vi.MeanField(jnp.array(LOC, dtype), jnp.array(SCALE, dtype))
    target = vi.from_log_density(
        lambda params: family.log_prob(params["x"]) + 1234.5, {"x": np.zeros(DIM, dtype)}
    )
    khat = vi.pareto_khat(vi.draw(family, target, 1_000, key=getkey()))
    assert khat.mean == 0
    assert np.isfinite(khat.stderr)
    assert khat.log_weights_std < 1e-3
    # The slightest true difference is judged by its tail.
    wider = vi.MeanField(jnp.array(LOC, dtype), 1.02 * jnp.array(SCALE, dtype))
    khat = vi.pareto_khat(vi.draw(wider, target, 1_000, key=getkey()))
    assert khat.mean != 0
    assert 0.01 < khat.log_weights_std < 0.1


def test_khat_warns_of_a_family_that_is_too_narrow(getkey):
    target = diagonal_target()
    narrow = vi.MeanField(jnp.array(LOC), 0.3 * jnp.array(SCALE))
    assert vi.pareto_khat(vi.draw(narrow, target, 4_000, key=getkey())).mean > 0.7
    wide = vi.MeanField(jnp.array(LOC), 1.5 * jnp.array(SCALE))
    assert vi.pareto_khat(vi.draw(wide, target, 4_000, key=getkey())).mean < 0.5


def test_khat_of_weights_that_are_not_finite(getkey):
    draws = exact_draws(100, getkey())
    log_p = draws.log_p.at[3].set(jnp.nan)
    with pytest.raises(ValueError, match="1 of 100 log weights are NaN or infinite"):
        vi.pareto_khat(vi.Draws(draws.x, draws.log_q, log_p, draws.target))


def test_draws_without_density_weigh_nothing(getkey):
    # N(0, 1), cut off at zero: half of the draws are worth nothing, the rest the same.
    def log_density(params):
        x = params["x"]
        return jnp.where(x > 0, -0.5 * x**2, -jnp.inf)

    target = vi.from_log_density(log_density, {"x": vi.Param(initial=1.0)})
    draws = vi.draw(vi.MeanField(jnp.zeros(1), scale=1.3), target, 4_000, key=getkey())
    assert jnp.any(jnp.isinf(draws.log_p))
    chosen = draws.resample(4_000, key=getkey()).x
    assert jnp.all(chosen > 0)
    assert abs(jnp.mean(chosen) - (2 / jnp.pi) ** 0.5) < 5 * 0.6 / 2_000**0.5
    assert vi.pareto_khat(draws).mean < 0.5
    for bad in (jnp.nan, jnp.inf):
        log_p = draws.log_p.at[3].set(bad)
        with pytest.raises(ValueError, match="1 of 4000 log weights are NaN or infinite"):
            vi.Draws(draws.x, draws.log_q, log_p, target).resample(9, key=getkey())


@pytest.mark.parametrize("diagnostic", [vi.elbo, vi.pareto_khat])
def test_too_few_draws(diagnostic, getkey):
    with pytest.raises(ValueError, match="[Dd]raw"):
        diagnostic(exact_draws(1, getkey()))


def test_results_print():
    assert "1.5" in repr(vi.Estimate(jnp.array(1.5), jnp.array(0.1)))
    assert "0.25" in repr(vi.ParetoKhat(0.25, 0.1, 0.5))


def off_center(num_draws, key):
    """Draws of N(0.4, 1.5) for N(0, 1)."""
    target = vi.from_log_density(
        lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
    )
    family = vi.MeanField(jnp.array([0.4]), jnp.array([1.5]))
    return vi.draw(family, target, num_draws, key=key)


def test_resampling_corrects(getkey):
    draws = off_center(40_000, getkey())
    x = draws.resample(20_000, key=getkey()).x
    # The effective sample size is about .6 of the draws; ties cost some more.
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.03
    assert draws.resample(key=getkey()).x.shape == (40_000, 1)


def test_resampling_without_replacement(getkey):
    draws = off_center(40_000, getkey())
    kept = draws.resample(2_000, key=getkey(), replace=False)
    assert len(jnp.unique(kept.x)) == 2_000
    # So few of so many: all but exact.
    assert abs(kept.x.mean()) < 4 / 2_000**0.5
    assert abs(kept.x.std() - 1) < 4 / 4_000**0.5
    assert draws.resample(key=getkey(), replace=False).x.shape == (10_000, 1)
    everything = draws.resample(40_000, key=getkey(), replace=False)
    assert jnp.array_equal(jnp.sort(everything.x, axis=0), jnp.sort(draws.x, axis=0))


def test_resampled_draws_keep_their_log_density(getkey):
    draws = off_center(1_000, getkey()).resample(key=getkey())
    expected = jax.vmap(draws.target.log_density)(draws.x)
    assert jnp.allclose(draws.log_p, expected)
    assert draws.log_q is None
    assert draws.origin["resampled"] is True
    assert set(vi.to_arviz(draws).sample_stats) == {"log_p"}
    with pytest.raises(ValueError, match="resampled"):
        draws.need_log_q()
    # The weights are those of the draws that these were chosen from.
    assert draws.proposal is not None
    assert vi.pareto_khat(draws).mean == vi.pareto_khat(draws.proposal).mean
    assert draws.log_weights.shape == (1_000,)


def test_resampling_a_perfect_fit_keeps_every_draw_once(getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
    )
    draws = vi.draw(vi.MeanField(jnp.zeros(1), 1.0), target, 5_000, key=getkey())
    x = draws.resample(5_000, key=getkey()).x
    assert jnp.array_equal(jnp.sort(x[:, 0]), jnp.sort(draws.x[:, 0]))
    assert not jnp.array_equal(x, draws.x)


def test_resampling_what_cannot_be(getkey):
    draws = off_center(100, getkey())
    with pytest.raises(ValueError, match="come once"):
        draws.resample(101, key=getkey(), replace=False)
    with pytest.raises(ValueError, match="`num_draws` must be a whole number"):
        draws.resample(0, key=getkey())
    with pytest.raises(ValueError, match="too short"):
        off_center(10, getkey()).resample(key=getkey())
    with pytest.raises(ValueError, match="on the host"):
        jax.jit(lambda key: draws.resample(key=key).x + off_center(50, key).x)(getkey())
