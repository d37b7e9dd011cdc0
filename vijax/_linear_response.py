from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ._custom_types import Key, Point
from ._family.mean_field import MeanField
from ._fit_result import Fit
from ._method.averaging import Averaging
from ._method.descent import Descent
from ._objective.elbo import ELBO
from ._objective.fixed_draws import FixedDraws
from ._target import Target


class LinearResponse(eqx.Module):
    """Covariances that a mean-field fit does not have itself.

    **Attributes:**

    - `mean`: the means, on the unconstrained scale, of shape `(dim,)`.
    - `covariance`: their linear-response covariance, of shape `(dim, dim)`.
    - `std`: the roots of its diagonal.
    - `mean_stderr`: the standard error of each mean from the number of fixed draws.
    - `decrement`: half of the squared gradient in units of the curvature: how far, in
        nats, the fit still was from its optimum, where all this holds.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import optax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        objective = vi.FixedDraws(vi.ELBO(64), jax.random.key(0))
        method = vi.Descent(objective, optax.lbfgs())
        fit = vi.fit(target, method, key=jax.random.key(1), max_steps=50)
        response = vi.linear_response(fit)
        response.std, response.mean_stderr
        ```
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

    - `fit`: a fit of a [`vijax.MeanField`][] by `vi.Descent(vi.FixedDraws(vi.ELBO(n),
        key), optimizer)`, run to convergence, such as with `optax.lbfgs()`.

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
        import optax
        import vijax as vi

        precision = jnp.array([[2.0, 0.9], [0.9, 1.0]])
        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] @ precision @ params["x"],
            {"x": vi.Param(2)},
        )
        objective = vi.FixedDraws(vi.ELBO(64, antithetic=True), jax.random.key(0))
        method = vi.Descent(objective, optax.lbfgs())
        fit = vi.fit(target, method, key=jax.random.key(1), max_steps=200)
        vi.linear_response(fit).covariance  # The inverse of `precision`.
        ```
    """
    method: Any = fit.problem.method
    if isinstance(method, Averaging):
        method = method.method
    objective: Any = getattr(method, "objective", None)
    family: Any = fit.family
    inner = getattr(objective, "objective", None)
    is_fixed = isinstance(method, Descent) and isinstance(objective, FixedDraws)
    if not (is_fixed and isinstance(inner, ELBO) and isinstance(family, MeanField)):
        raise ValueError(
            "Linear response needs a `vi.MeanField` that was fitted with fixed draws, "
            "`vi.Descent(vi.FixedDraws(vi.ELBO(64), key), optax.lbfgs())`, but this is a "
            f"`{type(family).__name__}` by {method!r}."
        )
    return _respond(fit.target, family, inner, objective.key)


@eqx.filter_jit
def _respond(
    target: Target, family: MeanField, objective: ELBO, key: Key
) -> LinearResponse:
    flat, unravel = jfu.ravel_pytree(family)
    dim = family.dim
    loss = lambda flat: objective(key, unravel(flat), target)
    hessian = jax.hessian(loss)(flat)
    inverse = jnp.linalg.inv(0.5 * (hessian + hessian.T))
    gradient = jax.grad(loss)(flat)

    # Each draw's part of the gradient: their spread is the Monte Carlo error.
    share = lambda flat, key: objective.one(key, unravel(flat), target)
    keys = jr.split(key, objective.num_keys)
    shares = jax.vmap(jax.grad(share), in_axes=(None, 0))(flat, keys)
    centered = shares - jnp.mean(shares, axis=0, keepdims=True)
    variance = centered.T @ centered / len(keys) / max(len(keys) - 1, 1)
    covariance = inverse[:dim, :dim]
    errors = jnp.diagonal(inverse @ variance @ inverse)[:dim]
    return LinearResponse(
        mean=family.loc,
        covariance=covariance,
        std=jnp.sqrt(jnp.diagonal(covariance)),
        mean_stderr=jnp.sqrt(jnp.maximum(errors, 0)),
        decrement=0.5 * gradient @ inverse @ gradient,
    )
