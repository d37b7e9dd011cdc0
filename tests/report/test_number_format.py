"""Posteriors that the numbers are too coarse for are not trusted, and it says so."""

import numpy as np
import pytest

import vijax as vi
from vijax._report.number_format import rounding
from vijax._target.probe import HostProbe


def far_away(loc, dtype):
    def log_density(params):
        return -0.5 * (params["a"] - dtype(loc)) ** 2 - 0.5 * params["b"] ** 2

    zero = np.zeros((), dtype)
    return vi.from_log_density(log_density, {"a": dtype(loc) * (zero + 1), "b": zero})


@pytest.mark.parametrize("loc", [1e7, 1e8])
def test_a_mean_far_from_zero_in_32_bits(loc, getkey):
    fit = vi.fit(far_away(loc, np.float32), key=getkey(), progress=False)
    report = vi.report(fit, key=getkey())
    assert not report.trustworthy
    assert any("too coarse for `a`:" in problem for problem in report.problems)
    assert any("jax_enable_x64" in problem for problem in report.problems)


def test_not_where_the_numbers_are_fine(getkey):
    fit = vi.fit(far_away(1e8, np.float64), key=getkey(), progress=False)
    assert vi.report(fit, key=getkey()).trustworthy
    fit = vi.fit(far_away(1e4, np.float32), key=getkey(), progress=False)
    assert vi.report(fit, key=getkey()).trustworthy


@pytest.mark.parametrize(("constant", "noise"), [(0.0, 0.0), (3e7, 0.58)])
def test_the_noise_of_a_log_density(constant, noise):
    # A constant as large as a sum over many rows swallows the digits.
    constant, half = np.float32(constant), np.float32(0.5)
    target = vi.from_log_density(
        lambda params: -half * params["a"] ** 2 - constant,
        {"a": np.zeros((), np.float32)},
    )
    x = np.random.default_rng(0).normal(size=(100, 1))
    found = rounding(HostProbe(target), x)
    assert found.coarse == ()
    assert abs(found.noise - noise) < 0.6 * max(noise, 1e-4)
