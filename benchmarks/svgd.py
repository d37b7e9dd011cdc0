"""Stein variational gradient descent in vijax, in its peers and written by hand.

Everyone moves as many particles by as many steps of one optimizer, from N(0, 1), with the
kernel exp(-|x - y|² / h). The hand-written loops are one `jax.jit(lax.scan)` each: "hand,
fixed" has a fixed h, so that nothing is searched for; "hand, median" sets h at each step
to the median of all squared distances over log(particles + 1), as PyMC does. NumPyro and
BlackJAX differ by a +1 or the diagonal; all divide the force by the number of particles.
PyMC computes in double precision, the others in single; BlackJAX's step is in a jitted
scan, with its `update_median_heuristic`, called also before the first step.

- "mixture" is that of PyMC's introduction to variational inference: 0.2 N(-0.3, 0.1) +
  0.8 N(0.5, 0.1), 1000 particles, 300 steps. The optimizer is adam(0.05): at the
  introduction's sgd(0.01), particles are still beyond -2 and 2 after 300 steps.
- "iris" is its logistic regression of three classes on four features (all 150 rows),
  500 particles, 400 steps of adamax(0.1), as there.

In a fresh process, "first" is the first call, from building the model to finished
particles, without imports; "second" is another call on the same model with another seed.
Ratios are to vijax within one process, in alternating order, with JAX's caches cleared
between; above 1, vijax is faster. The tables have medians over processes: `--repeats` for
vijax and "hand, fixed", `--slow-repeats` for all others, which take up to minutes a call.
PyMC's cache of compiled code is filled beforehand by a fit of one step.

"left" is the share of particles left of 0.1, where the mixture has 0.2: it is settled by
where the particles start, since SVGD moves next to nothing from one mode to the other;
"vijax, births" is `vi.BirthDeath` around the same method, which does.
"MMD" is the distance from the particles to the mixture in the space of a Gaussian kernel
with scale 0.15, exact except for rounding; "MMD within modes" is that after weighting the
particles so that the shares are right. (1000 independent draws: 0.018, median.) Vijax,
BlackJAX and the hand-written loops start from the same points at each seed. Vijax and the
loops have the mean and range over `--seeds` seeds, the others over their timed calls.
"""

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from harness import arguments, finish, in_child, timed, warm_up
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from numpyro.contrib.einstein import RBFKernel, SVGD
from overhead import unconstrained_log_density
from workloads import Workload, WORKLOADS

import vijax as vi


WEIGHTS, MEANS, SD = np.array([0.2, 0.8]), np.array([-0.3, 0.5]), 0.1
MMD_SCALE = 0.15


@dataclass(frozen=True)
class Problem:
    """A model, how many particles move, and by what."""

    workload: Workload
    num_particles: int
    optimizer: str
    learning_rate: float
    bandwidth: float  # Of "hand, fixed": h is 2 * bandwidth**2.

    @property
    def optax(self) -> optax.GradientTransformation:
        return getattr(optax, self.optimizer)(self.learning_rate)


def _iris_prior(params):
    total = jnp.sum(norm.logpdf(params["a"], 0.0, 1e4))
    return total + jnp.sum(norm.logpdf(params["beta"], 0.0, 1e2))


def _iris_likelihood(params, rows):
    x, y = rows
    logits = x @ params["beta"] + params["a"]
    return jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


def _iris_data(seed):
    from sklearn.datasets import load_iris

    del seed
    x, y = load_iris(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int32)


IRIS = Workload(
    _iris_prior,
    _iris_likelihood,
    {"a": vi.Param(3), "beta": vi.Param((4, 3))},
    _iris_data,
    num_steps=400,
    model="iris",
)
PROBLEMS = {
    "mixture": Problem(
        replace(WORKLOADS["mixture"], num_steps=300), 1_000, "adam", 0.05, 0.05
    ),
    "iris": Problem(IRIS, 500, "adamax", 0.1, 1.0),
}


def flat_log_density(problem: Problem, data) -> tuple[Callable, int]:
    """The log density of one particle as a flat vector, and how long that is."""
    log_density = unconstrained_log_density(problem.workload)
    shapes = {k: jnp.zeros(p.shape) for k, p in problem.workload.params.items()}
    start, unravel = ravel_pytree(shapes)
    return lambda x: log_density(unravel(x), data, 1.0), start.size


def by_hand(problem: Problem, data, *, median: bool):
    """A loop written for this model alone."""
    rows = jax.device_put(data)
    n = problem.num_particles

    def build():
        log_density, dim = flat_log_density(problem, rows)
        score = jax.vmap(jax.grad(log_density))
        optimizer = problem.optax

        def step(carry, _):
            x, state = carry
            square = jnp.sum(x**2, axis=1)
            distance = jnp.maximum(square[:, None] + square - 2 * x @ x.T, 0.0)
            h = 2 * problem.bandwidth**2
            if median:
                h = jnp.median(distance) / np.log(n + 1)
            kernel = jnp.exp(-distance / h)
            repulsion = x * jnp.sum(kernel, axis=1, keepdims=True) - kernel @ x
            force = (kernel @ score(x) + 2 / h * repulsion) / n
            updates, state = optimizer.update(-force, state, x)
            loss = jnp.mean(jnp.sum(force**2, axis=1))
            return (optax.apply_updates(x, updates), state), loss

        @jax.jit
        def run(key):
            x = jr.normal(key, (n, dim))
            start = x, optimizer.init(x)
            (x, _), losses = jax.lax.scan(step, start, length=problem.workload.num_steps)
            return x, losses

        return run

    return build, lambda run, seed: run(jr.key(seed))[0]


def by_vijax(problem: Problem, data, *, births: bool = False):
    """`vi.fit`, making the method anew at each call, from the loops' starting points."""
    rows = jax.device_put(data)
    n = problem.num_particles

    def fit(target, seed):
        method = vi.SVGD(vi.RBF(), problem.optax, num_particles=n)
        method = vi.BirthDeath(method) if births else method
        start = vi.Particles(jr.normal(jr.key(seed), (n, target.dim)))
        steps = problem.workload.num_steps
        key = jr.key(seed)
        done = vi.fit(target, method, start, key=key, max_steps=steps, progress=False)
        return done.family.x

    return lambda: problem.workload.target(rows), fit


def by_pymc(problem: Problem, data):
    """`pm.SVGD`, whose jitter comes from NumPy's global generator."""
    import pymc as pm

    def build():
        with pm.Model() as model:
            if problem.workload.model == "mixture":
                pm.NormalMixture("x", w=WEIGHTS, mu=MEANS, sigma=SD)
            else:
                x, y = data
                a = pm.Normal("a", sigma=1e4, shape=3)
                beta = pm.Normal("beta", 0, sigma=1e2, shape=(4, 3))
                rows: Any = pm.floatX(x)
                p = pm.math.softmax(rows @ beta + a, axis=-1)
                pm.Categorical("y", p=p, observed=y)
        return model

    def fit(model, seed):
        np.random.seed(seed)
        start = {k: np.zeros(p.shape) for k, p in problem.workload.params.items()}
        with model:
            svgd = pm.SVGD(n_particles=problem.num_particles, jitter=1, start=start)
            optimizer = getattr(pm, problem.optimizer)(
                learning_rate=problem.learning_rate
            )
            steps = problem.workload.num_steps
            approx = svgd.fit(steps, obj_optimizer=optimizer, progressbar=False)
        return approx.params[0].get_value()

    return build, fit


def init_to_normal(site=None):
    """Where NumPyro's particles start."""
    if site is None:
        return functools.partial(init_to_normal)
    if site["type"] != "sample" or site["is_observed"]:
        return None
    shape = site["kwargs"]["sample_shape"] + site["fn"].shape()
    return jr.normal(site["kwargs"]["rng_key"], shape)


def by_numpyro(problem: Problem, data):
    """`SVGD.run`, which compiles at each call."""
    rows = jax.device_put(data)

    def mixture(data):
        parts = dist.Normal(jnp.array(MEANS), SD)
        weights = dist.Categorical(probs=jnp.array(WEIGHTS))
        numpyro.sample("x", dist.MixtureSameFamily(weights, parts))

    def iris(data):
        x, y = data
        a = numpyro.sample("a", dist.Normal(0.0, 1e4).expand([3]).to_event(1))
        prior = dist.Normal(0.0, 1e2).expand([4, 3]).to_event(2)
        beta = numpyro.sample("beta", prior)
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Categorical(logits=x @ beta + a), obs=y)

    def build():
        return SVGD(
            {"mixture": mixture, "iris": iris}[problem.workload.model],
            numpyro.optim.optax_to_numpyro(problem.optax),
            RBFKernel(),
            num_stein_particles=problem.num_particles,
            guide_kwargs={"init_loc_fn": init_to_normal},
        )

    def fit(svgd, seed):
        steps = problem.workload.num_steps
        done = svgd.run(jr.key(seed), steps, rows, progress_bar=False)
        parts = [done.params[f"{k}_auto_loc"] for k in problem.workload.params]
        return jnp.concatenate([p.reshape(len(p), -1) for p in parts], axis=1)

    return build, fit


def by_blackjax(problem: Problem, data):
    """`blackjax.svgd` with the loop added by hand."""
    import blackjax
    from blackjax.vi.svgd import update_median_heuristic

    rows = jax.device_put(data)

    def build():
        log_density, dim = flat_log_density(problem, rows)
        svgd: Any = blackjax.svgd(jax.grad(log_density), problem.optax)

        @jax.jit
        def run(key):
            x = jr.normal(key, (problem.num_particles, dim))
            # By itself its first step has a length scale of one.
            state = update_median_heuristic(svgd.init(x, {"length_scale": 1.0}))
            step = lambda state, _: (svgd.step(state), None)
            return jax.lax.scan(step, state, length=problem.workload.num_steps)[0]

        return run

    return build, lambda run, seed: run(jr.key(seed)).particles


CONTENDERS: dict[str, Callable] = {
    "hand, fixed": functools.partial(by_hand, median=False),
    "hand, median": functools.partial(by_hand, median=True),
    "vijax": by_vijax,
    "vijax, births": functools.partial(by_vijax, births=True),
    "PyMC": by_pymc,
    "NumPyro": by_numpyro,
    "BlackJAX": by_blackjax,
}
FAST = "hand, fixed", "vijax", "vijax, births"
PEERS = "PyMC", "NumPyro", "BlackJAX"


def mmd_to_mixture(x, weights) -> float:
    """Between weighted points and the mixture."""

    def embedded(difference, variance):
        """The kernel's mean under a Gaussian of this mean and variance."""
        total = MMD_SCALE**2 + variance
        return MMD_SCALE / np.sqrt(total) * np.exp(-(difference**2) / (2 * total))

    among = weights @ embedded(x[:, None] - x, 0.0) @ weights
    across = weights @ embedded(x[:, None] - MEANS, SD**2) @ WEIGHTS
    own = WEIGHTS @ embedded(MEANS[:, None] - MEANS, 2 * SD**2) @ WEIGHTS
    return float(np.sqrt(max(among - 2 * across + own, 0.0)))


def mixture_scores(particles, data) -> dict:
    """The share of particles in the left mode, and distances to the mixture."""
    del data
    x = np.asarray(particles, float)[:, 0]
    is_left = x < 0.1
    share = np.mean(is_left)
    corrected = np.where(is_left, 0.2 / share, 0.8 / (1 - share)) / len(x)
    return {
        "left": float(share),
        "MMD": mmd_to_mixture(x, np.full(len(x), 1 / len(x))),
        "MMD within modes": mmd_to_mixture(x, corrected),
    }


def iris_scores(particles, data) -> dict:
    """How well the mean probabilities predict the rows that they were fitted to."""
    x, y = data
    a, beta = particles[:, :3], particles[:, 3:].reshape(-1, 4, 3)
    logits = jnp.einsum("rf,nfc->nrc", x, beta) + jnp.asarray(a)[:, None]
    log_p = logsumexp(jax.nn.log_softmax(logits), axis=0) - np.log(len(a))
    accuracy = jnp.mean(jnp.argmax(log_p, axis=1) == y)
    score = jnp.mean(jnp.take_along_axis(log_p, y[:, None], axis=1))
    return {"accuracy": float(accuracy), "mean log probability": float(score)}


SCORES: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "mixture": (mixture_scores, ("left", "MMD", "MMD within modes")),
    "iris": (iris_scores, ("accuracy", "mean log probability")),
}


def child(name: str, order: str, num_steps: str, seeds: str = "") -> dict:
    """Seconds of the first and second calls in the order given, and all scores.

    The seeds after those of the two calls are scored, not timed.
    """
    problem = PROBLEMS[name]
    if num_steps:
        workload = replace(problem.workload, num_steps=int(num_steps))
        problem = replace(problem, workload=workload)
    data = problem.workload.make_data(0)
    ready = {who: CONTENDERS[who](problem, data) for who in order.split(";")}
    warm_up()
    out = {}
    for who, (build, fit) in ready.items():
        jax.clear_caches()
        building, model = timed(build)
        calls = [timed(functools.partial(fit, model, seed)) for seed in (0, 1)]
        particles = [x for _, x in calls]
        particles += [fit(model, seed) for seed in range(2, int(seeds or 2))]
        scores = [SCORES[name][0](x, data) for x in particles]
        times = building + calls[0][0], calls[1][0]
        out[who] = {"times": times, "scores": scores}
    return out


def measure(name: str, who: str, options: argparse.Namespace) -> dict:
    """Medians of one contender's times and of their ratios to vijax's, and its scores."""
    row: dict[str, Any] = {"workload": name, "contender": who}
    if who == "PyMC":
        in_child(__file__, name, who, "1")
    steps = str(options.steps or "")
    repeats = options.repeats if who in FAST else options.slow_repeats
    orders = (f"vijax;{who}", f"{who};vijax") if who != "vijax" else ("vijax", "vijax")
    runs = [in_child(__file__, name, orders[i % 2], steps) for i in range(repeats)]
    runs = [run for run in runs if run]
    if not runs:
        return row
    times = [run[who]["times"] for run in runs]
    row["first"], row["second"] = np.median(times, axis=0).tolist()
    row["scores"] = runs[0][who]["scores"]
    if who not in PEERS:
        many = in_child(__file__, name, who, steps, str(options.seeds))
        row["scores"] = many[who]["scores"]
    if who != "vijax":
        ratios = [np.divide(run[who]["times"], run["vijax"]["times"]) for run in runs]
        row["first_ratio"], row["second_ratio"] = np.median(ratios, axis=0).tolist()
    return row


def line(row: dict) -> str:
    """One contender's line of the table."""
    cells = [row["contender"]]
    for key, digits in (
        ("first", 2),
        ("second", 2),
        ("first_ratio", 1),
        ("second_ratio", 1),
    ):
        cells.append(f"{row[key]:.{digits}f}" if key in row else "–")
    scores = row.get("scores", [])
    cells.append(str(len(scores)))
    for key in scores[0] if scores else ():
        values = [score[key] for score in scores]
        mean, low, high = statistics.fmean(values), min(values), max(values)
        cells.append(f"{mean:.4f} ({low:.4f} to {high:.4f})")
    return "| " + " | ".join(cells) + " |"


def judge(rows: list[dict]) -> list[tuple[str, float, str, bool]]:
    """Each bar that these rows can be held to: what, its value, the bar, if it holds."""
    by = {row["contender"]: row for row in rows if "second" in row}
    name = rows[0]["workload"]
    bars = []
    if "hand, fixed" in by:
        over = 1 / by["hand, fixed"]["second_ratio"]
        bars.append(("vijax / hand, fixed (second call)", over, "at most 2", over <= 2))
    peers = [by[who]["second_ratio"] for who in PEERS if who in by]
    if name == "mixture" and peers:
        best = min(peers)
        bars.append(("best peer / vijax (second call)", best, "at least 30", best >= 30))
    if name == "mixture" and {"vijax", "hand, median"} <= by.keys():
        for key in "MMD", "MMD within modes":
            scores = zip(by["vijax"]["scores"], by["hand, median"]["scores"], strict=True)
            more = [ours[key] - theirs[key] for ours, theirs in scores]
            value = statistics.fmean(more)
            error = np.std(more) / np.sqrt(max(len(more) - 1, 1))
            bar = max(2 * error, 0.001)
            what = f"{key}, vijax - hand, median, from the same starting points"
            text = f"at most {bar:.2g}, two standard errors or 0.001"
            bars.append((what, value, text, value <= bar))
    return bars


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--slow-repeats", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="for a quick look")
    own, sys.argv[1:] = parser.parse_known_args()
    options = arguments(__doc__)
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    options = argparse.Namespace(**{**vars(own), **vars(options)})
    table = {}
    for name in options.only or PROBLEMS:
        keys = SCORES[name][1]
        heads = "first (s) | second (s) | first, × vijax's | second, × vijax's | seeds"
        print(f"\n| {name} | {heads} | {' | '.join(keys)} |")
        print("|---" + "|--:" * (5 + len(keys)) + "|", flush=True)
        table[name] = []
        for who in options.contenders:
            table[name].append(measure(name, who, options))
            print(line(table[name][-1]), flush=True)
        print()
        for what, value, bar, holds in judge(table[name]):
            print(f"- {what}: {value:.3g}, bar {bar}: {'holds' if holds else 'FAILS'}")
    finish(options, table)


if __name__ == "__main__":
    main()
