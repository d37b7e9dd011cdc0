"""Drawing from a family, with both densities."""

from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import Key, Point
from .._family.base import AbstractFamily, check_family
from .._keys import Seed
from .._misc import (
    as_key,
    as_whole,
    float_dtype,
    is_traced,
    map_in_batches,
    on_device,
    tree_size,
)
from .._target.probe import HostProbe
from .._target.target import check_target, Target
from .draws import Draws
from .psis import NUM_DRAWS


# With 16,384 draws of a mixture side by side, threads of XLA's CPU runtime were seen to
# wait for each other for ever.
_SIDE_BY_SIDE = 4_096
# Families without a form in NumPy are drawn from in blocks of so many.
_BLOCK = 512


def _draw(family: AbstractFamily, target: Target, num_draws: int, key: Key):
    def one(key: Key) -> tuple[Point, Array | None, Array]:
        if family.has_density:
            x, log_q = family.sample_and_log_prob(key)
        else:
            x, log_q = family.sample(key), None
        return x, log_q, target.log_density(x)

    keys = jr.split(key, num_draws)
    return map_in_batches(one, keys, tree_size(target.data), _SIDE_BY_SIDE)


@eqx.filter_jit
def _sample(family: AbstractFamily, key: Key, number: Array):
    def one(key: Key) -> tuple[Point, Array | None]:
        if family.has_density:
            return family.sample_and_log_prob(key)
        return family.sample(key), None

    return jax.vmap(one)(jr.split(jr.fold_in(key, number), _BLOCK))


def sampled(
    family: AbstractFamily, num_draws: int, key: Key
) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, " draws"] | None]:
    """Draws on the host, and the log density of the family there, if it has one."""
    on_host = family.on_host()
    if on_host is not None:
        return on_host.draw(Seed(key).generator(0), num_draws)
    blocks = range(-(-num_draws // _BLOCK))
    parts = [_sample(family, key, np.int32(i)) for i in blocks]  # pyright: ignore[reportArgumentType]
    together = lambda *leaves: np.concatenate(leaves)[:num_draws].astype(np.float64)
    return jax.tree.map(together, *parts)


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
    check_family("family", family)
    check_target(target)
    check_dimensions(family, target)
    if origin is not None and not isinstance(origin, dict):
        raise ValueError(f"`origin` must be a dictionary, but it is {origin!r}.")
    origin = {} if origin is None else origin
    if is_traced(family, target, key):
        x, log_q, log_p = _draw(family, target, num_draws, key)
        return Draws(x, log_q, log_p, target, origin)
    return drawn(family, HostProbe(target), num_draws, key, origin)


def drawn(
    family: AbstractFamily,
    probe: HostProbe,
    num_draws: int,
    key: Key,
    origin: dict[str, Any],
) -> Draws:
    """Draws on the host, where the probe evaluates the target."""
    x, log_q = sampled(family, num_draws, key)
    _, log_p, _ = probe.raw(x)
    x, log_q, log_p = on_device((x, log_q, log_p), float_dtype(family))
    return Draws(x, log_q, log_p, probe.target, origin)


def proposed(
    proposal: AbstractFamily, probe: HostProbe, num_draws: int, key: Key
) -> Draws:
    """Enough draws of a proposal to choose `num_draws` from by their weights."""
    return drawn(proposal, probe, max(NUM_DRAWS, num_draws), key, {})


def check_dimensions(family: AbstractFamily, target: Target) -> None:
    """Raise unless `family` lives where `target` does."""
    if family.dim != target.dim:
        raise ValueError(
            f"`family` has {family.dim} coordinates but `target` has {target.dim}. "
            "Build the family from a location of the target's dimension, e.g. "
            f"`vi.MeanField(jnp.zeros({target.dim}))`, or pass the class itself as a "
            "recipe: `family=vi.MeanField`."
        )
