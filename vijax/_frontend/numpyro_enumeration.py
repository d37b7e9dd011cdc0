"""Discrete sites of a NumPyro model summed out, and checks that the sum is the model's.

Funsor is imported inside: it is optional.
"""

import collections
import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer.util import potential_energy

from .._misc import lenient_promotion
from .numpyro_sites import Discrete


# As many joint values of the discrete sites are tried one by one, at the most.
_MOST_CONFIGURATIONS = 2_000
# Densities at a point agree but for rounding: in parts of their size.
_TOLERANCE = 1e-3


def marked(model: Callable) -> Callable:
    """A model whose discrete sites say that they are to be summed out."""
    from numpyro.contrib.funsor import config_enumerate

    return config_enumerate(model)


def enumerated(model: Callable, nesting: int) -> Callable:
    """A marked model whose discrete sites have all of their values at once, on axes of
    their own left of those of `nesting` plates."""
    from numpyro.contrib.funsor import enum

    return enum(model, -nesting - 1)


@contextlib.contextmanager
def _enumerating() -> Iterator[None]:
    from numpyro.contrib.funsor.infer_util import plate_to_enum_plate

    with plate_to_enum_plate(), lenient_promotion():
        yield


def trace_of(model: Callable, args: tuple, kwargs: dict) -> dict[str, dict]:
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


def summed_log_density(model: Callable, args: tuple, kwargs: dict) -> Array:
    """The log density of an enumerated model, its discrete sites summed out.

    As NumPyro's own, but for one thing: the scale of a plate that is seen in part
    multiplies what the sum within it comes to, not the terms of that sum.
    """
    import funsor
    import funsor.optimizer
    from numpyro.contrib.funsor.infer_util import compute_markov_factors

    sites = trace_of(model, args, kwargs)
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


def check_sums(sites: dict[str, dict], discrete: dict[str, Discrete]) -> None:
    """Raise where a site depends on a discrete one beyond its plates: NumPyro's sum would
    not be that of the model. And where a batch is no part of the sum.

    `sites` are those of an enumerated trace.
    """
    plates = {
        name: {frame.name for frame in site["cond_indep_stack"]}
        for name, site in sites.items()
        if site["type"] == "sample"
    }
    for name, here in plates.items():
        seen = _plate_scales(sites[name])
        axes = sites[name]["infer"]["dim_to_name"].values()
        for axis in dict.fromkeys(other.replace("_PREV_", "") for other in axes):
            if axis not in discrete or axis == name or axis not in plates:
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


def _configurations(discrete: dict[str, Discrete]) -> dict[str, np.ndarray] | None:
    """Every joint value of some discrete sites, by the numbers of their values; `None` if
    there are too many."""
    entries = [site.num_values for site in discrete.values() for _ in range(site.size)]
    if math.prod(entries) > _MOST_CONFIGURATIONS:
        return None
    rows = np.array(list(itertools.product(*map(range, entries))), np.int32)
    ends = np.cumsum([site.size for site in discrete.values()])[:-1]
    parts = np.split(rows, ends, axis=1)
    named = zip(discrete.items(), parts, strict=True)
    return {name: part.reshape(-1, *site.shape) for (name, site), part in named}


def by_brute_force(
    model: Callable, args: tuple, kwargs: dict, latents: dict, discrete: dict
) -> Array | None:
    """The log density at unconstrained `latents`, with the discrete sites given each of
    their joint values; `None` if these are too many."""
    every = _configurations(discrete)
    if every is None:
        return None

    def one(numbers: dict[str, Array]) -> Array:
        given = lambda site: _value(site, numbers)
        fixed = handlers.substitute(model, substitute_fn=given)
        return -jnp.asarray(potential_energy(fixed, args, kwargs, latents))

    with lenient_promotion():
        return jax.nn.logsumexp(jax.lax.map(one, every, batch_size=64))


def _value(site: dict, numbers: dict[str, Array]) -> Array | None:
    """The value of a discrete site with this number."""
    if site["type"] != "sample" or site["name"] not in numbers:
        return None
    fn, number = site["fn"], numbers[site["name"]]
    step = site["infer"].get("_scan_current_index")
    if step is not None and number.ndim > len(fn.batch_shape):
        number = number[step]
    support = fn.enumerate_support(expand=False)
    return jnp.reshape(support, (-1, *fn.event_shape))[number]


def check_by_brute_force(
    summed: float, brute: float, discrete: dict[str, Discrete]
) -> None:
    """Raise unless the sum that NumPyro comes to is that of all joint values."""
    if not np.isfinite(brute) or abs(summed - brute) < _TOLERANCE * (1 + abs(brute)):
        return
    names = ", ".join(f"`{name}`" for name in discrete)
    raise ValueError(
        f"NumPyro's sum over the discrete sites {names} is not that of the model: at a "
        f"random point its log density is {summed:.6g}, but with each of their joint "
        f"values in turn it is {brute:.6g}. Write the sum yourself, e.g. with "
        "`dist.MixtureSameFamily`, or `numpyro.factor`."
    )
