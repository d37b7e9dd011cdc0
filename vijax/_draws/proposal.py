"""Proposals for importance sampling: a fitted family with heavier tails."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._family.affine import Affine
from .._family.base import AbstractFamily
from .._family.coupling import Coupling
from .._family.full_rank import FullRank
from .._family.mean_field import MeanField
from .._family.mixture import Mixture
from .._family.particles import Particles
from .._family.student_t import StudentT


# The tails of a Student t cost effective draws in many dimensions.
_FEWEST_DF = 10
# Where these are still too light, the lightest with a variance.
_HEAVY_DF = 3


@eqx.filter_jit
def heavy_tailed(family: AbstractFamily, *, heavier: bool = False) -> AbstractFamily:
    """The same family with a Student t in place of each Gaussian; others as they are.

    With a Gaussian proposal the weights grow without bound where the target's tails are
    heavier, however close the two are. Tails that are `heavier` still cost effective
    draws.
    """
    if isinstance(family, FullRank):
        df = _HEAVY_DF if heavier else max(_FEWEST_DF, family.dim)
        return _student_t(family, df)
    if isinstance(family, Mixture) and isinstance(family.components, FullRank):
        count = family.logits.size
        parts = [jax.tree.map(lambda x: x[i], family.components) for i in range(count)]  # noqa: B023
        parts = [heavy_tailed(part, heavier=heavier) for part in parts]
        return Mixture(parts, family.weights)
    if isinstance(family, Affine) and isinstance(family.family, Coupling):
        return _rebased(family, max(_FEWEST_DF, family.dim))
    return family


@eqx.filter_jit
def flattened(family: AbstractFamily) -> AbstractFamily:
    """A Gaussian or particles in whitened coordinates as in those outside; others as they
    are."""
    if not isinstance(family, Affine):
        return family
    inner = family.family
    if isinstance(inner, FullRank):
        return FullRank(family.mean, family.tril @ inner.tril)
    if isinstance(inner, MeanField):
        return FullRank(family.mean, family.tril * inner.std)
    if isinstance(inner, Particles) and not inner.has_density:
        return Particles(family.loc[None] + inner.x @ family.tril.T)
    return family


def _student_t(family: FullRank, df: int) -> StudentT:
    eye = jnp.eye(family.dim, dtype=family.loc.dtype)
    parts = family.loc, family.log_diag, family.below
    get = lambda t: (t.loc, t.log_diag, t.below)
    return eqx.tree_at(get, StudentT(family.loc, eye, df), parts)


def _rebased(family: Affine, df: int) -> Affine:
    flow = family.family
    assert isinstance(flow, Coupling)
    assert isinstance(flow.base, MeanField)
    base = StudentT(flow.base.loc, jnp.exp(flow.base.log_scale), df)
    return eqx.tree_at(lambda f: f.family, family, flow.with_base(base))
