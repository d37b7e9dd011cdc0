"""What a hand-over by `vi.to_nuts` saves NUTS, in NumPyro and in BlackJAX.

Two posteriors that are correlated and badly scaled, but not so badly that the default
fit of a Gaussian of full rank would not get there: neighbors among the predictors have
correlation 0.95, and the standard deviations of the coefficients go over two orders of
magnitude, from 0.02 to 2 and from 0.04 to 6. Both samplers adapt over 1,000 steps from
points between -2 and 2, to a diagonal matrix, their default, or to a dense one; or they
get `vi.to_nuts(fit)` and 150 steps to find the step size. Then come 500 draws in each of
four chains, vectorized, inside a `jax.jit`, without which NumPyro would compile at each
call.

"First" is a first call in a fresh process, compilation included; "second" another one
with other keys (and the matrix of the first fit, which the compiled program holds).
Seconds are those of the fit, of the warm-up and of the draws. Gradients are counted over
all chains, and four a step for the fit. The effective sample size is the smallest of any
coordinate. The error is the largest of any mean, in standard deviations, against 20,000
draws by NumPyro without a hand-over. The tables have medians over processes; with
`--repeats 1` they take five minutes.
"""

import functools
import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from harness import arguments, finish, in_child, timed, warm_up
from jax.scipy.stats import norm
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import vijax as vi


NUM_CHAINS = 4
NUM_DRAWS, REFERENCE_DRAWS = 500, 5_000
ADAPTING, HANDED_OVER = 1_000, 150
FIT_STEPS, DRAWS_A_STEP = 10_000, 4


def predictors(num_rows: int, dim: int, rng: np.random.Generator):
    """Correlated columns on scales from 0.1 to 10, and those scales."""
    correlation = 0.95 ** np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    scales = rng.permutation(np.geomspace(0.1, 10.0, dim))
    x = rng.normal(size=(num_rows, dim)) @ np.linalg.cholesky(correlation).T
    return x * scales, scales


def regression() -> vi.Target:
    """A linear regression on 30 predictors, with the noise to be found."""
    rng = np.random.default_rng(0)
    x, scales = predictors(500, 30, rng)
    y = x @ (rng.normal(size=30) / scales) + rng.normal(size=500)
    rows = {"x": x.astype(np.float32), "y": y.astype(np.float32)}
    width = jnp.asarray(3.0 / scales, np.float32)

    def log_prior(params):
        beta = norm.logpdf(params["beta"], 0.0, width).sum()
        return beta + norm.logpdf(params["log_sigma"])

    def log_likelihood(params, rows):
        sigma = jnp.exp(params["log_sigma"])
        return norm.logpdf(rows["y"], rows["x"] @ params["beta"], sigma)

    params = {"log_sigma": vi.Param(), "beta": vi.Param(30)}
    return vi.from_likelihood(log_prior, log_likelihood, params, rows)


def logistic() -> vi.Target:
    """A logistic regression on 20 predictors: no Gaussian."""
    rng = np.random.default_rng(1)
    x, scales = predictors(500, 20, rng)
    logits = 0.5 + x @ (rng.normal(size=20) / scales)
    y = rng.random(500) < 1 / (1 + np.exp(-logits))
    rows = {"x": x.astype(np.float32), "sign": np.where(y, 1.0, -1.0).astype(np.float32)}
    width = jnp.asarray(2.0 / scales, np.float32)

    def log_prior(params):
        beta = norm.logpdf(params["beta"], 0.0, width).sum()
        return beta + norm.logpdf(params["alpha"], 0.0, 3.0)

    def log_likelihood(params, rows):
        logits = params["alpha"] + rows["x"] @ params["beta"]
        return jax.nn.log_sigmoid(rows["sign"] * logits)

    params = {"beta": vi.Param(20), "alpha": vi.Param()}
    return vi.from_likelihood(log_prior, log_likelihood, params, rows)


def by_numpyro(target: vi.Target, start: vi.NUTSStart | None, dense, num_draws):
    """Functions that warm up and that draw. Both count the gradients, too."""
    kernel = NUTS(
        potential_fn=lambda x: -target.log_density(x),
        inverse_mass_matrix=None if start is None else start.inverse_mass_matrix,
        dense_mass=dense,
        adapt_mass_matrix=start is None,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=ADAPTING if start is None else HANDED_OVER,
        num_samples=num_draws,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    steps = ("num_steps",)

    @jax.jit
    def adapt(key, x):
        mcmc.warmup(key, init_params=x, extra_fields=steps, collect_warmup=True)
        return mcmc.post_warmup_state, jnp.sum(mcmc.get_extra_fields()["num_steps"])

    @jax.jit
    def draw(key, state):
        mcmc.post_warmup_state = state
        mcmc.run(key, extra_fields=steps)
        x = mcmc.get_samples(group_by_chain=True)
        return x, jnp.sum(mcmc.get_extra_fields()["num_steps"])

    return adapt, draw


def by_blackjax(target: vi.Target, start: vi.NUTSStart | None, dense, num_draws):
    """The same."""
    import blackjax

    options: dict[str, Any] = {}
    if start is not None:
        options["initial_inverse_mass_matrix"] = start.inverse_mass_matrix
        options["imm_shrinkage_to_previous"] = 1e12  # Keep it.
    warming: Any = blackjax.window_adaptation(
        blackjax.nuts,
        target.log_density,
        is_mass_matrix_diagonal=not dense,
        adaptation_info_fn=lambda state, info, adaptation: info.num_integration_steps,
        **options,
    )
    num_steps = ADAPTING if start is None else HANDED_OVER

    @jax.jit
    def adapt(key, x):
        one = lambda key, x: warming.run(key, x, num_steps=num_steps)
        ready, made = jax.vmap(one)(jr.split(key, NUM_CHAINS), x)
        return ready, jnp.sum(made)

    @jax.jit
    def draw(key, ready):
        def one(key, state, parameters):
            kernel: Any = blackjax.nuts(target.log_density, **parameters)

            def step(state, key):
                state, info = kernel.step(key, state)
                return state, (state.position, info.num_integration_steps)

            return jax.lax.scan(step, state, jr.split(key, num_draws))[1]

        keys = jr.split(key, NUM_CHAINS)
        x, made = jax.vmap(one)(keys, ready.state, ready.parameters)
        return x, jnp.sum(made)

    return adapt, draw


MODELS: dict[str, Callable] = {"regression": regression, "logistic": logistic}
PACKAGES: dict[str, Callable] = {"NumPyro": by_numpyro, "BlackJAX": by_blackjax}
KINDS = "diagonal", "dense", "handed over"
REFERENCE = "NumPyro", "reference"


def hand_over(target: vi.Target, seed: int) -> vi.NUTSStart:
    """A start from the default fit."""
    fit = vi.fit(
        target, "fullrank_advi", key=jr.key(seed), max_steps=FIT_STEPS, progress=False
    )
    return vi.to_nuts(fit, num_chains=NUM_CHAINS, key=jr.key(100 + seed))


def child(model: str, package: str, kind: str) -> dict:
    """Seconds of two calls; and what the second one took and brought."""
    target = MODELS[model]()
    warm_up()
    row = {"fit": [0.0, 0.0], "adapt": [], "draw": [], "fit_gradients": 0}
    start = None
    if kind == "handed over":
        calls = [timed(functools.partial(hand_over, target, seed)) for seed in (0, 1)]
        row["fit"] = [seconds for seconds, _ in calls]
        row["fit_gradients"] = FIT_STEPS * DRAWS_A_STEP
        start = calls[0][1]
    num_draws = REFERENCE_DRAWS if kind == "reference" else NUM_DRAWS
    adapt, draw = PACKAGES[package](target, start, kind != "diagonal", num_draws)
    for seed in (0, 1):
        keys = jr.split(jr.key(1_000 + seed), 3)
        shape = (NUM_CHAINS, target.dim)
        anywhere = jr.uniform(keys[0], shape, minval=-2.0, maxval=2.0)
        x = anywhere if start is None else start.positions
        seconds, (state, made) = timed(functools.partial(adapt, keys[1], x))
        row["adapt"].append(seconds)
        seconds, (x, also_made) = timed(functools.partial(draw, keys[2], state))
        row["draw"].append(seconds)
        row |= {"adapt_gradients": int(made), "draw_gradients": int(also_made)}
    x = np.asarray(x, float)
    row["ess"] = float(np.min(effective_sample_size(x)))
    row["mean"], row["std"] = x.mean(axis=(0, 1)).tolist(), x.std(axis=(0, 1)).tolist()
    return row


def measure(model: str, package: str, kind: str, repeats: int) -> dict:
    """Medians over processes; the means are those of the last one."""
    runs = [in_child(__file__, model, package, kind) for _ in range(repeats)]
    row = dict(runs[-1])
    for name in ("fit", "adapt", "draw"):
        row[name] = np.median([run[name] for run in runs], axis=0).tolist()
    for name in ("fit_gradients", "adapt_gradients", "draw_gradients", "ess"):
        row[name] = statistics.median(run[name] for run in runs)
    ess = row["ess"]
    everything = np.add(np.add(row["fit"], row["adapt"]), row["draw"])
    row["ess_a_second"] = (ess / everything).tolist()
    row["ess_a_second_of_draws"] = ess / row["draw"][1]
    gradients = row["fit_gradients"] + row["adapt_gradients"] + row["draw_gradients"]
    row["ess_a_gradient"] = ess / gradients
    row["ess_a_gradient_of_draws"] = ess / row["draw_gradients"]
    return {"model": model, "package": package, "kind": kind} | row


def print_table(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
    print("\n| " + " | ".join(heads) + " |")
    print("|---" + "|--:" * (len(heads) - 1) + "|")
    for line in lines:
        print("| " + " | ".join(line) + " |", flush=True)


def absolute(row: dict, reference: dict) -> tuple[str, ...]:
    """A line of what was measured."""
    error = np.abs(np.subtract(row["mean"], reference["mean"])) / reference["std"]
    both = lambda name: " / ".join(f"{seconds:.1f}" for seconds in row[name])
    thousands = lambda name: f"{row[name] / 1_000:,.0f}"
    names = "fit_gradients", "adapt_gradients", "draw_gradients"
    return (
        f"{row['package']}, {row['kind']}",
        both("fit") if row["fit_gradients"] else "–",
        both("adapt"),
        both("draw"),
        " + ".join(thousands(name) for name in names if row[name]),
        f"{row['ess']:,.0f}",
        f"{np.max(error):.2f}",
    )


def relative(row: dict, default: dict) -> tuple[str, ...]:
    """A line of how many times the default's that is."""
    first, second = np.divide(row["ess_a_second"], default["ess_a_second"])
    times = lambda name: f"{row[name] / default[name]:.2g}"
    return (
        f"{row['package']}, {row['kind']}",
        f"{first:.2g} / {second:.2g}",
        times("ess_a_second_of_draws"),
        times("ess_a_gradient"),
        times("ess_a_gradient_of_draws"),
    )


def main() -> None:
    options = arguments(__doc__)
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    table = []
    heads = "fit (s)", "warm-up (s)", "draws (s)", "gradients (1,000)"
    more = "ESS a second", "draws alone", "ESS a gradient", "draws alone"
    for model in options.only or MODELS:
        reference = measure(model, *REFERENCE, repeats=1)
        rows = [
            measure(model, package, kind, options.repeats)
            for package in PACKAGES
            for kind in KINDS
        ]
        table += [reference, *rows]
        default = {row["package"]: row for row in rows if row["kind"] == "diagonal"}
        lines = [absolute(row, reference) for row in rows]
        print_table((model, *heads, "smallest ESS", "error"), lines)
        lines = [
            relative(row, default[row["package"]])
            for row in rows
            if row["kind"] != "diagonal"
        ]
        print_table((f"{model}: times the diagonal's", *more), lines)
    finish(options, table)


if __name__ == "__main__":
    main()
