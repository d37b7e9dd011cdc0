"""What importance weights say of every quantity that a user reads."""

import dataclasses

import numpy as np

from ._draws import Draws
from ._psis import smoothed


# A weighted sample that stands for less than this part of its draws is poor.
_FEWEST_EFFECTIVE = 0.1
# Where the tail of a quantity's contributions is heavier, its error is not known.
_KHAT = 0.8
# Standard errors, in posterior standard deviations, that are too large to be of use.
_STDERR = 0.15
# With so many quantities only their unconstrained coordinates are judged.
_MANY = 2_000


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One number of the posterior, estimated with importance weights.

    **Attributes:**

    - `name`: e.g. `"beta[0]"`.
    - `mean`, `std`: its posterior mean and standard deviation.
    - `khat`: the Pareto k-hat of what the draws contribute to its variance.
    - `mean_stderr`: the standard error of the mean, in standard deviations.
    - `std_stderr`: the relative standard error of the standard deviation.
    - `mean_error`: how far the family's own mean is from it, in standard deviations.
    - `std_error`: the logarithm of the family's own standard deviation over `std`.
    """

    name: str
    mean: float
    std: float
    khat: float
    mean_stderr: float
    std_stderr: float
    mean_error: float = 0.0
    std_error: float = 0.0

    @property
    def is_fine(self) -> bool:
        """Whether its estimates can be relied on."""
        sharp = max(self.mean_stderr, self.std_stderr) < _STDERR
        return bool(self.khat < _KHAT and sharp and np.isfinite(self.std))


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The weights of a proposal's draws.

    **Attributes:**

    - `khat`: the Pareto k-hat of the weights.
    - `effective`: the effective sample size over the number of draws.
    - `num_draws`: how many draws.
    - `log_evidence`: the logarithm of the mean weight.
    - `log_evidence_stderr`: its standard error.
    - `quantities`: each number of the posterior.
    """

    khat: float
    effective: float
    num_draws: int
    log_evidence: float
    log_evidence_stderr: float
    quantities: tuple[Quantity, ...]

    @property
    def is_fine(self) -> bool:
        """Whether all the quantities can be relied on."""
        return bool(self.effective > _FEWEST_EFFECTIVE and not self.failing)

    @property
    def failing(self) -> tuple[Quantity, ...]:
        """The quantities that cannot be relied on."""
        return tuple(q for q in self.quantities if not q.is_fine)

    @property
    def worst_khat(self) -> float:
        """The largest k-hat of a quantity."""
        return max((q.khat for q in self.quantities), default=0.0)


def columns(draws: Draws) -> tuple[list[str], np.ndarray]:
    """The names of all numbers of the posterior, and a column of draws for each."""
    params = {k: np.asarray(v) for k, v in draws.params.items()}
    params = {k: v for k, v in params.items() if np.issubdtype(v.dtype, np.floating)}
    if sum(v[0].size for v in params.values()) > _MANY:
        x = np.asarray(draws.x)
        return [f"x[{i}]" for i in range(x.shape[1])], x.astype(np.float64)
    names, parts = [], []
    for name, values in params.items():
        for index in np.ndindex(values.shape[1:]):
            label = f"{name}[{', '.join(map(str, index))}]" if index else name
            names.append(label)
            parts.append(values[(slice(None), *index)].astype(np.float64))
    return names, np.stack(parts, axis=1) if parts else np.zeros((len(draws), 0))


def log_weights_of(draws: Draws) -> np.ndarray:
    """The log weights on the host; very small where the target has no density."""
    log_weights = np.array(draws.log_p, np.float64) - np.array(draws.need_log_q())
    finite = np.isfinite(log_weights)
    if not finite.any():
        raise ValueError(
            "None of the draws has a finite log density: the fit is far off, or the "
            "supports of the parameters are wrong."
        )
    least = np.min(log_weights[finite]) - 100
    return np.where(finite, log_weights, least)


def diagnose(draws: Draws) -> Diagnosis:
    """Judge the weights of draws from a proposal, and what they say of each quantity."""
    log_weights = log_weights_of(draws)
    count = len(log_weights)
    smooth, khat = smoothed(log_weights)
    weights = np.exp(smooth - np.max(smooth))
    weights /= weights.sum()
    relative = np.exp(log_weights - np.max(log_weights))
    spread = np.std(relative, ddof=1) / np.mean(relative) / count**0.5
    names, values = columns(draws)
    quantities = []
    for name, column in zip(names, values.T, strict=True):
        quantity = _quantity(name, column, weights, log_weights)
        if quantity is not None:
            quantities.append(quantity)
    return Diagnosis(
        khat=khat,
        effective=float(1 / np.sum(weights**2) / count),
        num_draws=count,
        log_evidence=float(np.log(np.mean(relative)) + np.max(log_weights)),
        log_evidence_stderr=float(spread),
        quantities=tuple(quantities),
    )


def _quantity(
    name: str, column: np.ndarray, weights: np.ndarray, log_weights: np.ndarray
) -> Quantity | None:
    finite = np.isfinite(column)
    column = np.where(finite, column, 0.0)
    mean = float(np.sum(weights * column))
    squares = (column - mean) ** 2
    variance = float(np.sum(weights * squares))
    if variance <= 1e-24 * max(mean**2, 1e-24):
        return None  # A constant: the number of rows, say.
    # What the draws contribute, as log weights: the tail of the largest ones.
    least = np.finfo(float).tiny
    contributions = log_weights + np.log(np.maximum(squares / variance, least))
    khat = smoothed(contributions)[1] if finite.all() else np.inf
    own = np.sqrt(np.sum(weights**2 * squares) / variance)
    excess = np.sqrt(np.sum((weights * (squares / variance - 1)) ** 2)) / 2
    return Quantity(name, mean, variance**0.5, khat, float(own), float(excess))
