"""A search for modes that a fit may have missed, which no weights would show."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Bool, Float

from .._auto.stages import spread_starts
from .._custom_types import Key, Point
from .._linalg import equilibrated_cholesky, hessian, mirrored
from .._misc import float_dtype, lenient_promotion
from .._solver import quasi_newton
from .._target.probe import probe
from .._target.target import Target


# How many of the ends elsewhere are looked at more closely.
_MOST = 3
# Ends whose log densities differ by less than this are the same, most likely.
_SAME = 0.5


class Starts(NamedTuple):
    """How many starts came to rest where the answer is, and elsewhere; and the part of
    the mass at the best place elsewhere, as far as that was looked at."""

    num_near: int
    num_apart: int
    other_share: float = 0.0


class _Ends(NamedTuple):
    x: Float[Array, "starts dim"]
    log_p: Float[Array, " starts"]
    near: Bool[Array, " starts"]
    apart: Bool[Array, " starts"]


@eqx.filter_jit
def _search(
    target: Target, x: Float[Array, "draws dim"], key: Key, num_starts: int
) -> _Ends:
    dtype, dim = float_dtype(x), target.dim

    def others(step: Array) -> Array:
        shape = (num_starts + 1) // 2, dim
        half = jr.normal(jr.fold_in(key, step), shape, dtype)
        return spread_starts(mirrored(half), num_starts)

    def go_on(paths: quasi_newton.Paths) -> quasi_newton.Paths:
        with lenient_promotion():
            points = quasi_newton.ask(paths)
        probes = probe(target, points, num_starts)
        with lenient_promotion():
            return quasi_newton.tell(others(paths.num_steps + 1), paths, probes)

    first = others(jnp.zeros((), jnp.int32))
    paths = quasi_newton.begin(target.model.initial().astype(dtype), first)
    paths = lax.while_loop(lambda paths: ~jnp.all(paths.done), go_on, paths)
    with lenient_promotion():
        loc = jnp.mean(x, axis=0)
        root = equilibrated_cholesky((x - loc).T @ (x - loc) / len(x), 1e-4)
        z = jsl.solve_triangular(root, (paths.x - loc).T, lower=True)
        near = jnp.sum(z**2, axis=0) < dim + 4 * (2 * dim) ** 0.5 + 8
    converged = paths.converged
    return _Ends(paths.x, paths.log_p, converged & near, converged & ~near)


@eqx.filter_jit
def _log_evidence(target: Target, x: Point) -> Array:
    """By Laplace's approximation; NaN where `x` is no maximum."""
    factor = jnp.linalg.cholesky(-hessian(target.log_density, x))
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
    constant = 0.5 * x.size * np.log(2 * np.pi).item()
    return target.log_density(x) + constant - half_log_det


def search_for_modes(
    target: Target,
    x: Float[Array, "draws dim"],
    log_evidence: float,
    *,
    key: Key,
    num_starts: int,
) -> Starts:
    """Search from several starts for modes that are not where the draws are.

    **Arguments:**

    - `target`: what was approximated. All of its data are used.
    - `x`: draws of the approximation.
    - `log_evidence`: the evidence that the approximation accounts for.
    - `key`: randomness of the starts. Keyword only.
    - `num_starts`: how many. Keyword only.
    """
    ends = jax.tree.map(np.asarray, _search(target, x, key, num_starts))
    places = np.flatnonzero(ends.apart)
    places = places[np.argsort(-ends.log_p[places])]
    share, last, looked = 0.0, np.inf, 0
    for i in places:
        if looked == _MOST:
            break
        if last - ends.log_p[i] < _SAME:
            continue
        last, looked = ends.log_p[i], looked + 1
        mass = float(_log_evidence(target, jnp.asarray(ends.x[i]))) - log_evidence
        if np.isfinite(mass):
            share = max(share, float(1 / (1 + np.exp(-np.clip(mass, -700, 700)))))
    return Starts(int(ends.near.sum()), len(places), share)
