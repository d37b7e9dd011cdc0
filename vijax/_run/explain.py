"""Why a run could not start, or had to end, in words that name the parameters."""

from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import Key, Params
from .._family.base import AbstractFamily
from .._loop.base import Problem, Progress
from .._method.base import AbstractMethod
from .._misc import listed
from .._target.target import Target
from .start import TRIES, value_and_grad


_LOOKS = 64


@eqx.filter_jit
def _look(
    target: Target, key: Key, family: AbstractFamily | None
) -> tuple[Float[Array, " looks"], Params, Params]:
    """At some points: the values, the gradients by parameter, and the places."""
    if family is None:
        x = target.model.initial()[None]
    else:
        x = jax.vmap(family.sample)(jr.split(key, _LOOKS))
    value, grad = jax.vmap(lambda x: value_and_grad(target, key, x))(x)
    unravel = jax.vmap(target.unravel)
    return value, unravel(grad), unravel(x)


def _entries(masks: dict[str, np.ndarray]) -> str:
    """Which entries of some arrays are marked: "`mu`, `beta[3]` and 69 more"."""
    words = []
    for name, mask in masks.items():
        marked = np.argwhere(mask)
        if mask.all():
            words.append(f"`{name}`")
        elif len(marked):
            first = ", ".join(map(str, marked[0]))
            more = f" and {len(marked) - 1} more" if len(marked) > 1 else ""
            words.append(f"`{name}[{first}]`{more}")
    return listed(words)


def _any(masks: dict[str, np.ndarray]) -> bool:
    return any(mask.any() for mask in masks.values())


def explain_start(target: Target, key: Key) -> str:
    """Why no starting point could be found."""
    value, grad, x = jax.tree.map(np.asarray, _look(target, key, None))
    culprits = {name: np.asarray(~np.isfinite(part[0])) for name, part in grad.items()}
    what = f"At the starting point the log density is {value[0]:.6g}"
    if _any(culprits):
        what += f", and its gradient is not finite in {_entries(culprits)}"
    start = listed(f"{n} {np.array2string(p[0], threshold=8)}" for n, p in x.items())
    return (
        f"{what} (unconstrained: {start}); {TRIES - 1} random points were no better. "
        "Check the supports of the parameters and the data, or give a good starting "
        "point with `vi.Param(shape, support, initial=...)`."
    )


def _has_learning_rate(method: Any) -> bool:
    if hasattr(method, "optimizer"):
        return True
    parts = vars(method).values()
    return any(_has_learning_rate(x) for x in parts if isinstance(x, AbstractMethod))


def explain_failure(problem: Problem, progress: Progress) -> str:
    """Which parameters a failed run stumbles over, from draws of its family."""
    key = jr.fold_in(problem.key, progress.num_steps)
    looks = _look(problem.target, key, progress.family)
    value, grad, _ = jax.tree.map(np.asarray, looks)
    over_looks = lambda fn: {n: np.asarray(fn(part)) for n, part in grad.items()}
    flat = over_looks(lambda part: np.all(part == 0, axis=0))
    if _any(flat):
        return (
            f"The log density does not change with {_entries(flat)}: the posterior is "
            "improper, and the family has no end to its growth. Give each parameter a "
            "prior."
        )
    has_rate = _has_learning_rate(problem.method)
    bad = over_looks(lambda part: np.any(~np.isfinite(part), axis=0))
    if not _any(bad) and np.all(np.isfinite(value)):
        remedy = (
            "the learning rate is too large, or the posterior is improper."
            if has_rate
            else "a start nearer to the posterior may help, `family=vi.FullRank(loc, "
            "scale)`, or the posterior is improper."
        )
        return (
            f"At {_LOOKS} draws from that family the log density and its gradient are "
            f"finite: {remedy}"
        )
    together = np.any(
        [~np.isfinite(p.reshape(_LOOKS, -1)).all(1) for p in grad.values()], 0
    )
    rate = ", or try a smaller learning rate" if has_rate else ""
    where = f" in {_entries(bad)}" if _any(bad) else ""
    return (
        f"Of {_LOOKS} draws from that family, {int(np.sum(~np.isfinite(value)))} have a "
        f"log density that is not finite, and {int(np.sum(together))} a gradient that is "
        f"not finite{where}. Check the supports of the parameters and the data"
        f"{rate}."
    )
