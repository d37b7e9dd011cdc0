"""Small NumPyro models that have any two features at once."""

import contextlib
import itertools as it
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import LocScaleReparam


FEATURES = (
    *("batches", "subsample", "enumeration", "nested", "several", "scan"),
    *("mask", "distribution mask", "scale", "factor", "deterministic", "missing"),
    *("one axis", "two axes", "transforms", "reparam", "condition", "do", "seed"),
    *("static", "with_data", "float32", "log_likelihood", "predict"),
)
LOCAL = "`y_unobserved` has a value for each of the 12 indices of the plate 'rows'"
WHOLE = r"`y` has a value of shape \(12,.*'rows': 4.*handlers.condition"
# What cannot be in one model. Where the front-end says so, a piece of its words.
APART: dict[frozenset[str], str | None] = {
    # A latent variable of each row cannot be fitted from batches.
    frozenset({"batches", "missing"}): LOCAL,
    frozenset({"subsample", "missing"}): LOCAL,
    # A handler gives all the rows to a site, whichever of them its plate sees.
    frozenset({"batches", "condition"}): WHOLE,
    frozenset({"subsample", "condition"}): WHOLE,
    # The outcome of a row has either.
    frozenset({"one axis", "two axes"}): None,
    # NumPyro looks at `obs_mask=` only where `obs=` is given too.
    frozenset({"missing", "condition"}): None,
}
PAIRS = [frozenset(pair) for pair in it.combinations(FEATURES, 2)]

sample: Any = numpyro.sample  # Its type is a union that nothing can be done with.
rng = np.random.default_rng(3)
ROWS, BATCH, COLUMNS = 12, 4, 3
OTHER_BATCH, SCALE, INTERVENED = 5, 0.5, 0.3
NOISE = rng.normal(size=(2 * ROWS, COLUMNS, 2, 3))
# The arguments of the longer data; those of the usual are the first half of each.
ROW_DATA: dict[str, np.ndarray] = {
    "x": rng.normal(size=2 * ROWS),
    "group": np.arange(2 * ROWS) % 3,
    # Every other one is short, as the mask of the distribution says.
    "times": rng.uniform(1.0, 4.9, size=2 * ROWS) + 4.0 * (np.arange(2 * ROWS) % 2),
    "known": np.arange(2 * ROWS) % 3 != 1,
    "seen": np.arange(2 * ROWS) % 4 > 1,
}
OTHERS, SERIES = rng.normal(size=15), rng.normal(size=5)


def in_batches(features: frozenset[str]) -> bool:
    """Whether a step of a fit sees a part of the rows."""
    return not features.isdisjoint({"batches", "subsample"})


def event(features: frozenset[str]) -> tuple[int, ...]:
    """The shape of one outcome."""
    return (2,) if "one axis" in features else (2, 3) if "two axes" in features else ()


def outcome(features: frozenset[str], *, rows: int = ROWS) -> np.ndarray:
    """What was observed in each row."""
    columns = slice(None) if "nested" in features else 0
    shape = event(features)
    trailing = (*(slice(n) for n in shape), *(0,) * (2 - len(shape)))
    y = NOISE[(slice(rows), columns, *trailing)] + 0.5
    if "mask" in features and "condition" not in features:
        y[~ROW_DATA["seen"][:rows]] = np.nan
    return y


def arguments(features: frozenset[str], *, rows: int = ROWS) -> dict[str, Any]:
    """What a model with some features is called with."""
    out = {name: value[:rows] for name, value in ROW_DATA.items()}
    out |= {"w": OTHERS, "v": SERIES}
    return out if "condition" in features else out | {"y": outcome(features, rows=rows)}


def _levels(features: frozenset[str]) -> tuple[Any, Any]:
    """The level of the effects, and their scale."""
    if "transforms" not in features:
        return sample("level", dist.Normal(0.0, 1.0)), sample("tau", dist.HalfNormal(1.0))
    low = sample("low", dist.Normal(-1.0, 1.0))
    level = sample("level", dist.TruncatedNormal(0.0, 1.0, low=low))
    tau = sample("tau", dist.Uniform(0.1, jnp.exp(low) + 1.0))
    weight = sample("weight", dist.Dirichlet(jnp.ones(3)))
    base = dist.Normal(0.0, 1.0).expand([3]).to_event(1)
    ordered = dist.transforms.OrderedTransform()
    cuts = sample("cuts", dist.TransformedDistribution(base, ordered))
    root = sample("root", dist.LKJCholesky(2, 2.0))
    return level + jnp.dot(weight, cuts) + root[1, 0], tau


def _outcome_of(features: frozenset[str], loc: Any, sigma: Any) -> Any:
    """The distribution of the outcome."""
    if "one axis" in features:
        root = jnp.array([[1.0, 0.0], [0.3, 0.9]])
        loc = jnp.stack([loc, 0.5 * loc], axis=-1)
        return dist.MultivariateNormal(loc, scale_tril=sigma * root)
    if "two axes" in features:
        loc = loc[..., None, None] + jnp.arange(6.0).reshape(2, 3) / 4
    return dist.Normal(loc, sigma).to_event(len(event(features)))


def _observe(features: frozenset[str], fn: Any, y: Any, rows: dict[str, Any]) -> None:
    """The site of the outcome, with the data of its rows."""
    wide = lambda a: a[:, None] if "nested" in features else a
    if "distribution mask" in features:
        fn = fn.mask(wide(rows["times"] < 5.0))
    kwargs: dict[str, Any] = {}
    if "missing" in features:
        kwargs["obs_mask"] = wide(rows["known"])
    with contextlib.ExitStack() as stack:
        if "mask" in features:
            seen = wide(rows["seen"])
            if y is not None:
                seen_events = seen.reshape(*seen.shape, *(1,) * len(event(features)))
                y = jnp.where(seen_events, y, 0.0)
            stack.enter_context(handlers.mask(mask=seen))
        if "scale" in features:
            stack.enter_context(handlers.scale(scale=SCALE))
        sample("y", fn, obs=y, **kwargs)


def _chain(v: Array, tau: Any) -> None:
    def step(state: Any, v: Any) -> tuple[Any, None]:
        state = sample("state", dist.Normal(0.5 * state, tau))
        sample("v", dist.Normal(state, 1.0), obs=v)
        return state, None

    scan(step, jnp.zeros(()), v)


def build(features: frozenset[str], *, by_hand: bool = False) -> Callable:
    """A model with some features; `by_hand` without batches and effect handlers."""
    nested, enumerated = "nested" in features, "enumeration" in features
    size = BATCH if in_batches(features) and not by_hand else None

    def model(x, group, times, known, seen, w, v, y=None):
        level, tau = _levels(features)
        slope = sample("slope", dist.Normal(0.0, 1.0))
        slope = INTERVENED if by_hand and "do" in features else slope
        sigma = sample("sigma", dist.Gamma(3.0, 2.0))
        static = "static" in features
        with numpyro.plate("groups", len(np.unique(group)) if static else 3):
            effect = sample("effect", dist.Normal(level, tau))
        share = sample("share", dist.Beta(2.0, 2.0)) if enumerated else None
        columns: Any = numpyro.plate("columns", COLUMNS, dim=-1) if nested else None
        offset: Any = 0.0
        if nested:
            with columns:
                offset = sample("offset", dist.Normal(0.0, 1.0))
        logs = np.log(times) if static else jnp.log(times)
        rows = {"x": x + logs, "group": group, "times": times}
        rows |= {"known": known, "seen": seen}
        with numpyro.plate("rows", len(x), size, dim=-2 if nested else -1) as i:
            if y is not None and "subsample" in features:
                y = numpyro.subsample(y, event_dim=len(event(features)))
            elif y is not None:
                y = jnp.asarray(y)[i]
            rows = {name: jnp.asarray(value)[i] for name, value in rows.items()}
            loc = effect[rows["group"]] + slope * rows["x"]
            loc = loc[:, None] + offset if nested else loc
            k = sample("k", dist.Bernoulli(share)) if enumerated else jnp.zeros(())
            loc = loc + 2.0 * k
            with columns if nested else contextlib.nullcontext():
                if "deterministic" in features:
                    loc = numpyro.deterministic("mean", loc)
                if "factor" in features:
                    numpyro.factor("tilt", -0.1 * loc**2)
                _observe(features, _outcome_of(features, loc, sigma), y, rows)
        if "several" in features:
            with numpyro.plate("others", len(w), size and OTHER_BATCH) as j:
                sample("w", dist.Normal(level, sigma), obs=jnp.asarray(w)[j])
        if "scan" in features:
            _chain(v, tau)
        if "factor" in features:
            numpyro.factor("tie", -(level**2))

    return model if by_hand else _handled(features, model)


def _handled(features: frozenset[str], model: Callable) -> Callable:
    if "reparam" in features:
        model = handlers.reparam(model, config={"effect": LocScaleReparam(0.0)})
    if "condition" in features:
        model = handlers.condition(model, data={"y": outcome(features)})
    if "do" in features:
        model = handlers.do(model, data={"slope": INTERVENED})
    return handlers.seed(model, 0) if "seed" in features else model
