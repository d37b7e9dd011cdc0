from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._auto.modes import as_mixture, Gaussians, no_gaussians
from .._custom_types import Key, Point
from .._draws.proposal import heavy_tailed
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._linalg import gaussian_log_prob, index_of_largest, where_rows
from .._misc import as_whole, lenient_promotion
from .._solver import quasi_newton
from .._target.probe import probe
from .._target.target import Target
from .base import AbstractMethod, check_gaussian, F, moved, start_wide


class PathfinderState(NamedTuple):
    """The state of [`vijax.Pathfinder`][].

    `num_evaluations` counts gradients of the log density, `best` is the Gaussian of each
    path with the largest ELBO: minus infinity if the path failed.
    """

    paths: quasi_newton.Paths
    best: Gaussians
    is_done: Bool[Array, ""]
    num_evaluations: Int[Array, ""]

    @property
    def num_failed(self) -> Int[Array, ""]:
        """How many paths have no Gaussian with a finite ELBO; they are left out."""
        return jnp.sum(~jnp.isfinite(self.best.elbo))


class Pathfinder(AbstractMethod):
    r"""Pathfinder: the best Gaussian along each of several quasi-Newton paths.

    At every iterate of a path, the last one included, the inverse Hessian estimate makes
    a Gaussian, whose ELBO a few draws tell; the best one is kept. The answer is the
    mixture of all paths' Gaussians with equal weights; `fit.draw` chooses from it by
    Pareto-smoothed importance weights whose denominator is the *mixture's* density, with
    heavier tails. Paths that fail are left out: `fit.state.num_failed` says how many. It
    is quick and rough; a start for better methods, such as [`vijax.NaturalGradient`][].
    The loss is the negative ELBO of the best path.

    Each path holds its whole inverse Hessian, of `dim**2` numbers, where the paper keeps
    a factor of low rank.

    **Reference:** Zhang, Carpenter, Gelman and Vehtari (2022), *Pathfinder: parallel
    quasi-Newton variational inference*, JMLR 23(306), algorithms 1 and 2.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, vi.Pathfinder(), key=jax.random.key(0))
        fit.draw(1_000, key=jax.random.key(1)).params["x"].mean()
        ```
    """

    num_paths: int = eqx.field(static=True)
    num_elbo_draws: int = eqx.field(static=True)

    def __init__(self, num_paths: int = 4, num_elbo_draws: int = 10):
        """**Arguments:**

        - `num_paths`: how many paths: one from the family's location, the others from
            uniform draws of (-2, 2). One for single-path Pathfinder.
        - `num_elbo_draws`: how many draws estimate the ELBO at an iterate.

        **Raises:** `ValueError` for numbers that are not positive.
        """
        self.num_paths = as_whole("num_paths", num_paths, 1)
        self.num_elbo_draws = as_whole("num_elbo_draws", num_elbo_draws, 1)

    start = start_wide

    def _others(self, key: Key, loc: Point) -> Float[Array, "paths dim"]:
        shape = self.num_paths, loc.size
        return jr.uniform(key, shape, loc.dtype, -2.0, 2.0)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> PathfinderState:
        loc = check_gaussian(self, family, target).loc
        paths = quasi_newton.begin(loc, self._others(key, loc))
        best = no_gaussians(self.num_paths, loc)
        return PathfinderState(paths, best, jnp.array(False), jnp.zeros((), jnp.int32))

    def step(
        self, key: Key, family: F, target: Target, state: PathfinderState
    ) -> tuple[F, PathfinderState, Scalar]:
        assert isinstance(family, FullRank)
        place_key, noise_key = jr.split(key)
        others = self._others(place_key, family.loc)
        shape = self.num_elbo_draws, family.dim
        e = jr.normal(noise_key, shape, family.loc.dtype)
        with lenient_promotion():
            loc, tril = quasi_newton.gaussians(state.paths)
            draws = loc[:, None, :] + jnp.einsum("kij,sj->ksi", tril, e)
            trials = quasi_newton.ask(state.paths)
            x = jnp.concatenate([trials, draws.reshape(-1, family.dim)])
        probes = probe(target, x, len(x))
        with lenient_promotion():
            log_q = jax.vmap(lambda tril: gaussian_log_prob(tril, e))(tril)
            log_p = probes.log_p[self.num_paths :].reshape(log_q.shape)
            elbo = jnp.mean(log_p - log_q, axis=1)
            elbo = jnp.where(state.paths.found, elbo, -jnp.inf)
            # NaN is not better than anything.
            new = Gaussians(loc, tril, elbo)
            best = where_rows(elbo > state.best.elbo, new, state.best)
            # These are the Gaussians of before the step: once more after the last one.
            over = jnp.all(state.paths.done)
            after = PathfinderState(
                paths=quasi_newton.tell(others, state.paths, probes[: self.num_paths]),
                best=best,
                is_done=over,
                num_evaluations=state.num_evaluations + jnp.int32(len(x)),
            )
            first = index_of_largest(best.elbo)
            found = jnp.isfinite(best.elbo[first])
            family = moved(
                family,
                jnp.where(found, best.loc[first], family.loc),
                jnp.where(found, best.tril[first], family.tril),
            )
            top = jnp.where(found, best.elbo[first], jnp.max(after.paths.log_p))
            # At the end without any Gaussian, the run has failed.
            return family, after, jnp.where(over & ~found, jnp.nan, -top)

    def done(self, state: PathfinderState) -> Bool[Array, ""]:
        return state.is_done

    def answer(self, family: AbstractFamily, state: PathfinderState) -> AbstractFamily:
        good = np.flatnonzero(np.isfinite(np.asarray(state.best.elbo)))
        if len(good) < 2:
            return family
        return as_mixture(state.best, tuple(good.tolist()), np.ones(len(good)))

    def proposal(self, family: AbstractFamily, state: PathfinderState) -> AbstractFamily:
        return heavy_tailed(self.answer(family, state))
