"""What the four workloads take in vijax, in its peers and written by hand.

All fit a mean-field Gaussian by the same number of Adam steps with one draw each; all
else is each library's default, PyMC's double precision included. In a fresh process,
"first" is the first call, from building the model to finished arrays, without imports and
with the data in place; "second" is another call on the same model with another seed. The
ratios are to vijax within one process, in alternating order, with JAX's caches cleared
between; above 1, vijax is faster. The tables have medians over processes.

PyMC finds what earlier processes compiled in its cache on disk: run twice to fill it, or
with `--cold` to give each process an empty one.
"""

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from harness import arguments, finish, in_child, timed, warm_up
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from overhead import hand_written, LEARNING_RATE, unconstrained_log_density
from workloads import Workload, WORKLOADS

import vijax as vi


def by_hand(workload: Workload, data):
    """A loop written for this model alone."""
    rows = jax.device_put(data)

    def fit(run, seed):
        return run(jr.key(seed), rows, workload.num_steps)

    return lambda: hand_written(workload), fit


def by_vijax(workload: Workload, data):
    """`vi.fit`, making the method anew at each call."""
    rows = jax.device_put(data)

    def fit(target, seed):
        method = vi.Descent(vi.ELBO(), optax.adam(LEARNING_RATE))
        steps = workload.num_steps
        return vi.fit(target, method, key=jr.key(seed), max_steps=steps, progress=False)

    return lambda: workload.target(rows), fit


def by_pymc(workload: Workload, data):
    """`pm.fit`."""
    import pymc as pm

    size = workload.batch_size

    def build():
        with pm.Model() as model:
            if workload.model == "gamma":
                alpha = pm.Exponential("alpha", scale=10)
                beta = pm.Exponential("beta", scale=10)
                pm.Gamma("y", alpha=alpha, beta=beta, observed=data)
            elif workload.model == "mixture":
                pm.NormalMixture("x", w=[0.2, 0.8], mu=[-0.3, 0.5], sigma=0.1)
            else:
                mu = pm.Flat("mu", shape=100)
                sd = pm.HalfNormal("sd", 100, shape=100)
                # `pm.Minibatch` takes no data of another precision than PyTensor's.
                rows: Any = pm.floatX(data)
                if size is not None:
                    rows = pm.Minibatch(rows, batch_size=size)
                pm.Normal("y", mu, sd, observed=rows, total_size=size and len(data))
        return model

    def fit(model, seed):
        with model:
            approx = pm.fit(
                workload.num_steps,
                method="advi",
                random_seed=seed,
                obj_optimizer=pm.adam(learning_rate=LEARNING_RATE),
                progressbar=False,
            )
        return [param.get_value() for param in approx.params], approx.hist

    return build, fit


def numpyro_model(workload: Workload):
    """The workload's model in NumPyro's language."""

    def gamma(data):
        alpha = numpyro.sample("alpha", dist.Exponential(0.1))
        beta = numpyro.sample("beta", dist.Exponential(0.1))
        with numpyro.plate("rows", len(data)):
            numpyro.sample("y", dist.Gamma(alpha, beta), obs=data)

    def mixture(data):
        parts = dist.Normal(jnp.array([-0.3, 0.5]), 0.1)
        weights = dist.Categorical(probs=jnp.array([0.2, 0.8]))
        numpyro.sample("x", dist.MixtureSameFamily(weights, parts))

    def normal(data):
        flat = dist.ImproperUniform(dist.constraints.real, (), (100,))
        mu = numpyro.sample("mu", flat)
        sd = numpyro.sample("sd", dist.HalfNormal(100.0).expand([100]).to_event(1))
        with numpyro.plate("rows", len(data), subsample_size=workload.batch_size):
            rows = numpyro.subsample(data, event_dim=1)
            numpyro.sample("y", dist.Normal(mu, sd).to_event(1), obs=rows)

    return {"gamma": gamma, "mixture": mixture, "normal": normal}[workload.model]


def by_numpyro(workload: Workload, data):
    """`SVI.run`, which compiles at each call."""
    rows = jax.device_put(data)

    def build():
        model = numpyro_model(workload)
        optimizer = numpyro.optim.Adam(LEARNING_RATE)
        return SVI(model, AutoNormal(model), optimizer, Trace_ELBO(1))

    def fit(svi, seed):
        done = svi.run(jr.key(seed), workload.num_steps, rows, progress_bar=False)
        return done.params, done.losses

    return build, fit


def by_jitted_numpyro(workload: Workload, data):
    """`SVI.run` inside a `jax.jit` that the user wrote and kept."""
    rows = jax.device_put(data)
    build_svi, _ = by_numpyro(workload, data)

    def build():
        svi = build_svi()

        @jax.jit
        def run(key, rows):
            done = svi.run(key, workload.num_steps, rows, progress_bar=False)
            return done.params, done.losses

        return run

    return build, lambda run, seed: run(jr.key(seed), rows)


def by_blackjax(workload: Workload, data):
    """`blackjax.meanfield_vi` with constraints, rows and the loop added by hand."""
    import blackjax

    rows = jax.device_put(data)
    log_density = unconstrained_log_density(workload)
    start = {k: jnp.zeros(p.shape) for k, p in workload.params.items()}
    size = workload.batch_size

    def build():
        optimizer = optax.adam(LEARNING_RATE)

        @jax.jit
        def run(key, data):
            def step(state, key):
                rows, weight = data, 1.0
                if size is not None:
                    row_key, key = jr.split(key)
                    index = jr.randint(row_key, (size,), 0, len(data))
                    rows, weight = data[index], len(data) / size
                density = lambda z: log_density(z, rows, weight)
                advi = blackjax.meanfield_vi(
                    density, optimizer, num_samples=1, stl_estimator=False
                )
                return advi.step(key, state)

            state = blackjax.meanfield_vi.init(start, optimizer)
            return jax.lax.scan(step, state, jr.split(key, workload.num_steps))

        return run

    return build, lambda run, seed: run(jr.key(seed), rows)


CONTENDERS: dict[str, Callable] = {
    "hand": by_hand,
    "vijax": by_vijax,
    "PyMC": by_pymc,
    "NumPyro": by_numpyro,
    "NumPyro in jit": by_jitted_numpyro,
    "BlackJAX": by_blackjax,
}


def child(name: str, order: str) -> dict:
    """Seconds of the contenders' first and second calls, in the order given."""
    workload = WORKLOADS[name]
    data = workload.make_data(0)
    ready = {who: CONTENDERS[who](workload, data) for who in order.split(",")}
    warm_up()
    times = {}
    for who, (build, fit) in ready.items():
        jax.clear_caches()
        building, model = timed(build)
        first, second = (timed(functools.partial(fit, model, i))[0] for i in (0, 1))
        times[who] = building + first, second
    return times


def in_fresh_process(name: str, order: str, *, cold: bool) -> dict:
    """What `child` returns; with `cold`, PyTensor's cache is empty when it starts."""
    if not cold:
        return in_child(__file__, name, order)
    before = os.environ.get("PYTENSOR_FLAGS", "")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTENSOR_FLAGS"] = f"{before},base_compiledir={folder}".strip(",")
        times = in_child(__file__, name, order)
    os.environ["PYTENSOR_FLAGS"] = before
    return times


def measure(name: str, who: str, repeats: int, *, cold: bool) -> dict:
    """Medians of one contender's times, and of their ratios to vijax's."""
    row = {"workload": name, "contender": who}
    alone = [in_fresh_process(name, who, cold=cold) for _ in range(repeats)]
    alone = [run[who] for run in alone if run]
    if not alone:
        return row
    row["first"], row["second"] = map(statistics.median, zip(*alone, strict=True))
    if who == "vijax":
        return row
    orders = f"{who},vijax", f"vijax,{who}"
    both = [in_fresh_process(name, orders[i % 2], cold=cold) for i in range(repeats)]
    ratios = [np.divide(run[who], run["vijax"]) for run in both if run]
    if ratios:
        row["first_ratio"], row["second_ratio"] = np.median(ratios, axis=0).tolist()
    return row


def print_head(what: str, contenders: list[str]) -> None:
    print(f"\n| {what} | " + " | ".join(contenders) + " |")
    print("|---" + "|--:" * len(contenders) + "|", flush=True)


def print_line(name: str, rows: list[dict], keys: tuple[str, str], digits: int) -> None:
    cells = []
    for row in rows:
        both = [f"{row[key]:.{digits}f}" for key in keys if key in row]
        cells.append(" / ".join(both) or "–")
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--cold", action="store_true")
    own, sys.argv[1:] = parser.parse_known_args()
    options = arguments(__doc__)
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    everyone = list(CONTENDERS)
    names = options.only or list(WORKLOADS)
    table = {}
    print_head("first / second (s)", everyone)
    for name in names:
        repeats = options.repeats
        table[name] = [measure(name, who, repeats, cold=own.cold) for who in everyone]
        print_line(name, table[name], ("first", "second"), 3)
    others = [who for who in everyone if who != "vijax"]
    print_head("times vijax's, first / second", others)
    for name, rows in table.items():
        rows = [row for row in rows if row["contender"] != "vijax"]
        print_line(name, rows, ("first_ratio", "second_ratio"), 2)
    finish(options, table)


if __name__ == "__main__":
    main()
