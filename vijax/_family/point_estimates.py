from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Scalar

from .._custom_types import Key, Point
from .._misc import as_numbers, as_whole, others, put_together
from .base import AbstractFamily, check_family


class PointEstimates(AbstractFamily):
    r"""A family over some coordinates, and numbers for the others.

    What `vi.from_numpyro(model, ..., point=("sigma",))` is fitted by: $q(z)$ of the
    sites that have a posterior, times a point mass at $\theta$. Descent on the ELBO moves
    both, which is variational expectation-maximization:

    $$\max_{\theta,\, q} \; \mathbb{E}_{q(z)}[\log p(z, \theta) - \log q(z)].$$

    Densities are those of $q$ alone.

    **Attributes:**

    - `family`: the distribution of the other coordinates.
    - `values`: the estimates, on the unconstrained scale, of shape `(estimates,)`.
    - `places`: which coordinates are estimates, in increasing order.

    **Reference:** Neal and Hinton (1998), *A view of the EM algorithm that justifies
    incremental, sparse, and other variants*, equation 7.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        family = vi.PointEstimates(vi.MeanField(jnp.zeros(2)), jnp.array([3.0]), (1,))
        family.sample(jax.random.key(0))  # Three numbers, of which the second is 3.
        ```
    """

    family: AbstractFamily
    values: Array
    places: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, family: AbstractFamily, values: Any, places: Any):
        """**Arguments:**

        - `family`: the distribution of the coordinates that are no estimates.
        - `values`: the estimates.
        - `places`: the coordinates that they are.

        **Raises:** `ValueError` if these do not go together.
        """
        check_family("family", family)
        values, places = jnp.asarray(as_numbers("values", values)), _as_places(places)
        dim = family.dim + len(places)
        if sorted(set(places)) != list(places) or any(not 0 <= i < dim for i in places):
            raise ValueError(
                f"`places` must be different coordinates from 0 to {dim - 1}, in "
                f"increasing order, but they are {places}."
            )
        is_float = jnp.issubdtype(values.dtype, jnp.floating)
        if values.shape != (len(places),) or not is_float:
            raise ValueError(
                f"`values` must be {len(places)} floating-point numbers, as many as "
                f"`places`, but they have shape {values.shape} and dtype {values.dtype}."
            )
        self.family = family
        self.values = values
        self.places = places

    @property
    def dim(self) -> int:
        return self.family.dim + len(self.places)

    @property
    def has_density(self) -> bool:
        return self.family.has_density

    def _rest(self, x: Array) -> Array:
        return x[others(self.dim, self.places)]

    def _whole(self, rest: Array, values: ArrayLike) -> Array:
        values = jnp.broadcast_to(jnp.asarray(values, rest.dtype), self.values.shape)
        return put_together(rest, values, self.places)

    def log_prob(self, x: Point) -> Scalar:
        return self.family.log_prob(self._rest(x))

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        rest, log_prob = self.family.sample_and_log_prob(key)
        return self._whole(rest, self.values), log_prob

    def mirror(self, x: Point) -> Point:
        return self._whole(self.family.mirror(self._rest(x)), self.values)

    @property
    def mean(self) -> Point:
        """The mean, of shape `(dim,)`, where the family inside has one."""
        return self._whole(_known(self.family, "mean"), self.values)

    @property
    def std(self) -> Point:
        """Standard deviations, of shape `(dim,)`: zero for estimates."""
        return self._whole(_known(self.family, "std"), 0.0)

    @property
    def covariance(self) -> Array:
        """The covariance, of shape `(dim, dim)`: zero with estimates."""
        fill = jax.vmap(lambda row: self._whole(row, 0.0))
        return fill(fill(_known(self.family, "covariance")).T)


def _as_places(places: Any) -> tuple[int, ...]:
    if not isinstance(places, tuple | list) or not places:
        raise ValueError(
            "`places` must be a tuple of coordinates, one at least, but it is "
            f"{places!r}."
        )
    return tuple(as_whole("places", place, 0) for place in places)


def _known(family: AbstractFamily, name: str) -> Array:
    # Not every family knows each: that it does not is an `AttributeError` here too.
    return getattr(family, name)
