"""What each distribution of PyMC is worth in each role, against PyMC's own answers.

`python -m tests.frontend.pymc_roles` prints the table in Markdown.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import vijax as vi

from .pymc_zoo import arguments, Entry, pm, ZOO


# Distributions of one vector or matrix, which has no rows to take batches of.
WHOLE = {"ICAR", "LKJCholeskyCov", "LKJCorr", "MatrixNormal", "Wishart"}
# Without a distribution function in PyMC, which censoring and truncation need.
WITHOUT_CDF = WHOLE | {
    *("AR", "AsymmetricLaplace", "BetaBinomial", "CAR", "Dirichlet"),
    *("DirichletMultinomial", "EulerMaruyama", "GARCH11", "GaussianRandomWalk"),
    "HalfStudentT",
    *("HyperGeometric", "Interpolated", "KroneckerNormal", "Multinomial"),
    *("MvGaussianRandomWalk", "MvNormal", "MvStudentT", "MvStudentTRandomWalk"),
    *("OrderedMultinomial", "RandomWalk", "Rice", "SkewNormal", "StickBreakingWeights"),
    *("VonMises", "ZeroSumNormal"),
}
NOT_TRUNCATED = WITHOUT_CDF | {
    *("Mixture", "NormalMixture", "ZeroInflatedBinomial"),
    *("HurdleGamma", "HurdleLogNormal", "HurdleNegativeBinomial", "HurdlePoisson"),
    *("ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"),
}
# What PyMC itself does not have, by role.
ABSENT: dict[str, set[str]] = {
    "free": {name for name, entry in ZOO.items() if entry.data.dtype.kind == "i"},
    "observed": set(),
    "truncated": NOT_TRUNCATED,
    "truncated below": NOT_TRUNCATED,
    "censored": WITHOUT_CDF,
    "batches": WHOLE,
}


class PyMCCannotError(Exception):
    """PyMC itself has no such model, or no log density of it."""


def _bounds(data: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(data, 0.3), np.quantile(data, 0.8)
    return (np.floor(low), np.ceil(high)) if data.dtype.kind == "i" else (low, high)


def _free(cls: Any, entry: Entry) -> None:
    if entry.data.dtype.kind == "i":
        raise PyMCCannotError("A discrete variable cannot be free.")
    shape = {} if entry.shape is None else {"shape": entry.shape}
    corr = {"compute_corr": False} if cls is pm.LKJCholeskyCov else {}
    cls("x", **arguments(entry), **shape, **corr)


def _observed(cls: Any, entry: Entry) -> None:
    cls("y", **arguments(entry), observed=entry.data)


def _within(wrap: Any, sides: str, cls: Any, entry: Entry) -> None:
    low, high = _bounds(entry.data)
    inner = cls.dist(**arguments(entry))
    lower, upper = low if "l" in sides else None, high if "u" in sides else None
    wrap("y", inner, lower, upper, observed=np.clip(entry.data, low, high))


def _rows(entry: Entry) -> np.ndarray:
    return np.concatenate([entry.data, entry.data[::-1]])


def _batches(cls: Any, entry: Entry) -> None:
    rows = _rows(entry)
    # Whole numbers can be seen in batches from `pm.Data` only.
    some = pm.Minibatch(pm.Data("rows", rows), batch_size=2)
    cls("y", **arguments(entry), observed=some, total_size=len(rows))


def _all_rows(cls: Any, entry: Entry) -> None:
    cls("y", **arguments(entry), observed=_rows(entry))


ROLES: dict[str, Callable[[Any, Entry], None]] = {
    "free": _free,
    "observed": _observed,
    "truncated": functools.partial(_within, pm.Truncated, "lu"),
    "truncated below": functools.partial(_within, pm.Truncated, "l"),
    "censored": functools.partial(_within, pm.Censored, "lu"),
    "batches": _batches,
}


def _built(role: Callable, name: str) -> Any:
    try:
        with pm.Model() as model:
            pm.Normal("other")
            role(getattr(pm, name), ZOO[name])
    except (NotImplementedError, TypeError, ValueError) as e:
        # Without `compile_logp`: PyMC says so when the model is written.
        raise PyMCCannotError(str(e)) from e
    return model


def _by_pymc(model: Any) -> tuple[Callable, Callable | None]:
    try:
        value = model.compile_logp(mode="FAST_COMPILE")
    except (NotImplementedError, TypeError, ValueError) as e:
        raise PyMCCannotError(str(e)) from e
    try:
        return value, model.compile_dlogp(mode="FAST_COMPILE")
    except (NotImplementedError, ValueError):
        return value, None


def _differences(fn: Callable, x: np.ndarray) -> np.ndarray:
    """A gradient by differences of fourth order."""
    out = []
    for step in 1e-4 * np.eye(x.size):
        near, far = fn(x + step) - fn(x - step), fn(x + 2 * step) - fn(x - 2 * step)
        out.append((8 * near - far) / 12e-4)
    return np.array(out)


def _compare(target: Any, model: Any, x: jax.Array) -> str | None:
    """How the target is not the model, at one point."""
    value_of, slope_of = _by_pymc(model)

    def point(x: Any) -> dict[str, np.ndarray]:
        parts = target.unravel(jnp.asarray(x))
        names = {rv.name: model.rvs_to_values[rv].name for rv in model.free_RVs}
        return {names[name]: np.asarray(part) for name, part in parts.items()}

    right = float(value_of(point(x)))
    if not np.isfinite(right):
        return None
    value, slope = jax.jit(jax.value_and_grad(lambda x: target.log_density(x)))(x)
    if not np.isclose(value, right, rtol=1e-8):
        return f"The value is {value}, but PyMC's is {right}."
    # Not every gradient of PyMC's is there, finite, or as exact as its values.
    by_pymc = None if slope_of is None else slope_of(point(x))
    if by_pymc is not None and np.allclose(slope, by_pymc, rtol=1e-6, atol=1e-6):
        return None
    by_steps = _differences(lambda x: float(value_of(point(x))), np.asarray(x))
    known, atol = np.isfinite(by_steps), 1e-6 * (1 + np.abs(right))
    close = np.allclose(slope[known], by_steps[known], rtol=1e-6, atol=atol)
    if close and np.all(np.isfinite(slope)):
        return None
    return f"The gradient is {slope}, but PyMC's is {by_pymc}, by steps {by_steps}."


def verdict(name: str, role: str) -> tuple[str, str]:
    """`"right"`, `"wrong"`, `"refused"` or `"none"` for a role that PyMC does not have,
    and words on it."""
    if role == "batches" and name in WHOLE:
        return "none", "It is a distribution of all the rows."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = _built(ROLES[role], name)
            whole = _built(_all_rows, name) if role == "batches" else model
            _by_pymc(whole)
        except PyMCCannotError as e:
            return "none", str(e)
        try:
            target = vi.from_pymc(model)
        except ValueError as e:
            return "refused", str(e)
        x = target.model.initial()
        for i, scale in enumerate((0.4, 1.5)):
            x = target.model.initial() + scale * jr.normal(jr.key(i), (target.dim,))
            wrong = _compare(target, whole, x)
            if wrong is not None:
                return "wrong", wrong
        if role == "batches":
            return _epoch(target, x)
        return "right", ""


def _epoch(target: Any, x: jax.Array) -> tuple[str, str]:
    look = jax.jit(lambda i: target.batch(jr.key(0), i).log_density(x))
    mean = np.mean([look(i) for i in range(4)])
    whole = float(target.log_density(x))
    # PyTensor computes with small integers in float32.
    right = np.isclose(mean, whole, rtol=1e-6) or not np.isfinite(whole)
    return ("right", "") if right else ("wrong", f"{mean} a batch, {whole} the whole.")


def table() -> Iterator[str]:
    """All distributions in all roles, in Markdown."""
    marks = {"right": "yes", "wrong": "WRONG", "refused": "refused", "none": "–"}
    yield f"| | {' | '.join(ROLES)} |"
    yield "|---" * (len(ROLES) + 1) + "|"
    found: dict[str, list[str]] = {role: [] for role in ROLES}
    words = [""]
    for name in ZOO:
        for role, verdicts in found.items():
            kind, why = verdict(name, role)
            verdicts.append(kind)
            if kind in ("refused", "wrong"):
                words.append(f"- {name}, {role}: {why}")
        row = (marks[verdicts[-1]] for verdicts in found.values())
        yield f"| {name} | {' | '.join(row)} |"
        jax.clear_caches()
    sums = (
        f"{verdicts.count('right')} of {len(ZOO) - verdicts.count('none')}"
        for verdicts in found.values()
    )
    yield f"| **right, of those that PyMC has** | {' | '.join(sums)} |"
    yield from words


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    for line in table():
        print(line, flush=True)
