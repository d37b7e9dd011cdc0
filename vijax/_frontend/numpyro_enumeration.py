"""Discrete sites of a NumPyro model summed out, where that is what the model says.

Funsor is imported inside: it is optional.
"""

import collections
import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxtyping import Array
from numpyro import handlers
from numpyro.infer.util import _unconstrain_reparam

from .._custom_types import Params
from .._misc import lenient_promotion
from .numpyro_sites import Layout


def marked(model: Callable) -> Callable:
    """A model whose discrete sites say that they are to be summed out."""
    from numpyro.contrib.funsor import config_enumerate

    return config_enumerate(model)


def in_words(layout: Layout) -> tuple[str, str]:
    """What an error says of the discrete sites of a model, and of what may be wrong."""
    if not layout.discrete:
        return "", ""
    names = ", ".join(f"`{name}`" for name in layout.discrete)
    why = (
        " A site that is summed out has an axis more, on the left, than it has without: "
        "index and stack from the right, as in `x[..., k]`."
    )
    return f", its discrete sites {names} summed out,", why


def _enumerated(model: Callable, latents: Params, layout: Layout) -> Callable:
    """A marked model at unconstrained values, whose discrete sites have all of their
    values at once, on axes of their own left of those of plates."""
    from numpyro.contrib.funsor import enum

    # The log-Jacobians become factors of the model.
    at = functools.partial(_unconstrain_reparam, latents)
    return handlers.substitute(enum(model, -layout.nesting - 1), substitute_fn=at)


@contextlib.contextmanager
def _enumerating() -> Iterator[None]:
    from numpyro.contrib.funsor.infer_util import plate_to_enum_plate

    with plate_to_enum_plate(), lenient_promotion():
        yield


def _trace_of(model: Callable, args: tuple, kwargs: dict) -> dict[str, dict]:
    """The sites of an enumerated model; `dim_to_name` says what their axes are."""
    from numpyro.contrib.funsor.enum_messenger import trace

    with _enumerating():
        sites = trace(model).get_trace(*args, **kwargs)
    of: dict[int, str] = {}
    for name, site in sites.items():
        if site["type"] == "sample" and of.setdefault(id(site["infer"]), name) != name:
            raise ValueError(
                f"`{of[id(site['infer'])]}` and `{name}` share one dictionary `infer=`, "
                "into which NumPyro writes the axes of each, and so sums over wrong "
                "ones. Leave it out, or write the dictionary anew for each site."
            )
    return sites


class _Factors(NamedTuple):
    """Terms of the log density by their named axes; `within` those of each time axis."""

    free: list
    within: dict[Any, list]
    starts: dict[Any, frozenset]
    sums: frozenset
    products: frozenset
    scales: dict[str, float]
    history: int


def summed_log_density(
    model: Callable, args: tuple, kwargs: dict, latents: Params, layout: Layout
) -> Array:
    """The log density of a marked model at unconstrained `latents`, its discrete sites
    summed out.

    As NumPyro's own, but for one thing: the scale of a plate that is seen in part
    multiplies what the sum within it comes to, not the terms of that sum.
    """
    import funsor
    import funsor.optimizer
    from numpyro.contrib.funsor.infer_util import compute_markov_factors

    sites = _trace_of(_enumerated(model, latents, layout), args, kwargs)
    with lenient_promotion():
        found = _factors(sites)
        ops = funsor.ops.logaddexp, funsor.ops.add
        factors, every = found.free, found.sums | found.products
        if found.within:
            kept = _time_axes(sites, found)
            _check_time(found, kept)
            factors = factors + compute_markov_factors(
                found.within,
                found.starts,
                kept,
                found.sums,
                found.products,
                found.history,
                *ops,
            )
        with funsor.interpretations.lazy:
            lazy = funsor.sum_product.sum_product(
                *ops,
                factors,
                eliminate=every,
                plates=found.products,
                plate_to_scale=found.scales,
            )
        result: Any = funsor.optimizer.apply_optimizer(lazy)
    if result.inputs:
        names = sorted(name.split("__BOUND")[0] for name in result.inputs)
        raise ValueError(
            f"The sum over discrete sites leaves axes of {names}: NumPyro cannot sum "
            "this model. Write the sum yourself, e.g. with `dist.MixtureSameFamily`."
        )
    return result.data


def _factors(sites: dict[str, dict]) -> _Factors:
    import funsor

    free, within = [], collections.defaultdict(list)
    starts: dict[Any, frozenset] = collections.defaultdict(frozenset)
    sums, products, scales, history = set(), set(), {}, 0
    for site in sites.values():
        if site["type"] != "sample":
            continue
        frames = site["cond_indep_stack"]
        names = site["infer"]["dim_to_name"]
        log_prob = _log_prob(site)
        if not names and all(length == 1 for length in log_prob.shape):
            log_prob = log_prob.squeeze()
        term = funsor.to_funsor(log_prob, output=funsor.Real, dim_to_name=names)
        times = [axis for axis, name in names.items() if name.startswith("_time")]
        if times:
            name = names[times[0]]
            time = funsor.Variable(name, funsor.Bint[log_prob.shape[times[0]]])
            history = max(history, *(_lag(other) for other in names.values()))
            starts[time] |= {other for other in names.values() if _lag(other)}
            (within[time] if history else free).append(term)
            products |= set() if history else {name}
        else:
            free.append(term)
        sums |= set() if site["is_observed"] else {site["name"]}
        products |= {frame.name for frame in frames if frame.dim is not None}
        scales |= _plate_scales(site)
    return _Factors(
        free, within, starts, frozenset(sums), frozenset(products), scales, history
    )


def _log_prob(site: dict) -> Array:
    """The log density of a site, scaled as the model says, but not for a batch."""
    extra = (site["intermediates"],) if site["intermediates"] else ()
    log_prob = site["fn"].log_prob(site["value"], *extra)
    if site["scale"] is None:
        return log_prob
    return log_prob * (site["scale"] / math.prod(_plate_scales(site).values()))


def _plate_scales(site: dict) -> dict[str, float]:
    """By which each plate that is seen in part scales a site up."""
    scales = site.get("plate_to_scale", {})
    # That of `handlers.scale` belongs to no plate.
    return {plate: scale for plate, scale in scales.items() if plate is not None}


def _lag(name: str) -> int:
    """How many steps before the present one an axis belongs to."""
    return name.count("_PREV_")


def _time_axes(sites: dict[str, dict], found: _Factors) -> dict[Any, frozenset]:
    """The axes of the sites that depend on earlier steps, which are not summed within
    one."""
    kept: dict[Any, frozenset] = collections.defaultdict(frozenset)
    for time, starts in found.starts.items():
        for start in starts:
            names = sites[start.replace("_PREV_", "")]["infer"]["dim_to_name"].values()
            kept[time] |= frozenset(names) if start in names else frozenset()
    return kept


def _check_time(found: _Factors, kept: dict[Any, frozenset]) -> None:
    for time, terms in found.within.items():
        inside = set().union(*(term.inputs for term in terms)) & found.scales.keys()
        for plate in inside - kept[time]:
            raise ValueError(
                f"The plate {plate!r} is seen in batches within the steps of a `scan` "
                "whose discrete sites do not have it, so that no batch stands for the "
                "whole. Leave out `subsample_size`."
            )


def check_plates(
    model: Callable, args: tuple, kwargs: dict, latents: Params, layout: Layout
) -> None:
    """Raise where a site depends on a discrete one beyond its plates: NumPyro's sum would
    not be that of the model. And where a batch is no part of the sum."""
    sites = _trace_of(_enumerated(model, latents, layout), args, kwargs)
    plates = {
        name: {frame.name for frame in site["cond_indep_stack"]}
        for name, site in sites.items()
        if site["type"] == "sample"
    }
    for name, here in plates.items():
        seen = _plate_scales(sites[name])
        axes = sites[name]["infer"]["dim_to_name"].values()
        for axis in dict.fromkeys(other.replace("_PREV_", "") for other in axes):
            if axis not in layout.discrete or axis == name or axis not in plates:
                continue
            beyond = sorted(plates[axis] - here)
            if beyond:
                raise ValueError(
                    f"`{name}` depends on the discrete site `{axis}`, but is outside of "
                    f"its plate {beyond[0]!r}: NumPyro would give `{axis}` one value for "
                    "all of that plate, and so sum another model. Put `"
                    f"{name}` into the plate too (an array with an axis for it, and "
                    "`handlers.mask` where there are gaps), or write the sum yourself: "
                    "add up the log densities of each index with `jax.ops.segment_sum`, "
                    "then `jax.nn.logsumexp` over the values and `numpyro.factor`."
                )
            parts = sorted(seen.keys() - plates[axis])
            if parts:
                raise ValueError(
                    f"`{name}` is seen in batches of the plate {parts[0]!r}, but depends "
                    f"on the discrete site `{axis}` outside of it. The sum over `{axis}` "
                    "needs all the rows at once: leave out `subsample_size`."
                )
