from collections.abc import Iterable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, ArrayLike, Float, Scalar
from scipy.special import softmax

from .._arrays import one_by_one
from .._custom_types import Key, Point
from .._host_distributions import HostMixture
from .._misc import as_numbers, eager, is_traced
from .base import AbstractFamily


class Mixture(AbstractFamily):
    r"""A mixture of families of one kind, $\sum_k w_k\, q_k(x)$.

    For posteriors of several modes. Draws are not differentiable with respect to the
    weights: build one from fits of the modes, as [`vijax.Auto`][] does.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi

        modes = [vi.FullRank(jnp.array([c]), scale=0.5) for c in (-2.0, 2.0)]
        family = vi.Mixture(modes, weights=[0.3, 0.7])
        family.mean, family.std
        ```
    """

    components: AbstractFamily
    logits: Float[Array, " components"]

    def __init__(
        self,
        components: Sequence[AbstractFamily],
        weights: ArrayLike | Sequence[float] | None = None,
    ):
        """**Arguments:**

        - `components`: families of one kind and dimension.
        - `weights`: a positive number for each; their sum does not matter. Default: the
            same for all.

        **Raises:** `ValueError` if the components are not alike, or the weights not
        positive, or not as many.
        """
        given = components
        components = tuple(given if isinstance(given, Iterable) else [])
        structures = {
            (jax.tree.structure(c), tuple(jnp.shape(x) for x in jax.tree.leaves(c)))
            for c in components
        }
        if len(structures) != 1 or not isinstance(components[0], AbstractFamily):
            raise ValueError(
                "`components` must be families of one kind and dimension, such as "
                f"`[vi.FullRank(a), vi.FullRank(b)]`, but they are {given!r}."
            )
        xp, done = eager(components, weights)
        stack = lambda *x: done(xp.stack([xp.asarray(leaf) for leaf in x]))
        self.components = jax.tree.map(stack, *components)
        dtype = jax.tree.leaves(components[0])[0].dtype
        count = len(components)
        weights = np.ones(count) if weights is None else weights
        weights = as_numbers("weights", weights)
        if jnp.shape(weights) != (count,):
            raise ValueError(
                f"`weights` has shape {jnp.shape(weights)}, but there are {count} "
                "components."
            )
        if not is_traced(weights):
            values = np.asarray(weights)
            if not np.all((values > 0) & np.isfinite(values)):
                raise ValueError(
                    f"`weights` must be positive and finite, but they are {weights}."
                )
        self.logits = done(xp.log(xp.asarray(weights, dtype)))

    @property
    def dim(self) -> int:
        one = lambda components: jax.tree.map(lambda leaf: leaf[0], components)
        return eqx.filter_eval_shape(one, self.components).dim

    @property
    def weights(self) -> Float[Array, " components"]:
        """The weights of the components, which sum to one."""
        return jax.nn.softmax(self.logits)

    def _of_each(self, name: str) -> Array:
        return eqx.filter_vmap(lambda c: getattr(c, name))(self.components)

    @property
    def mean(self) -> Point:
        """The mean, of shape `(dim,)`."""
        return self.weights @ self._of_each("mean")

    @property
    def std(self) -> Point:
        """The standard deviations, of shape `(dim,)`."""
        return jnp.sqrt(jnp.diagonal(self.covariance))

    @property
    def covariance(self) -> Float[Array, "dim dim"]:
        """The covariance, of shape `(dim, dim)`."""
        apart = self._of_each("mean") - self.mean[None, :]
        between = jnp.einsum("k,ki,kj->ij", self.weights, apart, apart)
        within = jnp.einsum("k,kij->ij", self.weights, self._of_each("covariance"))
        return between + within

    def on_host(self) -> HostMixture | None:
        count = self.logits.shape[0]
        known = jax.tree.map(np.asarray, self.components)
        parts = [jax.tree.map(lambda x: x[i], known).on_host() for i in range(count)]  # noqa: B023
        known = [part for part in parts if part is not None]
        if len(known) < count:
            return None
        return HostMixture(known, softmax(np.asarray(self.logits, np.float64)))

    def log_prob(self, x: Point) -> Scalar:
        each = one_by_one(lambda c: c.log_prob(x), self.components)
        return logsumexp(jax.nn.log_softmax(self.logits) + each)

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        which_key, key = jr.split(key)
        which = jr.categorical(which_key, self.logits)
        chosen = jax.tree.map(lambda leaf: leaf[which], self.components)
        x = chosen.sample(key)
        return x, self.log_prob(x)
