"""Pareto smoothing: ArviZ's, and what ArviZ cannot do."""

import numpy as np
import pytest
from arviz_stats.base.array import array_stats

from vijax._draws.pareto import pareto_smoothed


KINDS = {
    "normal": lambda rng, n: 3 * rng.standard_normal(n),
    "heavy": lambda rng, n: 2 * rng.standard_t(3, n),
    "exponential": lambda rng, n: -0.7 * np.log(rng.random(n)),
    "bounded": lambda rng, n: -(rng.random(n) ** 5),
    "ties": lambda rng, n: np.round(rng.standard_normal(n), 1),
    "far below": lambda rng, n: 700 * rng.standard_normal(n),
}


@pytest.mark.parametrize("count", [30, 225, 226, 1_000, 4_096])
@pytest.mark.parametrize("name", KINDS)
def test_as_arviz_has_it(name, count):
    log_weights = KINDS[name](np.random.default_rng(count), count)
    smooth, khat = pareto_smoothed(log_weights)
    with np.errstate(all="ignore"):
        expected, expected_khat = array_stats.psislw(-log_weights)
    if np.any(np.isnan(expected)) or np.isnan(expected_khat):
        # One draw has all the weight. Newer versions leave the others as they are.
        assert khat == np.inf
        expected = log_weights - np.logaddexp.reduce(log_weights)
    else:
        assert np.isclose(khat, expected_khat, rtol=1e-9)
    # Which of equal ones comes first is nothing.
    np.testing.assert_allclose(np.sort(smooth), np.sort(expected), rtol=1e-9, atol=1e-9)
    assert abs(np.logaddexp.reduce(smooth)) < 1e-9
    if name != "ties":
        assert np.all(np.diff(smooth[np.argsort(log_weights)]) > -1e-9)


def test_a_tail_of_equal_weights():
    # ArviZ raises here.
    log_weights = np.minimum(np.random.default_rng(0).standard_normal(1_000), 0.5)
    smooth, khat = pareto_smoothed(log_weights)
    assert khat == -1
    expected = log_weights - np.logaddexp.reduce(log_weights)
    np.testing.assert_allclose(smooth, expected, atol=1e-12)


def test_nothing_to_fit():
    one = np.full(100, -1e4)
    one[3] = 0.0
    smooth, khat = pareto_smoothed(one)
    assert khat == np.inf
    assert smooth[3] == 0
    short = np.random.default_rng(0).standard_normal(20)
    smooth, khat = pareto_smoothed(short)
    assert khat == np.inf
    np.testing.assert_allclose(smooth, short - np.logaddexp.reduce(short))
