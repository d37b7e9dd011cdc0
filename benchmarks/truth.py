"""How often the report is wrong, over posteriors of many kinds whose moments are known.

z is the largest error of a mean in posterior standard deviations, r the largest error of
the logarithm of a standard deviation, over all numbers, from 16,384 draws of the default.
Excellent: z < 0.1 and r < log 1.1; good: z < 0.3 and r < log 1.33. A silent failure is a
fit that is not good, but trusted; a false alarm one that is good, but not trusted. Half
of the kinds, chosen by lot, were set aside: no threshold is chosen by them.
"""

import json
import sys
import time
import warnings

import jax
import jax.random as jr
import numpy as np
from grades import errors, grade
from harness import arguments, finish, in_child
from scipy.stats import beta
from truth_targets import KINDS

import vijax as vi


NUM_TARGETS, NUM_DRAWS = 5, 16_384
# Drawn once: `np.random.default_rng(15).permutation(sorted(KINDS))`.
_LOT = 15


def set_aside() -> set[str]:
    """Half of the kinds."""
    names = np.random.default_rng(_LOT).permutation(sorted(KINDS))
    return set(names[: len(names) // 2].tolist())


def child(kind: str, precision: str, seeds: str) -> dict:
    jax.config.update("jax_enable_x64", precision == "64")
    warnings.simplefilter("ignore")
    rows = []
    for number in range(NUM_TARGETS):
        rng = np.random.default_rng([number, *map(ord, kind)])
        log_density, params, moments = KINDS[kind](rng)
        target = vi.from_log_density(log_density, params)
        for seed in range(int(seeds)):
            began = time.perf_counter()
            fit = vi.fit(target, key=jr.key(seed), progress=False)
            report = vi.report(fit, key=jr.key(1_000 + seed))
            draws = fit.draw(NUM_DRAWS, key=jr.key(2_000 + seed))
            z, r = errors(moments, draws.params)
            row = {"number": number, "seed": seed, "dim": target.dim, "z": z, "r": r}
            row |= {"grade": grade(row), "trusted": report.trustworthy}
            row |= {"family": type(fit.family).__name__, "problems": report.problems}
            row |= {"gradients": report.num_evaluations}
            row |= {"precision": precision, "seconds": time.perf_counter() - began}
            rows.append(row)
        jax.clear_caches()
    return {"rows": rows}


def line(name: str, rows: list[dict]) -> str:
    """A row of the table."""
    part = lambda value: f"{100 * np.mean([r['grade'] == value for r in rows]):.0f} %"
    silent = sum(r["trusted"] and r["grade"] == "-" for r in rows)
    alarms = sum(not r["trusted"] and r["grade"] != "-" for r in rows)
    limit = beta.ppf(0.95, silent + 1, len(rows) - silent)
    gradients = np.median([r["gradients"] for r in rows])
    figures = f"{part('E')} | {part('G')} | {part('-')} | {silent}"
    rest = f"{100 * limit:.1f} % | {alarms} | {gradients:,.0f}"
    return f"| {name} | {len(rows)} | {figures} | {rest} |"


def main() -> None:
    options = arguments(__doc__)
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    aside, results = set_aside(), {}
    grades, faults = "excellent | good | neither", "silent failures | at most"
    print(f"| | fits | {grades} | {faults} | false alarms | gradients |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for kind in KINDS:
        if options.only and kind not in options.only:
            continue
        rows = []
        for precision in ("32", "64"):
            done = in_child(__file__, kind, precision, str(options.repeats))
            rows += done.get("rows", [])
            if not done:
                print(f"{kind} failed in {precision} bits", file=sys.stderr)
        if not rows:
            continue
        results[kind] = rows
        print(line(kind + (" (set aside)" if kind in aside else ""), rows), flush=True)
        for row in rows:
            if row["trusted"] == (row["grade"] == "-"):
                print(f"  {kind}: {row}", file=sys.stderr, flush=True)
    for name, kinds in {
        "set aside": [k for k in results if k in aside],
        "the others": [k for k in results if k not in aside],
        "all": list(results),
    }.items():
        rows = [row for kind in kinds for row in results[kind]]
        if rows:
            print(line(name, rows))
    finish(options, results)


if __name__ == "__main__":
    main()
