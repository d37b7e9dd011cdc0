from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Int

from .._arrays import choose, namespace
from .._auto.modes import as_mixture, Gaussians, no_gaussians
from .._custom_types import AnyArray
from .._draws.proposal import heavy_tailed
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._linalg import gaussian_log_prob, index_of_largest, where_rows
from .._misc import as_whole, float_dtype
from .._solver import quasi_newton
from .._solver.quasi_newton import uniform_starts
from .._target.probe import Probes
from .base import AbstractAskTell, check_gaussian, F, moved, start_wide


class PathfinderState(NamedTuple):
    """The state of [`vijax.Pathfinder`][].

    `num_evaluations` counts gradients of the log density, `best` is the Gaussian of each
    path with the largest ELBO: minus infinity if the path failed.
    """

    paths: quasi_newton.Paths
    best: Gaussians
    is_done: Bool[AnyArray, ""]
    num_evaluations: Int[AnyArray, ""]

    @property
    def num_failed(self) -> Int[AnyArray, ""]:
        """How many paths have no Gaussian with a finite ELBO; they are left out."""
        xp = namespace(self.best.elbo)
        return xp.sum(~xp.isfinite(self.best.elbo))


class Pathfinder(AbstractAskTell):
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

    check = check_gaussian

    def begin_noise(self, dim: int) -> tuple[int, ...]:
        return (self.num_paths, dim)

    def step_noise(self, dim: int) -> tuple[int, ...]:
        return (self.num_paths + self.num_elbo_draws, dim)

    def begin(self, noise: AnyArray, family: Any) -> PathfinderState:
        xp, loc = namespace(noise), family.loc
        paths = quasi_newton.begin(loc, uniform_starts(noise))
        best = no_gaussians(self.num_paths, loc)
        return PathfinderState(paths, best, xp.array(False), xp.zeros((), xp.int32))

    def ask(self, noise: AnyArray, state: PathfinderState) -> tuple[AnyArray, int]:
        xp, e = namespace(noise), noise[self.num_paths :]
        loc, tril = quasi_newton.gaussians(state.paths)
        draws = loc[:, None, :] + xp.einsum("kij,sj->ksi", tril, e)
        trials, _ = quasi_newton.ask(state.paths)
        x = xp.concatenate([trials, draws.reshape(-1, trials.shape[1])])
        return x, len(x)

    def tell(
        self, noise: AnyArray, state: PathfinderState, probes: Probes
    ) -> tuple[PathfinderState, AnyArray]:
        xp, num_paths = namespace(noise), self.num_paths
        loc, tril = quasi_newton.gaussians(state.paths)
        log_q = gaussian_log_prob(tril, noise[num_paths:])
        log_p = probes.log_p[num_paths:].reshape(log_q.shape)
        elbo = xp.mean(log_p - log_q, axis=1)
        elbo = xp.where(state.paths.found, elbo, -xp.inf)
        # NaN is not better than anything.
        new = Gaussians(loc, tril, elbo)
        best = where_rows(elbo > state.best.elbo, new, state.best)
        # These are the Gaussians of before the step: once more after the last one.
        over = xp.all(state.paths.done)
        others = uniform_starts(noise[:num_paths])
        after = PathfinderState(
            paths=quasi_newton.tell(others, state.paths, probes),
            best=best,
            is_done=over,
            num_evaluations=state.num_evaluations + probes.count,
        )
        top = xp.max(best.elbo)
        found = xp.isfinite(top)
        loss = -xp.where(found, top, xp.max(after.paths.log_p))
        # At the end without any Gaussian, the run has failed.
        return after, xp.where(over & ~found, xp.nan, loss)

    def place(self, family: F, state: PathfinderState) -> F:
        assert isinstance(family, FullRank)
        first = index_of_largest(state.best.elbo)
        found = namespace(first).isfinite(state.best.elbo[first])
        best = state.best.loc[first], state.best.tril[first]
        return moved(family, *choose(found, best, (family.loc, family.tril)))

    def done(self, state: PathfinderState) -> Bool[AnyArray, ""]:
        return state.is_done

    def answer(self, family: AbstractFamily, state: PathfinderState) -> AbstractFamily:
        good = np.flatnonzero(np.isfinite(np.asarray(state.best.elbo)))
        if len(good) < 2:
            return family
        weights, dtype = np.ones(len(good)), float_dtype(family)
        return as_mixture(state.best, tuple(good.tolist()), weights, dtype)

    def proposal(self, family: AbstractFamily, state: PathfinderState) -> AbstractFamily:
        return heavy_tailed(self.answer(family, state))
