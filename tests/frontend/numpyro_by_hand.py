"""What a model with some features comes to, added up site by site."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Scalar
from numpyro import handlers
from numpyro.distributions import biject_to, Unit

from .numpyro_features import build


class ByHand(NamedTuple):
    """The log density at a point, what of it is no likelihood, and single sites."""

    density: Scalar
    prior: Scalar
    # The log density of each observation, before any `handlers.scale`.
    rows: dict[str, Array]
    # What parameters and deterministic sites are.
    values: dict[str, Array]
    # Of the outcome.
    mean: Array


def _sites(
    features: frozenset[str], arguments: dict[str, Any], parts: dict[str, Array], k: int
) -> tuple[dict[str, dict], Scalar]:
    """The sites at unconstrained values with all discrete ones at `k`, and the
    log-Jacobian."""
    jacobians = []

    def value_of(site: dict) -> Any:
        if site["type"] != "sample" or site["is_observed"]:
            return None
        name, fn = site["name"], site["fn"]
        if name == "k":
            return jnp.full(fn.batch_shape, k)
        if f"{name}_decentered" in parts:
            scale = jnp.sqrt(fn.variance)
            jacobians.append(jnp.log(scale).sum())
            return fn.mean + scale * parts[f"{name}_decentered"]
        step = site["infer"].get("_scan_current_index")
        if step is not None:
            return parts[name][step]
        transform = biject_to(fn.support)
        value = transform(parts[name])
        jacobians.append(transform.log_abs_det_jacobian(parts[name], value).sum())
        return value

    model = handlers.seed(build(features, by_hand=True), 0)
    model = handlers.substitute(model, substitute_fn=value_of)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        sites = handlers.trace(model).get_trace(**arguments)
        for site in sites.values():
            if site["type"] == "sample":
                site["log_prob"] = site["fn"].log_prob(site["value"])
    return sites, sum(jacobians, jnp.zeros(()))


def _scaled(site: dict) -> Array:
    return site["log_prob"] * (1.0 if site["scale"] is None else site["scale"])


def _is_in_rows(site: dict) -> bool:
    return any(frame.name == "rows" for frame in site["cond_indep_stack"])


def _is_likelihood(site: dict) -> bool:
    fn = site["fn"]
    return site["is_observed"] and not isinstance(getattr(fn, "base_dist", fn), Unit)


def _is_value(site: dict) -> bool:
    is_latent = site["type"] == "sample" and not site["is_observed"]
    return is_latent or site["type"] == "deterministic"


def _by_row(sites: dict[str, dict], length: int) -> Array:
    """What the sites within the plate of the rows add to each row."""
    found = [s for s in sites.values() if s["type"] == "sample" and _is_in_rows(s)]
    return sum(
        (_scaled(site).reshape(length, -1).sum(axis=1) for site in found),
        jnp.zeros(length),
    )


def _stand_ins(
    features: frozenset[str], arguments: dict[str, Any], parts: dict[str, Array]
) -> Scalar:
    """Of each missing value that the model says nothing of."""
    if "missing" not in features:
        return jnp.zeros(())
    is_open = ~arguments["known"]
    if "mask" in features:
        is_open &= arguments["seen"]
    if "distribution mask" in features:
        is_open &= arguments["times"] < 5.0
    values = parts["y_unobserved"]
    is_open = is_open.reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.where(is_open, 0.0, norm.logpdf(values)).sum()


def by_hand(
    features: frozenset[str], arguments: dict[str, Any], parts: dict[str, Array]
) -> ByHand:
    """What a model comes to with `arguments` at unconstrained values `parts`."""
    enumerated = "enumeration" in features
    every = [
        _sites(features, arguments, parts, k) for k in ((0, 1) if enumerated else (0,))
    ]
    sites, jacobian = every[0]
    sampled = [site for site in sites.values() if site["type"] == "sample"]
    outside = sum(_scaled(site).sum() for site in sampled if not _is_in_rows(site))
    rows = [_by_row(found, len(arguments["x"])) for found, _ in every]
    within = jax.nn.logsumexp(jnp.stack(rows), axis=0).sum()
    density = outside + within + jacobian + _stand_ins(features, arguments, parts)
    likelihood = {site["name"]: site for site in sampled if _is_likelihood(site)}
    outcome = "y_observed" if "missing" in features else "y"
    means = [found[outcome]["fn"].mean for found, _ in every]
    share = sites["share"]["value"] if enumerated else 0.0
    return ByHand(
        density=density,
        prior=density - sum(_scaled(site).sum() for site in likelihood.values()),
        rows={name: site["log_prob"] for name, site in likelihood.items()},
        values={
            name: site["value"]
            for name, site in sites.items()
            # Where a discrete site is summed out, what is computed is not reported.
            if (name in parts or not enumerated) and _is_value(site)
        },
        mean=means[0] + share * (means[-1] - means[0]),
    )
