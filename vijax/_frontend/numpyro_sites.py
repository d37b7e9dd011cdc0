"""What a NumPyro model consists of, and which indices its plates see."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import (
    biject_to,
    ExpandedDistribution,
    MaskedDistribution,
    Unit,
)
from numpyro.primitives import Messenger


class PlateIndices(Messenger):
    """Says which indices each plate sees: those given, else all, else the first ones."""

    def __init__(self, fn: Callable, indices: dict[str, Array], *, whole: bool):
        super().__init__(fn)
        self.indices = indices
        self.whole = whole

    def process_message(self, msg: dict) -> None:
        if msg["type"] != "plate":
            return
        length, size = msg["args"]
        indices = self.indices.get(msg["name"])
        if indices is None:
            indices = jnp.arange(length if self.whole or size is None else size)
        # A plate that is told another size than its indices have would warn.
        msg["args"] = length, indices.shape[0]
        msg["value"] = indices


class Layout(eqx.Module):
    """What a model consists of: known before anything is computed."""

    # Latent sites, with their unconstrained shapes.
    shapes: dict[str, tuple[int, ...]]
    observed: tuple[str, ...]
    deterministic: tuple[str, ...]
    discrete: tuple[str, ...]
    # The length of each plate, and of those that say so how much of it a step sees.
    lengths: dict[str, int]
    seen: dict[str, int]
    # Sites with a value for each index of a plate, by plate.
    within: dict[str, tuple[str, ...]]
    dims: dict[str, tuple[str | None, ...]]
    nesting: int


# Before a model was looked at.
NOTHING = Layout({}, (), (), (), {}, {}, {}, {}, 0)


def _transform(site: dict) -> Any:
    name, support = site["name"], site["fn"].support
    try:
        return biject_to(support)
    except NotImplementedError as e:
        raise ValueError(
            f"The site `{name}` has the support {support}, which NumPyro has no "
            "transform from real numbers to. Reparameterize it, e.g. with "
            f"`numpyro.handlers.reparam(model, config={{{name!r}: ...}})`."
        ) from e


def at_zero(site: dict) -> Any:
    """The value of a latent site whose unconstrained value is zero."""
    if site["type"] != "sample" or site["is_observed"] or site["value"] is not None:
        return None
    if site["fn"].support.is_discrete:
        return None
    transform = _transform(site)
    shape = tuple(site["fn"].shape(site["kwargs"].get("sample_shape", ())))
    return transform(jnp.zeros(transform.inverse_shape(shape)))


def is_factor(fn: Any) -> bool:
    while isinstance(fn, ExpandedDistribution | MaskedDistribution):
        fn = fn.base_dist
    return isinstance(fn, Unit)


def describe(sites: dict[str, dict]) -> Layout:
    shapes, observed, deterministic, discrete = {}, [], [], []
    lengths, seen, within, dims, nesting = {}, {}, {}, {}, 0
    for name, site in sites.items():
        if site["type"] == "plate":
            length, size = site["args"]
            lengths[name] = length
            if size is not None and size != length:
                seen[name] = size
            continue
        if site["type"] == "param":
            raise ValueError(
                f"The model has a `numpyro.param` site, {name!r}, which has no prior. "
                "Give it one: `numpyro.sample`, with `dist.ImproperUniform` for a flat "
                "one; or `numpyro.handlers.lift(model, prior={...})`."
            )
        if site["type"] not in ("sample", "deterministic"):
            continue
        frames = site["cond_indep_stack"]
        dims[name] = _dims(site, frames)
        nesting = max([nesting, *(-frame.dim for frame in frames)])
        if site["type"] == "deterministic":
            deterministic.append(name)
        elif is_factor(site["fn"]):
            continue
        elif site["is_observed"]:
            observed.append(name)
        elif site["fn"].support.is_discrete:
            if not site["fn"].has_enumerate_support:
                raise ValueError(
                    f"The site `{name}` is discrete, and has no finite number of values "
                    "that could be summed out. Write the model without it, e.g. "
                    "`dist.GammaPoisson` for counts of a random rate."
                )
            discrete.append(name)
        else:
            shape = tuple(jnp.shape(site["value"]))
            shapes[name] = tuple(_transform(site).inverse_shape(shape))
            for frame in frames:
                within[frame.name] = (*within.get(frame.name, ()), name)
    return Layout(
        shapes,
        tuple(observed),
        tuple(deterministic),
        tuple(discrete),
        lengths,
        seen,
        within,
        dims,
        nesting,
    )


def _dims(site: dict, frames: list) -> tuple[str | None, ...]:
    """The plate that each axis runs over, as far as there is one."""
    shape = jnp.shape(site["value"])
    event_dim = site["fn"].event_dim if site["type"] == "sample" else 0
    out: list[str | None] = [None] * len(shape)
    for frame in frames:
        axis = len(shape) - event_dim + frame.dim
        if axis >= 0 and shape[axis] == frame.size:
            out[axis] = frame.name
    return tuple(out)
