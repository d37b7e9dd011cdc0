from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ._custom_types import Key, Params, Point
from ._family.base import AbstractFamily
from ._misc import as_key, as_whole, map_in_batches, tree_size
from ._target import Target


class Draws(eqx.Module):
    """Draws from a family, with both log densities: all that a diagnostic may ask for.

    **Attributes:**

    - `x`: the draws, on the unconstrained scale.
    - `log_q`: the family's log density at each; `None` if it has none, as particles.
    - `log_p`: the target's unnormalized log density at each, against all of the data.
    - `target`: the target.
    - `origin`: what is known of where they come from, such as the method and its steps.
    """

    x: Float[Array, "draws dim"]
    log_q: Float[Array, " draws"] | None
    log_p: Float[Array, " draws"]
    target: Target
    origin: dict[str, Any] = eqx.field(default_factory=dict)

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def log_weights(self) -> Float[Array, " draws"]:
        """The log importance weights, `log_p - log_q`, of shape `(draws,)`.

        **Raises:** `ValueError` if the draws come from a family without a density.
        """
        return _difference(self.log_p, self.need_log_q())

    def need_log_q(self) -> Float[Array, " draws"]:
        """`log_q`, or a `ValueError` that says why there is none."""
        if self.log_q is None:
            raise ValueError(
                "These draws have no log density: they come from particles, which have "
                "none, so that neither an ELBO nor importance weights can be had. Put a "
                "Gaussian around each particle, `vi.Particles(fit.family.x, "
                "bandwidth=0.1)`, and draw from that with `vi.draw`; or fit a family "
                "with a density."
            )
        return self.log_q

    @property
    def params(self) -> Params:
        """The named parameters: a dictionary of arrays of shape `(draws, ...)`, inside
        their supports."""
        return _constrain(self.target, self.x)

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
        return _evaluate(self.target, self.x, fn, args)


@eqx.filter_jit
def _difference(x: Array, y: Array) -> Array:
    return x - y


@eqx.filter_jit
def _constrain(target: Target, x: Float[Array, "draws dim"]) -> Params:
    return jax.vmap(target.constrain)(x)


@eqx.filter_jit
def _evaluate(
    target: Target, x: Float[Array, "draws dim"], fn: Callable, args: tuple
) -> PyTree[Array]:
    one = lambda x: fn(target.constrain(x), *args)
    return map_in_batches(one, x, tree_size(args))


@eqx.filter_jit
def _draw(family: AbstractFamily, target: Target, num_draws: int, key: Key):
    def one(key: Key) -> tuple[Point, Array | None, Array]:
        if family.has_density:
            x, log_q = family.sample_and_log_prob(key)
        else:
            x, log_q = family.sample(key), None
        return x, log_q, target.log_density(x)

    return map_in_batches(one, jr.split(key, num_draws), tree_size(target.data))


def draw(
    family: AbstractFamily,
    target: Target,
    num_draws: int,
    *,
    key: Key,
    origin: dict[str, Any] | None = None,
) -> Draws:
    """Draw from a family, and evaluate both densities there.

    **Arguments:**

    - `family`: what to draw from.
    - `target`: what it approximates. All of its data are used, never a batch.
    - `num_draws`: how many draws.
    - `key`: randomness. Keyword only.
    - `origin`: kept as [`vijax.Draws`][]`.origin`. Keyword only.

    **Returns:**

    A [`vijax.Draws`][].

    **Raises:** `ValueError` if the dimensions of the two differ, or `num_draws` is not a
    positive whole number.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 100, key=jax.random.key(0))
        ```
    """
    num_draws, key = as_whole("num_draws", num_draws, 1), as_key(key)
    check_dimensions(family, target)
    x, log_q, log_p = _draw(family, target, num_draws, key)
    return Draws(x, log_q, log_p, target, {} if origin is None else origin)


def check_draws(draws: Any) -> None:
    """Raise unless `draws` are some."""
    if not isinstance(draws, Draws):
        raise ValueError(
            f"`draws` must be a `vi.Draws`, but it is a {type(draws).__name__}. Draw "
            "first: `fit.draw(1_000, key=key)`."
        )


def check_dimensions(family: AbstractFamily, target: Target) -> None:
    """Raise unless `family` lives where `target` does."""
    if family.dim != target.dim:
        raise ValueError(
            f"`family` has {family.dim} coordinates but `target` has {target.dim}. "
            "Build the family from a location of the target's dimension, e.g. "
            f"`vi.MeanField(jnp.zeros({target.dim}))`, or pass the class itself as a "
            "recipe: `family=vi.MeanField`."
        )
