"""The default as a method: its stages, one step at a time."""

from typing import Any

import equinox as eqx
from jaxtyping import Bool

from .._arrays import cond
from .._auto import stages
from .._auto.budget import for_the_gaussian
from .._auto.modes import as_mixture
from .._auto.stages import AutoState
from .._custom_types import AnyArray
from .._draws.proposal import heavy_tailed
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._misc import as_whole, float_dtype
from .._target.probe import Probes
from .base import AbstractAskTell, check_gaussian, F, moved, start_wide


class Auto(AbstractAskTell):
    r"""Variational inference without tuning: a Gaussian by natural gradients.

    Quasi-Newton paths from several starts; the best Gaussian on them by its ELBO; from
    there natural gradients of the ELBO, with as many draws as a stable answer takes.
    Where paths end apart and none of the ends is negligible, each is followed, and the
    answer is a mixture. It ends by itself. [`vijax.fit`][] then looks for more modes (not
    inside `jax.jit`) from starts around the answer, at its images under changes of signs
    and labels, and anywhere, until by Good and Turing few starts would lead to modes that
    nobody has seen. Where importance weights are poor, it tries heavier tails for them,
    up to 15 coordinates; a few globals by importance sampling and the others nearly
    Gaussian given these, up to 300 coordinates, as [`vijax.Nested`][] does (not inside
    `jax.jit`); and a small flow, up to 300, which it trains for longer if it must.
    `fit.draw` corrects draws by these weights. The name `"auto"`, the default, stands for
    it.

    Where steps see batches of the data, this is done with a part of the rows, whose
    likelihood stands for all; then stochastic gradients with all the rows move the
    Gaussian, in its own coordinates, until its moments have settled. There
    `max_evaluations` bounds the first stage, and `max_steps` of the fit the second.

    **Reference:** Zhang, Carpenter, Gelman and Vehtari (2022), *Pathfinder: parallel
    quasi-Newton variational inference*, JMLR 23(306); Lin, Khan and Schmidt (2019),
    *Stein's lemma for the reparameterization trick with exponential family mixtures*,
    [arXiv:1910.13398](https://arxiv.org/abs/1910.13398).

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, vi.Auto(max_evaluations=10_000), key=jax.random.key(0))
        fit.draw(1_000, key=jax.random.key(1)).params["x"].mean()
        ```
    """

    num_starts: int = eqx.field(static=True)
    max_evaluations: int = eqx.field(static=True)

    def __init__(self, num_starts: int = 16, max_evaluations: int = 500_000):
        """**Arguments:**

        - `num_starts`: how many quasi-Newton paths there are: one from the model's own
            starting point, the others from uniform draws of (-2, 2), a quarter of them
            of (-8, 8).
        - `max_evaluations`: the most gradients of the log density. A richer family is
            tried, and trained for longer, only if it would not exceed this; where it
            takes no more than four fifths, the Gaussian leaves it room.

        **Raises:** `ValueError` for numbers that are not positive.
        """
        self.num_starts = as_whole("num_starts", num_starts, 1)
        self.max_evaluations = as_whole("max_evaluations", max_evaluations, 1)

    start = start_wide

    check = check_gaussian

    def begin_noise(self, dim: int) -> tuple[int, ...]:
        return (self.num_starts, dim)

    def step_noise(self, dim: int) -> tuple[int, ...]:
        return (stages.num_lanes(self.num_starts) // 2, dim)

    def begin(self, noise: AnyArray, family: Any) -> AutoState:
        return stages.begin(noise, family.loc, family.tril, self.num_starts)

    def ask(self, noise: AnyArray, state: AutoState) -> tuple[AnyArray, Any]:
        return stages.ask(noise, state)

    def tell(
        self, noise: AnyArray, state: AutoState, probes: Probes
    ) -> tuple[AutoState, AnyArray]:
        state = stages.tell(noise, state, probes)
        made = state.num_evaluations + probes.count
        state = state._replace(num_evaluations=made)
        most = for_the_gaussian(self.max_evaluations, noise.shape[1])
        spent = state.num_evaluations > most - stages.num_lanes(self.num_starts)
        state = cond(spent, stages.finish, lambda state: state, state)
        return state, state.loss

    def place(self, family: F, state: AutoState) -> F:
        assert isinstance(family, FullRank)
        return moved(family, *stages.best_gaussian(family.loc, family.tril, state))

    def done(self, state: AutoState) -> Bool[AnyArray, ""]:
        return state.stage >= stages.DONE

    def doing(self, state: AutoState) -> str:
        name = "Gaussian" if int(state.stage) == stages.ASCEND else "search"
        return f"{name}, {int(state.num_evaluations):,} gradients"

    def answer(self, family: AbstractFamily, state: AutoState) -> AbstractFamily:
        kept, weights = state.modes.weighty()
        if len(kept) < 2:
            return family
        dtype = float_dtype(family)
        return as_mixture(state.modes.gaussians, tuple(kept.tolist()), weights, dtype)

    def proposal(self, family: AbstractFamily, state: AutoState) -> AbstractFamily:
        return heavy_tailed(self.answer(family, state), heavier=bool(state.heavier))
