from typing import Any

import numpy as np

from .._draws.draws import check_draws, Draws
from .._draws.psis import is_constant
from .._misc import is_traced


def loo(draws: Draws, name: str | None = None) -> Any:
    """Leave-one-out predictive accuracy by Pareto-smoothed importance sampling.

    The draws come from an approximation, not from the posterior: their weights correct
    both for that and for what is left out, by ArviZ's `loo_approximate_posterior`. Draws
    without a density (particles, or resampled ones) are taken for posterior draws.

    **Arguments:**

    - `draws`: at least 100 of them, better 1,000 or more.
    - `name`: which observed variable, where there are several. Default: the only one.

    **Returns:**

    ArviZ's `ELPDData`, with `elpd`, `se`, `p`, and for each observation `elpd_i` and
    `pareto_k`. Compare models by `arviz_stats.compare({"one": ..., "other": ...})`.

    **Raises:** `ValueError` if the target does not say what each observation adds, for
    fewer draws, or where there are several observed variables and no `name`.

    **Reference:** Magnusson, Andersen, Jonasson and Vehtari (2019), *Bayesian
    leave-one-out cross-validation for large data*,
    [arXiv:1904.10679](https://arxiv.org/abs/1904.10679); Vehtari, Gelman and Gabry
    (2017), [arXiv:1507.04544](https://arxiv.org/abs/1507.04544).

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi
        from jax.scipy.stats import norm

        target = vi.from_likelihood(
            lambda params: norm.logpdf(params["mu"], 0.0, 10.0),
            lambda params, y: norm.logpdf(y, params["mu"]),
            {"mu": vi.Param()},
            jnp.linspace(-1.0, 1.0, 20),
        )
        key = jax.random.key(0)
        draws = vi.fit(target, key=key, max_steps=2_000).draw(1_000, key=key)
        vi.loo(draws).elpd
        ```
    """
    check_draws(draws)
    # All the draws with their weights say more than a choice among them.
    draws = draws.weighted
    if is_traced(draws):
        raise ValueError(
            "`loo` calls ArviZ, on the host: not inside `jax.jit`, `jax.vmap` or the "
            "like. Hand the draws out, and call it on them."
        )
    if len(draws) < 100:
        raise ValueError(
            f"{len(draws)} draws are too few for the tails of the weights. Draw at "
            "least 100, better 1,000 or more."
        )
    rows = draws.log_likelihood()
    if name is None and len(rows) != 1:
        raise ValueError(
            f"There are several observed variables, {list(rows)}: which one is left out, "
            "one observation at a time? Give its `name`."
        )
    name = next(iter(rows)) if name is None else name
    if not isinstance(name, str) or name not in rows:
        raise ValueError(
            f"`name`: there is no observed {name!r}. There are {list(rows)}."
        )
    import arviz_base
    from arviz_stats.loo import loo as plain_loo, loo_approximate_posterior

    chain = lambda values: np.asarray(values, np.float64)[None]
    # ArviZ wants a posterior beside the likelihood, but looks at its shape alone.
    groups = {
        "posterior": {"log_p": chain(draws.log_p)},
        "log_likelihood": {name: chain(rows[name])},
    }
    tree = arviz_base.from_dict(groups)
    log_q = draws.log_q
    if log_q is None or is_constant(
        draws.log_p, log_q, np.asarray(draws.log_weights, np.float64)
    ):
        # Independent draws: their relative efficiency is one.
        return plain_loo(tree, pointwise=True, var_name=name, reff=1.0)
    log_p, log_q = np.asarray(draws.log_p, float), np.asarray(log_q, float)
    return loo_approximate_posterior(tree, log_p, log_q, pointwise=True, var_name=name)
