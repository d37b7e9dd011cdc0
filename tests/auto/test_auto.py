"""The default, which needs no tuning: what it finds, and how it goes about it."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm
from numpyro.distributions import constraints

import vijax as vi
from vijax._auto import stages
from vijax._misc import lenient_promotion
from vijax._target.probe import probe

from ..helpers import correlated_log_density, correlated_target, drivers, same


def ill_conditioned(dim, condition, key):
    """A location and a precision whose eigenvalues span `condition`."""
    orthogonal, _ = jnp.linalg.qr(jr.normal(key, (dim, dim)))
    values = jnp.logspace(0, np.log10(condition), dim)
    return jnp.arange(1.0, dim + 1), (orthogonal * values[None, :]) @ orthogonal.T


def banana(params):
    x, y = params["x"], params["y"]
    return norm.logpdf(x, 0.0, 2.0) + norm.logpdf(y, 0.5 * x**2, 0.7)


BANANA = {"x": vi.Param(), "y": vi.Param()}


def two_modes(params):
    # Weights 0.3 and 0.7, twelve standard deviations apart.
    first = jnp.log(0.3) + jnp.sum(norm.logpdf(params["x"], -6.0))
    return jnp.logaddexp(first, jnp.log(0.7) + jnp.sum(norm.logpdf(params["x"], 6.0)))


@pytest.mark.parametrize(
    ("condition", "driver"),
    [
        (1.0, "host"),
        (1e6, "host"),
        pytest.param(1.0, "traced", marks=pytest.mark.slow),
        (1e6, "traced"),
    ],
)
def test_a_gaussian_is_reached_exactly(condition, driver, getkey):
    loc, precision = ill_conditioned(8, condition, getkey())
    target = correlated_target(loc, precision)
    fit = drivers[driver](target, vi.Auto(), key=getkey(), max_steps=500)
    covariance = jnp.linalg.inv(precision)
    std = jnp.sqrt(jnp.diagonal(covariance))
    assert fit.result == vi.RESULTS.converged
    assert isinstance(fit.family, vi.FullRank)
    assert jnp.all(jnp.abs(fit.family.mean - loc) < 1e-6 * std)
    error = (fit.family.covariance - covariance) / jnp.outer(std, std)
    assert jnp.all(jnp.abs(error) < 1e-6)


@pytest.mark.slow
def test_single_precision_is_enough(getkey):
    loc, precision = map(np.asarray, ill_conditioned(20, 1e5, getkey()))
    data = loc.astype(np.float32), precision.astype(np.float32)
    example = {"x": jnp.zeros(20, jnp.float32)}
    target = vi.from_log_density(correlated_log_density, example, data)
    fit = vi.fit(target, key=getkey(), progress=False)
    assert fit.family.mean.dtype == jnp.float32
    std = np.sqrt(np.diagonal(np.linalg.inv(precision)))
    assert np.all(np.abs(np.asarray(fit.family.mean) - loc) < 0.02 * std)
    assert np.all(np.abs(np.log(np.asarray(fit.family.std) / std)) < 0.02)


@pytest.mark.slow
def test_two_far_modes_become_a_mixture(getkey):
    target = vi.from_log_density(two_modes, {"x": vi.Param(3)})
    fit = vi.fit(target, key=getkey(), progress=False)
    assert isinstance(fit.family, vi.Mixture)
    assert isinstance(fit.family.components, vi.FullRank)
    order = jnp.argsort(fit.family.components.loc[:, 0])
    assert jnp.allclose(fit.family.weights[order], jnp.array([0.3, 0.7]), atol=1e-3)
    x = fit.draw(20_000, key=getkey()).params["x"]
    # Six standard errors of a proportion among half as many draws.
    assert abs(jnp.mean(x[:, 0] < 0) - 0.3) < 6 * (0.21 / 10_000) ** 0.5
    assert jnp.allclose(jnp.std(x[x[:, 0] > 0]), 1.0, atol=0.03)
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert report.num_modes == 2
    # One can go on from a mixture by another method.
    on = fit.resume(3, method="advi", progress=False)
    assert isinstance(on.family, vi.Mixture)


@pytest.mark.slow
def test_corrected_draws_are_closer_than_the_family(getkey):
    # The weights of the best Gaussian still correct it here: no flow is needed.
    target = vi.from_log_density(
        lambda params: 5 * jnp.log(params["rate"]) - 2.0 * params["rate"],
        {"rate": vi.Param((), constraints.positive)},
    )
    fit = vi.fit(target, key=getkey(), progress=False)
    draws = fit.draw(40_000, key=getkey())
    rate = draws.params["rate"]  # Gamma(6, 2).
    assert abs(jnp.mean(rate) - 3.0) < 0.03
    assert abs(jnp.var(rate) - 1.5) < 0.06
    assert draws.origin["corrected"] == "importance"
    assert draws.log_q is None
    assert isinstance(draws.proposal, vi.Draws)
    assert draws.log_weights.shape == (40_000,)
    plain = fit.draw(100, key=getkey(), corrected=False)
    assert plain.log_q is not None
    assert plain.proposal is None
    few = fit.draw(10, key=getkey())
    assert len(few) == 10
    assert len(few.weighted) == 4_096
    with pytest.raises(ValueError, match="`num_draws` must be a whole number"):
        fit.draw(0, key=getkey())


@pytest.mark.slow
def test_any_fit_with_a_density_can_be_corrected(getkey):
    loc, precision = ill_conditioned(2, 20.0, getkey())
    target = correlated_target(loc, precision)
    fit = vi.fit(target, "fullrank_advi", key=getkey(), max_steps=300, progress=False)
    std = jnp.sqrt(jnp.diagonal(jnp.linalg.inv(precision)))
    assert fit.proposal is None
    assert fit.draw(100, key=getkey()).log_q is not None
    x = fit.draw(20_000, key=getkey(), corrected=True).x
    assert jnp.all(jnp.abs(jnp.mean(x, axis=0) - loc) < 0.05 * std)
    assert jnp.all(jnp.abs(jnp.log(jnp.std(x, axis=0) / std)) < 0.05)
    particles = vi.fit(target, "svgd", key=getkey(), max_steps=2, progress=False)
    with pytest.raises(ValueError, match="`Particles` has no density"):
        particles.draw(10, key=getkey(), corrected=True)
    with pytest.raises(ValueError, match="need the host"):
        jax.jit(lambda key: fit.draw(10, key=key, corrected=True).x)(getkey())


@pytest.mark.slow
def test_useless_weights_do_no_harm(getkey):
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(6)}
    )
    method = vi.Descent(vi.ELBO(), optax.sgd(0.0))
    # So wide that no trajectory of its scale stays in the target.
    wide = vi.FullRank(jnp.zeros(6), scale=40.0)
    fit = vi.fit(target, method, wide, key=getkey(), max_steps=1, progress=False)
    with pytest.warns(UserWarning, match="plain draws of the family"):
        draws = fit.draw(200, key=getkey(), corrected=True)
    assert draws.log_q is not None
    assert "corrected" not in draws.origin
    # So narrow and far away that a few trajectories of its scale do not arrive.
    far = vi.FullRank(jnp.full(6, 8.0), scale=0.05)
    fit = vi.fit(target, method, far, key=getkey(), max_steps=1, progress=False)
    with pytest.warns(UserWarning, match="perhaps not far enough"):
        draws = fit.draw(200, key=getkey(), corrected=True)
    assert jnp.all(jnp.mean(draws.x, axis=0) < 7.95)
    assert draws.log_q is None
    assert not vi.report(fit, key=getkey()).trustworthy


@pytest.mark.slow
def test_a_flow_follows_where_the_weights_are_poor(getkey):
    target = vi.from_log_density(banana, BANANA)
    fit = vi.fit(target, key=getkey(), progress=False)
    assert isinstance(fit.family, vi.Affine)
    assert fit.num_steps == 2_000
    with pytest.raises(ValueError, match="no mean in closed form"):
        _ = fit.mean
    assert vi.to_nuts(fit, key=getkey()).inverse_mass_matrix.shape == (2, 2)
    params = fit.draw(20_000, key=getkey()).params
    assert abs(jnp.mean(params["y"]) - 2.0) < 0.1 * 2.9  # E[y] = E[x**2] / 2.
    # Var[y] = 0.7**2 + Var[x**2] / 4 = 0.49 + 8.
    assert abs(jnp.log(jnp.std(params["y"]) / 8.49**0.5)) < np.log(1.2)
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert report.num_evaluations is not None
    assert report.num_evaluations > 128_000

    # Within a smaller budget there is no flow, and the verdict says so.
    method = vi.Auto(max_evaluations=50_000)
    fit = vi.fit(target, method, key=getkey(), progress=False)
    assert isinstance(fit.family, vi.FullRank)
    assert fit.state.num_evaluations <= 50_000


@pytest.mark.slow
def test_starts_at_an_optimum_outside_of_the_mass_agree(getkey):
    # The optimum of a hierarchy has effects of nearly the same size; the mass has not.
    rng = np.random.default_rng(0)
    group = np.arange(120) % 40
    y = 0.3 * rng.normal(size=40)[group] + 0.7 * rng.normal(size=120)

    def log_density(params, y):
        mean = jnp.exp(params["log_scale"]) * params["z"][group]
        prior = norm.logpdf(params["log_scale"]) + jnp.sum(norm.logpdf(params["z"]))
        return prior + jnp.sum(norm.logpdf(y, mean, 0.7))

    params = {"log_scale": vi.Param(), "z": vi.Param(40)}
    target = vi.from_log_density(log_density, params, y)
    # Within this budget no globals are looked for.
    fit = vi.fit(target, vi.Auto(max_evaluations=40_000), key=getkey(), progress=False)
    assert isinstance(fit.family, vi.FullRank)
    best = fit.state.paths.x[np.argmax(fit.state.paths.log_p)]
    assert not fit.state.modes.are_near(best[None])[0]
    # One ascent was enough, which took no more than some steps.
    assert jnp.sum(fit.state.tried) == 1
    assert fit.state.ascent.num_iterations < 40
    report = vi.report(fit, key=getkey())
    assert report.num_agreeing is not None
    assert report.num_agreeing >= 12
    assert report.num_apart == 0


@pytest.mark.slow
def test_a_bad_beginning_does_not_end_in_small_steps(getkey):
    # Far too wide, so that the first steps gain little: the rate must recover.
    def log_density(params):
        scale = jnp.exp(params["log_scale"])
        data = jnp.sum(norm.logpdf(jnp.sin(jnp.arange(40.0)), scale * params["z"], 1.0))
        prior = norm.logpdf(params["log_scale"]) + jnp.sum(norm.logpdf(params["z"]))
        return prior + data

    params = {"log_scale": vi.Param(), "z": vi.Param(40)}
    target = vi.from_log_density(log_density, params)
    for scale in (0.1, 3.0):
        wide = vi.FullRank(2 * jnp.ones(41), scale=scale)
        method = vi.NaturalGradient()
        fit = vi.fit(target, method, wide, key=getkey(), progress=False)
        assert fit.result == vi.RESULTS.converged
        assert fit.state.num_iterations < 50


@pytest.mark.slow
def test_heavier_tails_where_weights_are_poor(getkey, tmp_path):
    # Flat priors: the mean has a t distribution of 7 - 2 degrees of freedom.
    y = np.array([1.0, 2.5, 3.1, 4.0, 4.4, 5.2, 6.3])
    params = {"mu": vi.Param(), "sigma": vi.Param((), constraints.positive)}
    target = vi.from_log_density(
        lambda params, y: jnp.sum(norm.logpdf(y, params["mu"], params["sigma"])),
        params,
        y,
    )
    fit = vi.fit(target, key=getkey(), progress=False, checkpoint=tmp_path / "fit")
    assert isinstance(fit.family, vi.FullRank)
    assert fit.state.heavier
    assert isinstance(fit.proposal, vi.StudentT)
    assert fit.proposal.df == 3
    draws = fit.draw(40_000, key=getkey()).params
    # Its squared scale is the sum of squares over 7 * 5, and its variance 5 / 3 of that.
    std = np.sqrt(np.sum((y - y.mean()) ** 2) / (7 * 3))
    assert abs(jnp.mean(draws["mu"]) - y.mean()) < 0.05 * std
    assert abs(jnp.log(jnp.std(draws["mu"]) / std)) < 0.1
    assert vi.report(fit, key=getkey()).trustworthy
    assert same(vi.load(tmp_path / "fit", like=fit), fit)


@pytest.mark.slow
def test_a_flow_that_is_not_good_enough_is_trained_for_longer(getkey, monkeypatch):
    monkeypatch.setattr("vijax._run.richer_family.FLOW_STEPS", 60)
    monkeypatch.setattr("vijax._run.richer_family.MORE_STEPS", 440)
    target = vi.from_log_density(banana, BANANA)
    key = getkey()
    fit = vi.fit(target, key=key, progress=False)
    assert fit.num_steps == 500
    assert fit.losses.shape == (500,)
    assert jnp.mean(fit.losses[-100:]) < jnp.mean(fit.losses[40:60])
    report = vi.report(fit, key=getkey())
    # Two legs of 64 draws a step, each judged, and the draws before.
    assert report.num_evaluations is not None
    first = int(fit.state.before.num_evaluations)
    assert report.num_evaluations == first + 500 * 64 + 3 * 4_096
    # Not beyond the budget.
    small = vi.Auto(max_evaluations=300_000)
    fit = vi.fit(target, small, key=key, progress=False)
    assert fit.num_steps == 60


@pytest.mark.slow
def test_a_budget_ends_the_run(getkey):
    target = vi.from_log_density(banana, BANANA)
    method = vi.Auto(num_starts=4, max_evaluations=300)
    fit = vi.fit(target, method, key=getkey(), progress=False)
    assert fit.result == vi.RESULTS.converged
    assert 300 - 64 < fit.state.num_evaluations <= 300


def test_same_key_same_result_and_nothing_compiles_again(getkey):
    traces, first = 0, 0

    def log_density(params, data):
        nonlocal traces
        traces += 1
        return correlated_log_density(params, data)

    loc, precision = ill_conditioned(3, 10.0, getkey())
    key, draw_key = getkey(), getkey()
    fits = []
    for shift in (0.0, 0.0, 5.0):
        params, data = {"x": vi.Param(3)}, (loc + shift, precision)
        target = vi.from_log_density(log_density, params, data)
        fit = vi.fit(target, key=key, progress=False)
        fits.append((fit.family, fit.losses, fit.draw(50, key=draw_key).x))
        if shift == 0.0 and len(fits) == 1:
            first = traces
    # Checking the target evaluates its shapes anew, once.
    assert traces - first <= 2
    assert eqx.tree_equal(fits[0], fits[1])
    assert jnp.allclose(fits[2][0].mean, loc + 5.0, atol=1e-4)


@pytest.mark.slow
def test_inside_jit_and_vmap(getkey):
    loc, precision = ill_conditioned(2, 10.0, getkey())

    @eqx.filter_vmap
    def fit(shift, key):
        target = correlated_target(loc + shift, precision)
        return vi.fit(target, vi.Auto(4), key=key, max_steps=200, progress=False)

    fits = fit(jnp.array([0.0, 3.0]), jr.split(getkey(), 2))
    assert jnp.all(fits.result._value == vi.RESULTS.converged._value)
    for i, shift in enumerate((0.0, 3.0)):
        one = jax.tree.map(lambda leaf: leaf[i], fits)  # noqa: B023
        assert jnp.allclose(one.family.mean, loc + shift, atol=1e-4)


@pytest.mark.slow
def test_going_on_after_the_end_changes_nothing(getkey):
    loc, precision = ill_conditioned(3, 10.0, getkey())
    fit = vi.fit(correlated_target(loc, precision), key=getkey(), progress=False)
    on = fit.resume(10, progress=False)
    assert on.num_steps == fit.num_steps
    assert eqx.tree_equal(on.family, fit.family)


def test_a_run_in_pieces_is_one_run(getkey):
    loc, precision = ill_conditioned(3, 100.0, getkey())
    target, key = correlated_target(loc, precision), getkey()
    whole = vi.fit(target, key=key, progress=False)
    part = vi.fit(target, key=key, max_steps=7, progress=False)
    assert part.num_steps == 7
    rest = part.resume(10_000, progress=False)
    assert eqx.tree_equal(rest.family, whole.family)
    assert jnp.array_equal(rest.losses, whole.losses)


@pytest.mark.slow
def test_an_edge_inside_the_space(getkey):
    # Exponential beyond 0.1, nothing below: no usual start is inside for sure.
    target = vi.from_log_density(
        lambda params: jnp.where(params["x"] > 0.1, -params["x"], -jnp.inf),
        {"x": vi.Param()},
    )
    fit = vi.fit(target, key=getkey(), progress=False)
    x = fit.draw(20_000, key=getkey()).params["x"]
    assert jnp.all(x > 0.1)
    report = vi.report(fit, key=getkey())
    assert abs(jnp.mean(x) - 1.1) < 0.05
    assert abs(jnp.log(jnp.std(x))) < np.log(1.05)
    # A Gaussian covers it: heavier than the exponential where it has to be.
    assert report.khat < 0.5


def test_an_improper_posterior_is_refused_in_words(getkey):
    params = {"used": vi.Param(), "unused": vi.Param()}
    target = vi.from_log_density(lambda params: -0.5 * params["used"] ** 2, params)
    with pytest.raises(vi.FitError, match="does not change with `unused`: the posterior"):
        vi.fit(target, key=getkey(), progress=False)


def test_errors(getkey):
    with pytest.raises(ValueError, match="`num_starts` must be a whole number"):
        vi.Auto(0)
    with pytest.raises(ValueError, match="`max_evaluations` must be a whole number"):
        vi.Auto(max_evaluations=0)
    target = vi.from_log_density(banana, BANANA)
    with pytest.raises(ValueError, match="moves a `vi.FullRank`, but.*MeanField"):
        vi.fit(target, vi.Auto(), vi.MeanField, key=getkey(), progress=False)


def test_a_family_of_the_users_choice_is_fitted_by_advi(getkey):
    target = vi.from_log_density(banana, BANANA)
    fit = vi.fit(target, family=vi.MeanField, key=getkey(), max_steps=5, progress=False)
    assert isinstance(fit.family, vi.MeanField)
    assert fit.num_steps == 5


@pytest.mark.slow
def test_a_flow_is_loaded_in_a_new_process_and_follows_a_resumed_fit(tmp_path, getkey):
    target, key = vi.from_log_density(banana, BANANA), getkey()
    whole = vi.fit(target, key=key, progress=False, checkpoint=tmp_path / "flow")
    assert isinstance(whole.family, vi.Affine)
    # In a new process only this much is known.
    like = vi.fit(target, key=getkey(), progress=False, max_steps=0)
    loaded = vi.load(tmp_path / "flow", like=like)
    assert same(loaded, whole)
    draws = [fit.draw(100, key=key).x for fit in (whole, loaded)]
    assert jnp.array_equal(draws[0], draws[1])
    in_parts = vi.fit(target, key=key, progress=False, max_steps=7)
    assert isinstance(in_parts.family, vi.FullRank)
    assert same(in_parts.resume(progress=False), whole)
    # A fit that is over is left alone.
    again = whole.resume(progress=False)
    assert eqx.tree_equal(again.family, whole.family)
    assert again.num_steps == whole.num_steps
    assert again.result == vi.RESULTS.converged


@pytest.mark.slow
def test_the_checkpoint_is_what_is_returned(tmp_path, getkey, monkeypatch):
    # The flow is no better than the Gaussian, for once.
    monkeypatch.setattr("vijax._run.richer_family._flow_is_better", lambda *_: False)
    target, path = vi.from_log_density(banana, BANANA), tmp_path / "fit"
    fit = vi.fit(target, key=getkey(), progress=False, checkpoint=path)
    assert isinstance(fit.family, vi.FullRank)
    assert same(vi.load(path, like=fit), fit)


@pytest.mark.slow
def test_a_mixture_is_loaded_in_a_new_process(tmp_path, getkey):
    target = vi.from_log_density(two_modes, {"x": vi.Param(3)})
    fit = vi.fit(target, key=getkey(), progress=False)
    vi.save(tmp_path / "fit", fit)
    like = vi.fit(target, key=getkey(), progress=False, max_steps=0)
    loaded = vi.load(tmp_path / "fit", like=like)
    assert isinstance(loaded.family, vi.Mixture)
    assert same(loaded, fit)


def test_no_call_of_lapack_has_several_matrices(getkey):
    # Two such calls side by side wait for each other for ever on two threads.
    target = vi.from_log_density(two_modes, {"x": vi.Param(3)})
    fit = vi.fit(target, vi.Auto(4), key=getkey(), progress=False)
    probes = probe(target, jnp.ones((64, 3)), 64)
    half = jnp.ones((32, 3))
    with lenient_promotion():
        told = jax.make_jaxpr(stages.tell)(half, fit.state, probes)
    weighed = jax.make_jaxpr(jax.vmap(fit.family.log_prob))(jnp.ones((50, 3)))
    calls = r":f64\[([\d,]*)\] [^\n=]*= (?:triangular_solve|cholesky|eigh|qr|geqrf)\["
    shapes = re.findall(calls, f"{told}\n{weighed}")
    assert len(shapes) > 5
    assert all(shape.count(",") == 1 for shape in shapes), shapes
