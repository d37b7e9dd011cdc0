"""What a run has recorded so far, on the host."""

import jax
import numpy as np
from jaxtyping import PyTree

from .._loop.base import Records


class History:
    """The losses and the trackers' records of a run, growing on the host."""

    def __init__(
        self, losses: np.ndarray, tracked: PyTree[np.ndarray], tracked_steps: np.ndarray
    ):
        self.losses = losses.copy()
        self._tracked = [(tracked, tracked_steps)]

    @classmethod
    def empty(cls, dtype: np.dtype, tracked: PyTree[np.ndarray]) -> "History":
        """Of a run before its first step; `tracked` are no records, of the right kind."""
        return cls(np.zeros(0, dtype), tracked, np.zeros(0, np.int32))

    def append(self, records: Records, before: int, made: int) -> None:
        """Take in the records of the `made` steps after the first `before`."""
        self.add_losses(np.asarray(records.losses)[:made], before)
        count = int(records.num_tracked)
        if count:
            cut = lambda x: np.asarray(x)[:count]
            tracked = jax.tree.map(cut, records.tracked)
            self.add_tracked(tracked, cut(records.tracked_steps))

    def add_tracked(self, tracked: PyTree[np.ndarray], steps: np.ndarray) -> None:
        """Take in what the trackers saw at some steps."""
        self._tracked.append((tracked, steps))

    def add_losses(self, losses: np.ndarray, before: int) -> None:
        """Take in the losses of the steps after the first `before`."""
        needed = before + len(losses)
        if needed > self.losses.size:
            grown = np.empty(max(needed, 2 * self.losses.size), self.losses.dtype)
            grown[:before] = self.losses[:before]
            self.losses = grown
        self.losses[before:needed] = losses

    def tracked(self) -> tuple[PyTree[np.ndarray], np.ndarray]:
        """What the trackers recorded, and at which steps."""
        if len(self._tracked) > 1:
            parts, steps = zip(*self._tracked, strict=True)
            together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
            self._tracked = [(together, np.concatenate(steps))]
        return self._tracked[0]
