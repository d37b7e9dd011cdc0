"""Eight schools, from a log density to a posterior that says how far to trust it."""

import argparse
import pathlib
import time
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jax.scipy.stats import norm
from numpyro.distributions import constraints, HalfCauchy

import vijax as vi


# Effects of coaching on test scores, and their standard errors, in eight schools: Rubin
# (1981), Estimation in parallel randomized experiments, J. Educational Statistics 6(4).
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
STANDARD_ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def school_effects(params):
    """The effect of each school: non-centered, so that no funnel is in the way."""
    return params["mu"] + params["tau"] * params["z"]


def log_density(params, data):
    """The joint log density of the parameters and the data."""
    effects, standard_errors = data
    log_prior = (
        norm.logpdf(params["mu"], 0.0, 5.0)
        + HalfCauchy(5.0).log_prob(params["tau"])
        + norm.logpdf(params["z"]).sum()
    )
    return log_prior + norm.logpdf(effects, school_effects(params), standard_errors).sum()


def make_target() -> vi.Target:
    """The posterior of eight schools."""
    params = {
        "mu": vi.Param(),
        "tau": vi.Param(support=constraints.positive),
        "z": vi.Param(8),
    }
    return vi.from_log_density(log_density, params, (EFFECTS, STANDARD_ERRORS))


def by_row(mu: Any, tau: Any, theta: Any) -> dict[str, np.ndarray]:
    """Draws of what the table shows, by the name of its row."""
    rows = {"mu": np.asarray(mu), "tau": np.asarray(tau)}
    schools = {f"theta[{i}]": np.asarray(theta)[:, i] for i in range(8)}
    return rows | schools


def run_vi(seed: int) -> tuple[dict[str, np.ndarray], vi.Report, dict[str, float]]:
    """Rows of draws, the verdict on the fit, and the seconds of the two fits."""
    key, draw_key, report_key = jr.split(jr.key(seed), 3)
    seconds = {}
    for name in ("first call", "second call"):
        began = time.perf_counter()
        fit = vi.fit(make_target(), key=key, progress=False)
        jax.block_until_ready(fit.family)
        seconds[f"VI, {name}"] = time.perf_counter() - began
    draws = fit.draw(4_000, key=draw_key)
    params = draws.params
    rows = by_row(params["mu"], params["tau"], draws.evaluate(school_effects))
    return rows, vi.report(fit, key=report_key), seconds


def run_nuts(seed: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Rows of draws by NumPyro's NUTS, and the seconds of a first and a second run."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", 8):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            theta = numpyro.deterministic("theta", mu + tau * z)
            numpyro.sample("y", dist.Normal(theta, STANDARD_ERRORS), obs=EFFECTS)

    mcmc = MCMC(
        NUTS(model, target_accept_prob=0.95),
        num_warmup=1_000,
        num_samples=2_500,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    samples, seconds = {}, {}
    for i, name in enumerate(("first call", "second call")):
        began = time.perf_counter()
        mcmc.run(jr.key(seed + i))
        samples = jax.block_until_ready(mcmc.get_samples())
        seconds[f"NUTS, {name}"] = time.perf_counter() - began
    return by_row(samples["mu"], samples["tau"], samples["theta"]), seconds


def print_table(rows: dict[str, np.ndarray], nuts: dict[str, np.ndarray] | None) -> None:
    """One line a parameter: mean and standard deviation of each, and how they differ."""
    heads = f"{'parameter':<10}{'VI mean ± sd':>18}"
    print(heads + (f"{'NUTS mean ± sd':>18}{'difference (sd)':>18}" if nuts else ""))
    for name, x in rows.items():
        line = f"{name:<10}{f'{x.mean():.2f} ± {x.std():.2f}':>18}"
        if nuts is not None:
            y = nuts[name]
            line += f"{f'{y.mean():.2f} ± {y.std():.2f}':>18}"
            line += f"{(x.mean() - y.mean()) / y.std():>18.2f}"
        print(line)


def plot(
    path: pathlib.Path, rows: dict[str, np.ndarray], nuts: dict[str, np.ndarray] | None
) -> None:
    """Write a picture with one density a parameter."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from scipy.stats import gaussian_kde

    figure, axes = plt.subplots(2, 5, figsize=(13, 5), layout="constrained")
    curves = {"VI": rows} if nuts is None else {"NUTS": nuts, "VI": rows}
    for axis, name in zip(axes.flat, rows, strict=True):
        everything = np.concatenate([draws[name] for draws in curves.values()])
        low, high = np.quantile(everything, [0.002, 0.998])
        grid = np.linspace(low, high, 200)
        for label, draws in curves.items():
            density = gaussian_kde(draws[name])(grid)
            axis.plot(grid, density, label=label)
            axis.fill_between(grid, density, alpha=0.2)
        axis.set_title(name)
        axis.set_yticks([])
        axis.set_ylim(bottom=0)
    axes[0, 0].legend(frameon=False)
    figure.suptitle("Eight schools")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Fit, compare, print and draw."""
    parser = argparse.ArgumentParser(prog="python -m vijax", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of all randomness")
    parser.add_argument("--no-nuts", action="store_true", help="only the VI fit")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("eight_schools.png"),
        help="where to write the picture (default: %(default)s)",
    )
    options = parser.parse_args(arguments)

    print("Eight schools: a fit to the log density, without tuning ...")
    rows, report, seconds = run_vi(options.seed)
    nuts = None
    if not options.no_nuts:
        print("... and NumPyro's NUTS beside it (4 chains of 1,000 + 2,500) ...")
        nuts, its_seconds = run_nuts(options.seed)
        seconds |= its_seconds
    print()
    print_table(rows, nuts)
    print(f"\n{report}\n")
    print("; ".join(f"{name}: {value:.2f} s" for name, value in seconds.items()))
    try:
        plot(options.output, rows, nuts)
    except ModuleNotFoundError as e:
        print(f"No picture: {e.name} is missing (`pip install 'vijax[plot]'`).")
    else:
        print(f"Densities: {options.output}")


if __name__ == "__main__":
    main()
