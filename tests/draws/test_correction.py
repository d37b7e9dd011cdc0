"""One procedure corrects the draws of a fit, whatever their number."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import vijax as vi
from vijax._draws import correction
from vijax._draws.hamiltonian import Carried


def normal(dim):
    return vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(dim)}
    )


def fixed(family, target, key):
    """A fit that is this family."""
    run = {"key": key, "max_steps": 0, "progress": False}
    return vi.fit(target, vi.Laplace(), family, **run)


def test_importance_where_weights_are_good(getkey):
    fit = vi.fit(normal(3), key=getkey(), progress=False)
    assert fit.correction == "importance"
    for number in (7, 6_000):
        assert fit.draw(number, key=getkey()).origin["corrected"] == "importance"
    # Unless told otherwise, draws of other methods are plain.
    assert fixed(vi.FullRank(jnp.zeros(3)), normal(3), getkey()).correction == "none"


def test_resample_move_for_any_number_of_draws(getkey):
    # Too wide in each of 80 coordinates, and a little off: the weights are worth a few
    # dozen draws of thousands.
    fit = fixed(vi.FullRank(jnp.full(80, 0.1), scale=1.25), normal(80), getkey())
    for number in (8, 3_000):
        draws = fit.draw(number, key=getkey(), corrected=True)
        assert draws.origin["corrected"] == "resample-move"
        assert draws.x.shape == (number, 80)
    noise = 5 / 3_000**0.5
    assert np.all(np.abs(np.mean(draws.x, axis=0)) < noise)
    assert np.all(np.abs(np.log(np.std(draws.x, axis=0))) < noise)
    assert len(np.unique(np.asarray(draws.x)[:, 0])) > 2_900


def test_weights_are_not_thrown_away(getkey, monkeypatch):
    # Where trajectories begin: nearer to the target than the family is, in a hierarchy
    # whose scale the family has too narrow.
    still = lambda parts, x, key, number: Carried(x, parts.probe(x).log_p, 1.0)
    monkeypatch.setattr(correction, "_round", still)

    def log_density(params):
        v, x = params["v"], params["x"]
        return norm.logpdf(v, 0.0, 1.0) + jnp.sum(norm.logpdf(x, 0.0, jnp.exp(v)))

    target = vi.from_log_density(log_density, {"v": vi.Param(), "x": vi.Param(30)})
    narrow = vi.FullRank(jnp.zeros(31), jnp.full(31, 1.0).at[0].set(0.35))
    fit = fixed(narrow, target, getkey())
    plain = fit.draw(4_000, key=getkey(), corrected=False).params["v"]
    better = fit.draw(4_000, key=getkey(), corrected=True)
    assert better.origin["corrected"] == "resample-move"
    # Of the shared scale the weights know what the effects say: about their own spread.
    assert abs(np.std(plain) - 0.35) < 0.02
    assert len(np.unique(better.params["v"])) < 2_000
    assert abs(np.mean(better.log_p) - np.mean(fit.draw(4_000, key=getkey()).log_p)) > 1


def test_none_where_nothing_helps(getkey):
    wide = fixed(vi.FullRank(jnp.zeros(6), scale=40.0), normal(6), getkey())
    with pytest.warns(UserWarning, match="plain draws of the family"):
        draws = wide.draw(100, key=getkey(), corrected=True)
    assert draws.log_q is not None


@pytest.mark.slow
def test_the_report_judges_what_is_handed_out(getkey):
    target = vi.from_log_density(
        lambda params: jnp.sum(jnp.log(1 / (1 + params["x"] ** 2 / 12)) * 6.5),
        {"x": vi.Param(400)},
    )
    fit = vi.fit(target, key=getkey(), progress=False)
    assert fit.correction == "resample-move"
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert report.acceptance is not None
    draws = fit.draw(4_000, key=getkey())
    by_name = {q.name: q for q in report.quantities}
    for i in (0, 399):
        assert abs(np.std(draws.x[:, i]) / by_name[f"x[{i}]"].std - 1) < 0.12
