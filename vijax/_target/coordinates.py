"""Coordinates by the names of their parameters."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from .._misc import entry_names, listed
from .target import Target


def numbers_of(target: Target) -> dict[str, np.ndarray]:
    """The numbers of each parameter's coordinates, on the unconstrained scale."""
    shapes: dict[str, tuple[int, ...]] = {}

    def look() -> None:  # Not at what comes out, which has its names sorted.
        parts = target.unravel(target.model.initial())
        shapes.update((name, part.shape) for name, part in parts.items())

    jax.eval_shape(look)
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    numbers = np.split(np.arange(target.dim, dtype=np.int32), ends[:-1])
    pairs = zip(shapes.items(), numbers, strict=True)
    return {name: part.reshape(shape) for (name, shape), part in pairs}


def coordinates_of(target: Target, names: Sequence[str]) -> Int[np.ndarray, " found"]:
    """The coordinates of some parameters.

    **Raises:** `ValueError` for a name that no parameter has.
    """
    known = numbers_of(target)
    unknown = [name for name in names if name not in known]
    if unknown:
        there = listed(f"`{name}`" for name in known)
        raise ValueError(
            f"`globals` names {listed(f'`{name}`' for name in unknown)}, but the "
            f"parameters are {there}."
        )
    found = [known[name].ravel() for name in names]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int32)


def names_of(target: Target, which: Sequence[int]) -> tuple[str, ...]:
    """What some coordinates are called: `beta[0]`; a number just `beta`; a parameter of
    which all are meant by its own name."""
    out = []
    for name, numbers in numbers_of(target).items():
        chosen = np.isin(numbers, np.asarray(which))
        if chosen.all() and chosen.size:
            out.append(name)
        else:
            entries = entry_names(name, numbers.shape)
            out += [e for e, is_in in zip(entries, chosen.ravel(), strict=True) if is_in]
    return tuple(out)
