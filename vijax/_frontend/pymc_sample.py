"""Draws by PyMC itself. It is imported inside, since it is optional."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .._custom_types import Params
from .pymc_jax import quiet


def draw_observed(
    model: Any, seed: int, given: Params, num_draws: int, names: tuple[str, ...] | None
) -> Params:
    """Draws of some variables of a model, of those observed if `names` are `None`.

    `given` are free variables, `num_draws` of each; all others are drawn.
    """
    import pymc

    if names is None:
        names = tuple(rv.name for rv in model.observed_RVs)
    for name in names:
        if name not in model.named_vars:
            raise ValueError(
                f"There is no variable {name!r} in the model. There are "
                f"{list(model.named_vars)}."
            )
    host = {n: np.asarray(v).astype(model[n].dtype) for n, v in given.items()}
    points = [{n: v[i] for n, v in host.items()} for i in range(num_draws)]
    asked = [name for name in names if name not in given]
    drawn: Any = {}
    try:
        with quiet():
            drawn = asked and pymc.sample_posterior_predictive(
                points,
                model=model,
                var_names=asked,
                random_seed=seed,
                progressbar=False,
                return_inferencedata=False,
            )
    except Exception as e:
        raise ValueError(
            f"PyMC could not draw {asked}: {e}. An observed variable has the shape of "
            "what was observed: give it the shape of its mean, `pm.Normal('y', mu, "
            "sigma, shape=mu.shape, observed=y)`, if the data can change shape."
        ) from e
    return {n: given[n] if n in given else jnp.asarray(drawn[n][0]) for n in names}


def draw_prior(model: Any, seed: int, num_draws: int) -> Params:
    """Draws of all the variables, deterministic and observed ones among them."""
    import pymc

    variables = (*model.free_RVs, *model.deterministics, *model.observed_RVs)
    names = [var.name for var in variables]
    with quiet():
        drawn: Any = pymc.sample_prior_predictive(
            num_draws,
            model=model,
            var_names=names,
            random_seed=seed,
            return_inferencedata=False,
        )
    return {name: jnp.asarray(drawn[name]) for name in names}
