"""What a step on 500 rows costs: in vijax, in its peers and in a loop written by hand.

All fit the same mean-field Gaussian by Adam with one draw a step, as in `peers.py`, on
40,000 × 100 normal data. The hand-written loop draws rows with replacement, as PyMC
does; vijax does either, and NumPyro draws without replacement within a step. Seconds are
those of a second call (nothing left to compile but in NumPyro, which compiles at every
call: it also runs inside a `jax.jit`), divided by the number of steps; ratios are to
vijax's shuffled epochs in the same fresh process, in alternating order.

Then the same with ten columns, 40,000 and 4,000,000 rows: a step may cost what its batch
costs, and never what all the rows do. And how close `"advi"` by its name comes to the
known posterior of the 40,000 × 100: errors in posterior standard deviations.
"""

import dataclasses
import functools
import json
import statistics

import jax
import jax.random as jr
import numpy as np
import optax
from harness import arguments, finish, in_child, timed, warm_up
from numpyro.distributions import constraints
from overhead import LEARNING_RATE
from peers import by_hand, by_jitted_numpyro, by_numpyro, by_pymc
from workloads import Workload, WORKLOADS

import vijax as vi


_NORMAL = WORKLOADS["minibatch"]
_PEER_STEPS = {"NumPyro": 2_000, "NumPyro in jit": 2_000}


def _ten_columns(num_rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(2.0, 3.0, (num_rows, 10)).astype(np.float32)


def _with_ten_columns(num_rows: int) -> Workload:
    return dataclasses.replace(
        _NORMAL,
        params={"mu": vi.Param(10), "sd": vi.Param(10, constraints.positive)},
        make_data=functools.partial(_ten_columns, num_rows),
    )


SIZES = {
    "40,000 × 100": _NORMAL,
    "40,000 × 10": _with_ten_columns(40_000),
    "4,000,000 × 10": _with_ten_columns(4_000_000),
}


def _by_vijax(workload: Workload, data, *, replace: bool):
    rows = jax.device_put(data)
    minibatch = vi.Minibatch(workload.batch_size, replace=replace)

    def fit(target, seed):
        method = vi.Descent(vi.ELBO(), optax.adam(LEARNING_RATE))
        steps = workload.num_steps
        return vi.fit(target, method, key=jr.key(seed), max_steps=steps, progress=False)

    return lambda: workload.target(rows).with_batch_size(minibatch), fit


CONTENDERS = {
    "vijax": functools.partial(_by_vijax, replace=False),
    "vijax, with replacement": functools.partial(_by_vijax, replace=True),
    "hand": by_hand,
    "PyMC": by_pymc,
    "NumPyro": by_numpyro,
    "NumPyro in jit": by_jitted_numpyro,
}


def child(size: str, order: str) -> dict[str, float]:
    """Microseconds a step of the contenders' second and third calls, the lesser."""
    warm_up()
    times = {}
    for who in order.split(";"):
        workload = SIZES[size]
        steps = _PEER_STEPS.get(who, workload.num_steps)
        workload = dataclasses.replace(workload, num_steps=steps)
        build, fit = CONTENDERS[who](workload, workload.make_data(0))
        model = build()
        fit(model, 0)
        seconds = min(timed(functools.partial(fit, model, i))[0] for i in (1, 2))
        times[who] = 1e6 * seconds / steps
    return times


def accuracy(seed: str) -> dict[str, float]:
    """`"advi"` on the 40,000 × 100: the worst of its hundred columns."""
    data = _NORMAL.make_data(0)
    run = functools.partial(
        vi.fit,
        _NORMAL.target(jax.device_put(data)),
        "advi",
        key=jr.key(int(seed)),
        progress=False,
    )
    run(max_steps=100)
    seconds, fit = timed(run)
    num_rows = len(data)
    location, scale = data.mean(0, dtype=np.float64), data.std(0, dtype=np.float64)
    # Priors are next to flat, so the posterior is known: normal in `mu` and in `log sd`.
    exact = {
        "mu": (location, scale / num_rows**0.5),
        "sd": (np.log(scale), np.full(100, (2 * num_rows) ** -0.5)),
    }
    mean = max(
        np.max(np.abs(np.asarray(fit.mean[k]) - loc) / sd)
        for k, (loc, sd) in exact.items()
    )
    std = max(
        np.max(np.abs(np.asarray(fit.std[k]) / sd - 1)) for k, (_, sd) in exact.items()
    )
    return {"mean": float(mean), "std": float(std), "seconds": seconds}


def median_step(size: str, who: str, repeats: int) -> dict[str, float]:
    """Medians of a contender's step, and of its ratio to vijax's in one process."""
    orders = (f"{who};vijax", f"vijax;{who}")
    runs = [in_child(__file__, size, orders[i % 2]) for i in range(repeats)]
    runs = [run for run in runs if run]
    if not runs:
        return {}
    step = statistics.median(run[who] for run in runs)
    ratio = statistics.median(run[who] / run["vijax"] for run in runs)
    return {"step": step, "ratio": ratio}


def main() -> None:
    options = arguments(__doc__)
    if options.child:
        job, *rest = options.child
        print(json.dumps(accuracy(*rest) if job == "accuracy" else child(job, *rest)))
        return
    rows = {}
    print("| a step of 500 of 40,000 × 100 | µs | times vijax's |\n|---|--:|--:|")
    for who in options.only or CONTENDERS:
        rows[who] = row = median_step("40,000 × 100", who, options.repeats)
        if row:
            print(f"| {who} | {row['step']:.0f} | {row['ratio']:.2f} |", flush=True)
    print("\n| rows | vijax (µs a step) | by hand |\n|---|--:|--:|")
    for size in ("40,000 × 10", "4,000,000 × 10"):
        runs = [in_child(__file__, size, "vijax;hand") for _ in range(options.repeats)]
        rows[size] = {
            who: statistics.median(run[who] for run in runs) for who in ("vijax", "hand")
        }
        print(f"| {size} | {rows[size]['vijax']:.0f} | {rows[size]['hand']:.0f} |")
    runs = [in_child(__file__, "accuracy", str(i)) for i in range(options.repeats)]
    rows["accuracy"] = {k: max(run[k] for run in runs) for k in runs[0]}
    worst = rows["accuracy"]
    print(
        f"\n`advi`, worst of {len(runs)} keys and 100 columns: means off by "
        f"{worst['mean']:.2f} posterior sd, sds by {100 * worst['std']:.0f} %, in "
        f"{worst['seconds']:.1f} s (10,000 steps of 4 draws)."
    )
    finish(options, rows)


if __name__ == "__main__":
    main()
