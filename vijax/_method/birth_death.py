from typing import Generic

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, Scalar

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._family.particles import Particles
from .._kernel.base import Positions, squared_distances
from .._misc import as_whole, map_in_batches, tree_size
from .._target.target import Target
from .base import AbstractMethod, F, State


# Densities are judged by the distance to so many neighbors among so many particles.
_NEIGHBORS = 10
_NEIGHBORHOOD = 256
# A log ratio beyond all that makes a difference.
_FAR = 1e6


class _BirthDeathState(eqx.Module, Generic[F]):
    inner: State
    num_steps: Int[Array, ""]


class BirthDeath(AbstractMethod):
    r"""Another method for particles, with births and deaths that weigh the modes.

    The Stein force of particles in one mode knows next to nothing of another, so that
    [`vijax.SVGD`][] leaves in each mode as many particles as started near it. Here,
    every so many steps, particles die where they lie denser than the target and are born
    where they lie thinner: at rates of $\log p - \log q$, with $q$ estimated from the
    distance to a particle's nearest neighbors, and smoothed over these. The rates fall
    as $1 / t$, so that the particles come to rest.

    A mode that no particle has found stays unknown. With batches of rows, whose log
    densities are too noisy to weigh anything by, there are no births and deaths. A
    record of the loss shows a small jump after each.

    **Reference:** Lu, Lu and Nolen (2019), *Accelerating Langevin sampling with
    birth-death*, [arXiv:1905.09863](https://arxiv.org/abs/1905.09863), equation 1.4 for
    the rates. Neighbors in place of a kernel for $\log q$ are our own.

    !!! Example

        ```python
        import vijax as vi

        method = vi.BirthDeath(vi.SVGD(num_particles=500))
        ```
    """

    method: AbstractMethod
    every: int = eqx.field(static=True)

    def __init__(self, method: AbstractMethod, every: int = 10):
        """**Arguments:**

        - `method`: what moves the particles, such as [`vijax.SVGD`][].
        - `every`: how many steps lie between two rounds of births and deaths.

        **Raises:** `ValueError` for something else.
        """
        if not isinstance(method, AbstractMethod):
            raise ValueError(
                f"`method` must be a method such as `vi.SVGD()`, but it is {method!r}."
            )
        self.method = method
        self.every = as_whole("every", every, 1)

    def start(self, key: Key, loc: Array) -> AbstractFamily:
        return self.method.start(key, loc)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> State:
        inner = self.method.init(key, family, target)
        if not isinstance(family, Particles):
            raise ValueError(
                f"Cannot use `vi.BirthDeath` with `{type(family).__name__}`. This is "
                "because only particles are born and die: use it around `vi.SVGD()`."
            )
        return _BirthDeathState(inner, jnp.zeros((), jnp.int32))

    def step(
        self, key: Key, family: F, target: Target, state: _BirthDeathState
    ) -> tuple[F, State, Scalar]:
        family, inner, loss = self.method.step(key, family, target, state.inner)
        num_steps = state.num_steps + 1
        if target.is_batch:
            return family, _BirthDeathState(inner, num_steps), loss
        assert isinstance(family, Particles)
        x = family.x

        def replace() -> tuple[Positions, State]:
            strength = 1 / (1 + num_steps.astype(x.dtype) / 300)
            parents, noise = _generation(jr.fold_in(key, self.every), x, target, strength)
            # An optimizer's memory of a particle goes to its children.
            inherit = lambda leaf: (
                leaf[parents] if eqx.is_array(leaf) and leaf.shape == x.shape else leaf
            )
            return x[parents] + noise, jax.tree.map(inherit, inner)

        due = num_steps % self.every == 0
        x, inner = lax.cond(due, replace, lambda: (x, inner))
        family = eqx.tree_at(lambda family: family.x, family, x)
        return family, _BirthDeathState(inner, num_steps), loss


def _generation(
    key: Key, x: Positions, target: Target, strength: Scalar
) -> tuple[Int[Array, " particles"], Float[Array, "particles dim"]]:
    """The parent of each new particle, and its distance from it: none if it is the
    first child, or twins would never part."""
    subset_key, pick_key, noise_key = jr.split(key, 3)
    num_particles, dim = x.shape
    num_others = min(num_particles, _NEIGHBORHOOD)
    num_neighbors = min(_NEIGHBORS, num_others - 1)
    if num_neighbors == 0:
        return jnp.arange(num_particles), jnp.zeros_like(x)
    others = jr.permutation(subset_key, num_particles)[:num_others]
    # One more, since some find themselves.
    squared = jax.vmap(lambda y: squared_distances(x[others], y))(x)

    def next_nearest(_, squared_radius: Array) -> Array:
        beyond = squared > squared_radius[:, None]
        return jnp.min(jnp.where(beyond, squared, jnp.inf), axis=1)

    # A few passes over the distances cost less than sorting them.
    nobody = jnp.full(num_particles, -1.0, x.dtype)
    squared_radius = lax.fori_loop(0, num_neighbors + 1, next_nearest, nobody)
    near = (squared <= squared_radius[:, None]).astype(x.dtype)
    limits = jnp.finfo(x.dtype)
    radius = jnp.sqrt(jnp.clip(squared_radius, limits.tiny, limits.max))
    log_p = map_in_batches(target.log_density, x, tree_size(target.data))
    # The density is as the inverse of the volume that its neighbors take.
    log_ratio = log_p + dim * jnp.log(radius)
    log_ratio = jnp.where(jnp.isfinite(log_ratio), log_ratio, -jnp.inf)
    highest = jnp.max(log_ratio)
    log_ratio = jnp.where(jnp.isfinite(highest), log_ratio - highest, 0.0)
    # Where the density vanishes as bad as can be, but no worse: it is averaged over.
    log_ratio = jnp.maximum(log_ratio, -_FAR)[others]
    smooth = jnp.dot(near, log_ratio) / jnp.sum(near, axis=1)
    rates = jnp.clip(strength * (smooth - jnp.mean(smooth)), -1.0, 1.0)
    edges = jnp.cumsum(jax.nn.softmax(rates))
    steps = jr.uniform(pick_key, (), x.dtype) + jnp.arange(num_particles, dtype=x.dtype)
    parents = jnp.searchsorted(edges, steps / num_particles * edges[-1])
    parents = jnp.minimum(parents, num_particles - 1)
    again = jnp.concatenate([jnp.array([False]), parents[1:] == parents[:-1]])
    size = radius[parents] / dim**0.5
    noise = size[:, None] * jr.normal(noise_key, x.shape, x.dtype)
    return parents, jnp.where(again[:, None], noise, 0.0)
