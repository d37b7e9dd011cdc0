"""Special functions that PyMC's distributions need, with derivatives that hold far out.

Pure JAX; the names are those of `scipy.special`.
"""

from collections.abc import Callable

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array


# From here on the slope of `erfcx` is a series.
_FAR = 10.0
# Of `sqrt(pi) x erfcx(x) - 1` in powers of `1 / (2 x^2)`, from the highest one down.
_SERIES = (2027025.0, -135135.0, 10395.0, -945.0, 105.0, -15.0, 3.0, -1.0, 0.0)


@jax.custom_jvp
def erfcx(x: Array) -> Array:
    r"""$e^{x^2} \mathrm{erfc}(x)$, with a derivative that holds far out.

    **Reference:** NIST Digital Library of Mathematical Functions, equation 7.12.1.
    """
    return special.erfcx(x)


@erfcx.defjvp
def _erfcx_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    out, scale = erfcx(x), jnp.asarray(2 / np.sqrt(np.pi), x.dtype)
    # `2 x erfcx(x)` and `2 / sqrt(pi)` cancel far out.
    near = 2 * x * out - scale
    inverse = 1 / jnp.maximum(x, jnp.asarray(_FAR, x.dtype))
    series = jnp.polyval(jnp.asarray(_SERIES, x.dtype), 0.5 * inverse**2)
    return out, finite(jnp.where(x < _FAR, near, scale * series)) * tangent


def finite(slope: Array) -> Array:
    """A derivative with large numbers for infinite ones: zero times it is zero.

    That is what it is multiplied by where another branch of a `switch` is taken.
    """
    most = float(jnp.finfo(slope.dtype).max)
    return jnp.nan_to_num(slope, nan=0.0, posinf=most, neginf=-most)


def _lentz(m: Array, parts: tuple, a: Array, b: Array, x: Array) -> tuple:
    """Two terms more of the fraction below, by the method of Lentz."""
    tiny = jnp.asarray(1e-30, x.dtype)
    away = lambda y: jnp.where(jnp.abs(y) < tiny, tiny, y)
    c, d, out = parts
    even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    for term in (even, odd):
        d = 1 / away(1 + term * d)
        c = away(1 + term / c)
        out = out * c * d
    return c, d, out


def _log_fraction_slopes(a: Array, b: Array, x: Array) -> tuple[Array, Array]:
    """The derivatives by `a` and `b` of the logarithm of the continued fraction
    `a B(a, b) I_x(a, b) / (x^a (1 - x)^b)`, for `x` below `(a + 1) / (a + b + 2)`.

    The fraction is in *Numerical Recipes*, section 6.4.
    """
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    eps = float(jnp.finfo(x.dtype).eps)

    def first(a: Array, b: Array) -> tuple:
        d = 1 / (1 - (a + b) * x / (a + 1))
        return one, d, d

    def advance(carry: tuple) -> tuple:
        m, parts, by_a, by_b, _ = carry
        step = lambda parts, a, b: _lentz(m, parts, a, b, x)
        new, new_by_a = jax.jvp(step, (parts, a, b), (by_a, one, zero))
        new_by_b = jax.jvp(step, (parts, a, b), (by_b, zero, one))[1]
        # For whole `b` the fraction ends, but its derivatives do not.
        pairs = (by_a, new_by_a), (by_b, new_by_b)
        changes = (jnp.abs(q[2] / new[2] - p[2] / parts[2]) for p, q in pairs)
        settled = jnp.abs(new[2] / parts[2] - 1) < eps
        for change in changes:
            settled &= change < eps
        done = jnp.all(settled | ~jnp.isfinite(new[2]))
        return m + 1, new, new_by_a, new_by_b, done

    going = lambda carry: ~carry[-1] & (carry[0] < 1_000)
    parts, by_a = jax.jvp(first, (a, b), (one, zero))
    by_b = jax.jvp(first, (a, b), (zero, one))[1]
    start = jnp.ones((), x.dtype), parts, by_a, by_b, jnp.array(False)
    _, (_, _, value), by_a, by_b, _ = lax.while_loop(going, advance, start)
    return by_a[2] / value, by_b[2] / value


def _log_betainc_slopes(a: Array, b: Array, x: Array) -> tuple[Array, Array]:
    """The derivatives of `log I_x(a, b)` by `a` and `b`, for `x` below the mean."""
    by_a, by_b = _log_fraction_slopes(a, b, x)
    common = special.digamma(a + b)
    by_a = by_a + jnp.log(x) - special.digamma(a) + common - 1 / a
    by_b = by_b + jnp.log1p(-x) - special.digamma(b) + common
    return by_a, by_b


@jax.custom_jvp
def betainc(a: Array, b: Array, x: Array) -> Array:
    """The regularized incomplete beta function; JAX's has no derivative by `a`."""
    return special.betainc(a, b, x)


@betainc.defjvp
def _betainc_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    a, b, x = jnp.broadcast_arrays(*primals)
    out = betainc(a, b, x)
    inside = (x > 0) & (x < 1) & (a > 0) & (b > 0)
    safe = lambda y, value: jnp.where(inside, y, jnp.asarray(value, y.dtype))
    a, b, x = safe(a, 1.0), safe(b, 1.0), safe(x, 0.5)
    log_density = special.xlogy(a - 1, x) + special.xlog1py(b - 1, -x)
    by_x = jnp.exp(log_density - special.betaln(a, b))
    # Above the mean the fraction converges for `1 - I_(1 - x)(b, a)`.
    above = x > (a + 1) / (a + b + 2)
    a, b = jnp.where(above, b, a), jnp.where(above, a, b)
    x = jnp.where(above, 1 - x, x)
    by_a, by_b = _log_betainc_slopes(a, b, x)
    part = betainc(a, b, x)
    by_a, by_b = part * by_a, part * by_b
    by_a, by_b = jnp.where(above, -by_b, by_a), jnp.where(above, -by_a, by_b)
    slopes = (jnp.where(inside, slope, 0.0) for slope in (by_a, by_b, by_x))
    total = jnp.zeros_like(out)
    for slope, tangent in zip(slopes, tangents, strict=True):
        total = total + finite(slope) * tangent
    return out, total


def piecewise_polynomial(
    breaks: np.ndarray, coefficients: np.ndarray, outside: str
) -> Callable[[Array], Array]:
    """A function that is a polynomial between each pair of breaks.

    **Arguments:**

    - `breaks`: sorted.
    - `coefficients`: the highest power first, by powers of the distance to the break.
    - `outside`: `"extrapolate"`, `"zeros"` or `"nearest"`.
    """

    def call(x: Array) -> Array:
        at, powers = jnp.asarray(breaks, x.dtype), jnp.asarray(coefficients, x.dtype)
        y = jnp.clip(x, at[0], at[-1]) if outside == "nearest" else x
        i = jnp.clip(jnp.searchsorted(at, y, side="right") - 1, 0, len(breaks) - 2)
        out = jnp.zeros_like(y)
        for row in powers:
            out = out * (y - at[i]) + row[i]
        inside = (x >= at[0]) & (x <= at[-1])
        return out if outside != "zeros" else jnp.where(inside, out, jnp.zeros_like(out))

    return call
