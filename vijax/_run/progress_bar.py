"""The progress bar of a run."""

import contextlib
import math
import warnings
from collections.abc import Iterator

import numpy as np


class ProgressBar:
    """A tqdm bar with the steps a second and the average loss of the last part."""

    def __init__(self, total: int, *, show: bool, unit: str = "step"):
        self._bar = None
        if show:
            # In a notebook without widgets tqdm would warn, and use its text bar.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from tqdm.auto import tqdm

                self._bar = tqdm(total=total, unit=unit, mininterval=0.0)

    def note(self, doing: str) -> None:
        """Show what is done, in a word or two."""
        if self._bar is not None:
            self._bar.set_description_str(doing, refresh=True)

    def move_to(self, done: int) -> None:
        """Show that so many are done."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def update(self, done: int, losses: np.ndarray, skipped: int, doing: str) -> None:
        """Show that `done` steps of the total are made, what became of them, and what is
        being done.

        `losses` are all the losses yet; `skipped` of them were not finite.
        """
        if self._bar is None:
            return
        average = average_loss(losses)
        parts = [] if math.isnan(average) else [f"average loss {average:,.5g}"]
        parts += [f"{skipped} steps skipped"] if skipped else []
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.set_description_str(doing, refresh=False)
        self.move_to(done)

    def clear(self) -> None:
        """Leave no bar."""
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()


@contextlib.contextmanager
def noted(doing: str, *, show: bool) -> Iterator[None]:
    """Show what is done while this is entered, and nothing after."""
    bar = ProgressBar(0, show=show)
    bar.note(doing)
    try:
        yield
    finally:
        bar.clear()


def average_loss(losses: np.ndarray) -> float:
    """The mean of the last tenth of the losses (from 10 to 1,000 of them), skipping NaN.

    NaN if there is none.
    """
    last = losses[-min(max(len(losses) // 10, 10), 1_000) :]
    last = last[np.isfinite(last)]
    return float(np.mean(last, dtype=np.float64)) if last.size else math.nan
