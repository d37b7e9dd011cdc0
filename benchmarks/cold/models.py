"""The models whose first answers are waited for.

All imports are inside, since the process that starts the others must stay small: on Linux
a child's peak of memory begins at its parent's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


Maker = Callable[[], Any]  # Of a `vi.Target`, or of a PyMC model.


def posteriordb(name: str) -> Maker:
    """A posterior of posteriordb, in NumPyro."""

    def make() -> Any:
        import vijax as vi
        from tests.posteriordb import module

        posterior = module("models").POSTERIORS[name]
        return vi.from_numpyro(posterior.model, **posterior.data())

    return make


def held_out(name: str) -> Maker:
    """A NumPyro model with simulated data, as `held_out.py` has it."""

    def make() -> Any:
        import vijax as vi
        from benchmarks.held_out_models import MODELS as HELD_OUT

        model, data = HELD_OUT[name](np.random.default_rng(sum(map(ord, name))))
        return vi.from_numpyro(model, *data)

    return make


def gamma() -> Any:
    """The first model of the README: plain functions and 200 observations."""
    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS["gamma"]
    return workload.target(workload.make_data(0))


def logistic() -> Any:
    """A hierarchical logistic regression in PyMC: twelve groups, three predictors."""
    import pymc as pm

    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(400, 3)), rng.integers(0, 12, 400)
    logits = x @ np.array([0.8, -0.5, 0.0]) + 0.7 * rng.normal(size=12)[group]
    y = rng.random(400) < 1 / (1 + np.exp(-logits))
    with pm.Model() as model:
        mean = pm.Normal("mean", 0.0, 2.0)
        between = pm.HalfNormal("between", 1.0)
        beta = pm.Normal("beta", 0.0, 1.0, shape=3)
        z = pm.Normal("z", 0.0, 1.0, shape=12)
        intercept: Any = pm.Deterministic("intercept", mean + between * z)
        pm.Bernoulli("y", logit_p=intercept[group] + x @ beta, observed=y.astype(int))
    return model


def in_pymc(make_model: Maker) -> Maker:
    def make() -> Any:
        import vijax as vi

        return vi.from_pymc(make_model())

    return make


PYMC_MODELS: dict[str, Maker] = {"pymc": logistic}
MODELS: dict[str, Maker] = {
    "gamma": gamma,
    "kidiq": posteriordb("kidiq-kidscore_momiq"),
    "garch": posteriordb("garch-garch11"),
    "arK": posteriordb("arK-arK"),
    "eight_schools": posteriordb("eight_schools-eight_schools_noncentered"),
    "pymc": in_pymc(logistic),
    "diamonds": posteriordb("diamonds-diamonds"),
    "lotka_volterra": posteriordb("hudson_lynx_hare-lotka_volterra"),
    "radon": held_out("radon varying intercepts"),
}
