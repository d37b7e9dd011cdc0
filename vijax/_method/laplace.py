from typing import NamedTuple

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._linalg import hessian, index_of_largest, triangular_root
from .._misc import as_whole, lenient_promotion
from .._solver import quasi_newton
from .._target.probe import probe
from .._target.target import Target
from .base import AbstractMethod, check_gaussian, F, moved, start_wide


_MAX_NEWTON = 20


class LaplaceState(NamedTuple):
    """The state of [`vijax.Laplace`][].

    `num_repaired` says how many directions of the Hessian had no negative curvature.
    """

    paths: quasi_newton.Paths
    num_newton: Int[Array, ""]
    num_repaired: Int[Array, ""]
    is_done: Bool[Array, ""]


class Laplace(AbstractMethod):
    r"""Laplace's approximation: the Gaussian at the mode, with its curvature.

    The mode is that of the density on the unconstrained scale, log-Jacobian included, and
    the best one of quasi-Newton paths from several starts, polished by Newton's method.
    Where the Hessian is not negative definite, the absolute values of its eigenvalues
    are taken (one for zero, in units of its diagonal), and `fit.state.num_repaired` says
    of how many. The loss is the negative log density at the best point.

    **Reference:** Tierney and Kadane (1986), *Accurate approximations for posterior
    moments and marginal densities*, JASA 81(393).

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi
        from numpyro.distributions import constraints

        positive = vi.Param(support=constraints.positive)
        target = vi.from_log_density(  # Gamma(4, 1).
            lambda params: 3 * jnp.log(params["x"]) - params["x"], {"x": positive}
        )
        fit = vi.fit(target, vi.Laplace(), key=jax.random.key(0))
        fit.mean["x"], fit.std["x"]  # log(4) and 1/2, on the unconstrained scale.
        ```
    """

    num_starts: int = eqx.field(static=True)

    def __init__(self, num_starts: int = 8):
        """**Arguments:**

        - `num_starts`: how many paths: one from the family's location, the others from
            uniform draws of (-2, 2).

        **Raises:** `ValueError` if it is not positive.
        """
        self.num_starts = as_whole("num_starts", num_starts, 1)

    start = start_wide

    def init(self, key: Key, family: AbstractFamily, target: Target) -> LaplaceState:
        loc = check_gaussian(self, family, target).loc
        no = jnp.zeros((), jnp.int32)
        paths = quasi_newton.begin(loc, self._others(key, loc))
        return LaplaceState(paths, no, no, jnp.array(False))

    def _others(self, key: Key, loc: Point) -> Float[Array, "paths dim"]:
        shape = self.num_starts, loc.size
        return jr.uniform(key, shape, loc.dtype, -2.0, 2.0)

    def step(
        self, key: Key, family: F, target: Target, state: LaplaceState
    ) -> tuple[F, LaplaceState, Scalar]:
        assert isinstance(family, FullRank)
        searching = ~jnp.all(state.paths.done)
        others = self._others(key, family.loc)

        def search():
            with lenient_promotion():
                x = quasi_newton.ask(state.paths)
            probes = probe(target, x, self.num_starts)
            with lenient_promotion():
                paths = quasi_newton.tell(others, state.paths, probes)
                best = paths.x[index_of_largest(paths.log_p)]
                loss = -jnp.max(paths.log_p)
                return best, family.tril, state._replace(paths=paths), loss

        def newton():
            best = index_of_largest(state.paths.log_p)
            first = state.num_newton == 0
            x = jnp.where(first, state.paths.x[best], family.loc)
            with lenient_promotion():
                return _newton(target, x, state)

        loc, tril, state, loss = lax.cond(searching, search, newton)
        return moved(family, loc, tril), state, loss

    def done(self, state: LaplaceState) -> Bool[Array, ""]:
        return state.is_done


def _newton(
    target: Target, x: Point, state: LaplaceState
) -> tuple[Point, Array, LaplaceState, Scalar]:
    """A step of Newton's method, and the Gaussian of the curvature before it."""
    value, score = jax.value_and_grad(target.log_density)(x)
    precision = -hessian(target.log_density, x)
    # Equilibrated, so that the eigenvalues of narrow and wide coordinates compare.
    scale = 1 / jnp.sqrt(jnp.maximum(jnp.abs(jnp.diagonal(precision)), 1e-6))
    unit = scale[:, None] * precision * scale[None, :]
    values, vectors = jnp.linalg.eigh(0.5 * (unit + unit.T))
    eps = np.finfo(x.dtype).eps.item() * x.size
    bad = values <= eps
    fixed = jnp.where(jnp.abs(values) > eps, jnp.abs(values), 1.0)
    root = scale[:, None] * vectors / jnp.sqrt(fixed)
    step = root @ (root.T @ score)
    tril = triangular_root(root)
    decrement = jnp.dot(step, score)
    # No further than the density rises: half as far until it does.
    density = target.log_density
    tries = jnp.array([1.0, 0.5, 0.25, 0.0625, 0.0], x.dtype)
    after = lax.map(lambda rate: density(x + rate * step), tries)
    after = jnp.where(jnp.isnan(after), -jnp.inf, after)
    rate = tries[jnp.argmax(after)]
    num_newton = state.num_newton + 1
    tight = decrement < 1e3 * np.finfo(x.dtype).eps.item()
    over = tight | (rate == 0) | (num_newton >= _MAX_NEWTON)
    state = state._replace(
        num_newton=num_newton,
        num_repaired=jnp.sum(bad).astype(jnp.int32),
        is_done=over,
    )
    return x + rate * step, tril, state, -value
