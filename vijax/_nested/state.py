"""The state of nested importance sampling, and what is derived from it."""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .._family.nested_on_host import HostNested
from .._interpolation import interpolate
from .curvature import all_columns, Columns, columns, filled_in
from .split import Split, split
from .t_mixture import Parts


# After the last one comes what `vi.fit` decides.
FITTING, LOOKING, EXPLORING, DONE = range(4)


class Design(NamedTuple):
    """Points of the globals where the locals were solved for."""

    g: Float[np.ndarray, "points globals"]
    modes: Float[np.ndarray, "points locals"]
    factors: Float[np.ndarray, "points entries"]

    def kept(self, which: Bool[np.ndarray, " points"] | slice) -> "Design":
        """Some of them."""
        return Design(*(x[which] for x in self))


class Pool(NamedTuple):
    """Draws of the globals, all rounds', and the log marginal density there: seen by
    draws of the locals, and by Laplace's method."""

    g: Float[np.ndarray, "points globals"]
    log_p: Float[np.ndarray, " points"]
    log_laplace: Float[np.ndarray, " points"]


class NestedState(NamedTuple):
    """The state of [`vijax.Nested`][]. Shapes differ between steps.

    **Attributes:**

    - `before`: the state that [`vijax.Auto`][] ended with, whose Gaussian, `loc` and
        `tril`, it began from.
    - `chosen`: the globals that were found, in this order.
    """

    stage: Int[np.ndarray, ""]
    before: Any
    loc: Float[np.ndarray, " dim"]
    tril: Float[np.ndarray, "dim dim"]
    chosen: Int[np.ndarray, " globals"]
    candidates: Int[np.ndarray, " candidates"]
    rest: Int[np.ndarray, " locals"]
    pattern: Bool[np.ndarray, "locals locals"]
    center: Float[np.ndarray, " globals"]
    root: Float[np.ndarray, "globals globals"]
    design: Design
    pool: Pool
    parts: Parts
    num_rounds: Int[np.ndarray, ""]
    num_restarts: Int[np.ndarray, ""]
    effective: Float[np.ndarray, ""]
    num_evaluations: Int[np.ndarray, ""]
    loss: Float[np.ndarray, ""]


def whitened(g: np.ndarray, state: NestedState) -> np.ndarray:
    """Globals, where they have mean zero and unit covariance."""
    return np.linalg.solve(state.root, (g - state.center).T).T


def split_of(state: NestedState) -> Split:
    """What the Gaussian has for globals and locals."""
    return split(state.loc, state.tril, state.chosen, state.rest)


def columns_of(state: NestedState) -> Columns:
    """Which columns of the locals' second derivatives are seen at once."""
    return _structure(state.pattern.tobytes(), len(state.rest))[0]


def entries(state: NestedState) -> tuple[tuple[int, int], ...]:
    """Where factors of the locals' precisions have anything, below the diagonal."""
    return _structure(state.pattern.tobytes(), len(state.rest))[1]


@functools.lru_cache(maxsize=16)
def _structure(pattern: bytes, dim: int) -> tuple[Columns, tuple[tuple[int, int], ...]]:
    """Of a pattern; of all entries where none is known. It takes longer than a step."""
    if not pattern:
        known, seen = np.ones((dim, dim), bool), all_columns(dim)
    else:
        known = np.frombuffer(pattern, bool).reshape(dim, dim)
        seen = columns(known)
    below = np.argwhere(filled_in(known)).tolist()
    return seen, tuple((i, j) for i, j in below)


def known_locals(state: NestedState) -> HostNested:
    """What is known of the locals, with the last round's globals."""
    parts = split_of(state)
    values = np.concatenate([state.design.modes, state.design.factors], axis=1)
    return HostNested(
        state.parts.of_round(-1),
        state.chosen,
        state.rest,
        state.center,
        state.root,
        interpolate(whitened(state.design.g, state), values),
        parts.loc,
        parts.scale,
        entries(state),
    )
