from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from .._arrays import cond, eigh, namespace, switch, switch_points
from .._custom_types import AnyArray
from .._linalg import index_of_largest, triangular_root
from .._misc import as_whole
from .._solver import curvature, quasi_newton
from .._solver.quasi_newton import uniform_starts
from .._target.probe import Probes
from .base import AbstractAskTell, check_gaussian, place_gaussian, start_wide


_MAX_NEWTON = 20
_SEARCH, _LOOK, _TRY, _DONE = range(4)
# The parts of a Newton step that are tried, down to none.
_RATES = np.array([1.0, 0.5, 0.25, 0.0625, 0.0])
# How much shorter differences are where one of their points has no finite density.
_SHORTER = 0.1


class LaplaceState(NamedTuple):
    """The state of [`vijax.Laplace`][].

    `num_repaired` says how many directions of the Hessian had no negative curvature. The
    Gaussian is the one at `loc` with the Cholesky factor `tril`; `log_p`, `score` and
    `step`, of Newton's method, are those there; `width` is that of differences.
    """

    stage: Int[AnyArray, ""]
    paths: quasi_newton.Paths
    loc: Float[AnyArray, " dim"]
    tril: Float[AnyArray, "dim dim"]
    log_p: Float[AnyArray, ""]
    score: Float[AnyArray, " dim"]
    step: Float[AnyArray, " dim"]
    width: Float[AnyArray, ""]
    num_newton: Int[AnyArray, ""]
    num_repaired: Int[AnyArray, ""]


class Laplace(AbstractAskTell):
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

    check = check_gaussian

    def begin_noise(self, dim: int) -> tuple[int, ...]:
        return (self.num_starts, dim)

    step_noise = begin_noise

    def begin(self, noise: AnyArray, family: Any) -> LaplaceState:
        xp, loc = namespace(noise), family.loc
        zero = xp.zeros((), loc.dtype)
        return LaplaceState(
            stage=xp.full((), _SEARCH, xp.int32),
            paths=quasi_newton.begin(loc, uniform_starts(noise)),
            loc=loc,
            tril=family.tril,
            log_p=zero - xp.inf,
            score=xp.zeros_like(loc),
            step=xp.zeros_like(loc),
            width=zero,
            num_newton=xp.zeros((), xp.int32),
            num_repaired=xp.zeros((), xp.int32),
        )

    def ask(self, noise: AnyArray, state: LaplaceState) -> tuple[AnyArray, AnyArray]:
        most = max(self.num_starts, 4 * noise.shape[1], len(_RATES))
        asks = lambda state: quasi_newton.ask(state.paths), _around, _along, _along
        return switch_points(state.stage, asks, most, state)

    def tell(
        self, noise: AnyArray, state: LaplaceState, probes: Probes
    ) -> tuple[LaplaceState, AnyArray]:
        tells = self._searched, _looked, _tried, lambda noise, state, probes: state
        state = switch(state.stage, tells, noise, state, probes)
        return state, -state.log_p

    def _searched(
        self, noise: AnyArray, state: LaplaceState, probes: Probes
    ) -> LaplaceState:
        xp, others = namespace(noise), uniform_starts(noise)
        paths = quasi_newton.tell(others, state.paths, probes)
        best = index_of_largest(paths.log_p)
        over = xp.all(paths.done)
        # What the path knows of the curvature is a unit for the differences of scores.
        roots = lambda: quasi_newton.gaussians(paths)[1][best]
        root = cond(over, roots, lambda: state.tril)
        known = xp.all(xp.isfinite(root))
        width = curvature.width_for(probes.eps)
        return state._replace(
            stage=xp.where(over, _LOOK, _SEARCH).astype(xp.int32),
            paths=paths,
            loc=paths.x[best],
            tril=xp.where(known, root, state.tril),
            log_p=paths.log_p[best],
            score=paths.score[best],
            width=xp.asarray(width, state.width.dtype),
        )

    place = place_gaussian

    def done(self, state: LaplaceState) -> Bool[AnyArray, ""]:
        return state.stage == _DONE


def _around(state: LaplaceState) -> AnyArray:
    return curvature.around(state.loc, state.tril, state.width)


def _along(state: LaplaceState) -> AnyArray:
    return state.loc + _RATES.astype(state.loc.dtype)[:, None] * state.step


def _looked(noise: AnyArray, state: LaplaceState, probes: Probes) -> LaplaceState:
    """The Gaussian of the curvature, and Newton's step."""
    xp, dim = namespace(noise), noise.shape[1]
    probes = probes.first(4 * dim)
    precision = curvature.curvature(probes.score, state.tril, state.width)
    # Equilibrated, so that the eigenvalues of narrow and wide coordinates compare.
    scale = 1 / xp.sqrt(xp.maximum(xp.abs(xp.diagonal(precision)), 1e-6))
    unit = scale[:, None] * precision * scale[None, :]
    values, vectors = eigh(unit)
    # What rounding makes of a zero.
    noise_level = 10 * dim * probes.eps / state.width
    bad = values <= noise_level
    fixed = xp.where(xp.abs(values) > noise_level, xp.abs(values), 1)
    root = state.tril @ (scale[:, None] * vectors / xp.sqrt(fixed))
    sound = xp.all(probes.finite) & xp.all(xp.isfinite(root))
    num_newton = state.num_newton + 1
    tired = num_newton >= _MAX_NEWTON
    shorter = xp.where(tired, _DONE, _LOOK)
    return state._replace(
        stage=xp.where(sound, _TRY, shorter).astype(xp.int32),
        tril=xp.where(sound, triangular_root(root), state.tril),
        step=xp.where(sound, root @ (root.T @ state.score), state.step),
        width=xp.where(sound, state.width, _SHORTER * state.width),
        num_newton=num_newton,
        num_repaired=xp.where(sound, xp.sum(bad), state.num_repaired).astype(xp.int32),
    )


def _tried(noise: AnyArray, state: LaplaceState, probes: Probes) -> LaplaceState:
    """No further than the density rises: half as far until it does."""
    xp = namespace(noise)
    probes = probes.first(len(_RATES))
    best = xp.argmax(probes.log_p)
    decrement = xp.sum(state.step * state.score)
    over = (decrement < 1e3 * probes.eps) | (best == len(_RATES) - 1)
    # The first unit of the differences was a guess.
    over = (over & (state.num_newton > 1)) | (state.num_newton >= _MAX_NEWTON)
    return state._replace(
        stage=xp.where(over, _DONE, _LOOK).astype(xp.int32),
        loc=probes.x[best],
        log_p=probes.log_p[best],
        score=probes.score[best],
    )
