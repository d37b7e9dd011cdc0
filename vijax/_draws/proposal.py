"""Proposals for importance sampling: a fitted family with heavier tails."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._family.affine import Affine
from .._family.base import AbstractFamily
from .._family.coupling import Coupling
from .._family.full_rank import FullRank
from .._family.mean_field import MeanField
from .._family.mixture import Mixture
from .._family.particles import Particles
from .._family.student_t import StudentT
from .._host_distributions import Elliptical


# The tails of a Student t cost effective draws in many dimensions.
_FEWEST_DF = 10
# Where these are still too light, the lightest with a variance.
_HEAVY_DF = 3


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
        known, count = jax.tree.map(np.asarray, family.components), family.logits.size
        parts = [jax.tree.map(lambda x: x[i], known) for i in range(count)]  # noqa: B023
        parts = [heavy_tailed(part, heavier=heavier) for part in parts]
        return Mixture(parts, np.exp(np.asarray(family.logits)))
    if isinstance(family, Affine) and isinstance(family.family, Coupling):
        return _rebased(family, max(_FEWEST_DF, family.dim))
    return family


def flattened(family: AbstractFamily) -> AbstractFamily:
    """A Gaussian or particles in whitened coordinates as in those outside; others as they
    are."""
    if not isinstance(family, Affine):
        return family
    inner = family.family
    if isinstance(inner, FullRank | MeanField):
        outside = family.on_host()
        assert isinstance(outside, Elliptical)
        return FullRank(
            *(x.astype(family.loc.dtype) for x in (outside.loc, outside.root))
        )
    if isinstance(inner, Particles) and not inner.has_density:
        return _moved(family)
    return family


@eqx.filter_jit
def _moved(family: Any) -> Particles:
    return Particles(family.loc[None] + family.family.x @ family.tril.T)


def _student_t(family: FullRank, df: int) -> StudentT:
    parts = family.loc, family.log_diag, family.below
    get = lambda t: (t.loc, t.log_diag, t.below)
    return eqx.tree_at(get, StudentT(family.loc, 1.0, df), parts)


def _rebased(family: Affine, df: int) -> Affine:
    flow = family.family
    assert isinstance(flow, Coupling)
    assert isinstance(flow.base, MeanField)
    base = StudentT(flow.base.loc, np.exp(np.asarray(flow.base.log_scale)), df)
    return eqx.tree_at(lambda f: f.family, family, flow.with_base(base))
