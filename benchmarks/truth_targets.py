"""Posteriors of many kinds whose means and standard deviations are known: in closed form,
or by a grid over one coordinate given which the others are Gaussian."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.scipy.stats as jst
import numpy as np
import scipy.special as ss
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints

import vijax as vi


class Truth(NamedTuple):
    """A log density, its parameters, and the mean and standard deviation of each."""

    log_density: Callable
    params: dict[str, vi.Param]
    moments: dict[str, tuple[Any, Any]]


KINDS: dict[str, Callable[[np.random.Generator], Truth]] = {}


def added(make: Callable[[np.random.Generator], Truth]) -> Callable:
    KINDS[make.__name__.replace("_", " ")] = make
    return make


def _mixture(centers: Any, scales: Any, weights: Any) -> Truth:
    centers, weights = np.asarray(centers), np.asarray(weights) / np.sum(weights)
    sds = np.broadcast_to(np.asarray(scales)[:, None], centers.shape)
    mean = weights @ centers
    variance = weights @ (sds**2 + (centers - mean) ** 2)

    def log_density(params: dict) -> Any:
        each = jnp.sum(jst.norm.logpdf(params["x"], centers, sds), axis=1)
        return logsumexp(jnp.log(weights) + each)

    params = {"x": vi.Param(int(centers.shape[1]))}
    return Truth(log_density, params, {"x": (mean, np.sqrt(variance))})


def _apart(rng: np.random.Generator, count: int, dim: int, gap: float) -> np.ndarray:
    """Places in a box that are so far apart."""
    places, width = [rng.uniform(-gap, gap, dim)], gap
    while len(places) < count:
        width *= 1.02
        new = rng.uniform(-width, width, dim)
        if min(np.linalg.norm(new - old) for old in places) > gap:
            places.append(new)
    return np.array(places)


@added
def few_modes(rng):
    count, dim = rng.integers(2, 5), rng.integers(1, 11)
    centers = _apart(rng, count, dim, rng.uniform(4, 10))
    return _mixture(centers, rng.uniform(0.6, 1.2, count), rng.uniform(0.3, 1, count))


@added
def many_modes(rng):
    count, dim = rng.integers(8, 41), rng.integers(2, 6)
    centers = _apart(rng, count, dim, rng.uniform(5, 8))
    return _mixture(centers, rng.uniform(0.6, 1.0, count), rng.uniform(0.5, 1, count))


@added
def unlike_widths(rng):
    dim = rng.integers(1, 3)
    centers = _apart(rng, 2, dim, rng.uniform(3, 6))
    return _mixture(centers, [1.0, rng.uniform(0.1, 0.5)], [1.0, rng.uniform(0.5, 1)])


@added
def mirrors(rng):
    dim = rng.integers(1, 5)
    loc, scale = rng.uniform(2.5, 6, dim), rng.uniform(0.3, 1, dim)

    def log_density(params):
        one = jst.norm.logpdf(params["x"], loc, scale)
        return jnp.sum(jnp.logaddexp(one, jst.norm.logpdf(params["x"], -loc, scale)))

    sds = np.sqrt(loc**2 + scale**2)
    return Truth(log_density, {"x": vi.Param(int(dim))}, {"x": (np.zeros(dim), sds)})


@added
def heavy_tails(rng):
    dim, df = rng.integers(1, 21), rng.uniform(4.5, 10)
    loc, scale = rng.normal(0, 3, dim), rng.uniform(0.1, 3, dim)

    def log_density(params):
        return jnp.sum(jst.t.logpdf(params["x"], df, loc, scale))

    moments = {"x": (loc, scale * np.sqrt(df / (df - 2)))}
    return Truth(log_density, {"x": vi.Param(int(dim))}, moments)


@added
def skewed(rng):
    dim = rng.integers(1, 11)
    shape, rate = rng.uniform(1.5, 10, dim), rng.uniform(0.1, 10, dim)

    def log_density(params):
        return jnp.sum((shape - 1) * jnp.log(params["x"]) - rate * params["x"])

    params = {"x": vi.Param(int(dim), support=constraints.positive)}
    return Truth(log_density, params, {"x": (shape / rate, np.sqrt(shape) / rate)})


@added
def bananas(rng):
    wide, bend, narrow = rng.uniform(1, 5), rng.uniform(0.05, 0.5), rng.uniform(0.5, 1)

    def log_density(params):
        bent = params["y"] - bend * params["x"] ** 2
        return jst.norm.logpdf(params["x"], 0, wide) + jst.norm.logpdf(bent, 0, narrow)

    sd = np.sqrt(narrow**2 + 2 * bend**2 * wide**4)
    moments = {"x": (0.0, wide), "y": (bend * wide**2, sd)}
    return Truth(log_density, {"x": vi.Param(), "y": vi.Param()}, moments)


@added
def regressions(rng):
    dim, rows = rng.integers(2, 31), rng.integers(60, 400)
    scales = 10 ** rng.uniform(-2, 2, dim)
    x = rng.normal(size=(rows, 1)) + rng.uniform(0.3, 2) * rng.normal(size=(rows, dim))
    x = x * scales
    y = x @ (rng.normal(size=dim) / scales) + rng.normal(size=rows)
    prior, a, b = 1e-2 * scales**2, 3.0, 3.0

    def log_density(params):
        beta, s = params["beta"], params["log_sigma"]
        squares = jnp.sum((y - x @ beta) ** 2) + jnp.sum(prior * beta**2) + 2 * b
        return -0.5 * squares * jnp.exp(-2 * s) - (rows + dim + 2 * a) * s

    precision = x.T @ x + np.diag(prior)
    mean = np.linalg.solve(precision, x.T @ y)
    a_new, b_new = a + rows / 2, b + 0.5 * (y @ y - mean @ precision @ mean)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)) * b_new / (a_new - 1))
    log_sigma = 0.5 * (np.log(b_new) - ss.digamma(a_new))
    spread = 0.5 * np.sqrt(ss.polygamma(1, a_new))
    params = {"beta": vi.Param(int(dim)), "log_sigma": vi.Param()}
    return Truth(
        log_density, params, {"beta": (mean, sd), "log_sigma": (log_sigma, spread)}
    )


def _mixed(weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> tuple:
    """Mean and standard deviation over a grid, which is the leading axis."""
    mean = np.tensordot(weights, means, 1)
    return mean, np.sqrt(np.tensordot(weights, variances + (means - mean) ** 2, 1))


def _grouped(rng: np.random.Generator, *, centered: bool) -> Truth:
    count = int(10 ** rng.uniform(np.log10(3), np.log10(200)))
    s = rng.uniform(0.5, 2, count)
    y = rng.normal(2, 1, count) * rng.choice([0.3, 1, 3]) + s * rng.normal(size=count)
    t = np.linspace(-7, 5, 4001)
    tau = np.exp(t)[:, None]
    total = tau**2 + s**2
    precision = 0.01 + np.sum(1 / total, axis=1)
    m, v = np.sum(y / total, axis=1) / precision, 1 / precision
    log_p = -0.5 * t**2 - 0.5 * np.sum(np.log(total), axis=1) + 0.5 * np.log(v)
    log_p -= 0.5 * (np.sum(y**2 / total, axis=1) - m**2 * precision)
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    m, v = m[:, None], v[:, None]
    if centered:
        pull = s**2 / total
        means, variances = (1 - pull) * y + pull * m, tau**2 * pull + pull**2 * v
    else:
        means = (y - m) * tau / total
        variances = s**2 / total + v * (tau / total) ** 2
    moments = {
        "mu": _mixed(weights, m[:, 0], v[:, 0]),
        "log_tau": _mixed(weights, t, 0 * t),
        "effects": _mixed(weights, means, variances),
    }

    def log_density(params):
        mu, log_tau, effects = params["mu"], params["log_tau"], params["effects"]
        prior = jst.norm.logpdf(mu, 0, 10) + jst.norm.logpdf(log_tau)
        scale = jnp.exp(log_tau)
        if centered:
            within = jnp.sum(jst.norm.logpdf(effects, mu, scale))
            return prior + within + jnp.sum(jst.norm.logpdf(y, effects, s))
        seen = jst.norm.logpdf(y, mu + scale * effects, s)
        return prior + jnp.sum(jst.norm.logpdf(effects)) + jnp.sum(seen)

    params = {"mu": vi.Param(), "log_tau": vi.Param(), "effects": vi.Param(count)}
    return Truth(log_density, params, moments)


@added
def groups_centered(rng):
    return _grouped(rng, centered=True)


@added
def groups_not_centered(rng):
    return _grouped(rng, centered=False)


@added
def series(rng):
    count, noise, keep = int(rng.integers(30, 120)), 0.5, 0.95
    x = np.zeros(count)
    for i in range(count):
        x[i] = keep * x[i - 1] + np.exp(-1.0) * rng.normal()
    y = x + noise * rng.normal(size=count)
    step = np.eye(count) - keep * np.eye(count, k=-1)
    grid = np.linspace(-4, 1.5, 161)
    log_p, means, variances = [], [], []
    for s in grid:
        prior = step.T @ step * np.exp(-2 * s)
        precision = prior + np.eye(count) / noise**2
        covariance = np.linalg.inv(precision)
        mean = covariance @ y / noise**2
        log_det = np.linalg.slogdet(covariance)[1] - 2 * count * s
        log_p.append(0.5 * log_det + 0.5 * mean @ precision @ mean)
        log_p[-1] -= 0.5 * ((s + 1) / 0.7) ** 2
        means.append(mean)
        variances.append(np.diag(covariance))
    weights = np.exp(np.array(log_p) - max(log_p))
    weights /= weights.sum()
    moments = {
        "log_s": _mixed(weights, grid, 0 * grid),
        "x": _mixed(weights, np.array(means), np.array(variances)),
    }

    def log_density(params):
        s, x = params["log_s"], params["x"]
        before = jnp.concatenate([jnp.zeros(1, x.dtype), x[:-1]])
        moved = jst.norm.logpdf(x, keep * before, jnp.exp(s))
        seen = jst.norm.logpdf(y, x, noise)
        return jst.norm.logpdf(s, -1, 0.7) + jnp.sum(moved) + jnp.sum(seen)

    return Truth(log_density, {"log_s": vi.Param(), "x": vi.Param(count)}, moments)


@added
def chances(rng):
    dim = int(rng.integers(1, 8))
    a, b = rng.uniform(0.8, 20, dim), rng.uniform(0.8, 20, dim)

    def log_density(params):
        p = params["p"]
        return jnp.sum((a - 1) * jnp.log(p) + (b - 1) * jnp.log1p(-p))

    variance = a * b / ((a + b) ** 2 * (a + b + 1))
    params = {"p": vi.Param(int(dim), support=constraints.unit_interval)}
    return Truth(log_density, params, {"p": (a / (a + b), np.sqrt(variance))})


@added
def shares(rng):
    a = rng.uniform(0.8, 6, rng.integers(3, 13))

    def log_density(params):
        return jnp.sum((a - 1) * jnp.log(params["p"]))

    mean = a / a.sum()
    sd = np.sqrt(mean * (1 - mean) / (a.sum() + 1))
    params = {"p": vi.Param(len(a), support=constraints.simplex)}
    return Truth(log_density, params, {"p": (mean, sd)})


@added
def unequal_scales(rng):
    dim = int(rng.integers(2, 61))
    sds = 10 ** rng.uniform(-3, 3, dim)
    q, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    spread = q @ np.diag(10 ** rng.uniform(-1, 1, dim)) @ q.T
    units = np.sqrt(np.diag(spread))
    inverse = np.linalg.inv(spread / units[:, None] / units)
    loc = sds * rng.normal(0, 10, dim)

    def log_density(params):
        z = (params["x"] - loc) / sds
        return -0.5 * z @ inverse @ z

    return Truth(log_density, {"x": vi.Param(int(dim))}, {"x": (loc, sds)})


@added
def far_numbers(rng):
    dim = int(rng.integers(1, 6))
    loc = 10 ** rng.uniform(2, 8) * np.ones(dim)

    def log_density(params):
        return -0.5 * jnp.sum((params["x"] - loc) ** 2)

    params = {"x": vi.Param(int(dim), initial=loc)}
    return Truth(log_density, params, {"x": (loc, np.ones(dim))})


@added
def funnels(rng):
    dim, wide = int(rng.integers(2, 10)), rng.uniform(0.5, 1.5)

    def log_density(params):
        v, x = params["v"], params["x"]
        return jst.norm.logpdf(v, 0, wide) + jnp.sum(jst.norm.logpdf(x, 0, jnp.exp(v)))

    moments = {"v": (0.0, wide), "x": (np.zeros(dim), np.exp(wide**2) * np.ones(dim))}
    return Truth(log_density, {"v": vi.Param(), "x": vi.Param(int(dim))}, moments)
