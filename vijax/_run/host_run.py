"""A run of a method that asks and tells, driven from the host in NumPy."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._loop.base import AbstractStop, MAX_NONFINITE, Problem, Progress
from .._loop.chunk import no_records, observe
from .._method.base import AbstractAskTell, Recipe
from .._misc import as_arrays, float_dtype, is_any_array, on_device, Seed
from .._target.probe import HostProbe
from .._target.target import Target
from .base import AbstractRun
from .history import History
from .start import build, TRIES


# A number that no step has.
_SEARCHING = 0x5EA7


@dataclasses.dataclass(frozen=True)
class _Now:
    """All that belongs to one step. Numbers have 64 bits, whatever the target's have."""

    family: Any
    state: PyTree[np.ndarray]
    stop_state: PyTree
    num_steps: int
    num_skipped: int
    num_nonfinite: int
    met: bool


class HostRun(AbstractRun):
    """A run in progress, one step at a time. The target's values and scores at a block of
    points are all that is compiled, unless there are trackers or a stopping rule."""

    def __init__(self, problem: Problem, progress: Progress, history: History):
        super().__init__(problem, history)
        self._dtype = float_dtype(progress.family)
        self._seed = Seed(problem.key)
        self._probe: HostProbe | None = None
        self._dtypes = [x.dtype for x in jax.tree.leaves(_widened(progress.state))]
        self._now = _Now(
            family=_widened(progress.family),
            state=_widened(progress.state),
            stop_state=progress.stop_state,
            num_steps=int(progress.num_steps),
            num_skipped=int(progress.num_skipped),
            num_nonfinite=int(progress.num_nonfinite),
            met=bool(progress.met),
        )

    @classmethod
    def begin(
        cls,
        problem: Problem,
        family: AbstractFamily | Recipe | None,
        point: Point | None = None,
    ) -> "HostRun":
        """Before its first step, from a family, or a recipe at a point."""
        if not isinstance(family, AbstractFamily):
            loc = problem.target.model.initial() if point is None else point
            family = build(problem, family, loc)
        progress = begin_on_host(problem, family)
        tracked: Any = {}
        if problem.track:
            tracked = jax.tree.map(np.asarray, _no_records(problem, family))
        losses = np.zeros(0, float_dtype(family))
        return cls(problem, progress, History(losses, tracked, np.zeros(0, np.int32)))

    @property
    def progress(self) -> Progress:
        now = self._now
        return Progress(
            family=on_device(now.family, self._dtype),
            state=now.state,
            stop_state=now.stop_state,
            num_steps=jax.device_put(np.int32(now.num_steps)),
            num_skipped=jax.device_put(np.int32(now.num_skipped)),
            num_nonfinite=jax.device_put(np.int32(now.num_nonfinite)),
            met=jax.device_put(np.bool_(now.met)),
        )

    @property
    def num_steps(self) -> int:
        return self._now.num_steps

    @property
    def num_skipped(self) -> int:
        return self._now.num_skipped

    @property
    def is_met(self) -> bool:
        return self._now.met

    @property
    def has_failed(self) -> bool:
        return self._now.num_nonfinite >= MAX_NONFINITE

    @property
    def is_over(self) -> bool:
        done = self.problem.method.done(self._now.state)
        return done is not None and bool(done)

    @property
    def is_compiled(self) -> bool:
        return self._probe is not None

    @property
    def longest(self) -> int:
        return 1

    @property
    def doing(self) -> str:
        return self.problem.method.doing(self._now.state)

    @property
    def probe(self) -> HostProbe:
        """The target, as the host sees it."""
        if self._probe is None or self._probe.target is not self.problem.target:
            self._probe = HostProbe(self.problem.target, lambda: self.look())
        return self._probe

    def begins_well(self) -> bool:
        return self._stepped()[0].num_skipped == 0

    def advance(self, num_steps: int) -> None:
        for _ in range(num_steps):
            if self.is_met or self.has_failed:
                return
            now, loss = self._stepped()
            # As in a compiled run, what is recorded counts when the step does.
            self.history.add_losses(np.array([loss], self._dtype), self.num_steps)
            if self.problem.track and now.num_steps % self.problem.track_every == 0:
                self._track(now)
            self._now = now

    def _stepped(self) -> tuple[_Now, float]:
        now, method = self._now, self.problem.method
        assert isinstance(method, AbstractAskTell)
        num_steps = now.num_steps + 1
        # Each step's noise comes from its own number, so that resuming changes nothing.
        generator = self._seed.generator(num_steps)
        noise = generator.standard_normal(method.step_noise(now.family.dim))
        with np.errstate(all="ignore"):
            x, count = method.ask(noise, now.state)
        probes = self.probe(x, int(count))
        with np.errstate(all="ignore"):
            state, loss = method.tell(noise, now.state, probes)
            family = method.place(now.family, state)
        loss = float(loss)
        if not np.isfinite(loss) or not _all_finite(family, self._dtype):
            skipped = dataclasses.replace(
                now,
                num_steps=num_steps,
                num_skipped=now.num_skipped + 1,
                num_nonfinite=now.num_nonfinite + 1,
            )
            return skipped, loss
        state = self._cast(state)
        stop_state, met = now.stop_state, False
        if self.problem.stop is not None:
            stop_state, met = _updated(
                self.problem.stop,
                stop_state,
                np.int32(num_steps),
                self._dtype.type(loss),
                on_device(family, self._dtype),
            )
        new = _Now(
            family=family,
            state=state,
            stop_state=stop_state,
            num_steps=num_steps,
            num_skipped=now.num_skipped,
            num_nonfinite=0,
            met=bool(met) or bool(method.done(state)),
        )
        return new, loss

    def _cast(self, state: PyTree) -> PyTree[np.ndarray]:
        """Arrays of the dtypes that the state began with, of which numbers are some."""
        leaves, structure = jax.tree.flatten(state)
        pairs = zip(leaves, self._dtypes, strict=True)
        return jax.tree.unflatten(structure, [np.asarray(x, d) for x, d in pairs])

    def _track(self, now: _Now) -> None:
        number = np.int32(now.num_steps)
        seen = _observed(self.problem, on_device(now.family, self._dtype), number)
        tracked = jax.tree.map(lambda x: np.asarray(x)[None], seen)
        self.history.add_tracked(tracked, np.full(1, now.num_steps, np.int32))


def find_point_on_host(key: Key, target: Target) -> tuple[Point, bool]:
    """A point where the log density and its gradient are finite, and whether it is one.

    The model's own starting point if that will do; else uniform draws from (-2, 2).
    """
    initial = target.model.initial()
    generator = Seed(key).generator(0, _SEARCHING)
    others = generator.uniform(-2.0, 2.0, (TRIES - 1, target.dim))
    probes = HostProbe(target)(np.concatenate([np.asarray(initial)[None], others]))
    first = int(np.argmax(probes.finite))
    found = bool(probes.finite[first])
    point = jax.device_put(probes.x[first].astype(initial.dtype))
    return (point, True) if found else (initial, False)


def begin_on_host(
    problem: Problem, family: AbstractFamily, num_steps: int = 0
) -> Progress:
    """The progress before the first step, with a state in NumPy; of a run that has made
    `num_steps` by another method."""
    method = problem.method
    assert isinstance(method, AbstractAskTell)
    method.check(family, problem.target)
    shape = method.begin_noise(family.dim)
    noise = Seed(problem.key).generator(0, 0, num_steps).standard_normal(shape)
    with np.errstate(all="ignore"):
        state = method.begin(noise, _widened(family))
    zero = jax.device_put(np.int32(0))
    return Progress(
        family=family,
        state=jax.tree.map(np.asarray, state),
        stop_state=None if problem.stop is None else _begun(problem.stop, family),
        num_steps=zero,
        num_skipped=zero,
        num_nonfinite=zero,
        met=jax.device_put(np.bool_(False)),
    )


def _widened(tree: PyTree) -> PyTree:
    """Arrays of NumPy for all arrays, floating-point ones with 64 bits."""

    def widen(x: Any) -> Any:
        x = np.asarray(x)
        return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x

    return jax.tree.map(lambda x: widen(x) if is_any_array(x) else x, tree)


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


@eqx.filter_jit
def _no_records(problem: Problem, family: AbstractFamily) -> Any:
    return no_records(problem, family, 0)
