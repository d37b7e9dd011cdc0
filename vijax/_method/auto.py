"""The default as a method: its stages, one step at a time."""

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Bool, Scalar

from .._auto import stages
from .._auto.budget import for_the_gaussian
from .._auto.modes import as_mixture
from .._auto.stages import AutoState
from .._custom_types import Key, Point
from .._draws.proposal import heavy_tailed
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._misc import as_whole, lenient_promotion
from .._target.probe import probe
from .._target.target import Target
from .base import AbstractMethod, check_gaussian, F, moved, start_wide


class Auto(AbstractMethod):
    r"""Variational inference without tuning: a Gaussian by natural gradients.

    Quasi-Newton paths from several starts; the best Gaussian on them by its ELBO; from
    there natural gradients of the ELBO, with as many draws as a stable answer takes.
    Where paths end apart and none of the ends is negligible, each is followed, and the
    answer is a mixture. It ends by itself. Where importance weights are poor,
    [`vijax.fit`][] then tries heavier tails for them, up to 15 coordinates, and a small
    flow, up to 300, which it trains for longer if it must; and `fit.draw` corrects draws
    by these weights. The name `"auto"`, the default, stands for it.

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

    def init(self, key: Key, family: AbstractFamily, target: Target) -> AutoState:
        family = check_gaussian(self, family, target)
        half = _half(key, self.num_starts, family.loc)
        return stages.begin(half, family.loc, family.tril, self.num_starts)

    def step(
        self, key: Key, family: F, target: Target, state: AutoState
    ) -> tuple[F, AutoState, Scalar]:
        assert isinstance(family, FullRank)
        # Random numbers and the model once, outside the branches: they are what compiles
        # slowly.
        half = _half(key, stages.num_lanes(self.num_starts) // 2, family.loc)
        with lenient_promotion():
            x, count = stages.ask(half, state)
        probes = probe(target, x, count)
        with lenient_promotion():
            state = state._replace(num_evaluations=state.num_evaluations + count)
            state = stages.tell(half, state, probes)
            most = for_the_gaussian(self.max_evaluations, family.dim)
            another = stages.num_lanes(self.num_starts)
            spent = state.num_evaluations > most - another
            state = jax.lax.cond(spent, stages.finish, lambda state: state, state)
            best = stages.best_gaussian(family.loc, family.tril, state)
            return moved(family, *best), state, state.loss

    def done(self, state: AutoState) -> Bool[Array, ""]:
        return state.stage == stages.DONE

    def answer(self, family: AbstractFamily, state: AutoState) -> AbstractFamily:
        kept, weights = state.modes.weighty()
        if len(kept) < 2:
            return family
        return as_mixture(state.modes.gaussians, tuple(kept.tolist()), weights)

    def proposal(self, family: AbstractFamily, state: AutoState) -> AbstractFamily:
        return heavy_tailed(self.answer(family, state), heavier=bool(state.heavier))


def _half(key: Key, count: int, loc: Point) -> Array:
    return jr.normal(key, (count, loc.size), loc.dtype)
