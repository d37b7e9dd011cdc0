import numpy as np
from jaxtyping import Array

from .._draws.draws import Draws
from .._misc import eager
from .base import check_several, Estimate


def _mean_and_stderr(log_p: Array, log_q: Array) -> tuple[Array, Array]:
    xp, done = eager(log_p, log_q)
    with np.errstate(all="ignore"):
        values = xp.asarray(log_p) - xp.asarray(log_q)
        stderr = xp.std(values, ddof=1) / len(values) ** 0.5
        return done((xp.mean(values), stderr.astype(values.dtype)))


def elbo(draws: Draws) -> Estimate:
    r"""The evidence lower bound, $\mathbb{E}_q[\log p - \log q]$, against all the data.

    A bound on the log evidence (if the target's density is normalized as a joint
    density): larger is better.

    **Arguments:**

    - `draws`: two draws at least; some thousands for a small standard error. Of
        corrected draws, the ELBO of the heavy-tailed proposal that they were chosen from;
        that of the family itself is had with `fit.draw(n, key=key, corrected=False)`.

    **Returns:**

    An [`vijax.Estimate`][], in nats. NaN or infinite if the log density is not finite at
    some draw.

    **Raises:** `ValueError` for fewer than two draws, or draws without a density.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 100, key=jax.random.key(0))
        vi.elbo(draws).mean, vi.elbo(draws).stderr
        ```
    """
    check_several(draws)
    draws = draws.weighted
    return Estimate(*_mean_and_stderr(draws.log_p, draws.need_log_q()))
