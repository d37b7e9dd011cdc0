"""Score matching: draws of a Gaussian, and the target's scores in its coordinates."""

from typing import Any, NamedTuple

from jaxtyping import Float, Int

from .._arrays import namespace
from .._custom_types import AnyArray
from .._linalg import triangular_root
from .._target.probe import Probes


class Matched(NamedTuple):
    """The Gaussian that is moved, and after how many steps."""

    loc: Float[AnyArray, " dim"]
    tril: Float[AnyArray, "dim dim"]
    num_steps: Int[AnyArray, ""]


def begin(self: Any, noise: AnyArray, family: Any) -> Matched:
    """`begin` of a method that matches scores: the Gaussian `family`."""
    del self, noise
    xp = namespace(family.loc)
    return Matched(family.loc, family.tril, xp.zeros((), xp.int32))


def ask(
    self: Any, noise: Float[AnyArray, "draws dim"], state: Matched
) -> tuple[Float[AnyArray, "draws dim"], int]:
    """`ask` of a method that matches scores: the draws that the noise makes."""
    del self
    return state.loc + noise @ state.tril.T, len(noise)


def whitened_scores(
    e: Float[AnyArray, "draws dim"], state: Matched, probes: Probes
) -> tuple[AnyArray, AnyArray]:
    """The target's scores at the draws, in coordinates in which the Gaussian is a
    standard normal, and the divergence of the scores a coordinate: NaN where one of them
    is not finite."""
    xp = namespace(e)
    g = probes.score @ state.tril
    loss = xp.where(xp.all(probes.finite), xp.mean((g + e) ** 2), xp.nan)
    return g, loss


def stepped(state: Matched, step: AnyArray, root: AnyArray) -> Matched:
    """The Gaussian after a step in its own coordinates, to a covariance of this root."""
    tril = triangular_root(state.tril @ root)
    return Matched(state.loc + state.tril @ step, tril, state.num_steps + 1)
