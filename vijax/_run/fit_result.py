"""What `vi.fit` hands back: the family, its history, and how to go on."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree

from .._closures import Held
from .._custom_types import Key, Params
from .._draws.correction import (
    chosen_correction,
    corrected as corrected_draws,
    Correction,
    NONE,
    Parts,
)
from .._draws.draw import draw
from .._draws.draws import Draws
from .._draws.proposal import heavy_tailed
from .._family.base import AbstractFamily, has_moment
from .._family.point_estimates import PointEstimates
from .._keys import key_for
from .._loop.base import AbstractStop, Problem, Progress
from .._method.base import AbstractMethod, F, label, State
from .._misc import as_flag, as_key, as_whole, is_any_array, is_traced, is_tracer
from .._nested.stages import has_answer
from .._nested.state import NestedState
from .._target.coordinates import names_of
from .._target.probe import HostProbe
from .._target.target import Target
from .._target.threads import one_thread
from .options import Options
from .results import name_of
from .resume import resumed


# A number that no method folds into the key of its steps.
_CORRECTING = 0xC022


class Fit(eqx.Module, Generic[F]):
    """What a run hands back: the fitted family, and all that it takes to go on.

    **Attributes:**

    - `losses`: the loss of each step, of shape `(num_steps,)`; NaN where the step was
        skipped. Inside somebody's `jax.jit` its shape is `(max_steps,)`, NaN at the end.
    - `trackers`: `{name: records}`, what each tracker saw; the leading axis runs over
        the records.
    - `tracked_steps`: after how many steps each record was made.
    - `result`: why the run ended, a member of [`vijax.RESULTS`][]: compare with `==`,
        or read the sentence `vi.RESULTS[fit.result]`.
    - `before`: where a further stage of `"auto"` is not over, the fit that stands until
        it is: `family`, `mean`, `std` and draws are its. Else `None`.
    """

    progress: Progress
    losses: Float[Array, " steps"]
    trackers: dict[str, PyTree[Array]]
    tracked_steps: Int[Array, " records"]
    result: Any
    before: "Fit | None"
    _arrays: PyTree[Array]
    _held: Held = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        progress: Progress,
        losses: Float[Array, " steps"],
        trackers: dict[str, PyTree[Array]],
        tracked_steps: Int[Array, " records"],
        result: Any,
        before: "Fit | None" = None,
    ):
        self.progress = progress
        self.before = before
        self.losses = losses
        self.trackers = trackers
        self.tracked_steps = tracked_steps
        self.result = result
        # Only arrays are leaves. And what a surrounding `jax.vmap` does not batch stays
        # out of its outputs, or a thousand fits would hold the data a thousand times.
        is_leaf = is_tracer if is_tracer(losses) else is_any_array
        self._arrays, rest = eqx.partition(problem, is_leaf)
        self._held = Held(rest)

    def __repr__(self) -> str:
        family = f"{type(self.family).__name__} of dim {self.family.dim}"
        return (
            f"Fit(family={family}, result={name_of(self.result)}, "
            f"num_steps={self.num_steps}, num_skipped={self.num_skipped})"
        )

    def _check_single(self) -> None:
        if self.num_steps.ndim > 0:
            raise ValueError(
                f"These are {self.num_steps.shape[0]} fits in one. Take one of them, "
                "`jax.tree.map(lambda leaf: leaf[0], fits)`, or work on all of them "
                "inside `eqx.filter_vmap`."
            )

    @property
    def problem(self) -> Problem:
        """The target, the method and the rest of what was asked for."""
        return eqx.combine(self._arrays, self._held.tree)

    @property
    def target(self) -> Target:
        """The target."""
        return self.problem.target

    @property
    def family(self) -> F:
        """The fitted family: after a failure, the last good one."""
        if self.before is not None:
            return self.before.family
        family = self.progress.family
        if not is_tracer(self.num_steps) and self.num_steps.ndim == 0:
            family = self.problem.method.answer(family, self.state)
        return family  # pyright: ignore[reportReturnType]  # As started.

    @property
    def state(self) -> State:
        """The state of the method after the last step."""
        return self.progress.state

    @property
    def num_steps(self) -> Int[Array, "..."]:
        """How many steps were made, skipped ones included."""
        return self.progress.num_steps

    @property
    def num_skipped(self) -> Int[Array, "..."]:
        """How many of the steps were not finite, and so changed nothing."""
        return self.progress.num_skipped

    @property
    def mean(self) -> Params:
        """The family's mean on the unconstrained scale, by parameter."""
        return _by_name(self, "mean")

    @property
    def std(self) -> Params:
        """The family's standard deviations on the unconstrained scale, by parameter."""
        return _by_name(self, "std")

    @property
    def globals(self) -> tuple[str, ...]:
        """The parameters, or entries of these, that a nested answer has as globals: given
        them the others are nearly Gaussian. None of another answer."""
        fit = self if self.before is None else self.before
        if not (isinstance(fit.state, NestedState) and has_answer(fit.state)):
            return ()
        return names_of(fit.target, fit.state.chosen.tolist())

    def draw(self, num_draws: int, *, key: Key, corrected: bool | None = None) -> Draws:
        """Draw from the fitted family.

        **Arguments:**

        - `num_draws`: how many draws.
        - `key`: randomness. Keyword only.
        - `corrected`: whether the draws are corrected, by the procedure that
            [`vijax.Fit.correction`][] names. `"importance"`: chosen with smoothed weights
            from at least 4,096 draws of a family with heavier tails, which brings them
            closer to the target than the family is. What they were chosen from is
            `Draws.proposal`. `"resample-move"`, where the weights are worth less than a
            tenth of the draws (a quarter of them in hundreds of dimensions): chosen so if
            the weights are worth 20 draws, else plain, and then moved by rounds of four
            trajectories of Hamiltonian Monte Carlo, in the family's coordinates, until
            their moments settle: about twenty gradients a draw and round, at most six
            rounds. `"none"`, where neither is any help: plain draws and a warning.
            `Draws.origin["corrected"]` says how it was done. Default: after `"auto"`,
            and not inside `jax.jit`. Keyword only.

        **Returns:**

        A [`vijax.Draws`][].

        **Raises:** `ValueError` if they are to be corrected and the family has no density
        or none of its draws a finite log density.
        """
        self._check_single()
        corrected = None if corrected is None else as_flag("corrected", corrected)
        problem = self.problem
        family = self.family
        origin = {
            "method": label(problem.method),
            "family": type(family).__name__,
            "num_steps": self.num_steps,
            "result": name_of(self.result),
        }
        traced = is_traced(self, key)
        if corrected is None:
            corrected = not traced and self.proposal is not None
        if not corrected:
            return draw(family, problem.target, num_draws, key=key, origin=origin)
        if traced:
            raise ValueError(
                "Corrected draws need the host: not inside `jax.jit`, `jax.vmap` or the "
                "like. Draw there with `corrected=False`."
            )
        if not family.has_density:
            raise ValueError(
                f"`{type(family).__name__}` has no density, so that its draws cannot be "
                "corrected by importance. Use `corrected=False`."
            )
        if isinstance(family, PointEstimates):
            raise ValueError(
                "Draws beside point estimates cannot be corrected by importance: the "
                "estimates are those of this family. Use `corrected=False`."
            )
        num_draws, key = as_whole("num_draws", num_draws, 1), as_key(key)
        correction = self.found_correction
        with one_thread(problem.target):
            return corrected_draws(self._parts, correction, num_draws, key, origin)

    @property
    def correction(self) -> str:
        """How [`vijax.Fit.draw`][] corrects its draws unless told otherwise, whatever
        their number: `"importance"`, `"resample-move"`, or `"none"`. It is found out once
        a fit, from 2,048 draws or 8,192, and where these are too few from
        trajectories."""
        self._check_single()
        return NONE if self.proposal is None else self.found_correction.kind

    @functools.cached_property
    def found_correction(self) -> Correction:
        """The procedure of draws that are corrected, whether that is asked for or not."""
        with one_thread(self.target):
            return chosen_correction(self._parts, key_for(self.problem.key, _CORRECTING))

    @property
    def _parts(self) -> Parts:
        family, proposal = self.family, self.proposal
        proposal = heavy_tailed(family) if proposal is None else proposal
        return Parts(family, proposal, HostProbe(self.target))

    @property
    def proposal(self) -> AbstractFamily | None:
        """What corrected draws are chosen from, where draws are corrected by default."""
        if self.before is not None:
            return self.before.proposal
        return self.problem.method.proposal(self.progress.family, self.state)

    def resume(
        self,
        max_steps: int = 10_000,
        *,
        method: AbstractMethod | str | None = None,
        target: Target | None = None,
        stop: AbstractStop | None | Literal["same"] = "same",
        callbacks: Callable | Sequence[Callable] = (),
        callback_every: int = 100,
        progress: bool = True,
        checkpoint: str | os.PathLike | None = None,
        throw: bool = True,
    ) -> "Fit[F]":
        """Go on where this fit ended.

        A fit whose method is over makes no further steps. Else, without a new `method`,
        `target` or `stop`, a run of `a` steps resumed for `b` is
        one run of `a + b` steps, bit for bit. Where `"auto"` ends here, what follows it
        in [`vijax.fit`][] follows too.

        **Arguments:**

        - `max_steps`: how many further steps to make at most.
        - `method`: another method, or a name, to go on with: started afresh from the
            present family, whose kind stays. Keyword only.
        - `target`: another target of the same dimension to go on with, such as
            `fit.target.with_data(new)`. Keyword only.
        - `stop`: another stopping rule, or `None` for none. Default: the same one, with
            its memory. Keyword only.
        - `callbacks`, `callback_every`, `progress`, `checkpoint`, `throw`: as in
            [`vijax.fit`][]. Keyword only.

        **Returns:**

        A [`vijax.Fit`][] of all the steps, old and new. This one is not changed.

        **Raises:** as [`vijax.fit`][]; and `ValueError` inside `jax.jit`, or for several
        fits in one.
        """
        if is_traced(self):
            raise ValueError("`resume` works on the host, not inside `jax.jit`.")
        self._check_single()
        options = Options(
            callbacks=callbacks,
            callback_every=callback_every,
            show=progress,
            checkpoint=checkpoint,
            throw=throw,
        )
        max_steps = as_whole("max_steps", max_steps, 0, None)
        return resumed(self, max_steps, method, target, stop, options)


@eqx.filter_jit
def _moment(family: AbstractFamily, target: Target, name: str) -> Params:
    return target.unravel(getattr(family, name))


def _by_name(fit: Fit, name: str) -> Params:
    fit._check_single()
    if not has_moment(fit.family, name):
        raise ValueError(
            f"`{type(fit.family).__name__}` has no {name} in closed form. Estimate it "
            "from draws, e.g. `fit.draw(1_000, key=key).x`."
        )
    return _moment(fit.family, fit.target, name)
