"""What `vi.fit` costs on top of a hand-written `jax.jit(lax.scan)` of the same steps.

Both run in one fresh process, in alternating order, with JAX's caches cleared between;
the table has medians over processes. "First" is the first call, compilation included;
"second" and "third" have other keys, the third also other data and another length.
"""

import functools
import json
import statistics

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from harness import arguments, finish, in_child, timed, warm_up
from numpyro.distributions import biject_to
from workloads import Workload, WORKLOADS

import vijax as vi


LEARNING_RATE = 0.01


def unconstrained_log_density(workload: Workload):
    """The log density of `workload` on unconstrained values, as one would write it."""
    transforms = {k: biject_to(p.support) for k, p in workload.params.items()}

    def log_density(z, rows, weight):
        params = {k: t(z[k]) for k, t in transforms.items()}
        total = workload.log_prior(params)
        for k, t in transforms.items():
            total += jnp.sum(t.log_abs_det_jacobian(z[k], params[k]))
        if workload.log_likelihood is not None:
            total += weight * jnp.sum(workload.log_likelihood(params, rows))
        return total

    return log_density


def hand_written(workload: Workload):
    """Mean-field ADVI on `workload` as one would write it for this model alone."""
    log_density = unconstrained_log_density(workload)
    shapes = {k: p.shape for k, p in workload.params.items()}
    optimizer = optax.adam(LEARNING_RATE)

    def negative_elbo(q, key, rows, weight):
        loc, log_scale = q
        keys = dict(zip(loc, jr.split(key, len(loc)), strict=True))
        eps = {k: jr.normal(keys[k], v.shape) for k, v in loc.items()}
        z = {k: loc[k] + jnp.exp(log_scale[k]) * eps[k] for k in loc}
        log_q = sum(jnp.sum(-0.5 * eps[k] ** 2 - log_scale[k]) for k in loc)
        log_q -= 0.5 * np.log(2 * np.pi) * sum(v.size for v in loc.values())
        return log_q - log_density(z, rows, weight)

    @functools.partial(jax.jit, static_argnames="num_steps")
    def run(key, data, num_steps):
        loc = {k: jnp.zeros(shape) for k, shape in shapes.items()}
        q = loc, {k: jnp.full(v.shape, jnp.log(0.1)) for k, v in loc.items()}

        def step(carry, key):
            q, state = carry
            rows, weight = data, 1.0
            if workload.batch_size is not None:
                row_key, key = jr.split(key)
                index = jr.randint(row_key, (workload.batch_size,), 0, len(data))
                rows, weight = data[index], len(data) / workload.batch_size
            loss, grads = jax.value_and_grad(negative_elbo)(q, key, rows, weight)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(q, updates), state), loss

        keys = jr.split(key, num_steps)
        (q, _), losses = jax.lax.scan(step, (q, optimizer.init(q)), keys)
        return q, losses

    return run


def vijax_fit(workload: Workload, key, data, num_steps):
    """The same with `vi.fit`."""
    target = workload.target(data)
    method = vi.Descent(vi.ELBO(), optax.adam(LEARNING_RATE))
    return vi.fit(target, method, key=key, max_steps=num_steps, progress=False)


def child(name: str, order: str) -> dict:
    """Times of both contenders, in the order given."""
    workload = WORKLOADS[name]
    num_steps = workload.num_steps
    data = [jax.device_put(workload.make_data(seed)) for seed in (0, 1)]
    keys = [jr.key(i) for i in range(4)]
    warm_up()
    times = {}
    for contender in order.split(","):
        jax.clear_caches()
        if contender == "hand":
            run = hand_written(workload)
            calls = [
                functools.partial(run, keys[i], data[0], num_steps) for i in range(2)
            ]
        else:
            fit = functools.partial(vijax_fit, workload)
            calls = [functools.partial(fit, keys[i], data[0], num_steps) for i in (0, 1)]
            calls.append(functools.partial(fit, keys[2], data[1], num_steps - 1))
        times[contender] = [timed(call)[0] for call in calls]
    return times


def main() -> None:
    options = arguments(__doc__)
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    rows = []
    heads = "workload", "step (µs)", "first (s)", "ratio", "bar", "second (s)", "ratio"
    print("| " + " | ".join((*heads, "more a step (µs)", "third (s)")) + " |")
    print("|---" + "|--:" * 8 + "|")
    for name in options.only or WORKLOADS:
        per_step = 1e6 / WORKLOADS[name].num_steps
        runs = []
        for i in range(options.repeats):
            order = ("hand,vijax", "vijax,hand")[i % 2]
            runs.append(in_child(__file__, name, order))
        median = lambda fn, runs=runs: statistics.median(fn(r) for r in runs if r)
        first = median(lambda r: r["vijax"][0])
        hand_first, hand = median(lambda r: r["hand"][0]), median(lambda r: r["hand"][1])
        row = {
            "workload": name,
            "hand_first": hand_first,
            "hand_second": hand,
            "first": first,
            "first_ratio": median(lambda r: r["vijax"][0] / r["hand"][0]),
            "first_bar": (1.5 * hand_first + 0.3) / hand_first,
            "second": median(lambda r: r["vijax"][1]),
            "second_ratio": median(lambda r: r["vijax"][1] / r["hand"][1]),
            "more": median(lambda r: r["vijax"][1] - r["hand"][1]) * per_step,
            "third": median(lambda r: r["vijax"][2]),
        }
        rows.append(row)
        print(
            f"| {name} | {hand * per_step:.1f} | {first:.2f} (hand {hand_first:.2f}) "
            f"| {row['first_ratio']:.2f} | {row['first_bar']:.2f} | {row['second']:.3f} "
            f"(hand {hand:.3f}) | {row['second_ratio']:.2f} | {row['more']:.1f} | "
            f"{row['third']:.3f} |",
            flush=True,
        )
    finish(options, rows)


if __name__ == "__main__":
    main()
