"""Special functions that PyMC's distributions need, with derivatives that hold far out.

Pure JAX; the names are those of `scipy.special`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array


# Cody (1969), Rational Chebyshev approximation for the error function. On [1/2, 4]
# erfcx(x) = _P(x) / _Q(x); beyond, (1/sqrt(pi) - r(x)) / x, with
# r(x) = t _R(t) / _S(t) at t = 1/x^2. From the highest power down.
_P = (
    *(2.15311535474403846343e-8, 5.64188496988670089180e-1, 8.88314979438837594118e0),
    *(6.61191906371416294775e1, 2.98635138197400131132e2, 8.81952221241769090411e2),
    *(1.71204761263407058314e3, 2.05107837782607146532e3, 1.23033935479799725272e3),
)
_Q = (
    *(1.0, 1.57449261107098347253e1, 1.17693950891312499305e2),
    *(5.37181101862009857509e2, 1.62138957456669018874e3, 3.29079923573345962678e3),
    *(4.36261909014324715820e3, 3.43936767414372163696e3, 1.23033935480374942043e3),
)
_R = (
    *(1.63153871373020978498e-2, 3.05326634961232344035e-1, 3.60344899949804439429e-1),
    *(1.25781726111229246204e-1, 1.60837851487422766278e-2, 6.58749161529837803157e-4),
)
_S = (
    *(1.0, 2.56852019228982242072e0, 1.87295284992346725209e0),
    *(5.27905102951428412248e-1, 6.05183413124413191178e-2, 2.33520497626869185443e-3),
)


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    out = jnp.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        out = out * x + jnp.asarray(c, x.dtype)
    return out


def _tail(x: Array) -> Array:
    """`1/sqrt(pi) - x erfcx(x)` for `x > 4`."""
    x = jnp.maximum(x, jnp.asarray(4.0, x.dtype))
    t = (1 / x) ** 2  # The square of `x` may overflow.
    return t * _polynomial(_R, t) / _polynomial(_S, t)


@jax.custom_jvp
def erfcx(x: Array) -> Array:
    r"""$e^{x^2} \mathrm{erfc}(x)$.

    **Reference:** Cody (1969), *Rational Chebyshev approximations for the error
    function*, Mathematics of Computation 23(107).
    """
    number = lambda value: jnp.asarray(value, x.dtype)
    low = jnp.minimum(x, number(0.5))
    middle = jnp.clip(x, number(0.5), number(4.0))
    high = jnp.maximum(x, number(4.0))
    ratio = _polynomial(_P, middle) / _polynomial(_Q, middle)
    far = (number(1 / np.sqrt(np.pi)) - _tail(high)) / high
    near = jnp.exp(low * low) * special.erfc(low)
    return jnp.where(x < 0.5, near, jnp.where(x < 4, ratio, far))


@erfcx.defjvp
def _erfcx_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    out = erfcx(x)
    # Far out `2 x erfcx(x)` and `2 / sqrt(pi)` cancel.
    near = 2 * x * out - jnp.asarray(2 / np.sqrt(np.pi), x.dtype)
    slope = jnp.where(x < 4, near, -2 * _tail(x))
    return out, finite(slope) * tangent


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


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """`log(1 + exp(x))`."""
    return jax.nn.softplus(x)


@softplus.defjvp
def _softplus_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    return softplus(x), jax.nn.sigmoid(x) * tangent


@jax.custom_jvp
def log1mexp(x: Array) -> Array:
    """`log(1 - exp(x))` for negative `x`."""
    near = x > -np.log(2).item()
    close = jnp.log(-jnp.expm1(x))
    return jnp.where(near, close, jnp.log1p(-jnp.exp(x)))


@log1mexp.defjvp
def _log1mexp_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    return log1mexp(x), finite(-1 / jnp.expm1(-x)) * tangent


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
