"""What NUTS gains in the coordinates of a nested answer.

Neal's funnel in ten dimensions, the eight schools as they come (centered), and random
effects of 40 groups of counts, centered too. NumPyro's NUTS by itself (1,000 steps of
warm-up, a diagonal matrix), after `vi.to_nuts(fit)`, and after
`vi.to_nuts(fit, neutra=True)` (150 steps for the step size); then 1,000 draws in each of
four chains. Gradients are those of the fit, of the warm-up and of the draws; the
effective sample size is the smallest of any coordinate on the unconstrained scale;
seconds are those of a first call, with the fit.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from harness import arguments, finish, warm_up
from jax.scipy.stats import cauchy, norm, poisson
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import vijax as vi


NUM_CHAINS, NUM_DRAWS = 4, 1_000
ADAPTING, HANDED_OVER = 1_000, 150


def funnel() -> vi.Target:
    def log_density(params):
        x = norm.logpdf(params["x"], 0.0, jnp.exp(params["v"] / 2))
        return norm.logpdf(params["v"], 0.0, 3.0) + jnp.sum(x)

    return vi.from_log_density(log_density, {"v": vi.Param(), "x": vi.Param(9)})


def schools() -> vi.Target:
    effect = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32)
    error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)

    def log_density(params, data):
        effect, error = data
        mu, log_tau, theta = params["mu"], params["log_tau"], params["theta"]
        prior = norm.logpdf(mu, 0.0, 5.0) + cauchy.logpdf(jnp.exp(log_tau), 0.0, 5.0)
        between = jnp.sum(norm.logpdf(theta, mu, jnp.exp(log_tau)))
        return prior + log_tau + between + jnp.sum(norm.logpdf(effect, theta, error))

    params = {"mu": vi.Param(), "log_tau": vi.Param(), "theta": vi.Param(8)}
    return vi.from_log_density(log_density, params, (effect, error))


def counts() -> vi.Target:
    rng = np.random.default_rng(0)
    rates = np.exp(0.5 + 0.3 * rng.normal(size=40))
    y = rng.poisson(rates[:, None], (40, 2)).astype(np.float32)

    def log_density(params, y):
        mu, log_tau, effects = params["mu"], params["log_tau"], params["effects"]
        prior = norm.logpdf(mu, 0.0, 2.0) + norm.logpdf(log_tau, -1.0, 1.0)
        between = jnp.sum(norm.logpdf(effects, mu, jnp.exp(log_tau)))
        return prior + between + jnp.sum(poisson.logpmf(y, jnp.exp(effects)[:, None]))

    params = {"mu": vi.Param(), "log_tau": vi.Param(), "effects": vi.Param(40)}
    return vi.from_log_density(log_density, params, y)


TARGETS: dict[str, Callable[[], vi.Target]] = {
    "funnel": funnel,
    "eight schools, centered": schools,
    "counts of 40 groups, centered": counts,
}


def run(target: vi.Target, start: vi.NUTSStart | None, key: jax.Array) -> dict:
    """One run of NUTS, by itself or from where a fit ended."""
    start_key, warm_key, draw_key = jr.split(key, 3)
    log_density = target.log_density if start is None else start.log_density
    kernel = NUTS(
        potential_fn=lambda x: -log_density(x),
        inverse_mass_matrix=None if start is None else start.inverse_mass_matrix,
        dense_mass=False if start is None else start.dense,
        adapt_mass_matrix=start is None,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=ADAPTING if start is None else HANDED_OVER,
        num_samples=NUM_DRAWS,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    shape = (NUM_CHAINS, target.dim)
    away = jr.uniform(start_key, shape, minval=-2.0, maxval=2.0)
    fields = ("num_steps", "diverging")
    initial = away if start is None else start.positions
    mcmc.warmup(warm_key, init_params=initial, extra_fields=fields, collect_warmup=True)
    warming = int(np.sum(mcmc.get_extra_fields()["num_steps"]))
    mcmc.run(draw_key, extra_fields=fields)
    x = mcmc.get_samples(group_by_chain=True)
    x = x if start is None else jax.jit(jax.vmap(jax.vmap(start.unconstrained)))(x)
    seen = mcmc.get_extra_fields()
    return {
        "warm-up": warming,
        "draws": int(np.sum(seen["num_steps"])),
        "divergent": int(np.sum(seen["diverging"])),
        "effective": float(np.min(effective_sample_size(np.asarray(x)))),
    }


def main() -> None:
    options = arguments(__doc__)
    warm_up()
    results = {}
    print("| | | gradients (1,000) | divergent | smallest ESS | ESS / 1,000 | s |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name, make in TARGETS.items():
        if options.only and name not in options.only:
            continue
        target, keys = make(), jr.split(jr.key(0), 4)
        began = time.perf_counter()
        fit = vi.fit(target, key=keys[0], progress=False)
        fitting = time.perf_counter() - began
        cost = vi.report(fit, key=keys[3]).num_evaluations or 0
        for kind in ("by itself", "to_nuts", "neutra"):
            began, start = time.perf_counter(), None
            if kind != "by itself":
                start = vi.to_nuts(fit, neutra=kind == "neutra", key=keys[1])
            row = run(target, start, keys[2])
            row["seconds"] = time.perf_counter() - began
            row["fit"] = 0 if start is None else cost
            row["seconds"] += 0 if start is None else fitting
            results[f"{name}, {kind}"] = row
            parts = [row[part] / 1_000 for part in ("fit", "warm-up", "draws")]
            total = sum(parts)
            print(
                f"| {name} | {kind} | {' + '.join(f'{part:.0f}' for part in parts)} | "
                f"{row['divergent']} | {row['effective']:,.0f} | "
                f"{row['effective'] / total:.1f} | {row['seconds']:.0f} |",
                flush=True,
            )
    finish(options, results)


if __name__ == "__main__":
    main()
