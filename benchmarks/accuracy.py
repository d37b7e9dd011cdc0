"""How accurate fits are on real posteriors, what they cost, and whether reports are true.

On every posterior of a posteriordb folder with models (`--posteriordb PATH`): z is the
largest error of a mean in posterior standard deviations, r the largest error of the
logarithm of a standard deviation, both against the reference draws, from 16,384 draws.
Excellent: z < 0.1 and r < log 1.1; good: z < 0.3 and r < log 1.33. "First" and "second"
are seconds of a first fit in a fresh process and of another key's; "evaluations" are
gradients (and values, counted as gradients). A silent failure is a fit that is not good
but is called trustworthy.
"""

import importlib
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from grades import grade
from harness import arguments, finish, in_child

import vijax as vi


SHARED = pathlib.Path(__file__).parents[2] / "shared" / "posteriordb"
NUM_DRAWS = 16_384
NUM_STEPS = 20_000


def database() -> pathlib.Path:
    path = pathlib.Path(os.environ.get("POSTERIORDB", SHARED))
    if not (path / "models.py").exists():
        sys.exit(f"{path} holds no `models.py`. Name a folder, `--posteriordb PATH`.")
    sys.path.insert(0, str(path))
    return path


def evaluations_of(fit: vi.Fit, report: vi.Report) -> int:
    """What a fit took, the weighed draws that chose between stages included."""
    if report.num_evaluations is not None:
        return report.num_evaluations
    method: Any = fit.problem.method
    if isinstance(method, vi.Laplace):
        # Of a Hessian by forward over reverse mode each row is as dear as a gradient.
        rows = int(fit.state.num_newton) * (fit.target.dim + 6)
        return int(fit.state.paths.num_steps) * method.num_starts + rows
    return int(fit.num_steps) * method.method.objective.num_draws  # Averaged descents.


def by_vijax(method: vi.AbstractMethod | str) -> Callable:
    def run(target: vi.Target, key: Any) -> dict:
        fit = vi.fit(target, method, key=key, max_steps=NUM_STEPS, progress=False)
        jax.block_until_ready(fit.family)
        return {"fit": fit}

    return run


def by_svi(guide_name: str) -> Callable:
    """NumPyro's guide by the steps that its posteriordb figures were made with."""

    def run(target: vi.Target, key: Any, model: Any, data: dict) -> dict:
        import numpyro
        from numpyro.infer import autoguide, SVI, Trace_ELBO

        guide = getattr(autoguide, guide_name)(model)
        svi = SVI(model, guide, numpyro.optim.Adam(5e-3), Trace_ELBO())
        done = svi.run(key, NUM_STEPS, progress_bar=False, **data)
        x = jax.vmap(lambda k: guide.get_posterior(done.params).sample(k))(
            jr.split(key, NUM_DRAWS)
        )
        return {"x": jax.block_until_ready(x), "evaluations": NUM_STEPS}

    return run


def by_nuts(target: vi.Target, key: Any, model: Any, data: dict) -> dict:
    """Four chains of 1,000 and 1,000 draws, one after the other."""
    from numpyro.infer import MCMC, NUTS

    mcmc = MCMC(
        NUTS(potential_fn=lambda x: -target.log_density(x)),
        num_warmup=1_000,
        num_samples=1_000,
        num_chains=4,
        chain_method="sequential",
        progress_bar=False,
    )
    starts = jr.uniform(key, (4, target.dim), minval=-2, maxval=2)
    mcmc.warmup(key, init_params=starts, extra_fields=("num_steps",), collect_warmup=True)
    before = int(np.sum(mcmc.get_extra_fields()["num_steps"]))
    mcmc.run(key, init_params=starts, extra_fields=("num_steps",))
    x = jax.block_until_ready(mcmc.get_samples())
    steps = before + int(np.sum(mcmc.get_extra_fields()["num_steps"]))
    return {"x": x, "evaluations": steps}


def by_blackjax(target: vi.Target, key: Any) -> dict:
    """BlackJAX's single path, with its defaults."""
    from blackjax.vi import pathfinder

    start_key, fit_key, draw_key = jr.split(key, 3)
    start = jr.uniform(start_key, (target.dim,), minval=-2, maxval=2)
    state, info = pathfinder.approximate(fit_key, target.log_density, start)
    x, _ = pathfinder.sample(draw_key, state, NUM_DRAWS)
    # 200 values at each iterate of the path, and a gradient.
    length = int(np.sum(np.isfinite(np.asarray(info.path.elbo))))
    return {"x": jax.block_until_ready(x), "evaluations": 201 * length}


CONTENDERS: dict[str, Callable] = {
    "auto": by_vijax("auto"),
    "full-rank ADVI": by_vijax("fullrank_advi"),
    "mean-field ADVI": by_vijax("advi"),
    "DADVI": by_vijax(vi.DADVI()),
    "Laplace": by_vijax(vi.Laplace()),
    "multi-path Pathfinder": by_vijax(vi.Pathfinder()),
    "BlackJAX Pathfinder": by_blackjax,
    "NumPyro AutoMultivariateNormal": by_svi("AutoMultivariateNormal"),
    "NumPyro NUTS": by_nuts,
}


def score(posterior: Any, reference: dict, params: dict) -> tuple[float, float]:
    z = r = 0.0
    for name, values in posterior.read(params).items():
        truth = reference[name]
        scale = truth.std(ddof=1)
        values = np.asarray(values, np.float64)
        z = max(z, abs(values.mean() - truth.mean()) / scale)
        r = max(r, abs(np.log(values.std() / scale)))
    return float(np.nan_to_num(z, nan=9e9)), float(np.nan_to_num(r, nan=9e9))


def child(name: str, contender: str, seeds: str, precision: str) -> dict:
    database()
    jax.config.update("jax_enable_x64", precision == "64")
    models: Any = importlib.import_module("models")
    reference: Any = importlib.import_module("reference")
    posterior, truth = models.POSTERIORS[name], reference.load(name)
    data = posterior.data()
    target = vi.from_numpyro(posterior.model, **data)
    run, rows, seconds = CONTENDERS[contender], [], []
    extra = (posterior.model, data) if contender.startswith("NumPyro") else ()
    jax.block_until_ready(jnp.zeros(1) + 1)
    for seed in range(int(seeds)):
        began = time.perf_counter()
        done = run(target, jr.key(seed), *extra)
        seconds.append(time.perf_counter() - began)
        row: dict = {"seed": seed}
        if "fit" in done:
            fit = done["fit"]
            report = vi.report(fit, key=jr.key(1_000 + seed))
            params = fit.draw(NUM_DRAWS, key=jr.key(2_000 + seed)).params
            row |= {"trustworthy": report.trustworthy, "khat": report.khat}
            row |= {"evaluations": evaluations_of(fit, report)}
            row |= {"family": type(fit.family).__name__}
        else:
            params = jax.vmap(target.constrain)(done["x"])
            row |= {"evaluations": done["evaluations"]}
        row["z"], row["r"] = score(posterior, truth, params)
        rows.append(row)
    return {"first": seconds[0], "second": seconds[-1], "rows": rows}


def line(contender: str, runs: list[dict]) -> str:
    rows = [row for run in runs for row in run["rows"]]
    grades = [grade(row) for row in rows]
    trusted = [row.get("trustworthy") for row in rows]
    silent = sum(t is True and g == "-" for t, g in zip(trusted, grades, strict=True))
    alarms = sum(t is False and g != "-" for t, g in zip(trusted, grades, strict=True))
    part = lambda wanted: f"{100 * sum(g in wanted for g in grades) / len(grades):.0f} %"
    median = statistics.median
    reported = f"{silent} | {alarms}" if trusted[0] is not None else "|"
    z, r = median([row["z"] for row in rows]), median([row["r"] for row in rows])
    evaluations = median([row["evaluations"] for row in rows])
    first, second = (median([run[k] for run in runs]) for k in ("first", "second"))
    return (
        f"| {contender} | {len(rows)} | {part('E')} | {part('EG')} | {z:.3f} | {r:.3f} | "
        f"{reported} | {evaluations:,.0f} | {first:.1f} | {second:.2f} |"
    )


def main() -> None:
    options = arguments(__doc__, posteriordb="a folder of posteriors with models")
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    if options.posteriordb:
        os.environ["POSTERIORDB"] = str(options.posteriordb.resolve())
    path = database()
    names = sorted(file.stem for file in (path / "posteriors").glob("*.json"))
    precision = os.environ.get("PRECISION", "32")
    results = {}
    print(
        "| | fits | excellent | good | z | r | silent failures | false alarms |", end=""
    )
    print(" evaluations | first (s) | second (s) |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for contender in options.only or CONTENDERS:
        seeds = options.repeats if contender == "auto" else 2
        runs = {}
        for name in names:
            done = in_child(__file__, name, contender, str(seeds), precision)
            if done:
                runs[name] = done
                for row in done["rows"]:
                    print(
                        f"{contender}, {name}: {grade(row)} {row}",
                        file=sys.stderr,
                    )
        results[contender] = runs
        if runs:
            print(line(contender, list(runs.values())), flush=True)
    finish(options, results)


if __name__ == "__main__":
    main()
