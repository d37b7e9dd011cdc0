"""What one fresh process does and measures."""

import importlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import vijax as vi
from benchmarks.cold.models import MODELS, PYMC_MODELS
from benchmarks.harness import warm_up


NUM_POINTS = 64
NUM_DRAWS = 4_000
NUM_CHAINS, NUTS_WARMUP, NUTS_DRAWS = 4, 500, 1_000
SVI_STEPS, SVI_RATE = 20_000, 5e-3

Figures = dict[str, Any]


def processor_seconds() -> float:
    """Of all threads of this process, and of its children that have ended."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


class Clock:
    """Processor and wall seconds since it was made."""

    def __init__(self) -> None:
        self.processor, self.wall = processor_seconds(), time.perf_counter()

    def __call__(self) -> dict[str, float]:
        wall = time.perf_counter() - self.wall
        return {"processor": processor_seconds() - self.processor, "wall": wall}


def peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def has_flow(family: vi.AbstractFamily) -> bool:
    is_flow = lambda node: isinstance(node, vi.Coupling)
    return any(map(is_flow, jax.tree.leaves(family, is_leaf=is_flow)))


def floor(target: vi.Target, seed: int) -> Figures:
    """Gradients at 64 points: what any method must compile, and no more."""
    start = np.asarray(target.model.initial())
    noise = np.random.default_rng(seed).normal(size=(NUM_POINTS, target.dim))
    x = jax.block_until_ready(jnp.asarray((start + noise).astype(start.dtype)))
    clock = Clock()
    evaluate = jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))
    jax.block_until_ready(evaluate(x))
    first, clock = clock(), Clock()
    jax.block_until_ready(evaluate(x))
    return {"floor": first, "floor again": clock(), "dim": target.dim}


def fit(target: vi.Target, seed: int) -> Figures:
    """The default, draws of it and the report on it, all since the start."""
    began, clock = peak_megabytes(), Clock()
    fit = vi.fit(target, key=jr.key(seed), progress=False)
    jax.block_until_ready(fit.family)
    figures: Figures = {"fit": clock()}
    jax.device_get(fit.draw(NUM_DRAWS, key=jr.key(seed + 1)).params)
    figures["draws"] = clock()
    report = vi.report(fit, key=jr.key(seed + 2))
    str(report)
    figures["report"] = clock()
    figures |= {"megabytes": peak_megabytes(), "megabytes before": began}
    figures |= {"family": type(fit.family).__name__, "flow": has_flow(fit.family)}
    figures |= {"trusted": report.trustworthy, "evaluations": report.num_evaluations}
    clock = Clock()
    second = vi.fit(target, key=jr.key(seed + 3), progress=False)
    jax.block_until_ready(second.family)
    return figures | {"second fit": clock(), "dim": target.dim}


def nuts(target: vi.Target, seed: int) -> Figures:
    """NumPyro's NUTS from its usual starts, and once more by the same `MCMC`."""
    from numpyro.diagnostics import split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    rng = np.random.default_rng(seed)

    def run(mcmc: MCMC, seed: int) -> None:
        starts = jnp.asarray(rng.uniform(-2, 2, (NUM_CHAINS, target.dim)), float)
        mcmc.run(jr.key(seed), init_params=starts)
        jax.device_get(mcmc.get_samples())

    began, clock = peak_megabytes(), Clock()
    mcmc = MCMC(
        NUTS(potential_fn=lambda x: -target.log_density(x)),
        num_warmup=NUTS_WARMUP,
        num_samples=NUTS_DRAWS,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    run(mcmc, seed)
    first = {"nuts": clock(), "nuts megabytes": peak_megabytes()}
    clock = Clock()
    run(mcmc, seed + 1)
    first |= {"nuts again": clock(), "nuts megabytes before": began}
    chains: Any = mcmc.get_samples(group_by_chain=True)
    return first | {"nuts rhat": float(np.max(split_gelman_rubin(np.asarray(chains))))}


def svi(target: vi.Target, seed: int) -> Figures:
    """NumPyro's Gaussian of full rank on a flat vector with the target as a factor."""
    import numpyro
    from numpyro.distributions import constraints, ImproperUniform
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal

    flat = ImproperUniform(constraints.real_vector, (), (target.dim,))

    def model() -> None:
        x: Any = numpyro.sample("x", flat)
        with numpyro.handlers.block():  # The sites of a NumPyro model are its own.
            log_density = target.log_density(x)
        numpyro.factor("log_density", log_density)

    clock = Clock()
    guide = AutoMultivariateNormal(model)
    run = SVI(model, guide, numpyro.optim.Adam(SVI_RATE), Trace_ELBO()).run
    done = jax.block_until_ready(run(jr.key(seed), SVI_STEPS, progress_bar=False))
    seconds = clock()
    return {"svi": seconds, "svi loss": float(np.mean(done.losses[-1_000:]))}


def pathfinder(model: Any, seed: int) -> Figures:
    """That of pymc-extras, with its defaults."""
    extras: Any = importlib.import_module("pymc_extras")
    clock = Clock()
    options = {"model": model, "random_seed": seed, "progressbar": False}
    extras.fit(method="pathfinder", display_summary=False, **options)
    return {"pathfinder": clock()}


WHAT: dict[str, Callable[[vi.Target, int], Figures]] = {
    "floor": floor,
    "fit": fit,
    "nuts": nuts,
    "svi": svi,
}


def measure(name: str, what: str, seed: int) -> Figures:
    if what == "pathfinder":  # It forks, which JAX must not have been started for.
        return pathfinder(PYMC_MODELS[name](), seed)
    warm_up()
    target = jax.block_until_ready(MODELS[name]())
    return WHAT[what](target, seed)
