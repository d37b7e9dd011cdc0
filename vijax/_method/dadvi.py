from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from .._arrays import cond, namespace
from .._custom_types import AnyArray
from .._family.base import AbstractFamily
from .._family.mean_field import MeanField
from .._linalg import where_rows
from .._misc import as_positive, as_whole
from .._solver import quasi_newton
from .._target.probe import Probes
from .._target.target import Target
from .base import AbstractAskTell, check_kind, check_whole, F


# Newton decrement, in nats, at which the optimum for the draws at hand is reached: a
# thousandth of a standard deviation.
_DECREMENT = 1e-6


class DADVIState(NamedTuple):
    """The state of [`vijax.DADVI`][].

    `noise` are the base draws, each followed by its mirror image, of which the first
    `num_draws` are in use; `error` is the largest Monte Carlo error of a mean, in
    standard deviations, or of the logarithm of a standard deviation: what the draws say,
    or how much changed when they were last doubled, whichever is larger;
    `num_evaluations` counts gradients.
    """

    noise: Float[AnyArray, "draws dim"]
    num_draws: Int[AnyArray, ""]
    path: quasi_newton.Paths
    before: Float[AnyArray, " params"]
    error: Float[AnyArray, ""]
    is_done: Bool[AnyArray, ""]
    num_evaluations: Int[AnyArray, ""]

    @property
    def pairs(self) -> Float[AnyArray, "pairs 2 dim"]:
        """The draws in use, by mirrored pairs. (On the host.)"""
        used = self.noise[: int(self.num_draws)]
        return used.reshape(-1, 2, self.noise.shape[1])


class DADVI(AbstractAskTell):
    r"""Deterministic ADVI: mean field with fixed draws, by quasi-Newton steps.

    With the randomness drawn once, the ELBO is a function that BFGS can maximize to the
    end, without a learning rate. The draws, in mirrored pairs, are then doubled until the
    answer is stable: neither the change between the optima for half of the draws and for
    all, nor the spread of the draws' gradients, in units of the curvature, leaves more
    than a small Monte Carlo error. [`vijax.linear_response`][] gives the covariance that
    a mean-field family lacks, and the exact curvature's error of each mean.
    `fit.state.num_draws` and `fit.state.error` say where it ended.

    It holds a matrix of `(2 dim)**2` numbers.

    **Reference:** Giordano, Ingram and Broderick (2024), *Black box variational inference
    with a deterministic objective: faster, more accurate, and even more black box*,
    [arXiv:2304.05527](https://arxiv.org/abs/2304.05527). Draws are not doubled there.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, vi.DADVI(), key=jax.random.key(0))
        vi.linear_response(fit).std, fit.state.num_draws
        ```
    """

    num_draws: int = eqx.field(static=True)
    max_draws: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    def __init__(
        self, num_draws: int = 32, max_draws: int = 1_024, tolerance: float | int = 0.05
    ):
        """**Arguments:**

        - `num_draws`: how many draws at first: even.
        - `max_draws`: how many at most.
        - `tolerance`: the Monte Carlo error of means, in standard deviations, and of
            logarithms of standard deviations, at which more draws are not worth it.

        **Raises:** `ValueError` for numbers that are not positive, odd draws, or fewer at
        most than at first.
        """
        self.num_draws = as_whole("num_draws", num_draws, 2)
        self.max_draws = as_whole("max_draws", max_draws, self.num_draws)
        if self.num_draws % 2:
            raise ValueError(
                f"`num_draws` must be even, since draws come in pairs, but it is "
                f"{num_draws}."
            )
        self.tolerance = as_positive("tolerance", tolerance)

    def _most(self) -> int:
        """The largest number of draws that doubling comes to."""
        return self.num_draws * 2 ** int(np.log2(self.max_draws // self.num_draws))

    def check(self, family: AbstractFamily, target: Target) -> None:
        check_kind(self, family, MeanField)
        check_whole(self, target)

    def begin_noise(self, dim: int) -> tuple[int, ...]:
        return (self._most() // 2, dim)

    def step_noise(self, dim: int) -> tuple[int, ...]:
        return (2 * dim,)

    def begin(self, noise: AnyArray, family: Any) -> DADVIState:
        xp, dim = namespace(noise), family.dim
        flat = xp.concatenate([family.loc, family.log_scale])
        return DADVIState(
            noise=xp.stack([noise, -noise], axis=1).reshape(-1, dim),
            num_draws=xp.full((), self.num_draws, xp.int32),
            path=quasi_newton.begin(flat, flat[None]),
            before=flat,
            error=xp.full((), xp.inf, flat.dtype),
            is_done=xp.array(False),
            num_evaluations=xp.zeros((), xp.int32),
        )

    def ask(self, noise: AnyArray, state: DADVIState) -> tuple[AnyArray, AnyArray]:
        del noise
        loc, log_scale = _parts(_trial(state))
        xp = namespace(loc)
        return loc + xp.exp(log_scale) * state.noise, state.num_draws

    def tell(
        self, noise: AnyArray, state: DADVIState, probes: Probes
    ) -> tuple[DADVIState, AnyArray]:
        xp, flat = namespace(noise), _trial(state)
        loc, log_scale = _parts(flat)
        value, score = _objective(log_scale, state, probes)
        finite = xp.isfinite(value)
        seen = Probes(
            x=flat[None],
            log_p=xp.where(finite, value, -xp.inf)[None],
            score=xp.where(finite, score, 0)[None],
            finite=finite[None],
            count=probes.count,
            eps=probes.eps,
        )
        others = (state.path.x[0] + noise)[None]
        path = quasi_newton.tell(others, state.path, seen, _DECREMENT)
        made = state.num_evaluations + state.num_draws
        state = state._replace(path=path, num_evaluations=made)
        finished = lambda state: self._doubled(state, _shares(log_scale, state, probes))
        state = cond(path.done[0], finished, lambda state: state, state)
        entropy_rest = 0.5 * len(loc) * (1 + np.log(2 * np.pi).item())
        # A trial that goes too far is no failure: the loss of the best so far.
        return state, -path.log_p[0] - entropy_rest

    def place(self, family: F, state: DADVIState) -> F:
        best = _parts(state.path.x[0])
        return eqx.tree_at(lambda f: (f.loc, f.log_scale), family, best)

    def _doubled(self, state: DADVIState, shares: AnyArray) -> DADVIState:
        """With twice the draws, from the optimum for those at hand, or done."""
        xp, flat = namespace(shares), state.path.x[0]
        loc, log_scale = _parts(flat)
        old_loc, old_log_scale = _parts(state.before)
        is_first = state.num_draws == self.num_draws
        in_sds = lambda loc, scale: xp.maximum(
            xp.max(xp.abs(loc) / xp.exp(log_scale)), xp.max(xp.abs(scale))
        )
        # Of one coordinate, a small change may be luck.
        error = in_sds(*_parts(_standard_errors(state, shares)))
        change = in_sds(loc - old_loc, log_scale - old_log_scale)
        error = xp.maximum(error, xp.where(is_first, xp.inf, change))
        over = (error < self.tolerance) | (2 * state.num_draws > self._most())
        # What is known of the curvature stays.
        again = quasi_newton.begin(flat, flat[None])._replace(
            inverse=state.path.inverse, is_first=xp.zeros(1, bool)
        )
        return state._replace(
            num_draws=xp.where(over, state.num_draws, 2 * state.num_draws),
            path=where_rows(over[None], state.path, again),
            before=flat,
            error=error,
            is_done=over,
        )

    def done(self, state: DADVIState) -> Bool[AnyArray, ""]:
        return state.is_done


def _trial(state: DADVIState) -> Float[AnyArray, " params"]:
    """The next point of the one path."""
    return quasi_newton.ask(state.path)[0][0]


def _parts(flat: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The locations and the logarithms of scales."""
    dim = flat.shape[0] // 2
    return flat[:dim], flat[dim:]


def _shares(
    log_scale: AnyArray, state: DADVIState, probes: Probes
) -> Float[AnyArray, "pairs params"]:
    """Each pair's part of the gradient; zero of those that are not in use."""
    xp = namespace(log_scale)
    by_scale = probes.score * state.noise * xp.exp(log_scale) + 1
    each = xp.concatenate([probes.score, by_scale], axis=1)
    used = (xp.arange(len(each)) < state.num_draws)[:, None]
    each = xp.where(used, each, 0)
    return xp.mean(each.reshape(-1, 2, each.shape[1]), axis=1)


def _objective(
    log_scale: AnyArray, state: DADVIState, probes: Probes
) -> tuple[AnyArray, Float[AnyArray, " params"]]:
    """The mean log density plus the entropy's part that changes, and its gradient."""
    xp, count = namespace(log_scale), state.num_draws.astype(log_scale.dtype)
    used = xp.arange(len(probes.log_p)) < state.num_draws
    # Minus infinity if the density is not finite at one of the draws.
    value = xp.sum(xp.where(used, probes.log_p, 0)) / count + xp.sum(log_scale)
    return value, xp.sum(_shares(log_scale, state, probes), axis=0) / (count / 2)


def _standard_errors(
    state: DADVIState, shares: Float[AnyArray, "pairs params"]
) -> Float[AnyArray, " params"]:
    """Monte Carlo errors of the optimum, by the curvature that its path has seen."""
    xp, count = namespace(shares), state.num_draws.astype(shares.dtype) / 2
    used = (xp.arange(len(shares)) < count)[:, None]
    centered = xp.where(used, shares - xp.sum(shares, axis=0) / count, 0)
    moved = centered @ state.path.inverse[0]
    variance = xp.sum(moved**2, axis=0) / count / xp.maximum(count - 1, 1)
    return xp.sqrt(variance)
