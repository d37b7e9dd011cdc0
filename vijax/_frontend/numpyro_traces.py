"""What traces of a NumPyro model tell: its layout, what was observed, new draws."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array
from numpyro import handlers

from .._custom_types import Data, Key, Params
from .._misc import lenient_promotion, map_in_batches, tree_size
from .numpyro_handlers import reseeded
from .numpyro_sites import at_zero, check_shapes, describe, Layout


def look_at(model: Any, data: Data) -> Layout:
    """What a model consists of, with data of these shapes; nothing is computed."""
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), data)

    def look(arrays: Data) -> None:
        wrap = lambda fn: handlers.substitute(fn, substitute_fn=at_zero)
        sites = model.sites(arrays, wrap, jr.key(0))
        found.append(describe(sites))
        with lenient_promotion():  # Shapes that disagree show only here.
            for site in sites.values():
                if site["type"] == "sample":
                    check_shapes(site)

    found: list[Layout] = []
    jax.eval_shape(look, abstract)
    return found[0]


@eqx.filter_jit
def observed_in(model: Any, data: Data) -> Params:
    """What was observed, by site."""
    wrap = lambda fn: handlers.substitute(fn, substitute_fn=at_zero)
    sites = model.sites(data, wrap, jr.key(0))
    return {name: sites[name]["value"] for name in model.layout.tree.observed}


@eqx.filter_jit
def drawn_from(
    model: Any,
    keys: Array,
    latents: Params,
    data: Data,
    names: tuple[str, ...],
) -> Params:
    """The values of some sites, drawn anew given latent ones, one set a key."""

    def one(args: tuple[Key, Params]) -> Params:
        key, latents = args
        wrap = lambda fn: handlers.substitute(handlers.uncondition(fn), data=latents)
        seeded = dataclasses.replace(model, fn=reseeded(model.fn, key))
        sites = seeded.sites(data, wrap, key)
        unknown = [name for name in names if name not in sites]
        if unknown:
            raise ValueError(
                f"There is no site {unknown[0]!r} in the model. There are {list(sites)}."
            )
        return {name: sites[name]["value"] for name in names}

    return map_in_batches(one, (keys, latents), tree_size(data))
