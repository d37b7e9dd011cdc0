"""What a NumPyro model costs by `vi.from_numpyro`, beside NumPyro's own `SVI.run`.

A hierarchical regression with twenty sites: four groups of plates, each with a mean, a
spread and an effect, further coefficients, a deterministic site and the observations.
Both sides fit a Gaussian with independent coordinates by 2,000 steps of Adam with one
draw a step. "First" is the first call in a fresh process: building the target and the
fit, tracing and compilation included. "Other data" is a whole second call, of arrays of
the same shapes, and how many programs it compiled. NumPyro closes over the data, and so
compiles for each.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from harness import arguments, finish, in_child, timed, warm_up
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDiagonalNormal

import vijax as vi


sample: Any = numpyro.sample  # Its type is a union that nothing can be done with.
NUM_STEPS = 2_000
NUM_ROWS = 2_000
LENGTHS = {"county": 80, "year": 12, "school": 40, "age": 9}


def model(x, groups, y=None):
    """Twenty sites."""
    intercept = sample("intercept", dist.Normal(0.0, 5.0))
    sigma = sample("sigma", dist.HalfNormal(2.0))
    tail = sample("tail", dist.Gamma(2.0, 0.1))
    width = sample("width", dist.HalfCauchy(1.0))
    slopes = sample("slopes", dist.Normal(0.0, width).expand([5]).to_event(1))
    bend = sample("bend", dist.Normal(0.0, 1.0))
    loc = intercept + x @ slopes + bend * x[:, 0] ** 2
    for name, length in LENGTHS.items():
        mean = sample(f"{name}_mean", dist.Normal(0.0, 1.0))
        spread = sample(f"{name}_spread", dist.HalfNormal(1.0))
        with numpyro.plate(f"{name}_plate", length):
            effect = sample(name, dist.Normal(mean, spread))
        loc = loc + effect[groups[name]]
    loc = numpyro.deterministic("loc", loc)
    with numpyro.plate("rows", x.shape[0]):
        sample("y", dist.StudentT(2 + tail, loc, sigma), obs=y)


def data(seed: int) -> tuple:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(NUM_ROWS, 5)).astype(np.float32)
    groups = {k: rng.integers(0, n, size=NUM_ROWS) for k, n in LENGTHS.items()}
    effects = sum(rng.normal(size=n)[groups[k]] for k, n in LENGTHS.items())
    y = x @ np.arange(5.0) + effects + rng.standard_t(4, size=NUM_ROWS)
    return x, groups, y.astype(np.float32)


def by_vijax(seed: int):
    target = vi.from_numpyro(model, *data(seed))
    method = vi.Descent(vi.ELBO(), optax.adam(1e-2))
    fit = vi.fit(
        target,
        method,
        vi.MeanField,
        key=jr.key(seed),
        max_steps=NUM_STEPS,
        progress=False,
    )
    return fit.losses


def by_numpyro(seed: int):
    guide = AutoDiagonalNormal(model)
    svi = SVI(model, guide, numpyro.optim.Adam(1e-2), Trace_ELBO())
    return svi.run(jr.key(seed), NUM_STEPS, *data(seed), progress_bar=False).losses


CONTENDERS: dict[str, Callable] = {"vijax": by_vijax, "NumPyro": by_numpyro}


def child(name: str) -> dict:
    warm_up()
    compiled = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if "backend_compile" in event:
            compiled.append(seconds)

    listener: Any = listen
    jax.monitoring.register_event_duration_secs_listener(listener)
    first, losses = timed(lambda: CONTENDERS[name](0))
    made = len(compiled)
    second, _ = timed(lambda: CONTENDERS[name](1))
    return {
        "first": first,
        "second": second,
        "compiled": made,
        "compiled_again": len(compiled) - made,
        "loss": float(np.mean(losses[-100:])),
    }


def main() -> None:
    options = arguments(__doc__)
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    runs = {name: [] for name in CONTENDERS}
    for _ in range(options.repeats):  # In turn, so that both meet the same noise.
        for name in CONTENDERS:
            runs[name].append(in_child(__file__, name))
    print("| | first (s) | other data (s) | programs | again | last losses |")
    print("|---|--:|--:|--:|--:|--:|")
    rows = {}
    for name, measured in runs.items():
        rows[name] = {
            key: statistics.median(run[key] for run in measured) for key in measured[0]
        }
        row = rows[name]
        print(
            f"| {name} | {row['first']:.2f} | {row['second']:.2f} | {row['compiled']} | "
            f"{row['compiled_again']} | {row['loss']:,.0f} |"
        )
    ratio = {k: rows["vijax"][k] / rows["NumPyro"][k] for k in ("first", "second")}
    print(f"| vijax / NumPyro | {ratio['first']:.2f} | {ratio['second']:.2f} | | | |")
    finish(options, runs)


if __name__ == "__main__":
    main()
