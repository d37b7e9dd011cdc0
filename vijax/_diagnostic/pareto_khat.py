import equinox as eqx
import numpy as np

from .._draws.draws import check_draws, Draws
from .._draws.psis import check_log_weights, is_constant, smoothed


class ParetoKhat(eqx.Module):
    r"""The Pareto $\hat{k}$ of importance weights, beside their spread.

    **Attributes:**

    - `mean`: $\hat{k}$.
    - `stderr`: its asymptotic standard error, $(1 + \hat{k}) / \sqrt{m}$ for a tail of
        $m$ draws.
    - `log_weights_std`: the standard deviation of the log weights, in nats. Near zero
        the family is close to the target wherever it draws, whatever $\hat{k}$ says.
    """

    mean: float
    stderr: float
    log_weights_std: float


def pareto_khat(draws: Draws) -> ParetoKhat:
    r"""The Pareto $\hat{k}$ of the importance weights, from ArviZ.

    Below 0.7 the weights can correct what error is left in the family; above it the
    family is too narrow, or too far, for them to. It judges the shape of the weights'
    tail and is blind to their scale, so read it beside `log_weights_std`. It cannot see
    what no draw has seen, such as another mode.

    **Arguments:**

    - `draws`: at least 25 draws, better 1,000 or more. Of corrected draws those are
        judged that they were chosen from.

    **Returns:**

    A [`vijax.ParetoKhat`][]. Where the log weights differ by no more than rounding, the
    fit is perfect: there is no tail to judge, and `mean` is zero.

    **Raises:** `ValueError` for too few draws, draws without a density, or weights that
    are NaN or infinite.

    **Reference:** Yao, Vehtari, Simpson and Gelman (2018), *Yes, but did it work?*,
    [arXiv:1802.02538](https://arxiv.org/abs/1802.02538); Vehtari, Simpson, Gelman, Yao
    and Gabry (2024), *Pareto smoothed importance sampling*,
    [arXiv:1507.02646](https://arxiv.org/abs/1507.02646).

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 1000, key=jax.random.key(0))
        vi.pareto_khat(draws).mean
        ```
    """
    check_draws(draws)
    draws = draws.weighted
    log_q = draws.need_log_q()
    log_weights = check_log_weights(draws.log_p, log_q)
    spread = float(np.std(log_weights, ddof=1))
    tail = min(len(draws) // 5, int(np.ceil(3 * len(draws) ** 0.5)))
    perfect = is_constant(draws.log_p, log_q, log_weights)
    khat = 0.0 if perfect else smoothed(log_weights)[1]
    return ParetoKhat(khat, (1 + max(khat, 0.0)) / tail**0.5, spread)
