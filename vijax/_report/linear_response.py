"""Covariances that a mean-field fit lacks, by linear response."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import Key, Point
from .._family.mean_field import MeanField
from .._linalg import hessian
from .._method.dadvi import DADVI
from .._method.descent import Descent
from .._objective.elbo import ELBO
from .._objective.fixed_draws import FixedDraws
from .._run.fit_result import Fit
from .._target.target import Target


class LinearResponse(eqx.Module):
    """Covariances that a mean-field fit does not have itself.

    **Attributes:**

    - `mean`: the means, on the unconstrained scale, of shape `(dim,)`.
    - `covariance`: their linear-response covariance, of shape `(dim, dim)`.
    - `std`: the roots of its diagonal.
    - `mean_stderr`: the standard error of each mean from the number of fixed draws.
    - `decrement`: half of the squared gradient in units of the curvature: how far, in
        nats, the fit still was from its optimum, where all this holds.
    """

    mean: Point
    covariance: Float[Array, "dim dim"]
    std: Point
    mean_stderr: Point
    decrement: Float[Array, ""]

    def __repr__(self):
        return eqx.tree_pformat(self, short_arrays=False)


def linear_response(fit: Fit) -> LinearResponse:
    r"""Correct the covariance of a mean-field fit with fixed draws (DADVI).

    How the optimal means would move if the log density were tilted, $\log p(x) + t^\top
    x$, is the covariance of a posterior. With fixed draws the optimum is exact, and so
    are its derivatives. On a Gaussian posterior, with antithetic draws, the result is the
    exact covariance, whose correlations the mean-field family lacks.

    **Arguments:**

    - `fit`: a fit by [`vijax.DADVI`][]; or of a [`vijax.MeanField`][] by
        `vi.Descent(vi.FixedDraws(vi.ELBO(n), key), optimizer)`, run to convergence, such
        as with `optax.lbfgs()`.

    **Returns:**

    A [`vijax.LinearResponse`][].

    **Raises:** `ValueError` for another family or objective.

    **Reference:** Giordano, Ingram and Broderick (2024), *Black box variational inference
    with a deterministic objective: faster, more accurate, and even more black box*,
    JMLR 25(18), equations 7 (covariance, $H^{-1}$ of the means) and 9 (standard errors).

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        precision = jnp.array([[2.0, 0.9], [0.9, 1.0]])
        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] @ precision @ params["x"],
            {"x": vi.Param(2)},
        )
        fit = vi.fit(target, vi.DADVI(), key=jax.random.key(0))
        vi.linear_response(fit).covariance  # The inverse of `precision`.
        ```
    """
    if not isinstance(fit, Fit):
        raise ValueError(f"`fit` must be a `vi.Fit`, but it is a {type(fit).__name__}.")
    family: Any = fit.family
    parts, kind = _parts(fit), type(fit.family).__name__
    if parts is None or not isinstance(family, MeanField):
        raise ValueError(
            "Linear response needs a `vi.MeanField` that was fitted with fixed draws, by "
            "`vi.DADVI()` or `vi.Descent(vi.FixedDraws(vi.ELBO(64), key), "
            f"optax.lbfgs())`, but this is a `{kind}` by {fit.problem.method!r}."
        )
    return _respond(fit.target, family, *parts)


def _parts(fit: Fit) -> tuple[Callable, Array] | None:
    """The loss of one draw or pair, `one(item, family, target)`, and what makes each."""
    method: Any = fit.problem.method
    if isinstance(method, DADVI):
        pairs = np.asarray(fit.state.pairs, fit.family.loc.dtype)
        return _pair_loss, jax.device_put(pairs)
    objective: Any = getattr(method, "objective", None)
    inner = getattr(objective, "objective", None)
    is_fixed = isinstance(method, Descent) and isinstance(objective, FixedDraws)
    if not is_fixed or not isinstance(inner, ELBO):
        return None
    return inner.one, _split(objective.key, inner.num_keys)


@functools.partial(jax.jit, static_argnums=1)
def _split(key: Key, num_keys: int) -> Array:
    # As the objective does: one key is used as it is.
    return jr.split(key, num_keys) if num_keys > 1 else key[None]


def _pair_loss(pair: Array, family: MeanField, target: Target) -> Array:
    x = family.loc[None, :] + jnp.exp(family.log_scale)[None, :] * pair
    return -jnp.mean(jax.vmap(target.log_density)(x)) - jnp.sum(family.log_scale)


@eqx.filter_jit
def _respond(
    target: Target, family: MeanField, one: Callable, items: Array
) -> LinearResponse:
    flat, unravel = jfu.ravel_pytree(family)
    dim, count = family.dim, items.shape[0]
    share = lambda flat, item: one(item, unravel(flat), target)
    loss = lambda flat: jnp.mean(jax.vmap(share, in_axes=(None, 0))(flat, items))
    curvature = hessian(loss, flat)
    inverse = jnp.linalg.inv(0.5 * (curvature + curvature.T))

    # Each draw's part of the gradient: their spread is the Monte Carlo error.
    shares = jax.vmap(jax.grad(share), in_axes=(None, 0))(flat, items)
    gradient = jnp.mean(shares, axis=0)
    centered = shares - gradient[None, :]
    variance = centered.T @ centered / count / max(count - 1, 1)
    covariance = inverse[:dim, :dim]
    errors = jnp.diagonal(inverse @ variance @ inverse)[:dim]
    return LinearResponse(
        mean=family.loc,
        covariance=covariance,
        std=jnp.sqrt(jnp.diagonal(covariance)),
        mean_stderr=jnp.sqrt(jnp.maximum(errors, 0)),
        decrement=0.5 * gradient @ inverse @ gradient,
    )
