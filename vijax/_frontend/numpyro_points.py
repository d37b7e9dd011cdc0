"""Sites of a NumPyro model that are estimated by a number each."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to, constraints, ImproperUniform
from numpyro.infer.util import constrain_fn

from .._custom_types import Params
from .._misc import lenient_promotion
from .numpyro_sites import at_zero, Layout


def lifted(
    model: Callable, args: tuple, kwargs: dict, names: tuple[str, ...]
) -> tuple[Callable, dict[str, tuple[float, ...]]]:
    """The model with flat priors for the `numpyro.param` sites among `names`, and where
    these begin on the unconstrained scale."""
    fn = handlers.substitute(handlers.seed(model, jr.key(0)), substitute_fn=at_zero)
    # Not traced by JAX: first values, and the bounds of a constraint, must be numbers.
    with lenient_promotion():
        sites = handlers.trace(fn).get_trace(*args, **kwargs)
    priors, starts = {}, {}
    for name in names:
        site = sites.get(name)
        if site is None or site["type"] != "param":
            continue
        if not eqx.is_array_like(site["value"]):
            raise ValueError(
                f"`point` names {name!r}, which is no array but all the weights of a "
                "network. Give them priors, e.g. by `numpyro.contrib.module."
                "random_flax_module`."
            )
        value = jnp.asarray(site["value"])
        support = site["kwargs"].get("constraint", constraints.real)
        event_dim = site["kwargs"].get("event_dim")
        event_dim = value.ndim if event_dim is None else event_dim
        event_shape = value.shape[value.ndim - event_dim :]
        priors[name] = ImproperUniform(support, (), event_shape)
        # As numbers, which tell equal models apart from others.
        starts[name] = tuple(np.ravel(biject_to(support).inv(value)).tolist())
    return (handlers.lift(model, prior=priors) if priors else model), starts


def check_points(names: tuple[str, ...], layout: Layout) -> None:
    """Raise unless these are sites that can be estimated, with others besides them."""
    for name in names:
        if name not in layout.shapes:
            raise ValueError(
                f"`point` names {name!r}, which is no continuous latent site and no "
                f"`numpyro.param` of the model. There are {list(layout.shapes)}."
            )
    if names and not set(layout.shapes) - set(names):
        raise ValueError(
            f"`point` names all the sites of the model, {list(names)}: nothing is left "
            "that has a posterior. Leave one out at least; for the mode of all of them "
            "maximize `target.log_density` by an optimizer."
        )


def at_estimates(
    fn: Callable, args: tuple, kwargs: dict, latents: Params, names: tuple[str, ...]
) -> tuple[Callable, Params]:
    """The model with its estimates put in as values, and the other latents.

    So their density is that of the values themselves, without a log-Jacobian: a maximum
    does not depend on which scale it is looked for.
    """
    seeded = handlers.seed(fn, jr.key(0))
    values = constrain_fn(seeded, args, kwargs, latents)
    fixed = {name: values[name] for name in names}
    others = {name: x for name, x in latents.items() if name not in names}
    return handlers.substitute(fn, data=jax.tree.map(jnp.asarray, fixed)), others
