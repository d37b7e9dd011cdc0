"""The tutorial's four workloads: models, data and step counts that benchmarks share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import expon, gamma, norm
from numpyro.distributions import constraints

import vijax as vi


@dataclass(frozen=True)
class Workload:
    """A model as plain functions of constrained parameters, and how long to fit it."""

    log_prior: Callable[[dict], Any]
    log_likelihood: Callable[[dict, Any], Any] | None
    params: dict[str, vi.Param]
    make_data: Callable[[int], Any]
    num_steps: int
    batch_size: int | None = None
    # PyMC and NumPyro have the same models in their own languages: see `peers.py`.
    model: str = ""

    def target(self, data: Any) -> vi.Target:
        """The target with these data."""
        if self.log_likelihood is None:
            return vi.from_log_density(self.log_prior, self.params)
        return vi.from_likelihood(
            self.log_prior,
            self.log_likelihood,
            self.params,
            data,
            batch_size=self.batch_size,
        )


def _gamma_prior(params):
    return expon.logpdf(params["alpha"], scale=10) + expon.logpdf(
        params["beta"], scale=10
    )


def _gamma_likelihood(params, y):
    return gamma.logpdf(y, params["alpha"], scale=1 / params["beta"])


def _gamma_data(seed):
    return np.random.default_rng(seed).gamma(2.0, 0.5, 200).astype(np.float32)


def _mixture(params):
    logits = jnp.log(jnp.array([0.2, 0.8]))
    parts = norm.logpdf(params["x"], jnp.array([-0.3, 0.5]), 0.1)
    return jnp.logaddexp(*(logits + parts))


def _normal_prior(params):
    return jnp.sum(norm.logpdf(params["sd"], 0.0, 100.0))


def _normal_likelihood(params, y):
    return norm.logpdf(y, params["mu"], params["sd"])


def _normal_data(seed):
    rng = np.random.default_rng(seed)
    data = rng.random((40_000, 100)) * rng.integers(1, 10, 100) + rng.random(100) * 10
    return data.astype(np.float32)


_POSITIVE = vi.Param(support=constraints.positive)
_NORMAL = {"mu": vi.Param(100), "sd": vi.Param(100, constraints.positive)}

WORKLOADS = {
    "gamma": Workload(
        _gamma_prior,
        _gamma_likelihood,
        {"alpha": _POSITIVE, "beta": _POSITIVE},
        _gamma_data,
        num_steps=10_000,
        model="gamma",
    ),
    "mixture": Workload(
        _mixture,
        None,
        {"x": vi.Param()},
        lambda seed: None,
        num_steps=10_000,
        model="mixture",
    ),
    "minibatch": Workload(
        _normal_prior,
        _normal_likelihood,
        _NORMAL,
        _normal_data,
        num_steps=10_000,
        batch_size=500,
        model="normal",
    ),
    "all rows": Workload(
        _normal_prior,
        _normal_likelihood,
        _NORMAL,
        _normal_data,
        num_steps=100,
        model="normal",
    ),
}
