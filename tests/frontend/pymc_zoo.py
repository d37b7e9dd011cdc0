"""Every distribution of PyMC in every role that it can have in a model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest


pm: Any = pytest.importorskip("pymc")
pt: Any = pytest.importorskip("pytensor.tensor")

REAL, POSITIVE, UNIT, SIMPLEX = "real", "positive", "unit", "simplex"
REALS = np.array([-1.3, 0.2, 0.7, 2.1])
POSITIVES = np.array([0.3, 0.9, 1.6, 2.5])
UNITS = np.array([0.1, 0.4, 0.55, 0.9])
COUNTS = np.array([0, 1, 3, 2])
BITS = np.array([0, 1, 1, 0])
ROWS = np.array([[0.3, -0.4, 1.1], [1.3, 0.6, -0.2], [0.1, 0.9, 0.5], [-0.8, 0.2, 0.4]])
SHARES = np.abs(ROWS) / np.abs(ROWS).sum(1, keepdims=True)
SQUARE = np.array([[2.0, 0.3, 0.1], [0.3, 1.5, -0.2], [0.1, -0.2, 1.0]])
TABLE = np.array([[1, 2, 1], [0, 4, 0], [3, 0, 1], [2, 1, 1]])
PATHS = np.cumsum(ROWS.repeat(2, axis=1), axis=1)
RING = np.eye(4)[[1, 2, 3, 0]] + np.eye(4)[[3, 0, 1, 2]]
CUTS = np.array([-1.0, 0.5])
NORMAL = {"mu": REAL, "sigma": POSITIVE}


class Entry(NamedTuple):
    """A distribution: its arguments, what was observed, and the shape if it is free.

    An argument is a constant, a function without arguments that makes one in a model, or
    the support of a free variable.
    """

    args: dict[str, Any]
    data: np.ndarray
    shape: Any = 3


def steps(**args: Any) -> Entry:
    return Entry(args, PATHS, 6)


def innovations() -> Any:
    return pm.Normal.dist(pm.Normal("mu"), pm.LogNormal("sigma"))


# What PyMC 5 draws are the entries above the diagonal, what PyMC 6 draws is the matrix.
CORRELATION = np.array([[1.0, 0.1, -0.2], [0.1, 1.0, 0.3], [-0.2, 0.3, 1.0]])
IS_MATRIX = pm.LKJCorr.dist(n=3, eta=2.0).type.ndim == 2
CORRELATIONS = CORRELATION if IS_MATRIX else CORRELATION[np.triu_indices(3, 1)]
PLANE = ROWS[None] + np.zeros((4, 1, 1))
START = lambda: pm.Normal.dist()
ZOO: dict[str, Entry] = {
    "AR": steps(rho=REAL, sigma=POSITIVE, init_dist=START),
    "AsymmetricLaplace": Entry({"kappa": POSITIVE, "mu": REAL, "b": POSITIVE}, REALS),
    "Bernoulli": Entry({"logit_p": REAL}, BITS),
    "Beta": Entry({"alpha": POSITIVE, "beta": POSITIVE}, UNITS),
    "BetaBinomial": Entry({"alpha": POSITIVE, "beta": POSITIVE, "n": 5}, COUNTS),
    "Binomial": Entry({"n": 5, "p": UNIT}, COUNTS),
    "CAR": Entry(
        {
            "mu": lambda: pm.Normal("mu", shape=4),
            "W": RING,
            "alpha": UNIT,
            "tau": POSITIVE,
        },
        PATHS[:, :4],
        4,
    ),
    "Categorical": Entry({"p": SIMPLEX}, np.array([0, 1, 2, 1])),
    "Cauchy": Entry({"alpha": REAL, "beta": POSITIVE}, REALS),
    "ChiSquared": Entry({"nu": POSITIVE}, POSITIVES),
    "Dirichlet": Entry({"a": lambda: pm.LogNormal("a", shape=3)}, SHARES, (2, 3)),
    "DirichletMultinomial": Entry(
        {"n": 4, "a": lambda: pm.LogNormal("a", shape=3)}, TABLE
    ),
    "DiscreteUniform": Entry({"lower": 0, "upper": 6}, COUNTS),
    "DiscreteWeibull": Entry({"q": UNIT, "beta": POSITIVE}, COUNTS),
    "EulerMaruyama": steps(
        dt=0.5,
        sde_fn=lambda: lambda x, rate: (-rate * x, 1.0),
        sde_pars=lambda: (pm.LogNormal("rate"),),
        init_dist=START,
    ),
    "ExGaussian": Entry(NORMAL | {"nu": POSITIVE}, REALS),
    "Exponential": Entry({"lam": POSITIVE}, POSITIVES),
    "Flat": Entry({}, REALS),
    "GARCH11": steps(
        omega=POSITIVE,
        alpha_1=lambda: 0.5 * pm.Beta("alpha", 2, 2),
        beta_1=lambda: 0.5 * pm.Beta("beta", 2, 2),
        initial_vol=POSITIVE,
    ),
    "Gamma": Entry({"alpha": POSITIVE, "beta": POSITIVE}, POSITIVES),
    "GaussianRandomWalk": steps(mu=REAL, sigma=POSITIVE, init_dist=START),
    "Geometric": Entry({"p": UNIT}, COUNTS + 1),
    "Gumbel": Entry({"mu": REAL, "beta": POSITIVE}, REALS),
    "HalfCauchy": Entry({"beta": POSITIVE}, POSITIVES),
    "HalfFlat": Entry({}, POSITIVES),
    "HalfNormal": Entry({"sigma": POSITIVE}, POSITIVES),
    "HalfStudentT": Entry({"nu": POSITIVE, "sigma": POSITIVE}, POSITIVES),
    "HurdleGamma": Entry({"psi": UNIT, "alpha": POSITIVE, "beta": POSITIVE}, POSITIVES),
    "HurdleLogNormal": Entry({"psi": UNIT} | NORMAL, POSITIVES * BITS),
    "HurdleNegativeBinomial": Entry(
        {"psi": UNIT, "mu": POSITIVE, "alpha": POSITIVE}, COUNTS
    ),
    "HurdlePoisson": Entry({"psi": UNIT, "mu": POSITIVE}, COUNTS),
    "HyperGeometric": Entry({"N": 12, "k": 6, "n": 5}, COUNTS),
    "ICAR": Entry({"W": RING, "sigma": POSITIVE}, PATHS[0, :4], 4),
    "Interpolated": Entry(
        {
            "x_points": np.linspace(-4, 4, 9),
            "pdf_points": np.array([*range(1, 6), *range(4, 0, -1)]),
        },
        REALS,
    ),
    "InverseGamma": Entry({"alpha": POSITIVE, "beta": POSITIVE}, POSITIVES),
    "KroneckerNormal": Entry(
        {
            "mu": np.zeros(4),
            "covs": lambda: [SQUARE[:2, :2], pm.LogNormal("s") * SQUARE[1:, 1:]],
        },
        PATHS[:, :4],
        4,
    ),
    "Kumaraswamy": Entry({"a": POSITIVE, "b": POSITIVE}, UNITS),
    "LKJCholeskyCov": Entry(
        {"n": 3, "eta": 2.0, "sd_dist": lambda: pm.Exponential.dist(1.0, shape=3)},
        np.array([1.0, 0.2, 0.9, -0.1, 0.3, 1.2]),
        None,
    ),
    "LKJCorr": Entry({"n": 3, "eta": 2.0}, CORRELATIONS, None),
    "Laplace": Entry({"mu": REAL, "b": POSITIVE}, REALS),
    "LogNormal": Entry(NORMAL, POSITIVES),
    "Logistic": Entry({"mu": REAL, "s": POSITIVE}, REALS),
    "LogitNormal": Entry(NORMAL, UNITS),
    "MatrixNormal": Entry(
        {"mu": 0.0, "rowcov": SQUARE, "colcov": lambda: pm.LogNormal("s") * np.eye(3)},
        ROWS[:3],
        (3, 3),
    ),
    "Mixture": Entry(
        {"w": SIMPLEX, "comp_dists": lambda: pm.Normal.dist(pm.Normal("m", shape=3))},
        REALS,
    ),
    "Moyal": Entry(NORMAL, REALS),
    "Multinomial": Entry({"n": 4, "p": SIMPLEX}, TABLE),
    "MvGaussianRandomWalk": Entry(
        {
            "mu": lambda: pm.Normal("mu", shape=3),
            "cov": SQUARE,
            "init_dist": lambda: pm.MvNormal.dist(np.zeros(3), SQUARE),
        },
        PLANE,
        (4, 3),
    ),
    "MvNormal": Entry({"mu": lambda: pm.Normal("mu", shape=3), "cov": SQUARE}, ROWS),
    "MvStudentT": Entry(
        {"nu": POSITIVE, "mu": lambda: pm.Normal("mu", shape=3), "scale": SQUARE}, ROWS
    ),
    "MvStudentTRandomWalk": Entry(
        {
            "nu": POSITIVE,
            "mu": lambda: pm.Normal("mu", shape=3),
            "scale": SQUARE,
            "init_dist": lambda: pm.MvNormal.dist(np.zeros(3), SQUARE),
        },
        PLANE,
        (4, 3),
    ),
    "NegativeBinomial": Entry({"mu": POSITIVE, "alpha": POSITIVE}, COUNTS),
    "Normal": Entry(NORMAL, REALS),
    "NormalMixture": Entry(
        {"w": SIMPLEX, "mu": lambda: pm.Normal("mu", shape=3), "sigma": 0.5}, REALS
    ),
    "OrderedLogistic": Entry({"eta": REAL, "cutpoints": CUTS}, np.array([0, 1, 2, 1])),
    "OrderedMultinomial": Entry({"eta": REAL, "cutpoints": CUTS, "n": 4}, TABLE),
    "OrderedProbit": Entry({"eta": REAL, "cutpoints": CUTS}, np.array([0, 1, 2, 1])),
    "Pareto": Entry({"alpha": POSITIVE, "m": 0.2}, POSITIVES),
    "Poisson": Entry({"mu": POSITIVE}, COUNTS),
    "PolyaGamma": Entry({"h": 2.0, "z": REAL}, POSITIVES),
    "RandomWalk": steps(innovation_dist=innovations, init_dist=START),
    "Rice": Entry({"nu": POSITIVE, "sigma": POSITIVE}, POSITIVES),
    "SkewNormal": Entry(NORMAL | {"alpha": REAL}, REALS),
    "SkewStudentT": Entry(NORMAL | {"a": POSITIVE, "b": POSITIVE}, REALS),
    "StickBreakingWeights": Entry({"alpha": POSITIVE, "K": 2}, SHARES, None),
    "StudentT": Entry(NORMAL | {"nu": POSITIVE}, REALS),
    "Triangular": Entry({"lower": -3.0, "upper": 3.0, "c": UNIT}, REALS),
    "TruncatedNormal": Entry(NORMAL | {"lower": -2.0, "upper": 3.0}, REALS),
    "Uniform": Entry({"lower": -3.0, "upper": lambda: 3 + pm.LogNormal("up")}, REALS),
    "VonMises": Entry({"mu": REAL, "kappa": POSITIVE}, REALS),
    "Wald": Entry({"mu": POSITIVE, "lam": POSITIVE}, POSITIVES),
    "Weibull": Entry({"alpha": POSITIVE, "beta": POSITIVE}, POSITIVES),
    "Wishart": Entry({"nu": 5, "V": lambda: pm.LogNormal("s") * np.eye(3)}, SQUARE, None),
    "ZeroInflatedBinomial": Entry({"psi": UNIT, "n": 5, "p": UNIT}, COUNTS),
    "ZeroInflatedNegativeBinomial": Entry(
        {"psi": UNIT, "mu": POSITIVE, "alpha": POSITIVE}, COUNTS
    ),
    "ZeroInflatedPoisson": Entry({"psi": UNIT, "mu": POSITIVE}, COUNTS),
    "ZeroSumNormal": Entry({"sigma": POSITIVE}, ROWS - ROWS.mean(1, keepdims=True)),
}


PRIORS: dict[str, Callable] = {
    REAL: lambda name: pm.Normal(name, 0.0, 1.0),
    POSITIVE: lambda name: pm.LogNormal(name, 0.0, 0.5),
    UNIT: lambda name: pm.Beta(name, 2.0, 2.0),
    SIMPLEX: lambda name: pm.Dirichlet(name, np.ones(3)),
}


def arguments(entry: Entry) -> dict[str, Any]:
    """The arguments, in the model of the context."""
    out = {}
    for name, arg in entry.args.items():
        if isinstance(arg, str):
            arg = PRIORS[arg](f"arg_{name}")
        out[name] = arg() if callable(arg) else arg
    return out
