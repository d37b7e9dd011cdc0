"""What a method is, and what methods share."""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import equinox as eqx
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Bool, PyTree, Scalar

from .._arrays import namespace
from .._custom_types import AnyArray, Key, Point
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._family.mean_field import MeanField
from .._misc import float_dtype, lenient_promotion
from .._objective.base import AbstractObjective
from .._target.probe import HostProbe, probe, Probes
from .._target.target import Target


F = TypeVar("F", bound=AbstractFamily)
State: TypeAlias = PyTree
Recipe: TypeAlias = Callable[[Point], AbstractFamily]


def label(part: Any) -> str:
    """The names of a method and of those inside it, e.g. "Averaging(Descent(ELBO))"."""
    kinds = AbstractMethod | AbstractObjective
    inside = [label(x) for x in vars(part).values() if isinstance(x, kinds)]
    return type(part).__name__ + (f"({', '.join(inside)})" if inside else "")


class AbstractMethod(eqx.Module):
    """A way to move a family towards a target, one step at a time.

    To add a method implement `init` and `step`, as pure functions; and `start`, where
    the method does not start from [`vijax.MeanField`][].
    """

    @abc.abstractmethod
    def init(self, key: Key, family: AbstractFamily, target: Target) -> State:
        """The state before the first step: any pytree, or `None` for no state."""

    @abc.abstractmethod
    def step(
        self, key: Key, family: F, target: Target, state: State
    ) -> tuple[F, State, Scalar]:
        """One step.

        **Returns:**

        The new family, the new state, and the loss *before* the step. A step that
        failed says so with a loss of NaN: the loop then keeps the old family and state.
        """

    def start(self, key: Key, loc: Point) -> AbstractFamily:
        """The family to start from, at `loc`, where the user names none."""
        del key
        return MeanField(loc)

    def done(self, state: State) -> Bool[AnyArray, ""] | None:
        """Whether there is nothing left to do, which ends the run as converged; `None`
        for a method that can always go on."""
        del state

    def doing(self, state: State) -> str:
        """What it is at, in a word or two, for the progress bar; empty for one thing."""
        del state
        return ""

    @property
    def can_estimate(self) -> bool:
        """Whether it can move [`vijax.PointEstimates`][], as any descent does."""
        return False

    def answer(self, family: AbstractFamily, state: State) -> AbstractFamily:
        """The approximation after a run, where it is more than the family that moves."""
        del state
        return family

    def proposal(self, family: AbstractFamily, state: State) -> AbstractFamily | None:
        """What to draw from where `Fit.draw` corrects its draws by importance; `None` for
        plain draws of the family."""
        del family, state


class AbstractAskTell(AbstractMethod):
    """A method that sees the target only through values and scores at points that it asks
    for.

    Outside a trace the host drives it, in NumPy and with 64 bits, and nothing of it is
    compiled but the target's values and scores at a block of points; inside `jax.jit` and
    `jax.vmap` it is a part of the program. It is written once for both kinds of arrays.

    To add one implement `check`, `begin`, `ask`, `tell` and `place`, and what noise they
    take.
    """

    @abc.abstractmethod
    def check(self, family: AbstractFamily, target: Target) -> None:
        """Raise a `ValueError` unless the method can move the family there."""

    def begin_noise(self, dim: int) -> tuple[int, ...]:
        """The shape of the standard normal noise that `begin` takes."""
        return (0, dim)

    @abc.abstractmethod
    def step_noise(self, dim: int) -> tuple[int, ...]:
        """The shape of the standard normal noise that a step takes."""

    @abc.abstractmethod
    def begin(self, noise: AnyArray, family: Any) -> State:
        """The state before the first step: a pytree of arrays of fixed shapes."""

    @abc.abstractmethod
    def ask(self, noise: AnyArray, state: State) -> tuple[AnyArray, Any]:
        """The points to evaluate next, of shape `(points, dim)`, and how many of these,
        from the first on, are wanted."""

    @abc.abstractmethod
    def tell(
        self, noise: AnyArray, state: State, probes: Probes
    ) -> tuple[State, AnyArray]:
        """The state after seeing the target there, with the noise of `ask`, and the loss;
        NaN for a step that failed."""

    @abc.abstractmethod
    def place(self, family: F, state: State) -> F:
        """The family that is moved, as a state has it."""

    def init(self, key: Key, family: AbstractFamily, target: Target) -> State:
        self.check(family, target)
        dtype = float_dtype(family)
        noise = jr.normal(key, self.begin_noise(family.dim), dtype)
        with lenient_promotion():
            return self.begin(noise, family)

    def step(
        self, key: Key, family: F, target: Target, state: State
    ) -> tuple[F, State, Scalar]:
        noise = jr.normal(key, self.step_noise(family.dim), float_dtype(family))
        with lenient_promotion():
            x, count = self.ask(noise, state)
        probes = probe(target, x, count)
        with lenient_promotion():
            state, loss = self.tell(noise, state, probes)
            return self.place(family, state), state, loss


class AbstractOnHost(AbstractMethod):
    """A method that is driven from the host only: steps of any length in NumPy, which ask
    the target for values and scores as they go, and states whose shapes may differ from
    step to step.

    To add one implement `check`, `begin`, `advance` and `place`.
    """

    @abc.abstractmethod
    def check(self, family: AbstractFamily, target: Target) -> None:
        """Raise a `ValueError` unless the method can move the family there."""

    @abc.abstractmethod
    def begin(self, generator: np.random.Generator, family: Any, target: Target) -> State:
        """The state before the first step: a pytree of arrays of NumPy."""

    @abc.abstractmethod
    def advance(
        self, generator: np.random.Generator, state: State, probe: HostProbe
    ) -> tuple[State, Any]:
        """The state after a step, with as many leaves, and the loss; NaN for a step that
        failed."""

    @abc.abstractmethod
    def place(self, family: F, state: State) -> F:
        """The family that is moved, as a state has it."""

    def init(self, key: Key, family: AbstractFamily, target: Target) -> State:
        raise self._is_traced()

    def step(
        self, key: Key, family: F, target: Target, state: State
    ) -> tuple[F, State, Scalar]:
        raise self._is_traced()

    def _is_traced(self) -> ValueError:
        return ValueError(
            f"`vi.{type(self).__name__}` needs the host, so it cannot be used inside "
            '`jax.jit`, `jax.vmap` or the like, nor inside another method. "auto" can.'
        )


def start_wide(self: AbstractMethod, key: Key, loc: Point) -> AbstractFamily:
    """A Gaussian with unit covariance: `start` of a method that looks around itself."""
    del self, key
    return FullRank(loc, scale=1.0)


def check_kind(method: Any, family: AbstractFamily, kind: type[AbstractFamily]) -> None:
    """Raise unless the family is of the kind that the method moves."""
    if not isinstance(family, kind):
        raise ValueError(
            f"`vi.{type(method).__name__}` moves a `vi.{kind.__name__}`, but the family "
            f"is a `{type(family).__name__}`. Leave it out, or train it with "
            "`vi.Descent`."
        )


def check_whole(method: Any, target: Target) -> None:
    """Raise unless the target is seen as a whole."""
    if target.minibatch is not None:
        raise ValueError(
            f"`vi.{type(method).__name__}` compares scores between steps, and so needs "
            "all of the data in each. Use `target.with_batch_size(None)`, or another "
            'method such as "advi".'
        )


def check_gaussian(self: Any, family: AbstractFamily, target: Target) -> None:
    """Raise unless the family is a Gaussian of full rank, and the target is seen as a
    whole."""
    check_kind(self, family, FullRank)
    check_whole(self, target)


def place_gaussian(self: AbstractMethod, family: F, state: Any) -> F:
    """The Gaussian of a state: `place` of a method that moves nothing else."""
    del self
    return moved(family, state.loc, state.tril)


def moved(family: F, loc: AnyArray, tril: AnyArray) -> F:
    """The Gaussian `family` with another location and Cholesky factor."""
    xp = namespace(tril)
    diagonal = xp.diagonal(tril)
    parts = loc, xp.log(diagonal), xp.tril(tril / diagonal[:, None], -1)
    return eqx.tree_at(lambda f: (f.loc, f.log_diag, f.below), family, parts)


def as_optimizer(optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """An Optax optimizer, which may ask for the loss."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            "`optimizer` must be an Optax optimizer such as `optax.adam(1e-2)`, but "
            f"it is {optimizer!r}."
        )
    return optax.with_extra_args_support(optimizer)


def default_optimizer() -> optax.GradientTransformationExtraArgs:
    """Adam with a schedule that suits runs of any length."""
    # Never ends, so that a longer run goes on where a shorter one stopped.
    schedule = lambda count: 0.1 / (1 + count / 300)
    # A short memory of the gradient's size: the first steps, from far away, see gradients
    # a thousand times larger than the last ones, and must not slow these down.
    return as_optimizer(optax.adam(schedule, b2=0.99))
