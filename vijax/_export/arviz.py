"""Draws as a tree for ArviZ."""

import contextlib
from typing import Any

import jax.random as jr
import numpy as np

from .._custom_types import Data, Key
from .._diagnostic.elbo import elbo
from .._draws.draws import check_draws, Draws
from .._misc import as_flag, as_key
from .._target.data import as_data


_PRIOR, _POSTERIOR, _NEW = 0, 1, 2
_PRIOR_DRAWS = 500


def to_arviz(
    draws: Draws,
    *,
    key: Key | None = None,
    predictions: Data = None,
    log_likelihood: bool = False,
    coords: dict[str, Any] | None = None,
    dims: dict[str, list[str]] | None = None,
) -> Any:
    """The draws as ArviZ data, in the parameters that the model was written in.

    **Arguments:**

    - `draws`: the draws.
    - `key`: randomness for what is simulated: with it the result has the groups
        `posterior_predictive`, `prior` and `prior_predictive`, where the model can be
        drawn from. Keyword only.
    - `predictions`: new data as [`vijax.Draws`][]`.predict` takes them; needs a `key`.
        Keyword only.
    - `log_likelihood`: whether to add the log density of each observation at each draw,
        which ArviZ's `loo` wants: as many numbers as draws times observations. (The
        draws' own weights are in [`vijax.loo`][] alone.) Keyword only.
    - `coords`: `{dimension: labels}`, as in ArviZ. Default: what a NumPyro or PyMC model
        says. Keyword only.
    - `dims`: `{parameter: [dimension, ...]}`, as in ArviZ. Default: what a NumPyro or
        PyMC model says. Keyword only.

    **Returns:**

    An `xarray.DataTree` with groups

    - `posterior`: the named parameters, as one chain;
    - `sample_stats`: `log_p` (unnormalized) and `log_q` of each draw, and their
        difference `log_weights`; of draws without a density `log_p` alone;
    - `observed_data` and `constant_data`: the target's data, where there are any;
    - `posterior_predictive`, `prior`, `prior_predictive`, `predictions`,
        `predictions_constant_data` and `log_likelihood` as asked for;

    and as attributes `method`, `num_steps` and `result` where the draws come from a
    fit, and `elbo` with `elbo_stderr` where there is a density.

    **Raises:** `ValueError` if predictions are asked for without a key, or of a target
    that no data can be drawn from.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 100, key=jax.random.key(0))
        posterior = vi.to_arviz(draws).posterior
        ```
    """
    check_draws(draws)
    log_likelihood = as_flag("log_likelihood", log_likelihood)
    _check_labels("coords", coords)
    _check_labels("dims", dims)
    key = None if key is None else as_key(key)
    if predictions is not None and key is None:
        raise ValueError("`predictions` are drawn: give a `key=jax.random.key(...)`.")
    import arviz_base

    one_chain = lambda values: {k: np.asarray(v)[None] for k, v in values.items()}
    stats = {"log_p": draws.log_p}
    if draws.log_q is not None:
        stats |= {"log_q": draws.log_q, "log_weights": draws.log_weights}
    target = draws.target
    labels = target.model.labels(target.data)
    groups = {"posterior": one_chain(draws.params), "sample_stats": one_chain(stats)}
    if log_likelihood:
        groups["log_likelihood"] = one_chain(draws.log_likelihood())
    groups |= {"observed_data": labels.observed, "constant_data": labels.constants}
    if key is not None:
        simulated = _simulated(draws, key)
        groups |= {name: one_chain(values) for name, values in simulated.items()}
    groups = {name: values for name, values in groups.items() if values}
    names = labels.dims | (dims or {})
    ticks = labels.coords | (coords or {})
    tree = arviz_base.from_dict(groups, coords=_used(ticks, names), dims=names)
    if key is not None and predictions is not None:
        key = jr.fold_in(key, _NEW)
        tree.update(_predictions(draws, key, predictions, dims, coords))
    attributes = {k: _plain(value) for k, value in draws.origin.items()}
    if draws.log_q is not None:
        estimate = elbo(draws)
        attributes["elbo"] = float(estimate.mean)
        attributes["elbo_stderr"] = float(estimate.stderr)
    tree.attrs.update(attributes)
    tree["posterior"].attrs.update(attributes)
    return tree


def _check_labels(name: str, labels: Any) -> None:
    """Raise unless `labels` are some lists by name."""
    is_list = lambda x: np.ndim(x) == 1
    if labels is not None and not (
        isinstance(labels, dict) and all(map(is_list, labels.values()))
    ):
        raise ValueError(
            f"`{name}` must be a dictionary of lists by name, as in ArviZ, but it is "
            f"{labels!r}."
        )


def _simulated(draws: Draws, key: Key) -> dict[str, Any]:
    """What the model itself can be asked for: nothing of a density."""
    target = draws.target
    if not target.model.is_generative:
        return {}
    out = {"posterior_predictive": draws.predict(key=jr.fold_in(key, _POSTERIOR))}
    # An improper prior cannot be drawn from.
    with contextlib.suppress(NotImplementedError):
        out["prior"], out["prior_predictive"] = target.model.sample_prior(
            jr.fold_in(key, _PRIOR), _PRIOR_DRAWS, target.data
        )
    return out


def _predictions(draws: Draws, key: Key, new: Data, dims: Any, coords: Any) -> Any:
    """The groups of new data, whose axes may have other lengths."""
    import arviz_base

    target = draws.target
    model, data = target.model.rebind(new, target.data)
    labels = model.labels(as_data(data))
    values = draws.predict(new, key=key)
    groups = {
        "predictions": {k: np.asarray(v)[None] for k, v in values.items()},
        "predictions_constant_data": labels.constants,
    }
    names = labels.dims | (dims or {})
    ticks = _used(labels.coords | (coords or {}), names)
    fits = lambda k, axes: len(axes) == values[k].ndim - 1
    names = {k: v for k, v in names.items() if k not in values or fits(k, v)}
    groups = {name: values for name, values in groups.items() if values}
    tree = arviz_base.from_dict(groups, pred_coords=ticks, pred_dims=names)
    return tree.children


def _used(coords: dict[str, Any], dims: dict[str, list[str]]) -> dict[str, Any]:
    used = {dim for axes in dims.values() for dim in axes}
    return {name: labels for name, labels in coords.items() if name in used}


def _plain(value: Any) -> Any:
    """A value that a file can hold as an attribute."""
    return value if isinstance(value, str) else np.asarray(value).item()
