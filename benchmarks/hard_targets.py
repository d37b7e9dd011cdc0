"""What the default does where variational inference is known to be hard.

Errors are the largest over all parameters: z of means in posterior standard deviations, r
of logarithms of standard deviations, against closed forms, from 16,384 draws. "Trusted"
is the report's verdict; what should happen stands beside it.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from grades import errors
from harness import arguments, finish, in_child
from jax.scipy.stats import cauchy, norm, t as student
from numpyro.distributions import constraints

import vijax as vi


NUM_DRAWS = 16_384
Moments = dict[str, tuple[Any, Any]]


class Hard(NamedTuple):
    """A density, its parameters and data, the true mean and standard deviation of each,
    and what a truthful default does."""

    log_density: Callable
    params: dict[str, vi.Param]
    moments: Moments | None
    wanted: str
    data: Any = None
    # Of a posterior that is seen in batches: what the rows add, and how many a step sees.
    rows: Callable | None = None
    batch_size: int | None = None


def funnel(params):
    neck = norm.logpdf(params["v"], 0, 3)
    return neck + jnp.sum(norm.logpdf(params["x"], 0, jnp.exp(params["v"] / 2)))


def banana(params):
    bent = params["y"] + 0.03 * params["x"] ** 2 - 3
    return -0.5 * (params["x"] / 10) ** 2 - 0.5 * bent**2


def two_modes(params):
    left = jnp.log(0.3) - 0.5 * jnp.sum((params["x"] + 6) ** 2)
    right = jnp.log(0.7) - 0.5 * jnp.sum((params["x"] - 6) ** 2)
    return jnp.logaddexp(left, right)


def gaussian(params, precision):
    return -0.5 * params["x"] @ precision @ params["x"]


def logistic(params, data):
    features, labels = data
    logits = features @ params["b"]
    fit = jnp.sum(labels * logits - jnp.logaddexp(0.0, logits))
    return fit - 0.5 * jnp.sum(params["b"] ** 2)


def jump(params):
    x = params["x"]
    return -0.5 * x**2 + jnp.where(x > 0, jnp.log(3.0), 0.0)


def _ill_conditioned() -> tuple[np.ndarray, np.ndarray]:
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 100)))
    values = np.logspace(0, 6, 100)
    return (q * values) @ q.T, np.sqrt(np.diag((q / values) @ q.T))


def _classes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2_000, 1_000)) * 3 / np.sqrt(1_000)
    chance = 1 / (1 + np.exp(-features @ rng.normal(size=1_000)))
    return features, (rng.random(2_000) < chance).astype(float)


def _regression() -> tuple[tuple[np.ndarray, np.ndarray], Moments]:
    """Correlated predictors of unequal scales, and the posterior under a flat prior."""
    rng = np.random.default_rng(0)
    scales = np.logspace(-2, 1, 30)
    x = rng.normal(size=(50_000, 1)) + 0.3 * rng.normal(size=(50_000, 30))
    y = x @ np.ones(30) + rng.normal(size=50_000)
    covariance = np.linalg.inv((x * scales).T @ (x * scales))
    mean = covariance @ (x * scales).T @ y
    return (x * scales, y), {"b": (mean, np.sqrt(np.diag(covariance)))}


def regression_rows(params, data):
    return -0.5 * (data[1] - data[0] @ params["b"]) ** 2


def targets() -> dict[str, Hard]:
    """All of them, by name."""
    precision, sds = _ill_conditioned()
    one = {"x": vi.Param()}
    rows, moments = _regression()
    jump_mean = 0.5 * np.sqrt(2 / np.pi)
    return {
        "Neal's funnel, 10 dims": Hard(
            funnel, {"v": vi.Param(), "x": vi.Param(9)}, {"v": (0, 3)}, "flagged"
        ),
        "banana": Hard(
            banana,
            {"x": vi.Param(), "y": vi.Param()},
            {"x": (0, 10), "y": (0, np.sqrt(19))},
            "trusted",
        ),
        "two modes, .3 and .7": Hard(
            two_modes,
            {"x": vi.Param(2)},
            {"x": (2.4, np.sqrt(1 + 144 * 0.21))},
            "trusted",
        ),
        "Gaussian, 100 dims, condition 1e6": Hard(
            gaussian,
            {"x": vi.Param(100)},
            {"x": (np.zeros(100), sds)},
            "trusted",
            precision,
        ),
        "logistic regression, 1,000 dims": Hard(
            logistic, {"b": vi.Param(1_000)}, None, "either", _classes()
        ),
        "regression, 50,000 rows in batches of 200": Hard(
            lambda params: jnp.zeros(()),
            {"b": vi.Param(30)},
            moments,
            "trusted",
            rows,
            regression_rows,
            200,
        ),
        "Student t(5), 4 dims": Hard(
            lambda params: -4.5 * jnp.log1p(jnp.sum(params["x"] ** 2) / 5),
            {"x": vi.Param(4)},
            {"x": (np.zeros(4), np.sqrt(5 / 3) * np.ones(4))},
            "trusted",
        ),
        "Student t(2)": Hard(
            lambda params: student.logpdf(params["x"], 2.0), one, None, "flagged"
        ),
        "Cauchy": Hard(lambda params: cauchy.logpdf(params["x"]), one, None, "flagged"),
        "against a bound": Hard(
            lambda params: 20 * jnp.log1p(-params["x"]),
            {"x": vi.Param(support=constraints.unit_interval)},
            {"x": (1 / 22, np.sqrt(21 / (22**2 * 23)))},
            "trusted",
        ),
        "flat, improper": Hard(
            lambda params: -0.5 * params["y"] ** 2,
            {"x": vi.Param(), "y": vi.Param()},
            None,
            "refused",
        ),
        "discontinuous": Hard(
            jump, one, {"x": (jump_mean, np.sqrt(1 - jump_mean**2))}, "trusted"
        ),
    }


def child(name: str, seeds: str) -> dict:
    jax.config.update("jax_numpy_rank_promotion", "allow")
    hard, rows = targets()[name], []
    data = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hard.data)
    if hard.rows is None:
        target = vi.from_log_density(hard.log_density, hard.params, data)
    else:
        target = vi.from_likelihood(
            hard.log_density, hard.rows, hard.params, data, batch_size=hard.batch_size
        )
    for seed in range(int(seeds)):
        began = time.perf_counter()
        try:
            fit = vi.fit(target, key=jr.key(seed), progress=False)
        except vi.FitError:
            rows.append({"verdict": "refused"})
            continue
        seconds = time.perf_counter() - began
        report = vi.report(fit, key=jr.key(1_000 + seed))
        row = {"seconds": seconds, "family": type(fit.family).__name__}
        row["verdict"] = "trusted" if report.trustworthy else "flagged"
        if hard.moments is not None:
            draws = fit.draw(NUM_DRAWS, key=jr.key(2_000 + seed))
            row["z"], row["r"] = errors(hard.moments, draws.params)
        rows.append(row)
    return {"rows": rows}


def figure(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def main() -> None:
    options = arguments(__doc__)
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    results = {}
    print("| | should be | is | family | z | r | seconds, with compilation |")
    print("|---|---|---|---|--:|--:|--:|")
    for name, hard in targets().items():
        if options.only and name not in options.only:
            continue
        done = in_child(__file__, name, str(options.repeats))
        if not done:
            print(f"{name} failed", file=sys.stderr)
            continue
        rows = results[name] = done["rows"]
        counts = [row["verdict"] for row in rows]
        verdicts = ", ".join(f"{counts.count(v)} {v}" for v in sorted(set(counts)))
        worst = lambda key, rows=rows: max(row.get(key, np.nan) for row in rows)
        families = ", ".join(sorted({row.get("family", "-") for row in rows}))
        first = rows[0].get("seconds", np.nan)
        print(
            f"| {name} | {hard.wanted} | {verdicts} | {families} | "
            f"{figure(worst('z'), 3)} | {figure(worst('r'), 3)} | {figure(first, 1)} |",
            flush=True,
        )
    finish(options, results)


if __name__ == "__main__":
    main()
