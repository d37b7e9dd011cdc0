"""What NUTS starts from."""

import equinox as eqx
from jaxtyping import Array, Float, Scalar

from .._custom_types import Params, Point
from .._family.base import AbstractFamily
from .._target.target import Target


class NUTSStart(eqx.Module):
    """Where NUTS starts, and the scales and correlations that it need not learn.

    Everything is on the unconstrained scale: as the flat vectors that
    `target.log_density` takes, and once more by name, as NumPyro has it for a model. With
    `neutra=True` the flat vectors are coordinates of the approximation.

    **Attributes:**

    - `positions`: one starting point a chain, of shape `(num_chains, dim)`.
    - `inverse_mass_matrix`: the covariance of the approximation, of shape `(dim, dim)`;
        or, where `dense` is false, its variances, of shape `(dim,)`.
    - `positions_by_site`: `{site: array of shape (num_chains, ...)}`, the same points, on
        the unconstrained scale always.
    - `inverse_mass_matrix_by_site`: `{(site, ...): matrix}`, the same matrix, with the
        sites in alphabetical order both in the key and in the matrix; empty with
        `neutra=True`, since no site has such coordinates.
    - `target`: what is to be sampled.
    - `family`: whose coordinates the positions are in; `None` on the unconstrained scale.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 100, key=jax.random.key(0))
        start = vi.to_nuts(draws)
        start.positions, start.inverse_mass_matrix, start.positions_by_site["x"]
        ```
    """

    positions: Float[Array, "chains dim"]
    inverse_mass_matrix: Float[Array, "dim dim"] | Float[Array, " dim"]
    positions_by_site: Params
    inverse_mass_matrix_by_site: dict[tuple[str, ...], Array]
    target: Target
    family: AbstractFamily | None = None

    @property
    def dense(self) -> bool:
        """Whether the matrix is a full one, rather than its diagonal."""
        return self.inverse_mass_matrix.ndim == 2

    def unconstrained(self, position: Point) -> Point:
        """The point on the unconstrained scale where NUTS is, of shape `(dim,)`."""
        return position if self.family is None else self.family.outward(position)[0]

    def log_density(self, position: Point) -> Scalar:
        """What NUTS is to sample: the target's log density in these coordinates."""
        if self.family is None:
            return self.target.log_density(position)
        x, log_det = self.family.outward(position)
        return self.target.log_density(x) + log_det

    def constrain(self, position: Point) -> Params:
        """The parameters by name where NUTS is, each within its support."""
        return self.target.constrain(self.unconstrained(position))
