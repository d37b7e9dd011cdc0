"""The verdict: what it trusts, what it does not, and what it says."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.stats import cauchy, norm, t as student_t

import vijax as vi

from ..helpers import correlated_target


def fitted(log_density, dim, key, method: Any = "auto", **kwargs):
    params = {"x": vi.Param(dim)}
    target = vi.from_log_density(log_density, params)
    return vi.fit(target, method, key=key, progress=False, **kwargs)


def test_a_good_fit_is_trusted_and_its_figures_are_true(getkey):
    precision = jnp.array([[2.0, 0.9], [0.9, 1.0]])
    loc = jnp.array([1.0, -2.0])
    fit = vi.fit(correlated_target(loc, precision), key=getkey(), progress=False)
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert report.problems == ()
    assert report.result == "converged"
    # The density is that of a Gaussian without its constant, which is the evidence.
    evidence = np.log(2 * np.pi) - 0.5 * np.log(np.linalg.det(precision))
    assert abs(report.log_evidence.mean - evidence) < 5 * report.log_evidence.stderr
    assert report.elbo is not None
    assert report.gap is not None
    assert report.score_discrepancy is not None
    assert abs(report.elbo.mean - evidence) < 1e-3
    assert abs(report.gap) < 0.05
    assert report.score_discrepancy < 1e-6
    assert report.effective > 0.8
    std = np.sqrt(np.diagonal(np.linalg.inv(precision)))
    by_name = {q.name: q for q in report.quantities}
    assert set(by_name) == {"x[0]", "x[1]"}
    for i in range(2):
        q = by_name[f"x[{i}]"]
        assert abs(q.mean - loc[i]) < 5 * q.mean_stderr * q.std
        assert abs(np.log(q.std / std[i])) < 5 * q.std_stderr
        assert 0.5 < q.mean_stderr * 64 < 2  # Of 4,096 draws.
    text = repr(report)
    assert text.startswith("Trustworthy")
    assert "x[0]" in text
    assert "k-hat" in text


@pytest.mark.parametrize(
    "log_density",
    [
        pytest.param(
            lambda params: jnp.sum(cauchy.logpdf(params["x"])), marks=pytest.mark.slow
        ),
        lambda params: jnp.sum(student_t.logpdf(params["x"], 2.0)),
    ],
    ids=["Cauchy", "t(2)"],
)
def test_tails_without_a_variance_are_not_trusted(log_density, getkey):
    reports = []
    for _ in range(3):
        reports.append(vi.report(fitted(log_density, 1, getkey()), key=getkey()))
    assert not any(report.trustworthy for report in reports)
    assert all("NUTS" in report.advice for report in reports)
    # Where not even the weights are, what the draws said of it was not sure: more of them
    # have decided.
    named = [report for report in reports if "x[0]" in report.problems[0]]
    assert named
    assert all("quantiles" in repr(report) for report in named)
    assert all(report.num_draws == 4 * 4_096 for report in named)


@pytest.mark.slow
def test_a_variance_that_does_not_quite_exist_is_seldom_trusted():
    # At the border: a k-hat of 1 on the average, but of 0.1 standard error.
    density = lambda params: jnp.sum(student_t.logpdf(params["x"], 2.0))
    target = vi.from_log_density(density, {"x": vi.Param(1)})
    fits = [vi.fit(target, key=jr.key(seed), progress=False) for seed in range(20)]
    reports = [vi.report(fit, key=jr.key(99)) for fit in fits]
    assert sum(report.trustworthy for report in reports) <= 3


@pytest.mark.slow
def test_mean_field_advi_on_a_correlated_posterior_is_not_trusted(getkey):
    precision = jnp.linalg.inv(jnp.array([[1.0, 0.9], [0.9, 1.0]]))
    target = correlated_target(jnp.zeros(2), precision)
    fit = vi.fit(target, "advi", key=getkey(), max_steps=3_000, progress=False)
    report = vi.report(fit, key=getkey())
    assert not report.corrected
    assert not report.trustworthy
    # Its standard deviations are sqrt(1 - 0.9**2) = 0.44 of the true ones; weights of so
    # narrow a family see only a part of that.
    assert all(q.std_error < np.log(0.75) for q in report.quantities)
    assert "sd off" in repr(report)


def test_a_good_advi_fit_is_trusted(getkey):
    fit = fitted(lambda params: -0.5 * jnp.sum(params["x"] ** 2), 2, getkey(), "advi")
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    # It has no starts of its own, so that the report looks for other modes.
    assert report.num_agreeing is not None
    assert report.num_agreeing >= 8
    assert report.num_apart == 0
    assert report.other_share == 0
    assert report.num_evaluations is None
    assert all(abs(q.mean_error) < 0.1 for q in report.quantities)


def test_a_fit_that_is_far_off_is_not_trusted(getkey):
    fit = fitted(
        lambda params: -0.5 * jnp.sum((params["x"] - 30.0) ** 2),
        2,
        getkey(),
        "advi",
        max_steps=3,
    )
    report = vi.report(fit, key=getkey())
    assert not report.trustworthy
    assert any("worth" in problem for problem in report.problems)


@pytest.mark.slow
def test_a_mode_that_one_start_found_among_others_is_not_trusted(getkey):
    # Five narrow bumps, so that starts come to rest at several of them, and the best one
    # is found late or never. Weights see only their own bump.
    def log_density(params):
        x = params["x"]
        height = jnp.array([0.0, 30.0, 60.0, 90.0, 120.0])
        place = jnp.array([0.0, -1.7, 1.7, -30.0, 5.0])
        return jax.nn.logsumexp(height + norm.logpdf(x[0], place, 0.02))

    num_right = 0
    for i in range(8):
        fit = fitted(log_density, 1, jr.fold_in(getkey(), i), vi.Auto(4))
        report = vi.report(fit, key=getkey())
        is_right = abs(fit.draw(100, key=getkey()).x.mean() - 5.0) < 0.1
        assert report.khat < 0.5
        assert is_right or not report.trustworthy
        num_right += int(is_right)
    assert num_right >= 4


def two_modes(params):
    left = jnp.log(0.3) - 0.5 * jnp.sum((params["x"] + 6) ** 2)
    return jnp.logaddexp(left, jnp.log(0.7) - 0.5 * jnp.sum((params["x"] - 6) ** 2))


@pytest.mark.parametrize("kind", [pytest.param("traced", marks=pytest.mark.slow), "advi"])
def test_a_mode_that_the_fit_has_missed_is_reported(kind, getkey):
    # Whichever mode the fit is at, its weights are perfect.
    if kind == "traced":
        target = vi.from_log_density(two_modes, {"x": vi.Param(2)})
        fit = jax.jit(lambda key: vi.fit(target, vi.Auto(1), key=key))(getkey())
    else:
        fit = fitted(two_modes, 2, getkey(), kind)
    report = vi.report(fit, key=getkey())
    assert report.khat < 0.5
    assert report.effective > 0.8
    assert not report.trustworthy
    assert report.num_apart is not None
    assert report.num_apart > 0
    assert min(abs(report.other_share - 0.3), abs(report.other_share - 0.7)) < 0.02
    assert "another mode" in report.problems[0]
    assert vi.report(fit, key=getkey(), num_starts=0).trustworthy


@pytest.mark.slow
def test_a_mode_without_mass_is_no_problem(getkey):
    # As high as the other, but ten thousand times narrower in each direction.
    def log_density(params):
        wide = jnp.sum(norm.logpdf(params["x"]))
        narrow = jnp.sum(norm.logpdf(params["x"], 12.0, 1e-4)) + 2 * jnp.log(1e-4)
        return jnp.logaddexp(wide, narrow)

    report = vi.report(fitted(log_density, 2, getkey(), "advi"), key=getkey())
    assert report.trustworthy
    assert report.other_share < 1e-3


def unequal(params):
    return -0.5 * jnp.sum((params["x"] - 1) ** 2 / jnp.array([1.0, 1e-4, 4.0]))


@pytest.mark.slow
def test_particles_are_judged(getkey):
    good = fitted(
        lambda params: -0.5 * jnp.sum((params["x"] - 1) ** 2), 3, getkey(), "svgd"
    )
    report = vi.report(good, key=getkey())
    assert report.trustworthy
    assert not report.corrected
    assert report.elbo is None
    assert report.gap is None
    assert report.score_discrepancy is None
    assert report.kernel_stein_discrepancy is not None
    assert report.kernel_stein_discrepancy.pvalue > 0.1
    evidence = 1.5 * np.log(2 * np.pi)
    assert abs(report.log_evidence.mean - evidence) < 5 * report.log_evidence.stderr
    assert "Stein" in repr(report)
    # The kernel sees the wide directions, and leaves the narrow one too wide.
    bad = fitted(unequal, 3, getkey(), "svgd", max_steps=1_000)
    assert not vi.report(bad, key=getkey()).trustworthy
    # Far away from the target everything speaks against them.
    far = fitted(
        lambda params: -0.5 * jnp.sum((params["x"] - 9) ** 2),
        2,
        getkey(),
        "svgd",
        max_steps=5,
    )
    report = vi.report(far, key=getkey())
    assert not report.trustworthy
    assert any("kernel Stein discrepancy" in problem for problem in report.problems)


def test_what_cannot_be_reported(getkey):
    fit = fitted(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2),
        2,
        getkey(),
        vi.SVGD(num_particles=1),
        max_steps=2,
    )
    with pytest.raises(ValueError, match="two particles at least"):
        vi.report(fit, key=getkey())
    with pytest.raises(ValueError, match="`num_draws` must be a whole number"):
        vi.report(fit, key=getkey(), num_draws=3)


def test_where_some_draws_have_no_density_there_is_no_elbo(getkey):
    log_density = lambda params: jnp.where(
        params["x"] > 3, -jnp.inf, -0.5 * params["x"] ** 2
    )
    target = vi.from_log_density(log_density, {"x": vi.Param()})
    fit = vi.fit(target, key=getkey(), progress=False)
    report = vi.report(fit, key=getkey())
    assert report.elbo is not None
    assert not np.isfinite(report.elbo.mean)
    text = repr(report)
    assert "No ELBO: the density is not finite at some plain draws; log evidence" in text
    assert "nan" not in text
    # Of a standard normal, cut at three.
    assert abs(report.log_evidence.mean - 0.5 * np.log(2 * np.pi)) < 0.02
