"""A run that is driven from the host, in NumPy."""

import functools
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._keys import Seed
from .._loop.base import AbstractStop, Problem, Progress
from .._loop.chunk import no_records, observe
from .._method.base import AbstractAskTell, AbstractOnHost, Recipe
from .._misc import as_arrays, call_method, float_dtype, is_any_array, on_device
from .._target.probe import HostProbe
from .._target.target import Target
from .._target.threads import one_thread
from .base import AbstractRun
from .history import History
from .start import build, TRIES


# A number that no step has.
_SEARCHING = 0x5EA7


class HostRun(AbstractRun):
    """A run in progress, one step at a time, in NumPy with 64 bits. The target's values
    and scores at a block of points are all that is compiled, unless there are trackers or
    a stopping rule."""

    def __init__(self, problem: Problem, progress: Progress, history: History):
        super().__init__(problem, history)
        self._dtype = float_dtype(progress.family)
        self._seed = Seed(problem.key)
        self._known: HostProbe | None = None
        # The first step, where it was made to see how it goes.
        self._first: tuple[Target, Progress, float] | None = None
        keep = progress.stop_state
        wide = _widened(progress._replace(stop_state=None))
        self._progress = wide._replace(stop_state=keep)
        self._dtypes = [x.dtype for x in jax.tree.leaves(wide.state)]

    @classmethod
    def begin(
        cls,
        problem: Problem,
        family: AbstractFamily | Recipe | None,
        point: Point | None = None,
    ) -> "HostRun":
        if not isinstance(family, AbstractFamily):
            loc = problem.target.model.initial() if point is None else point
            family = build(problem, family, loc)
        tracked = eqx.filter_eval_shape(no_records, problem, family, 0)
        tracked = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tracked)
        history = History.empty(float_dtype(family), tracked)
        return cls(problem, _before_first_step(problem, family, 0), history)

    @staticmethod
    def find_point(key: Key, target: Target) -> tuple[Point, bool]:
        initial = target.model.initial()
        generator = Seed(key).generator(0, _SEARCHING)
        # The model's own starting point if that will do.
        others = generator.uniform(-2.0, 2.0, (TRIES - 1, target.dim))
        probes = HostProbe(target)(np.concatenate([np.asarray(initial)[None], others]))
        first = int(np.argmax(probes.finite))
        found = bool(probes.finite[first])
        point = jax.device_put(probes.x[first].astype(initial.dtype))
        return (point, True) if found else (initial, False)

    @staticmethod
    def restart(problem: Problem, progress: Progress) -> Progress:
        return _before_first_step(problem, progress.family, int(progress.num_steps))

    @property
    def progress(self) -> Progress:
        now = self._progress
        rest = now._replace(state=None, stop_state=None)
        moved = on_device(rest, self._dtype)
        return moved._replace(state=now.state, stop_state=now.stop_state)

    @property
    def longest(self) -> int:
        return 1

    @property
    def probe(self) -> HostProbe:
        """The target, as the host sees it."""
        if self._known is None or self._known.target is not self.problem.target:
            self._known = HostProbe(self.problem.target, lambda: self.look())
        return self._known

    def begins_well(self) -> bool:
        with one_thread(self.problem.target):
            self._first = self.problem.target, *self._stepped()
        return int(self._first[1].num_skipped) == 0

    def advance(self, num_steps: int) -> None:
        with one_thread(self.problem.target):
            for _ in range(num_steps):
                if self.is_met or self.has_failed:
                    return
                self._advance()

    def _advance(self) -> None:
        first, self._first = self._first, None
        if first is None or first[0] is not self.problem.target:
            new, loss = self._stepped()
        else:
            _, new, loss = first
        # As in a compiled run, what is recorded counts when the step does.
        self.history.add_losses(np.array([loss], self._dtype), self.num_steps)
        if self.problem.track and int(new.num_steps) % self.problem.track_every == 0:
            self._track(new)
        self._progress = new

    def _stepped(self) -> tuple[Progress, float]:
        """The progress after one step more, and its loss."""
        old, method = self._progress, self.problem.method
        call = functools.partial(call_method, method)
        num_steps = old.num_steps + np.int32(1)
        # Each step's noise comes from its own number, so that resuming changes nothing.
        generator = self._seed.generator(int(num_steps))
        with np.errstate(all="ignore"):
            if isinstance(method, AbstractAskTell):
                noise = generator.standard_normal(call("step_noise", old.family.dim))
                x, count = call("ask", noise, old.state)
                probes = self.probe(x, int(count))
                state, loss = call("tell", noise, old.state, probes)
            else:
                state, loss = call("advance", generator, old.state, self.probe)
            family = call("place", old.family, state)
        self.is_compiled, loss = True, float(loss)
        if not np.isfinite(loss) or not _all_finite(family, self._dtype):
            skipped = old._replace(
                num_steps=num_steps,
                num_skipped=old.num_skipped + np.int32(1),
                num_nonfinite=old.num_nonfinite + np.int32(1),
            )
            return skipped, loss
        state, stop_state, met = self._cast(state), old.stop_state, False
        if self.problem.stop is not None:
            moved = on_device(family, self._dtype)
            seen = np.int32(num_steps), self._dtype.type(loss), moved
            stop_state, met = _updated(self.problem.stop, stop_state, *seen)
        new = Progress(
            family=family,
            state=state,
            stop_state=stop_state,
            num_steps=num_steps,
            num_skipped=old.num_skipped,
            num_nonfinite=np.int32(0),
            met=np.bool_(bool(met) or bool(call("done", state))),
        )
        return new, loss

    def _cast(self, state: PyTree) -> PyTree[np.ndarray]:
        """Arrays of the dtypes that the state began with, of which numbers are some."""
        leaves, structure = jax.tree.flatten(state)
        pairs = zip(leaves, self._dtypes, strict=True)
        return jax.tree.unflatten(structure, [np.asarray(x, d) for x, d in pairs])

    def _track(self, new: Progress) -> None:
        family, number = on_device(new.family, self._dtype), np.int32(new.num_steps)
        seen = _observed(self.problem, family, number)
        tracked = jax.tree.map(lambda x: np.asarray(x)[None], seen)
        self.history.add_tracked(tracked, np.full(1, number))


def _before_first_step(
    problem: Problem, family: AbstractFamily, num_steps: int
) -> Progress:
    """The progress before the first step, with a state in NumPy; of a run that has made
    `num_steps` by another method."""
    method = problem.method
    assert isinstance(method, AbstractAskTell | AbstractOnHost)
    method.check(family, problem.target)
    generator = Seed(problem.key).generator(0, 0, num_steps)
    with np.errstate(all="ignore"):
        if isinstance(method, AbstractAskTell):
            noise = generator.standard_normal(method.begin_noise(family.dim))
            state = method.begin(noise, _widened(family))
        else:
            state = method.begin(generator, _widened(family), problem.target)
    zero = np.int32(0)
    return Progress(
        family=family,
        state=state,
        stop_state=None if problem.stop is None else _begun(problem.stop, family),
        num_steps=zero,
        num_skipped=zero,
        num_nonfinite=zero,
        met=np.bool_(False),
    )


def _widened(tree: PyTree) -> PyTree:
    """Arrays of NumPy for all arrays, floating-point ones with 64 bits."""

    def widen(x: Any) -> Any:
        x = np.asarray(x)
        return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x

    is_number = lambda x: is_any_array(x) or isinstance(x, np.generic)
    return jax.tree.map(lambda x: widen(x) if is_number(x) else x, tree)


def _all_finite(family: Any, dtype: np.dtype) -> bool:
    with np.errstate(all="ignore"):
        leaves = [x.astype(dtype) for x in jax.tree.leaves(family) if is_any_array(x)]
    return all(np.all(np.isfinite(x)) for x in leaves if x.dtype == dtype)


@eqx.filter_jit
def _begun(stop: AbstractStop, family: AbstractFamily) -> PyTree:
    return as_arrays(stop.init(family))


@eqx.filter_jit
def _updated(stop: AbstractStop, *arguments: Any) -> Any:
    state, met = stop.update(*arguments)
    return as_arrays(state), met


@eqx.filter_jit
def _observed(problem: Problem, family: AbstractFamily, num_steps: Any) -> Any:
    return observe(problem, family, num_steps)
