"""How far draws are from known moments, and what that is called."""

from typing import Any

import numpy as np


def errors(moments: dict[str, tuple[Any, Any]], params: Any) -> tuple[float, float]:
    """The largest error of a mean, in standard deviations, and of the logarithm of a
    standard deviation, over all numbers."""
    z = r = 0.0
    for name, (mean, std) in moments.items():
        values = np.asarray(params[name], np.float64)
        with np.errstate(all="ignore"):
            z = max(z, float(np.max(np.abs(values.mean(0) - mean) / std)))
            r = max(r, float(np.max(np.abs(np.log(values.std(0) / std)))))
    return z, r


def grade(row: dict[str, Any]) -> str:
    """Excellent or good, by their first letters, or neither, of errors `z` and `r`."""
    if row["z"] < 0.1 and row["r"] < np.log(1.1):
        return "E"
    return "G" if row["z"] < 0.3 and row["r"] < np.log(1.33) else "-"
