"""How accurate the default is, and whether reports are true, on models outside
posteriordb.

The models are in `held_out_models.py`. References are long runs of NumPyro's NUTS: four
chains of 4,000 draws after 2,000, with a dense matrix up to 60 coordinates, in float64.
Where chains disagree (R-hat above 1.01) or a coordinate has fewer than 1,000 effective
draws there is no reference, and the model is left out. z, r, excellent, good and the rest
are as in `accuracy.py`. `--references FOLDER` keeps what NUTS found there, or reads it.
"""

import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import jax
import jax.random as jr
import numpy as np
from accuracy import evaluations_of, line, NUM_DRAWS
from grades import grade
from harness import arguments, finish, in_child
from held_out_models import MODELS

import vijax as vi


CHAINS, WARMUP, DRAWS = 4, 2_000, 4_000
MAX_RHAT, MIN_EFFECTIVE = 1.01, 1_000


def target_of(name: str) -> vi.Target:
    model, data = MODELS[name](np.random.default_rng(sum(map(ord, name))))
    return vi.from_numpyro(model, *data)


def reference(name: str) -> dict:
    """Means and standard deviations of all numbers, as a long run of NUTS has them."""
    from numpyro.diagnostics import effective_sample_size, gelman_rubin
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)
    target = target_of(name)
    began = time.perf_counter()
    mcmc = MCMC(
        NUTS(
            potential_fn=lambda x: -target.log_density(x),
            dense_mass=target.dim <= 60,
            target_accept_prob=0.95,
        ),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    starts = 0.1 * jr.normal(jr.key(0), (CHAINS, target.dim))
    mcmc.run(jr.key(1), init_params=starts, extra_fields=("num_steps", "diverging"))
    x: Any = mcmc.get_samples(group_by_chain=True)
    extra = {k: np.asarray(v) for k, v in mcmc.get_extra_fields().items()}
    params = jax.vmap(jax.vmap(target.constrain))(x)
    moments = {}
    for site, values in params.items():
        values = np.asarray(values, np.float64)
        moments[site] = [values.mean((0, 1)).tolist(), values.std((0, 1)).tolist()]
    return {
        "moments": moments,
        "rhat": float(np.max(gelman_rubin(np.asarray(x)))),
        "effective": float(np.min(effective_sample_size(np.asarray(x)))),
        "diverging": int(extra["diverging"].sum()),
        "evaluations": int(extra["num_steps"].sum() * (1 + WARMUP / DRAWS)),
        "seconds": time.perf_counter() - began,
    }


def errors(moments: dict, params: dict) -> tuple[float, float]:
    z = r = 0.0
    for site, values in params.items():
        mean, std = map(np.asarray, moments[site])
        values = np.asarray(values, np.float64)
        # A number that the support fixes, such as a corner of a Cholesky factor.
        free = std > 1e-9 * (1 + np.abs(mean))
        with np.errstate(all="ignore"):
            off = np.abs(values.mean(0) - mean) / std
            factor = np.abs(np.log(values.std(0) / std))
        z = max(z, np.max(off, where=free, initial=0.0))
        r = max(r, np.max(factor, where=free, initial=0.0))
    return float(np.nan_to_num(z, nan=9e9)), float(np.nan_to_num(r, nan=9e9))


def child(name: str, file: str, seeds: str, precision: str) -> dict:
    if file == "reference":
        return reference(name)
    jax.config.update("jax_enable_x64", precision == "64")
    truth = json.loads(pathlib.Path(file).read_text())["moments"]
    target, rows, seconds = target_of(name), [], []
    for seed in range(int(seeds)):
        began = time.perf_counter()
        fit = vi.fit(target, key=jr.key(seed), progress=False)
        seconds.append(time.perf_counter() - began)
        report = vi.report(fit, key=jr.key(1_000 + seed))
        draws = fit.draw(NUM_DRAWS, key=jr.key(2_000 + seed))
        z, r = errors(truth, draws.params)
        row: dict[str, Any] = {"z": z, "r": r, "trustworthy": report.trustworthy}
        row |= {"evaluations": evaluations_of(fit, report)}
        row |= {"family": type(fit.family).__name__, "khat": report.khat}
        row |= {"effective": report.effective, "problems": report.problems}
        rows.append(row)
    return {"first": seconds[0], "second": seconds[-1], "rows": rows}


def found(folder: pathlib.Path, name: str) -> dict:
    """What a long run says, from the folder, or run now."""
    file = folder / f"{name}.json"
    if not file.exists():
        file.write_text(json.dumps(in_child(__file__, name, "reference", "", "")))
    return json.loads(file.read_text())


def main() -> None:
    options = arguments(__doc__, references="a folder for what NUTS found")
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    folder = options.references or pathlib.Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    precision = os.environ.get("PRECISION", "32")
    results = {}
    print("| | d | errors (z, r) | grades | trusted | family | times NUTS's gradients |")
    print("|---|--:|---|---|---|---|--:|")
    for name in options.only or MODELS:
        truth = found(folder, name)
        if not truth:
            print(f"{name}: NUTS failed", file=sys.stderr)
            continue
        if truth["rhat"] > MAX_RHAT or truth["effective"] < MIN_EFFECTIVE:
            figures = {k: v for k, v in truth.items() if k != "moments"}
            print(f"{name}: no reference, {figures}", file=sys.stderr)
            continue
        file = str(folder / f"{name}.json")
        run = in_child(__file__, name, file, str(options.repeats), precision)
        if not run:
            print(f"{name}: failed", file=sys.stderr)
            continue
        results[name] = run
        rows = run["rows"]
        for row in rows:
            print(f"{name}: {grade(row)} {row}", file=sys.stderr)
        middle = lambda key, rows=rows: float(np.median([row[key] for row in rows]))
        trusted = sum(row["trustworthy"] for row in rows)
        families = ", ".join(sorted({row["family"] for row in rows}))
        print(
            f"| {name} | {target_of(name).dim} | {middle('z'):.3f}, {middle('r'):.3f} | "
            f"{''.join(map(grade, rows))} | {trusted} of {len(rows)} | {families} | "
            f"{middle('evaluations') / truth['evaluations']:.4f} |",
            flush=True,
        )
    if results:
        print("\n" + line("all", list(results.values())))
    finish(options, results)


if __name__ == "__main__":
    main()
