"""Small PyMC models that have any two features at once."""

import itertools as it
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


pm: Any = pytest.importorskip("pymc")

FEATURES = (
    *("batches", "potential", "deterministic", "several", "transforms", "imputed"),
    *("data", "dims", "one axis", "two axes", "censored", "truncated", "mixture"),
    *("counts", "float32", "log_likelihood", "predict"),
)
# What cannot be in one model, with the error and the words of whoever says so.
APART: dict[frozenset[str], tuple[type[Exception], str]] = {
    frozenset({"truncated", "mixture"}): (
        NotImplementedError,
        "Truncation not implemented for MixtureRV",
    ),
    frozenset({"imputed", "counts"}): (ValueError, "'y_unobserved' is discrete"),
}
# The outcome has either one axis or two.
PAIRS = [
    frozenset(pair)
    for pair in it.combinations(FEATURES, 2)
    if pair != ("one axis", "two axes")
]

rng = np.random.default_rng(2)
ROWS, BATCH = 12, 4
X = rng.normal(size=ROWS)
OTHERS = rng.normal(size=15)
NOISE = rng.normal(size=(ROWS, 2, 3))
LOW, HIGH = -1.0, 3.0


def trailing(features: frozenset[str]) -> tuple[int, ...]:
    """The shape of the outcome of one row."""
    return (2,) if "one axis" in features else (2, 3) if "two axes" in features else ()


def outcome(features: frozenset[str]) -> np.ndarray:
    """What was observed."""
    shape = trailing(features)
    y = NOISE[(slice(None), *(slice(n) for n in shape), *(0,) * (2 - len(shape)))]
    y = np.clip(y + 0.5, LOW, HIGH)
    if "counts" in features:
        y = np.round(np.abs(2 * y)).clip(0, 3).astype(np.int64)
    if "imputed" in features and "batches" not in features:
        y = y.astype(float)
        y[2] = np.nan
    return y


def _mean(features: frozenset[str], level: Any, x: Any) -> Any:
    shape = trailing(features)
    rows = level + pm.Normal("slope") * x
    if shape:
        offset = pm.Normal("offset", shape=shape)
        rows = rows.reshape((-1, *(1,) * len(shape))) + offset
    return pm.Deterministic("mean", rows) if "deterministic" in features else rows


def _likelihood(features: frozenset[str], mean: Any, sigma: Any) -> Callable:
    """The distribution of the outcome, which takes what it is observed with."""
    kinds = features & {"censored", "truncated", "mixture", "counts"}
    rate = pm.math.exp(0.3 * mean)

    def inner() -> Any:
        if "mixture" in kinds:
            return pm.Mixture.dist(**parts())
        return pm.Poisson.dist(rate) if "counts" in kinds else pm.Normal.dist(mean, sigma)

    def parts() -> dict[str, Any]:
        one = pm.Poisson.dist(rate), pm.Poisson.dist(rate + 3.0)
        two = pm.Normal.dist(mean, sigma), pm.Normal.dist(mean + 2.0, sigma)
        weight = pm.Dirichlet("weight", np.ones(2))
        return {"w": weight, "comp_dists": one if "counts" in kinds else two}

    def cut(dist: Any) -> dict[str, Any]:
        return {"dist": dist, "lower": LOW, "upper": HIGH}

    if {"censored", "truncated"} <= kinds:
        within = pm.Truncated.dist(inner(), LOW - 1, HIGH + 1)
        return lambda **kwargs: pm.Censored("y", **cut(within), **kwargs)
    if "censored" in kinds:
        return lambda **kwargs: pm.Censored("y", **cut(inner()), **kwargs)
    if "truncated" in kinds:
        return lambda **kwargs: pm.Truncated("y", **cut(inner()), **kwargs)
    if "mixture" in kinds:
        return lambda **kwargs: pm.Mixture("y", **parts(), **kwargs)
    if "counts" in kinds:
        return lambda **kwargs: pm.Poisson("y", rate, **kwargs)
    if "one axis" in features:
        cov = np.array([[1.0, 0.3], [0.3, 1.0]])
        return lambda **kwargs: pm.MvNormal("y", mean, cov=cov, **kwargs)
    return lambda **kwargs: pm.Normal("y", mean, sigma, **kwargs)


def _in_batches(size: int, *arrays: Any) -> Any:
    # Whole numbers can be seen in batches from `pm.Data` only.
    data = [
        a if not isinstance(a, np.ndarray) else pm.Data(f"d{i}", a)
        for i, a in enumerate(arrays)
    ]
    return pm.Minibatch(*data, batch_size=size)


def build(features: frozenset[str], *, whole: bool = False, x: np.ndarray = X) -> Any:
    """A model with some features; `whole` without the batches."""
    in_batches = "batches" in features and not whole
    y: Any = outcome(features)
    shape = trailing(features)
    names = ("row", "side", "place")[: 1 + len(shape)]
    lengths = (BATCH if in_batches else ROWS, *shape)
    coords = {name: range(n) for name, n in zip(names, lengths, strict=True)}
    with warnings.catch_warnings(), pm.Model(coords=coords) as model:
        warnings.simplefilter("ignore")
        as_data = "data" in features
        x_var: Any = pm.Data("x", x) if as_data else x
        if as_data and not np.isnan(y).any():
            y = pm.Data("y_data", y)
        total: dict[str, Any] = {}
        others, total_of_others = OTHERS, dict(total)
        if in_batches:
            x_var, y = _in_batches(BATCH, x_var, y)
            others = pm.Minibatch(OTHERS, batch_size=5)
            total, total_of_others = {"total_size": (ROWS, ...)}, {"total_size": 15}
        bounded = "transforms" in features
        level = pm.Uniform("level", -2.0, 2.0) if bounded else pm.Normal("level")
        sigma = pm.LogNormal("sigma") if bounded else pm.Exponential("sigma", 1.0)
        mean = _mean(features, level, x_var)
        dims = {"dims": names} if "dims" in features else {}
        _likelihood(features, mean, sigma)(observed=y, **total, **dims)
        if "several" in features:
            pm.Normal("z", level, sigma, observed=others, **total_of_others)
        if {"imputed", "batches"} <= features:
            pm.Normal("v", level, sigma, observed=np.array([0.3, np.nan, 1.0]))
        if "potential" in features:
            pm.Potential("tie", -(level**2))
    return model
