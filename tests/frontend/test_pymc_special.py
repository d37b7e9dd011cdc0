"""Special functions of PyMC's distributions, against SciPy's, and their derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate, special

from vijax._frontend.pymc_forms import _scalar_forms
from vijax._frontend.pymc_special import (
    betainc,
    erfcx,
    piecewise_polynomial,
)


FAR = np.concatenate([-np.logspace(1.3, -3, 40), [0.0], np.logspace(-3, 8, 60)])


def _slope(fn, x):
    return jax.jit(jax.vmap(jax.grad(fn)))(jnp.asarray(x))


@jax.jit
def _betainc_and_slopes(a, b, x):
    fn = jax.value_and_grad(betainc, (0, 1, 2))
    return jax.vmap(fn, (None, None, 0))(a, b, x)


def _differences(fn, x, step):
    near, far = fn(x + step) - fn(x - step), fn(x + 2 * step) - fn(x - 2 * step)
    return (8 * near - far) / (12 * step)


def test_erfcx_is_scipys():
    np.testing.assert_allclose(jax.jit(erfcx)(FAR), special.erfcx(FAR), rtol=1e-13)


def test_erfcx_is_scipys_in_float32():
    x = FAR[FAR > -9].astype(np.float32)
    out = erfcx(jnp.asarray(x))
    assert out.dtype == jnp.float32
    # Below zero a rounding of `x` is multiplied by `2 x`.
    rtol = np.where(x < 0, 4e-7 * (1 + 2 * x**2), 1e-6)
    right = special.erfcx(x.astype(float))
    assert np.all(np.abs(np.asarray(out) / right - 1) < rtol)


def test_slope_of_erfcx_holds_where_its_parts_cancel():
    # By series for large `x`: -1 / (sqrt(pi) x^2) (1 - 3 / (2 x^2) + 15 / (4 x^4)).
    x = np.logspace(2, 7, 30)
    series = -(1 - 1.5 / x**2 + 3.75 / x**4) / (np.sqrt(np.pi) * x**2)
    np.testing.assert_allclose(_slope(erfcx, x), series, rtol=1e-9)
    x = np.linspace(-4, 6, 41)
    by_steps = _differences(special.erfcx, x, 1e-3 * np.ones_like(x))
    np.testing.assert_allclose(_slope(erfcx, x), by_steps, rtol=1e-8)


def test_erfcx_has_no_nan_at_the_ends():
    x = jnp.array([-jnp.inf, -1e200, 1e200, jnp.inf])
    np.testing.assert_array_equal(erfcx(x)[jnp.array([0, 1, 3])], [np.inf, np.inf, 0.0])
    assert np.all(np.isfinite(_slope(erfcx, x)))


@pytest.mark.parametrize("a", [0.05, 0.7, 3.0, 40.0, 900.0])
@pytest.mark.parametrize("b", [0.05, 1.0, 7.0, 900.0])
def test_slopes_of_betainc(a, b):
    mean, width = a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
    x = np.clip(mean + width * np.linspace(-3, 3, 13), 1e-3, 1 - 1e-3)
    value, (by_a, by_b, by_x) = _betainc_and_slopes(a, b, x)
    np.testing.assert_allclose(value, special.betainc(a, b, x), rtol=1e-9, atol=1e-12)
    of_a = lambda y: special.betainc(y, b, x)
    of_b = lambda y: special.betainc(a, y, x)
    # It changes over a part of `a`, or over a part of its root if that is less.
    step = lambda y: 1e-2 * min(y, y**0.5)
    close: Any = {"rtol": 1e-5, "atol": 1e-10}
    np.testing.assert_allclose(by_a, _differences(of_a, a, step(a)), **close)
    np.testing.assert_allclose(by_b, _differences(of_b, b, step(b)), **close)
    density = np.exp((a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - special.betaln(a, b))
    # JAX knows `betaln` to eight digits.
    np.testing.assert_allclose(by_x, density, rtol=3e-8)


def test_slopes_of_betainc_are_finite_at_the_ends():
    x = jnp.array([0.0, 1.0, -0.5, 1.5])
    _, slopes = _betainc_and_slopes(0.5, 0.5, x)
    assert all(np.all(np.isfinite(slope)) for slope in slopes)


def test_softplus_and_log1mexp_have_their_slopes_far_out():
    math = pytest.importorskip("pytensor.scalar.math")
    softplus = _scalar_forms()[math.Softplus]
    log1mexp = _scalar_forms()[math.Log1mexp]
    x = np.array([-800.0, -30.0, -1e-3, 0.0, 30.0, 800.0])
    np.testing.assert_allclose(softplus(jnp.asarray(x)), np.logaddexp(0.0, x), rtol=1e-14)
    np.testing.assert_allclose(_slope(softplus, x), special.expit(x), rtol=1e-14)
    x = np.array([-700.0, -40.0, -1.0, -0.6, -1e-3, -1e-12])
    right = np.where(x < -1, np.log1p(-np.exp(x)), np.log(-np.expm1(x)))
    np.testing.assert_allclose(log1mexp(jnp.asarray(x)), right, rtol=1e-13)
    np.testing.assert_allclose(_slope(log1mexp, x), -1 / np.expm1(-x), rtol=1e-13)
    assert np.all(np.isfinite(_slope(log1mexp, np.array([0.0, -1e-320]))))


@pytest.mark.parametrize("outside", ["extrapolate", "zeros", "nearest"])
def test_piecewise_polynomials_are_splines(outside):
    knots = np.array([-1.0, 0.0, 0.5, 2.0, 3.0])
    x = np.linspace(-2, 4, 25)
    given = np.sin(knots)
    code = {"extrapolate": 0, "zeros": 1, "nearest": 3}[outside]
    spline = interpolate.InterpolatedUnivariateSpline(knots, given, k=1, ext=code)
    line = interpolate.make_interp_spline(knots, given, k=1)
    parts = interpolate.PPoly.from_spline(line)
    inside = slice(1, -1)
    fn = piecewise_polynomial(parts.x[inside], parts.c[:, inside], outside)
    np.testing.assert_allclose(fn(jnp.asarray(x)), spline(x), atol=1e-14)
