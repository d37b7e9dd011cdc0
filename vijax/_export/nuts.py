"""Where NUTS may start from a fit: positions and a mass matrix."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import Key, Params
from .._draws.draws import Draws
from .._family.base import AbstractFamily, has_moment
from .._misc import as_flag, as_key, as_whole, float_dtype, is_traced
from .._target.target import Target
from .nuts_start import NUTSStart


# Above so many coordinates a dense matrix costs more than it brings.
_DENSE_DIM = 200
# With so many draws a coordinate, the condition number that noise alone leaves behind is
# ((1 + 5**-0.5) / (1 - 5**-0.5))**2 = 7: trajectories are less than thrice as long.
_DRAWS_A_COORDINATE = 5
_FEWEST_DRAWS = 10


def _check(approximation: Any, *, is_fit: bool) -> None:
    """Raise unless `approximation` is one fit or draws, with numbers to look at."""
    if not is_fit and not isinstance(approximation, Draws):
        raise ValueError(
            "`approximation` must be a `vi.Fit` or a `vi.Draws`, but it is a "
            f"{type(approximation).__name__}. Fit first, `vi.fit(target, key=key)`; of a "
            "family alone make draws, `vi.draw(family, target, 1_000, key=key)`."
        )
    estimates = approximation.target.model.point_names
    if estimates:
        raise ValueError(
            f"{list(estimates)} are point estimates, but NUTS samples every site. Make "
            "the target without `point=`."
        )
    if is_traced(approximation):
        raise ValueError(
            "`to_nuts` looks at its numbers on the host: not inside `jax.jit`, "
            "`jax.vmap` or the like. Hand the fit or the draws out, and call it on them."
        )


@eqx.filter_jit
def _moment(family: AbstractFamily, name: str) -> Array:
    return getattr(family, name)


def _wants_dense(dim: int, *, dense: bool | None) -> bool:
    return dim <= _DENSE_DIM if dense is None else dense


def _closed_form(family: AbstractFamily, *, dense: bool | None) -> np.ndarray | None:
    """The covariance or the variances as the family knows them, or `None`."""
    # Particles have moments too, but only those of a sample of their number.
    has = lambda name: family.has_density and has_moment(family, name)
    if not _wants_dense(family.dim, dense=dense):
        std = _moment(family, "std") if has("std") else None
        return None if std is None else np.asarray(std, float) ** 2
    if not has("covariance"):
        return None
    covariance = np.asarray(_moment(family, "covariance"), float)
    variances = np.diagonal(covariance)
    correlated = np.any(covariance != np.diag(variances))
    return covariance if dense or correlated else variances


def _ask(
    fit: Any, num_chains: int, *, dense: bool | None, neutra: bool, key: Key | None
) -> tuple[Draws, np.ndarray | None]:
    """Draws of a fit, and what `_closed_form` says of its family; nothing with
    `neutra`, since in its own coordinates only draws say how it is wrong."""
    fit._check_single()
    matrix = None if neutra else _closed_form(fit.family, dense=dense)
    dim = fit.family.dim
    num_draws = 10 * num_chains
    if matrix is None:
        needed = _DRAWS_A_COORDINATE * dim * _wants_dense(dim, dense=dense)
        num_draws = max(num_draws, 1_000, 2 * needed)
    return fit.draw(num_draws, key=as_key(key)), matrix


def _estimate(x: np.ndarray, num_distinct: int, *, dense: bool | None) -> np.ndarray:
    """The covariance or the variances of draws."""
    num_draws, dim = x.shape
    if num_draws < _FEWEST_DRAWS:
        raise ValueError(
            f"`approximation` holds {num_draws} draws, which is too few for variances. "
            f"Draw {_FEWEST_DRAWS} at least, better 1,000 or more."
        )
    needed = _DRAWS_A_COORDINATE * dim
    if dense and num_distinct < needed:
        raise ValueError(
            f"A dense matrix for {dim} coordinates needs {needed} distinct draws, but "
            f"there are {num_distinct}. Make more of them, or pass `dense=False`."
        )
    if _wants_dense(dim, dense=dense) and num_distinct >= needed:
        return np.cov(x.astype(float), rowvar=False).reshape(dim, dim)
    return np.var(x.astype(float), axis=0, ddof=1)


def _regular(
    matrix: np.ndarray, dtype: Any, layout: dict[str, Int[np.ndarray, " places"]]
) -> np.ndarray:
    """`matrix` with as much on its diagonal as a Cholesky factor in `dtype` needs."""
    variances = np.diagonal(matrix) if matrix.ndim == 2 else matrix
    good = np.isfinite(variances) & (variances > 0)
    names = [f"`{name}`" for name, places in layout.items() if not np.all(good[places])]
    if names:
        raise ValueError(
            f"The approximation has no positive, finite variance in {', '.join(names)}. "
            "It has collapsed or failed: look at `fit.result` and at the draws."
        )
    if matrix.ndim == 1:
        return matrix
    # In units of each variance. What Stan adds, a part of 1e-3 whatever the scale, would
    # drown small ones.
    return matrix + np.diag(4 * len(matrix) * float(jnp.finfo(dtype).eps) * variances)


def _distinct(draws: Draws, key: Key | None) -> Int[np.ndarray, " distinct"]:
    """Which draws differ from all before them, in the order that `key` puts them in."""
    x = np.asarray(draws.x)
    bad = int(np.sum(~np.all(np.isfinite(x), axis=1)))
    if bad:
        raise ValueError(
            f"{bad} of {len(x)} draws are NaN or infinite: the approximation has failed. "
            "Look at `fit.result`, and fit again, e.g. at a lower learning rate."
        )
    order = np.arange(len(x)) if key is None else np.asarray(jr.permutation(key, len(x)))
    return order[np.sort(np.unique(x[order], axis=0, return_index=True)[1])]


def _pick(draws: Draws, distinct: np.ndarray, num_chains: int) -> np.ndarray:
    """The starting points."""
    possible = distinct[np.isfinite(np.asarray(draws.log_p)[distinct])]
    if len(possible) < num_chains:
        raise ValueError(
            f"{num_chains} chains need as many distinct draws at which the log density "
            f"is finite, but there are {len(possible)} among {len(draws)} draws. Make "
            "more draws, or lower `num_chains`."
        )
    return np.asarray(draws.x)[possible[:num_chains]]


@eqx.filter_jit
def _unravel(target: Target, x: Float[Array, "points dim"]) -> Params:
    return jax.vmap(target.unravel)(x)


@eqx.filter_jit
def _inward(family: AbstractFamily, x: Float[Array, "points dim"]) -> Array:
    return jax.vmap(family.inward)(x)


def _check_coordinates(approximation: Any, *, is_fit: bool) -> None:
    """Raise unless there is a family that has coordinates of its own."""
    if not is_fit:
        raise ValueError(
            "`neutra=True` takes the coordinates of a fit's family, and `vi.Draws` have "
            "none. Pass the `vi.Fit`."
        )
    family = approximation.family
    zeros = jnp.zeros(family.dim, float_dtype(family))
    eqx.filter_eval_shape(lambda family: family.inward(family.outward(zeros)[0]), family)


def _layout(draws: Draws) -> dict[str, Int[np.ndarray, " places"]]:
    """Which coordinates belong to which parameter, sorted by name."""
    places = jnp.arange(draws.x.shape[1], dtype=float)
    parts = _unravel(draws.target, places[None])
    return {name: np.ravel(parts[name]).astype(int) for name in sorted(parts)}


def to_nuts(
    approximation: Any,
    *,
    num_chains: int = 4,
    dense: bool | None = None,
    neutra: bool = False,
    key: Key | None = None,
) -> NUTSStart:
    """Hand an approximation over to NUTS, as its mass matrix and its starting points.

    Use it when the approximation is good but not good enough. What NUTS spends most of
    its warm-up on is known already: with `adapt_mass_matrix` off, 150 steps find the step
    size. Whatever is handed over, NUTS samples the target: a poor approximation makes it
    slow rather than wrong. But chains that start where the approximation is agree with
    each other about a mode that it has missed.

    With `neutra=True` NUTS moves in the coordinates in which the approximation is a
    standard normal, or nearly. Those of a flow straighten what it has bent, and those of
    [`vijax.NestedGaussian`][], which a default fit of a hierarchy ends with, are
    non-centered: given its scales, each effect in units of its own conditional standard
    deviation. There is no funnel in them, and hardly a divergent transition.

    **Arguments:**

    - `approximation`: a [`vijax.Fit`][] or [`vijax.Draws`][].
    - `num_chains`: how many starting points. Keyword only.
    - `dense`: whether to hand over correlations too. Default: up to 200 coordinates, if
        there are any and they are known. A family knows its own; draws know them if
        there are five distinct ones a coordinate. Keyword only.
    - `neutra`: whether positions and matrix are in the coordinates of the fit's family:
        sample `start.log_density` then, and map draws by `start.constrain`, which serve
        without `neutra` too. Keyword only.
    - `key`: randomness, without which a fit cannot be drawn from. From draws, `key` picks
        the starting points; without one they are the first. Keyword only.

    **Returns:**

    A [`vijax.NUTSStart`][]. Its matrix is the family's own covariance, or its variances,
    where they have a closed form; else that of draws. A dense one has `4 * dim`
    rounding errors of each variance added on its diagonal, so that it has a Cholesky
    factor. Its points are distinct draws where the target's log density is finite.

    **Raises:** `ValueError` for anything but one fit or draws; for draws that are not
    finite, fewer than 10, or too few for the dense matrix asked for; if fewer distinct
    draws than chains have a finite log density; if a variance is not positive; with
    `neutra=True` for draws, or a family that has no such coordinates, such as a mixture.

    **Reference:** Hoffman, Sountsov, Dillon, Langmore, Tran and Vasudevan (2019),
    *NeuTra-lizing bad geometry in Hamiltonian Monte Carlo using neural transport*,
    [arXiv:1903.03704](https://arxiv.org/abs/1903.03704), for `neutra=True`.

    !!! Example

        Both samplers take flat vectors. NumPyro:

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi
        from numpyro.infer import MCMC, NUTS

        def log_density(params):
            return -0.5 * jnp.sum((params["x"] / jnp.array([1.0, 30.0])) ** 2)

        target = vi.from_log_density(log_density, {"x": vi.Param(2)})
        keys = jax.random.split(jax.random.key(0), 3)
        fit = vi.fit(target, "fullrank_advi", key=keys[0], progress=False)
        start = vi.to_nuts(fit, key=keys[1])
        kernel = NUTS(
            potential_fn=lambda x: -start.log_density(x),
            inverse_mass_matrix=start.inverse_mass_matrix,
            dense_mass=start.dense,
            adapt_mass_matrix=False,
        )
        options = {"num_chains": 4, "chain_method": "vectorized", "progress_bar": False}
        mcmc = MCMC(kernel, num_warmup=150, num_samples=250, **options)
        mcmc.run(keys[2], init_params=start.positions)
        draws = jax.vmap(start.constrain)(mcmc.get_samples())
        ```

        If the model is also written in NumPyro, with sites of the same names and
        supports, hand over `start.inverse_mass_matrix_by_site` and
        `start.positions_by_site` in the same places. NumPyro wants the points of a
        single chain without their leading axis.

        BlackJAX keeps the matrix if it counts for more than any window of steps:

        ```
        warm_up = blackjax.window_adaptation(
            blackjax.nuts,
            start.log_density,
            is_mass_matrix_diagonal=not start.dense,
            initial_inverse_mass_matrix=start.inverse_mass_matrix,
            imm_shrinkage_to_previous=1e12,
        )
        run = lambda key, x: warm_up.run(key, x, num_steps=150)[0]
        chain_keys = jax.random.split(keys[2], 4)
        states, parameters = jax.vmap(run)(chain_keys, start.positions)
        # Then `blackjax.nuts(start.log_density, **parameters)` of each chain.
        ```
    """
    num_chains = as_whole("num_chains", num_chains, 1)
    if not (dense is None or isinstance(dense, bool)):
        raise ValueError(f"`dense` must be True, False or None, but it is {dense!r}.")
    is_fit = hasattr(approximation, "draw") and hasattr(approximation, "family")
    _check(approximation, is_fit=is_fit)
    draws, matrix, family = approximation, None, None
    if as_flag("neutra", neutra):
        _check_coordinates(approximation, is_fit=is_fit)
        family = approximation.family
    if is_fit:
        draws, matrix = _ask(
            approximation, num_chains, dense=dense, neutra=family is not None, key=key
        )
    distinct = _distinct(draws, None if is_fit or key is None else as_key(key))
    x = jnp.asarray(_pick(draws, distinct, num_chains))
    by_name = _unravel(draws.target, x)
    layout, dtype = _layout(draws), draws.x.dtype
    if family is not None:
        z = np.asarray(_inward(family, draws.x))
        matrix = _estimate(z, len(distinct), dense=dense)
        matrix = jnp.asarray(_regular(matrix, dtype, layout), dtype)
        return NUTSStart(_inward(family, x), matrix, by_name, {}, draws.target, family)
    if matrix is None:
        matrix = _estimate(np.asarray(draws.x), len(distinct), dense=dense)
    matrix = _regular(matrix, dtype, layout)
    order = np.concatenate(list(layout.values()))
    by_site = matrix[np.ix_(order, order)] if matrix.ndim == 2 else matrix[order]
    matrix, by_site = (jnp.asarray(array, dtype) for array in (matrix, by_site))
    return NUTSStart(x, matrix, by_name, {tuple(layout): by_site}, draws.target)
