"""A target's scores at draws of a Gaussian, regressed on the noise of these: sums over
batches of draws, and what they say."""

from typing import NamedTuple

from jaxtyping import Float

from .._arrays import cholesky, namespace, solve_by_cholesky
from .._custom_types import AnyArray
from .._linalg import gaussian_log_prob
from .._target.probe import Probes


class Sums(NamedTuple):
    """Sums over the draws of an iteration so far: `e` is base noise, `r` the residual
    `tril' score + e`, which is zero everywhere if the Gaussian is the target."""

    num_finite: Float[AnyArray, ""]
    asked: Float[AnyArray, ""]
    e: Float[AnyArray, " dim"]
    r: Float[AnyArray, " dim"]
    rr: Float[AnyArray, " dim"]
    ee: Float[AnyArray, "dim dim"]
    er: Float[AnyArray, "dim dim"]
    elbo: Float[AnyArray, ""]
    # About `shift`, lest the digits of a large log density run out.
    elbo_squared: Float[AnyArray, ""]
    shift: Float[AnyArray, ""]


class Regression(NamedTuple):
    """The natural gradient in the Gaussian's own coordinates, what is left of the
    residuals beside it, and the ELBO."""

    shift: Float[AnyArray, " dim"]
    curvature: Float[AnyArray, "dim dim"]
    spread: Float[AnyArray, " dim"]
    elbo: Float[AnyArray, ""]
    elbo_stderr: Float[AnyArray, ""]


def no_sums(loc: AnyArray) -> Sums:
    """Those of no draws."""
    xp, dim, dtype = namespace(loc), loc.size, loc.dtype
    zero, vector = xp.zeros((), dtype), xp.zeros(dim, dtype)
    matrix = xp.zeros((dim, dim), dtype)
    return Sums(zero, zero, vector, vector, vector, matrix, matrix, zero, zero, zero)


def log_ratios(tril: AnyArray, e: AnyArray, probes: Probes) -> AnyArray:
    """`log p - log q` at the draws; zero where they are not finite."""
    log_q = gaussian_log_prob(tril, e)
    xp = namespace(e)
    return xp.where(probes.finite, probes.log_p - log_q, 0)


def gathered(sums: Sums, tril: AnyArray, e: AnyArray, probes: Probes) -> Sums:
    """With the draws that the noise `e` makes of a Gaussian of this Cholesky factor."""
    xp = namespace(e)
    r = probes.score @ tril + e
    counts = probes.finite.astype(e.dtype)[:, None]
    values = log_ratios(tril, e, probes)
    e, r = e * counts, r * counts
    count = xp.sum(counts)
    first = xp.sum(values) / xp.maximum(count, 1)
    shift = xp.where(sums.num_finite > 0, sums.shift, first)
    values = xp.where(probes.finite, values - shift, 0)
    return Sums(
        num_finite=sums.num_finite + count,
        asked=sums.asked + len(e),
        e=sums.e + xp.sum(e, axis=0),
        r=sums.r + xp.sum(r, axis=0),
        rr=sums.rr + xp.sum(r**2, axis=0),
        ee=sums.ee + e.T @ e,
        er=sums.er + e.T @ r,
        elbo=sums.elbo + xp.sum(values),
        elbo_squared=sums.elbo_squared + xp.sum(values**2),
        shift=shift,
    )


def regress(sums: Sums) -> Regression:
    """The residual on `(1, e)`: its mean is the gradient of the location, its slope the
    one of the covariance (Stein's identity, with the draws' own moments as control)."""
    xp = namespace(sums.e)
    n = xp.maximum(sums.num_finite, 1)
    dim = sums.e.size
    mean_e, mean_r = sums.e / n, sums.r / n
    cov_e = sums.ee / n - xp.outer(mean_e, mean_e)
    cov_er = sums.er / n - xp.outer(mean_e, mean_r)
    ridge = 1e-6 * xp.eye(dim, dtype=cov_e.dtype)
    slope = solve_by_cholesky(cholesky(cov_e + ridge), cov_er)
    explained = xp.sum(slope * cov_er, axis=0)
    variance = xp.maximum(sums.rr / n - mean_r**2 - explained, 0)
    variance = variance * n / xp.maximum(n - 2 * dim - 2, n / 4)
    elbo = sums.elbo / n
    elbo_variance = xp.maximum(sums.elbo_squared / n - elbo**2, 0)
    return Regression(
        shift=mean_r - mean_e @ slope,
        curvature=0.5 * (slope + slope.T),
        spread=xp.sqrt(variance),
        elbo=elbo + sums.shift,
        elbo_stderr=xp.sqrt(elbo_variance / n),
    )
