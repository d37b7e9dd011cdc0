"""Draws: points, both log densities there, and all that can be asked of them."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._custom_types import Data, Key, Params
from .._keys import Seed
from .._misc import (
    as_flag,
    as_key,
    as_names,
    as_whole,
    check_function,
    eager,
    listed,
    shapes_in_words,
)
from .._target.target import Target
from .evaluation import constrained, evaluated, log_likelihoods, rebound
from .psis import smoothed_log_weights
from .resample import with_replacement, without_replacement


class Draws(eqx.Module):
    """Draws from a family, with both log densities: all that a diagnostic may ask for.

    **Attributes:**

    - `x`: the draws, on the unconstrained scale.
    - `log_q`: the family's log density at each; `None` if it has none, as particles, or
        if the draws were resampled.
    - `log_p`: the target's unnormalized log density at each, against all of the data.
    - `target`: the target.
    - `origin`: what is known of where they come from, such as the method and its steps.
    - `proposal`: of draws that were corrected by importance, the draws, with both
        densities, that they were chosen from; else `None`.
    """

    x: Float[Array, "draws dim"]
    log_q: Float[Array, " draws"] | None
    log_p: Float[Array, " draws"]
    target: Target
    origin: dict[str, Any] = eqx.field(default_factory=dict)
    proposal: "Draws | None" = None

    def __repr__(self) -> str:
        shapes = self.target.model.part_shapes
        lines = [
            f"Draws({self.x.shape[0]} draws",
            f"  parameters: {shapes_in_words(shapes)}",
        ]
        if self.origin:
            pairs = (f"{name} {value}" for name, value in self.origin.items())
            lines.append(f"  from: {listed(pairs)}")
        if self.proposal is not None:
            lines.append(f"  chosen from {len(self.proposal)} weighted draws")
        return "\n".join(lines) + ")"

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def log_weights(self) -> Float[Array, " draws"]:
        """The log importance weights, `log_p - log_q`, of shape `(draws,)`. Of corrected
        draws those of the draws that they were chosen from.

        **Raises:** `ValueError` if the draws come from a family without a density.
        """
        weighted = self.weighted
        return _difference(weighted.log_p, weighted.need_log_q())

    @property
    def weighted(self) -> "Draws":
        """Draws that have weights: the proposal of corrected ones, else these."""
        return self if self.proposal is None else self.proposal

    def need_log_q(self) -> Float[Array, " draws"]:
        """`log_q`, or a `ValueError` that says why there is none."""
        if self.log_q is None:
            raise ValueError(
                "These draws have no log density, so that neither an ELBO nor importance "
                "weights can be had. If they were resampled, or moved by trajectories, "
                "ask plain draws, `fit.draw(n, key=key, corrected=False)`. "
                "If they come from particles, put a Gaussian around each, "
                "`vi.Particles(fit.family.x, bandwidth=0.1)`, and draw from that with "
                "`vi.draw`; or fit a family with a density."
            )
        return self.log_q

    @property
    def params(self) -> Params:
        """The named parameters: a dictionary of arrays of shape `(draws, ...)`, inside
        their supports."""
        return constrained(self.target, self.x)

    def evaluate(self, fn: Callable[..., PyTree[Array]], *args: Any) -> PyTree[Array]:
        """Evaluate a function of the parameters at every draw.

        **Arguments:**

        - `fn`: a function `fn(params, *args)` of one draw's parameters.
        - `args`: passed on. Put arrays such as new data here rather than close over
            them: then the same compiled program serves other data.

        **Returns:**

        What `fn` returns, with a leading axis that runs over the draws.

        !!! Example

            ```python
            import jax
            import jax.numpy as jnp
            import vijax as vi

            target = vi.from_log_density(
                lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
            )
            family, key = vi.MeanField(jnp.zeros(1)), jax.random.key(0)
            draws = vi.draw(family, target, 100, key=key)
            draws.evaluate(lambda params, shift: (params["x"] + shift) ** 2, 1.0)
            ```
        """
        call = ", ".join(["params", *(f"arg_{i + 1}" for i in range(len(args)))])
        check_function("fn", fn, f"fn({call})", 1 + len(args))
        return evaluated(self.target, self.x, fn, args)

    def log_likelihood(self, data: Data = None) -> Params:
        """The log density of each observation given each draw.

        **Arguments:**

        - `data`: other data than those that the target was made with, such as a test
            set, as [`vijax.Target`][]`.with_data` takes them.

        **Returns:**

        A dictionary of arrays of shape `(draws, ...)`, by the names of what was
        observed; of a target from [`vijax.from_likelihood`][] one array `"rows"`.

        **Raises:** `ValueError` for a target that is a log density as a whole.

        !!! Example

            ```python
            import jax
            import jax.numpy as jnp
            import vijax as vi
            from jax.scipy.stats import norm

            target = vi.from_likelihood(
                lambda params: norm.logpdf(params["mu"]),
                lambda params, y: norm.logpdf(y, params["mu"]),
                {"mu": vi.Param()},
                jnp.arange(5.0),
            )
            family, key = vi.MeanField(jnp.zeros(1)), jax.random.key(0)
            draws = vi.draw(family, target, 100, key=key)
            draws.log_likelihood()["rows"].shape  # (100, 5)
            ```
        """
        model, data = rebound(self.target, data)
        return log_likelihoods(model, self.params, data)

    def predict(
        self, data: Data = None, *, key: Key, names: Sequence[str] | None = None
    ) -> Params:
        """New observations from the model, one set for each draw.

        **Arguments:**

        - `data`: the arguments or data of the model that change: `{name: value}`.
            Default: the observed data are drawn once more (a posterior predictive
            check).
        - `key`: randomness. Keyword only.
        - `names`: what is returned, if not the observed variables; deterministic ones
            may be among them. Keyword only.

        **Returns:**

        A dictionary of arrays of shape `(draws, ...)`.

        **Raises:** `ValueError` if the target is a density, from which nothing can be
        drawn, or does not know one of the names.

        !!! Example

            ```python
            import jax
            import jax.numpy as jnp
            import numpyro
            import numpyro.distributions as dist
            import vijax as vi

            def model(t, y=None):
                rate = numpyro.sample("rate", dist.Normal(0.0, 1.0))
                numpyro.sample("y", dist.Normal(rate * t, 1.0), obs=y)

            target = vi.from_numpyro(model, jnp.arange(5.0), jnp.arange(5.0))
            family, key = vi.FullRank(jnp.zeros(1)), jax.random.key(0)
            draws = vi.draw(family, target, 100, key=key)
            draws.predict({"t": jnp.arange(8.0), "y": None}, key=key)["y"].shape
            ```
        """
        key = as_key(key)
        chosen = None if names is None else as_names("names", names, '`["y"]`')
        if chosen == ():
            raise ValueError("`names` is empty. Leave it out for all that is observed.")
        model, data = rebound(self.target, data)
        return model.predict(key, self.params, data, chosen)

    def resample(
        self,
        num_draws: int | None = None,
        *,
        key: Key,
        replace: bool = True,
    ) -> "Draws":
        r"""Draws corrected by importance: closer to the target than the family is.

        Each draw is taken with a probability proportional to its importance weight,
        whose tail is Pareto-smoothed. This can correct what [`vijax.pareto_khat`][] calls
        good, below 0.7; it cannot find what no draw has seen. Draws that are corrected
        already are chosen anew from what they were chosen from.

        **Arguments:**

        - `num_draws`: how many are kept. Default: as many as there are, or a quarter of
            them without replacement.
        - `key`: randomness. Keyword only.
        - `replace`: whether a draw may come twice. Without, the result is a compromise
            between family and target, but has no ties. Keyword only.

        **Returns:**

        A [`vijax.Draws`][]. It has no `log_q`: its draws have no known density any more;
        what it was chosen from is its `proposal`.

        **Raises:** `ValueError` for draws without a density, weights that are all zero
        or NaN, or more draws than there are without replacement.

        **Reference:** Vehtari, Simpson, Gelman, Yao and Gabry (2024), *Pareto smoothed
        importance sampling*, [arXiv:1507.02646](https://arxiv.org/abs/1507.02646);
        without replacement: Efraimidis and Spirakis (2006), *Weighted random sampling
        with a reservoir*.

        !!! Example

            ```python
            import jax
            import jax.numpy as jnp
            import vijax as vi

            target = vi.from_log_density(
                lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
            )
            family = vi.MeanField(jnp.zeros(1), scale=2.0)
            draws = vi.draw(family, target, 4_000, key=jax.random.key(0))
            draws.resample(1_000, key=jax.random.key(1)).x.std()  # 1, not 2.
            ```
        """
        source, replace = self.weighted, as_flag("replace", replace)
        key, total = as_key(key), len(source)
        default = total if replace else max(1, total // 4)
        count = as_whole("num_draws", default if num_draws is None else num_draws, 1)
        if not replace and count > total:
            raise ValueError(
                f"`num_draws` is {count}, but there are {total} draws, which come once "
                "each without replacement. Draw more first, or use `replace=True`."
            )
        log_weights = smoothed_log_weights(source.log_p, source.need_log_q())
        choose = with_replacement if replace else without_replacement
        return chosen_draws(key, source, log_weights, count, choose)


def chosen_draws(
    key: Key, draws: Draws, log_weights: np.ndarray, num_draws: int, choose: Callable
) -> Draws:
    """Draws that `choose(key, log_weights, num_draws)` picks from others."""
    places = choose(Seed(key).generator(0), log_weights, num_draws)
    x, log_p = jax.device_put(
        (np.asarray(draws.x)[places], np.asarray(draws.log_p)[places])
    )
    origin = draws.origin | {"resampled": True}
    return Draws(x, None, log_p, draws.target, origin, draws)


def _difference(x: Array, y: Array) -> Array:
    xp, done = eager(x, y)
    with np.errstate(invalid="ignore"):
        return done(xp.asarray(x) - xp.asarray(y))


def check_draws(draws: Any) -> None:
    """Raise unless `draws` are some."""
    if not isinstance(draws, Draws):
        raise ValueError(
            f"`draws` must be a `vi.Draws`, but it is a {type(draws).__name__}. Draw "
            "first: `fit.draw(1_000, key=key)`."
        )
