"""Simulation-based calibration of a way of fitting."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import Data, Key, Params
from .._family.base import AbstractFamily
from .._method.base import AbstractMethod, Recipe
from .._misc import as_key, as_whole, check_function, entry_names
from .._run.checks import check_method
from .._run.fit import fit
from .._run.method_names import named_method
from .._run.results import RESULTS
from .._run.start import as_recipe
from .._target.target import check_target, Target


# A coordinate is off if chance alone does as much in one of a hundred calibrated runs.
_LEVEL = 0.01


class VSBC(eqx.Module):
    r"""How calibrated a way of fitting is, over data sets simulated from the model.

    **Attributes:**

    - `ranks`: the part of the approximation that lies below the truth, of shape
        `(simulations, dim)`: uniform on (0, 1) if fits are calibrated.
    - `names`: the names of the coordinates, on the unconstrained scale.
    - `bias`: z-scores of the mean of the ranks, of shape `(dim,)`: standard normal if
        fits are calibrated; positive where they lie too low.
    - `spread`: z-scores of the spread of the ranks, of shape `(dim,)`: positive where
        fits are too narrow, negative where they are too wide.
    - `num_failed`: how many fits were not finite; they have no ranks.
    """

    ranks: Float[Array, "simulations dim"]
    names: tuple[str, ...] = eqx.field(static=True)
    bias: np.ndarray
    spread: np.ndarray
    num_failed: int

    @property
    def is_calibrated(self) -> bool:
        """Whether neither bias nor spread is off in any coordinate, at a level of one in
        a hundred for all of them together."""
        worst = max(np.max(np.abs(self.bias)), np.max(np.abs(self.spread)))
        return bool(worst < self.threshold and self.num_failed == 0)

    @property
    def threshold(self) -> float:
        """The largest z-score that chance explains."""
        from scipy.stats import norm

        return float(norm.isf(_LEVEL / (4 * len(self.names))))

    def __repr__(self) -> str:
        verdict = "Calibrated" if self.is_calibrated else "Not calibrated"
        lines = [
            f"{verdict}: {self.ranks.shape[0]} simulations, {self.num_failed} failed; "
            f"z-scores beyond {self.threshold:.1f} are more than chance.",
            f"  {'':20s} {'bias':>7s} {'spread':>7s}",
        ]
        for name, bias, spread in zip(self.names, self.bias, self.spread, strict=True):
            lines.append(f"  {name:20s} {bias:7.1f} {spread:7.1f}")
        return "\n".join(lines)


def vsbc(
    target: Target,
    simulate: Callable[[Key], tuple[Params, Data]],
    method: AbstractMethod | str = "fullrank_advi",
    family: Recipe | AbstractFamily | None = None,
    *,
    key: Key,
    num_simulations: int = 200,
    num_draws: int = 200,
    max_steps: int = 1_000,
) -> VSBC:
    r"""Simulation-based calibration of a way of fitting.

    Parameters are drawn from the prior, data from the model; each data set is fitted, all
    of them as one compiled program. Over many of them the truth is a draw from the
    posterior, so that the part of the approximation below it is uniform. Its mean says
    whether fits are biased, and its spread whether they are too narrow, which a test of
    symmetry does not see. This judges a procedure on average, not one fit: see
    [`vijax.report`][] for that.

    **Arguments:**

    - `target`: the model, with data of the shapes that are simulated.
    - `simulate`: a function `simulate(key)` that returns parameters drawn from the prior,
        by name, and data drawn from the model given these. It is compiled.
    - `method`, `family`: as in [`vijax.fit`][].
    - `key`: randomness. Keyword only.
    - `num_simulations`: how many data sets. Keyword only.
    - `num_draws`: how many draws of each fit the truth is compared with. Keyword only.
    - `max_steps`: the most steps of each fit. Keyword only.

    **Returns:**

    A [`vijax.VSBC`][].

    **Raises:** `ValueError` for bad arguments.

    **Reference:** Yao, Vehtari, Simpson and Gelman (2018), *Yes, but did it work?*,
    [arXiv:1802.02538](https://arxiv.org/abs/1802.02538), section 2.2. The test of the
    spread compares the mean of $(p - 1/2)^2$ with $1/12$, in units of its standard
    deviation $\sqrt{1/180}$.

    !!! Example

        ```python
        import jax
        import vijax as vi
        from jax.scipy.stats import norm

        def simulate(key):
            mu_key, y_key = jax.random.split(key)
            mu = jax.random.normal(mu_key)
            return {"mu": mu}, mu + jax.random.normal(y_key, (5,))

        target = vi.from_log_density(
            lambda params, y: norm.logpdf(params["mu"])
            + norm.logpdf(y, params["mu"]).sum(),
            {"mu": vi.Param()},
            simulate(jax.random.key(0))[1],
        )
        vi.vsbc(target, simulate, key=jax.random.key(1), num_simulations=50)
        ```
    """
    check_target(target)
    if target.model.point_names:
        raise ValueError(
            f"{list(target.model.point_names)} are point estimates, which have no "
            "posterior to be calibrated. Make the target without `point=`."
        )
    key = as_key(key)
    num_simulations = as_whole("num_simulations", num_simulations, 10)
    num_draws = as_whole("num_draws", num_draws, 10)
    max_steps = as_whole("max_steps", max_steps, 1)
    check_function("simulate", simulate, "simulate(key)", 1)
    if isinstance(method, str):
        named_method(method, target, own_family=family is None)
    else:
        check_method(method)
    as_recipe(family)
    ranks = np.asarray(
        _ranks(
            target, simulate, method, family, key, num_simulations, num_draws, max_steps
        )
    )
    good = np.all(np.isfinite(ranks), axis=1)
    kept = ranks[good].astype(np.float64)
    count = max(len(kept), 1)
    bias = (np.mean(kept, axis=0) - 0.5) * (12 * count) ** 0.5
    spread = (np.mean((kept - 0.5) ** 2, axis=0) - 1 / 12) * (180 * count) ** 0.5
    failed = int(np.sum(~good))
    return VSBC(jnp.asarray(kept), _names(target), bias, spread, failed)


@eqx.filter_jit
def _ranks(
    target: Target,
    simulate: Callable,
    method: Any,
    family: Any,
    key: Key,
    num_simulations: int,
    num_draws: int,
    max_steps: int,
) -> Array:
    def one(key: Key) -> Array:
        simulate_key, fit_key, draw_key, tie_key = jr.split(key, 4)
        params, data = simulate(simulate_key)
        seen = target.with_data(data)
        truth = seen.unconstrain(params)
        done = fit(
            seen,
            method,
            family,
            key=fit_key,
            max_steps=max_steps,
            progress=False,
            throw=False,
        )
        x = jax.vmap(done.family.sample)(jr.split(draw_key, num_draws))
        below = jnp.sum(x < truth[None, :], axis=0).astype(x.dtype)
        # Spread within its step, so that calibrated ranks are exactly uniform.
        rank = (below + jr.uniform(tie_key, below.shape, x.dtype)) / (num_draws + 1)
        # A fit that failed keeps the family it started from, whose draws are finite.
        good = jnp.all(jnp.isfinite(x)) & (done.result != RESULTS.nonfinite)
        return jnp.where(good & jnp.all(jnp.isfinite(truth)), rank, jnp.nan)

    return jax.vmap(one)(jr.split(key, num_simulations))


def _names(target: Target) -> tuple[str, ...]:
    parts = jax.eval_shape(target.unravel, jax.eval_shape(target.model.initial))
    return tuple(n for k, part in parts.items() for n in entry_names(k, part.shape))
