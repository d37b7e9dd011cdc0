from typing import NamedTuple

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._custom_types import Key, Point
from .._family.base import AbstractFamily
from .._family.mean_field import MeanField
from .._linalg import where_rows
from .._misc import as_positive, as_whole, lenient_promotion
from .._solver import quasi_newton
from .._target.probe import probe, Probes
from .._target.target import Target
from .base import AbstractMethod, check_kind, check_whole, F


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

    noise: Float[Array, "draws dim"]
    num_draws: Int[Array, ""]
    path: quasi_newton.Paths
    before: Float[Array, " params"]
    error: Float[Array, ""]
    is_done: Bool[Array, ""]
    num_evaluations: Int[Array, ""]

    @property
    def pairs(self) -> Float[Array, "pairs 2 dim"]:
        """The draws in use, by mirrored pairs. (On the host.)"""
        used = self.noise[: int(self.num_draws)]
        return used.reshape(-1, 2, self.noise.shape[1])


class DADVI(AbstractMethod):
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

    def init(self, key: Key, family: AbstractFamily, target: Target) -> DADVIState:
        check_kind(self, family, MeanField)
        check_whole(self, target)
        assert isinstance(family, MeanField)
        half = jr.normal(key, (self._most() // 2, family.dim), family.loc.dtype)
        flat = jnp.concatenate([family.loc, family.log_scale])
        return DADVIState(
            noise=jnp.stack([half, -half], axis=1).reshape(-1, family.dim),
            num_draws=jnp.full((), self.num_draws, jnp.int32),
            path=quasi_newton.begin(flat, flat[None]),
            before=flat,
            error=jnp.full((), jnp.inf, flat.dtype),
            is_done=jnp.array(False),
            num_evaluations=jnp.zeros((), jnp.int32),
        )

    def step(
        self, key: Key, family: F, target: Target, state: DADVIState
    ) -> tuple[F, DADVIState, Scalar]:
        assert isinstance(family, MeanField)
        with lenient_promotion():
            flat = quasi_newton.ask(state.path)[0]
            loc, log_scale = jnp.split(flat, 2)
            x = loc + jnp.exp(log_scale) * state.noise
        probes = probe(target, x, state.num_draws)
        with lenient_promotion():
            value, score = _objective(log_scale, state, probes)
            finite = jnp.isfinite(value)
            seen = Probes(
                x=flat[None],
                log_p=jnp.where(finite, value, -jnp.inf)[None],
                score=jnp.where(finite, score, 0)[None],
                finite=finite[None],
            )
            noise = jr.normal(key, flat.shape, flat.dtype)
            others = (state.path.x[0] + noise)[None]
            path = quasi_newton.tell(others, state.path, seen, _DECREMENT)
            state = state._replace(
                path=path, num_evaluations=state.num_evaluations + state.num_draws
            )
            finished = lambda state: self._doubled(
                state, _shares(log_scale, state, probes)
            )
            state = lax.cond(path.done[0], finished, lambda state: state, state)
            best = jnp.split(state.path.x[0], 2)
            family = eqx.tree_at(lambda f: (f.loc, f.log_scale), family, tuple(best))
            entropy_rest = 0.5 * len(loc) * (1 + np.log(2 * np.pi).item())
            # A trial that goes too far is no failure: the loss of the best so far.
            loss = -path.log_p[0] - entropy_rest
            return family, state, loss

    def _doubled(self, state: DADVIState, shares: Array) -> DADVIState:
        """With twice the draws, from the optimum for those at hand, or done."""
        flat = state.path.x[0]
        loc, log_scale = jnp.split(flat, 2)
        old_loc, old_log_scale = jnp.split(state.before, 2)
        is_first = state.num_draws == self.num_draws
        in_sds = lambda loc, scale: jnp.maximum(
            jnp.max(jnp.abs(loc) / jnp.exp(log_scale)), jnp.max(jnp.abs(scale))
        )
        # Of one coordinate, a small change may be luck.
        error = in_sds(*jnp.split(_standard_errors(state, shares), 2))
        change = in_sds(loc - old_loc, log_scale - old_log_scale)
        error = jnp.maximum(error, jnp.where(is_first, jnp.inf, change))
        over = (error < self.tolerance) | (2 * state.num_draws > self._most())
        # What is known of the curvature stays.
        again = quasi_newton.begin(flat, flat[None])._replace(
            inverse=state.path.inverse, is_first=jnp.zeros(1, bool)
        )
        return state._replace(
            num_draws=jnp.where(over, state.num_draws, 2 * state.num_draws),
            path=where_rows(over[None], state.path, again),
            before=flat,
            error=error,
            is_done=over,
        )

    def done(self, state: DADVIState) -> Bool[Array, ""]:
        return state.is_done


def _shares(
    log_scale: Point, state: DADVIState, probes: Probes
) -> Float[Array, "pairs params"]:
    """Each pair's part of the gradient; zero of those that are not in use."""
    by_scale = probes.score * state.noise * jnp.exp(log_scale) + 1
    each = jnp.concatenate([probes.score, by_scale], axis=1)
    used = (jnp.arange(len(each)) < state.num_draws)[:, None]
    each = jnp.where(used, each, 0)
    return jnp.mean(each.reshape(-1, 2, each.shape[1]), axis=1)


def _objective(
    log_scale: Point, state: DADVIState, probes: Probes
) -> tuple[Scalar, Float[Array, " params"]]:
    """The mean log density plus the entropy's part that changes, and its gradient."""
    count = state.num_draws.astype(log_scale.dtype)
    used = jnp.arange(len(probes.log_p)) < state.num_draws
    # Minus infinity if the density is not finite at one of the draws.
    value = jnp.sum(jnp.where(used, probes.log_p, 0)) / count + jnp.sum(log_scale)
    return value, jnp.sum(_shares(log_scale, state, probes), axis=0) / (count / 2)


def _standard_errors(
    state: DADVIState, shares: Float[Array, "pairs params"]
) -> Float[Array, " params"]:
    """Monte Carlo errors of the optimum, by the curvature that its path has seen."""
    count = state.num_draws.astype(shares.dtype) / 2
    used = (jnp.arange(len(shares)) < count)[:, None]
    centered = jnp.where(used, shares - jnp.sum(shares, axis=0) / count, 0)
    moved = centered @ state.path.inverse[0]
    variance = jnp.sum(moved**2, axis=0) / count / jnp.maximum(count - 1, 1)
    return jnp.sqrt(variance)
