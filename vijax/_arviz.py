from typing import Any

import jax.tree_util as jtu
import numpy as np

from ._diagnostic.elbo import elbo
from ._draws import check_draws, Draws


def _named_arrays(data: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by the names on the way to them."""
    out = {}
    for path, leaf in jtu.tree_flatten_with_path(data)[0]:
        parts = (jtu.keystr((entry,), simple=True) for entry in path)
        out["_".join(parts) or "data"] = np.asarray(leaf)
    return out


def to_arviz(
    draws: Draws,
    *,
    coords: dict[str, Any] | None = None,
    dims: dict[str, list[str]] | None = None,
) -> Any:
    """The draws as ArviZ data, in the parameters that the model was written in.

    **Arguments:**

    - `draws`: the draws.
    - `coords`: `{dimension: labels}`, as in ArviZ. Keyword only.
    - `dims`: `{parameter: [dimension, ...]}`, as in ArviZ. Keyword only.

    **Returns:**

    An `xarray.DataTree` with groups

    - `posterior`: the named parameters, as one chain;
    - `sample_stats`: `log_p` (unnormalized) and `log_q` of each draw, and their
        difference `log_weights`; of particles `log_p` alone;
    - `observed_data`: the target's data, where there are any;

    and as attributes `method`, `num_steps` and `result` where the draws come from a
    fit, and `elbo` with `elbo_stderr` where there is a density.

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
    import arviz_base

    one_chain = lambda values: {k: np.asarray(v)[None] for k, v in values.items()}
    stats = {"log_p": draws.log_p}
    if draws.log_q is not None:
        stats |= {"log_q": draws.log_q, "log_weights": draws.log_weights}
    groups = {"posterior": one_chain(draws.params), "sample_stats": one_chain(stats)}
    if draws.target.data is not None:
        groups["observed_data"] = _named_arrays(draws.target.data)
    attributes = {key: _plain(value) for key, value in draws.origin.items()}
    if draws.log_q is not None:
        estimate = elbo(draws)
        attributes["elbo"] = float(estimate.mean)
        attributes["elbo_stderr"] = float(estimate.stderr)
    tree = arviz_base.from_dict(groups, coords=coords, dims=dims)
    tree.attrs.update(attributes)
    tree["posterior"].attrs.update(attributes)
    return tree


def _plain(value: Any) -> Any:
    """A value that a file can hold as an attribute."""
    return value if isinstance(value, str) else np.asarray(value).item()
