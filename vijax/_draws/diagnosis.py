"""What importance weights say of every quantity that a user reads."""

import dataclasses

import numpy as np

from .._misc import entry_names
from .draws import Draws
from .psis import proposal_log_weights, smoothed


# A weighted sample that stands for less than this part of its draws is poor; more is
# needed where there are many quantities, since the worst has the most of the noise.
_FEWEST_EFFECTIVE, _FEWEST_OF_MANY, _DIM_OF_MANY = 0.1, 0.25, 250
# Where the tail of a quantity's contributions is heavier, its error is not known.
_KHAT = 0.8
# Standard errors, in posterior standard deviations, that are too large to be of use.
_STDERR = 0.15
# How far a family's own mean may be off, in standard deviations, and its standard
# deviation, in logarithms, where draws are not corrected.
_MEAN_ERROR, _STD_ERROR = 0.2, 0.25
# With so many quantities only their unconstrained coordinates are judged.
_MANY = 2_000


def fewest_effective(dim: int) -> float:
    """The part of the draws that weights must be worth in so many coordinates."""
    part = _FEWEST_OF_MANY * dim / _DIM_OF_MANY
    return min(max(part, _FEWEST_EFFECTIVE), _FEWEST_OF_MANY)


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
        # NaN is not below anything.
        sharp = self.mean_stderr < _STDERR and self.std_stderr < _STDERR
        return bool(self.khat < _KHAT and sharp and np.isfinite(self.std))

    @property
    def is_off(self) -> bool:
        """Whether the family's own moments are far from it."""
        mean, std = abs(self.mean_error), abs(self.std_error)
        return not (mean < _MEAN_ERROR and std < _STD_ERROR)

    @property
    def badness(self) -> float:
        """The worst of its figures in units of what is allowed: above one is a fault."""
        weights = self.khat / _KHAT, self.mean_stderr / _STDERR, self.std_stderr / _STDERR
        own = abs(self.mean_error) / _MEAN_ERROR, abs(self.std_error) / _STD_ERROR
        return float(np.nan_to_num(np.max([*weights, *own]), nan=np.inf))


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
    - `fewest`: what `effective` must be above.
    - `acceptance`: where the weights are too few, but the target moves draws no further
        than noise does, the part of the trajectories that was accepted: there
        `quantities` are of the moved draws. Else `None`.
    """

    khat: float
    effective: float
    num_draws: int
    log_evidence: float
    log_evidence_stderr: float
    quantities: tuple[Quantity, ...]
    fewest: float
    acceptance: float | None = None

    @property
    def is_fine(self) -> bool:
        """Whether all the quantities can be relied on."""
        return not self.has_few and not self.failing

    @property
    def has_few(self) -> bool:
        """Whether too few draws are left in effect."""
        return self.acceptance is None and not self.effective > self.fewest

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
        return entry_names("x", x.shape[1:]), x.astype(np.float64)
    names, parts = [], []
    for name, values in params.items():
        names += entry_names(name, values.shape[1:])
        parts.append(values.reshape(len(draws), -1).astype(np.float64))
    return names, np.concatenate(parts, axis=1) if parts else np.zeros((len(draws), 0))


def diagnose(draws: Draws) -> Diagnosis:
    """Judge the weights of draws from a proposal, and what they say of each quantity."""
    log_weights = proposal_log_weights(draws.log_p, draws.need_log_q())
    count = len(log_weights)
    smooth, khat = smoothed(log_weights)
    weights = np.exp(smooth - np.max(smooth))
    weights /= weights.sum()
    relative = np.exp(log_weights - np.max(log_weights))
    spread = np.std(relative, ddof=1) / np.mean(relative) / count**0.5
    return Diagnosis(
        khat=khat,
        effective=float(1 / np.sum(weights**2) / count),
        num_draws=count,
        log_evidence=float(np.log(np.mean(relative)) + np.max(log_weights)),
        log_evidence_stderr=float(spread),
        quantities=_quantities(draws, weights, log_weights),
        fewest=fewest_effective(draws.x.shape[1]),
    )


def diagnose_equal(draws: Draws) -> tuple[Quantity, ...]:
    """What independent draws of the target say of each quantity."""
    count = len(draws)
    return _quantities(draws, np.full(count, 1 / count), np.zeros(count))


def with_own_moments(
    quantities: tuple[Quantity, ...], plain: Draws
) -> tuple[Quantity, ...]:
    """The quantities, and how far the family's own moments are from these."""
    names, values = columns(plain)
    own = dict(zip(names, values.T, strict=True))
    out = []
    for q in quantities:
        column = own[q.name]
        with np.errstate(all="ignore"):
            mean_error = (np.mean(column) - q.mean) / q.std
            std_error = np.log(np.std(column) / q.std)
        errors = {"mean_error": float(mean_error), "std_error": float(std_error)}
        out.append(dataclasses.replace(q, **errors))
    return tuple(out)


def _quantities(
    draws: Draws, weights: np.ndarray, log_weights: np.ndarray
) -> tuple[Quantity, ...]:
    out = []
    for name, column in zip(*_by_column(draws), strict=True):
        quantity = _quantity(name, column, weights, log_weights)
        if quantity is not None:
            out.append(quantity)
    return tuple(out)


def _by_column(draws: Draws) -> tuple[list[str], np.ndarray]:
    names, values = columns(draws)
    return names, values.T


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
