"""Why a run ended."""

from typing import Any

import equinox as eqx


class RESULTS(eqx.Enumeration):
    """Why a run ended. `RESULTS[fit.result]` is the sentence, with advice."""

    converged = "The stopping rule was met."
    max_steps = (
        "All the steps that were asked for are made. If the loss still falls, go on "
        "with `fit.resume(max_steps)`."
    )
    stopped = "A callback raised `StopIteration`. Go on with `fit.resume(max_steps)`."
    interrupted = (
        "The run was interrupted from the keyboard. Everything up to the last finished "
        "step is kept: go on with `fit.resume(max_steps)`."
    )
    nonfinite = (
        "The loss or its gradient was infinite or NaN too many times in a row; the "
        "family is the last good one. Usually the log density is not finite inside the "
        "supports, or the start is too wide."
    )
    failed = (
        "An exception ended the run: it is the cause of the `vi.FitError`. Go on with "
        "`error.fit.resume(max_steps)`."
    )
    running = "The run has not ended."


_NAMES = (
    "converged",
    "max_steps",
    "stopped",
    "interrupted",
    "nonfinite",
    "failed",
    "running",
)


class FitError(Exception):
    """A run failed. Nothing that it had computed is lost.

    **Attributes:**

    - `fit`: the [`vijax.Fit`][] up to the last finished step.
    """

    fit: Any

    def __init__(self, message: str, fit: Any):
        super().__init__(message)
        self.fit = fit


def as_fit_error(error: Exception, fit: Any) -> FitError:
    """What to raise from an exception that ended a run, to bring its fit along."""
    return FitError(
        f"{type(error).__name__} after {fit.num_steps} steps: {error} The fit so far is "
        "the attribute `fit` of this error; go on with `error.fit.resume(max_steps)`.",
        fit,
    )


def name_of(result: Any) -> str:
    """The name of a member of `RESULTS`, or "unknown" while it is not known which."""
    sentence = RESULTS[result]
    sentences = {RESULTS[getattr(RESULTS, name)]: name for name in _NAMES}
    return sentences.get(sentence, "unknown")
