"""What a method is, and what methods share."""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree, Scalar

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._family.mean_field import MeanField
from .._objective.base import AbstractObjective
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

    def done(self, state: State) -> Bool[Array, ""] | None:
        """Whether there is nothing left to do, which ends the run as converged; `None`
        for a method that can always go on."""
        del state

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


def check_gaussian(method: Any, family: AbstractFamily, target: Target) -> FullRank:
    """The family, or a `ValueError` unless it is a Gaussian of full rank, and the target
    is seen as a whole."""
    check_kind(method, family, FullRank)
    check_whole(method, target)
    assert isinstance(family, FullRank)
    return family


def moved(family: F, loc: Point, tril: Array) -> F:
    """The Gaussian `family` with another location and Cholesky factor."""
    diagonal = jnp.diagonal(tril)
    parts = loc, jnp.log(diagonal), jnp.tril(tril / diagonal[:, None], -1)
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
