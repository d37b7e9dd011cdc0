from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._custom_types import Key
from .._kernel.base import median_squared_distance
from .._linalg import equilibrated_cholesky
from .._misc import all_finite, as_key, as_numbers, map_in_batches, tree_size
from .._target.target import check_target, Target


# All pairs are looked at, so not of more points than this.
_MOST = 2_000
_NUM_SIGNS = 1_000
# What is added to the correlations of the points, of which there may be few.
_JITTER = 1e-3


class KernelSteinDiscrepancy(eqx.Module):
    """How far points are from a target, by its scores.

    **Attributes:**

    - `value`: the discrepancy, not negative: the root of the mean over all pairs.
    - `squared`: the mean over pairs of different points, which has expectation zero for
        independent draws of the target.
    - `pvalue`: how likely independent draws of the target have a larger `squared`.
    """

    value: Float[Array, ""]
    squared: Float[Array, ""]
    pvalue: Float[Array, ""]

    def __repr__(self):
        return eqx.tree_pformat(self, short_arrays=False)


@eqx.filter_jit
def _discrepancy(x: Array, target: Target, key: Key) -> KernelSteinDiscrepancy:
    n, dim = x.shape
    scores = map_in_batches(jax.grad(target.log_density), x, tree_size(target.data))
    moved = x - jnp.mean(x, axis=0, keepdims=True)
    root = equilibrated_cholesky(moved.T @ moved / n, _JITTER)
    u, s = jsl.solve_triangular(root, moved.T, lower=True).T, scores @ root
    bandwidth = median_squared_distance(u)
    inner = u @ u.T
    norms = jnp.diagonal(inner)
    squared = norms[:, None] + norms[None, :] - 2 * inner
    squared = jnp.maximum(squared, 0) * (1 - jnp.eye(n, dtype=u.dtype))
    base = 1 + squared / bandwidth
    # (s_j - s_i)'(u_i - u_j): what is left of the two mixed terms.
    across = s @ u.T
    own = jnp.diagonal(across)
    mixed = across + across.T - own[:, None] - own[None, :]
    pairs = (
        (s @ s.T) * base**-0.5
        - base**-1.5 / bandwidth * (mixed - dim)
        - 3 * squared * base**-2.5 / bandwidth**2
    )
    different = pairs * (1 - jnp.eye(n, dtype=u.dtype))
    signs = jr.rademacher(key, (_NUM_SIGNS, n), u.dtype)
    nulls = jnp.sum((signs @ different) * signs, axis=1)
    seen = jnp.sum(different)
    exceeding = jnp.sum(nulls >= seen).astype(u.dtype)
    finite = all_finite((pairs, seen))
    return KernelSteinDiscrepancy(
        value=jnp.where(finite, jnp.sqrt(jnp.maximum(jnp.mean(pairs), 0)), jnp.inf),
        squared=jnp.where(finite, seen / (n * (n - 1)), jnp.inf),
        pvalue=jnp.where(finite, (1 + exceeding) / (1 + _NUM_SIGNS), 0),
    )


def kernel_stein_discrepancy(
    x: ArrayLike, target: Target, *, key: Key
) -> KernelSteinDiscrepancy:
    r"""How far points are from a target, by its scores: also for particles, which have no
    density.

    With the inverse multiquadric kernel, in coordinates where the points have unit
    covariance. It sees wrong location and spread; not wrong weights of modes that are far
    apart, which scores know nothing of. The test against independent draws is the
    bootstrap with random signs; particles that repel each other do better than draws.

    **Arguments:**

    - `x`: unconstrained points, of shape `(points, dim)`, each once: `fit.family.x` of
        particles, or `draws.x` of plain draws. Of more than 2,000, evenly spaced ones.
    - `target`: the [`vijax.Target`][]. All of its data are used.
    - `key`: randomness of the signs. Keyword only.

    **Returns:**

    A [`vijax.KernelSteinDiscrepancy`][]; infinite where a score is not finite.

    **Raises:** `ValueError` if `x` is of another shape or has fewer than two rows, or
    repeats itself, as resampled draws do.

    **Reference:** Gorham and Mackey (2017), *Measuring sample quality with kernels*,
    [arXiv:1703.01717](https://arxiv.org/abs/1703.01717); Liu, Lee and Jordan (2016), *A
    kernelized Stein discrepancy for goodness-of-fit tests*,
    [arXiv:1602.03253](https://arxiv.org/abs/1602.03253), equations 9 and 14.

    !!! Example

        ```python
        import jax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2, {"x": vi.Param()}
        )
        fit = vi.fit(target, vi.SVGD(), key=jax.random.key(0), max_steps=500)
        vi.kernel_stein_discrepancy(fit.family.x, target, key=jax.random.key(1))
        ```
    """
    check_target(target)
    key, points = as_key(key), _checked(x, target)
    step = -(-len(points) // _MOST)
    return _discrepancy(jnp.asarray(points[::step]), target, key)


def _checked(x: Any, target: Target) -> np.ndarray:
    points = np.asarray(as_numbers("x", x))
    shape = points.shape
    if points.ndim != 2 or shape[1] != target.dim or shape[0] < 2:
        raise ValueError(
            f"`x` must be two points or more of shape (points, {target.dim}), but its "
            f"shape is {shape}. Use `fit.family.x` of particles, or `draws.x`."
        )
    num_once = len(np.unique(points, axis=0))
    if num_once < len(points):
        raise ValueError(
            f"Of the {len(points)} points of `x` only {num_once} differ. Use plain "
            "draws, `fit.draw(n, key=key, corrected=False)`, or `fit.family.x` of "
            "particles, each of which occurs once."
        )
    return points
