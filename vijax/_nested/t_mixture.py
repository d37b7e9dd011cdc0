"""Mixtures of Student t's, fitted to weighted points."""

from typing import Any, NamedTuple

import numpy as np
import scipy.special as ss
from jaxtyping import Float

from .._host_distributions import Elliptical, HostMixture


# Degrees of freedom of what the globals are drawn from.
DF = 5
_NUM_PARTS, _NUM_ITERATIONS = 3, 30
# The part of the first proposal that stays in every mixture; and of one so many times as
# wide as all the points together, for tails that few of them are in.
_KEPT, _WIDE, _WIDER = 0.05, 0.05, 2.5
# These two come first.
NUM_WIDENING = 2


class Parts(NamedTuple):
    """The parts of mixtures, one of the leading axis a round of drawing."""

    weights: Float[np.ndarray, "*rounds parts"]
    locs: Float[np.ndarray, "*rounds parts dim"]
    roots: Float[np.ndarray, "*rounds parts dim dim"]

    def of_round(self, number: int) -> HostMixture:
        """The distribution of a round."""
        weights, locs, roots = (x[number] for x in self)
        used = weights > 0
        pairs = zip(locs[used], roots[used], strict=True)
        parts = [Elliptical(loc, root, float(DF)) for loc, root in pairs]
        return HostMixture(parts, weights[used] / weights[used].sum())

    def and_next(
        self,
        x: Float[np.ndarray, "points dim"],
        weights: Float[np.ndarray, " points"],
        generator: np.random.Generator,
    ) -> "Parts":
        """With one more round: parts fitted to weighted points beside the first proposal
        and a wide one."""
        shares, locs, roots = _fitted(x, weights, generator)
        loc, root = _whole(x, weights)
        new = (
            np.concatenate([[_KEPT, _WIDE], (1 - _KEPT - _WIDE) * shares]),
            np.concatenate([self.locs[0, :1], loc[None], locs]),
            np.concatenate([self.roots[0, :1], _WIDER * root[None], roots]),
        )
        pairs = zip(self, new, strict=True)
        return Parts(*(np.concatenate([old, x[None]]) for old, x in pairs))


def first_parts(
    center: Float[np.ndarray, " dim"], root: Float[np.ndarray, "dim dim"]
) -> Parts:
    """A first round, of one Student t."""
    count, dim = NUM_WIDENING + _NUM_PARTS, center.size
    weights = np.zeros(count)
    weights[0] = 1.0
    locs = np.broadcast_to(center, (count, dim)).copy()
    roots = np.broadcast_to(np.sqrt(2.0) * root, (count, dim, dim)).copy()
    return Parts(weights[None], locs[None], roots[None])


def _whole(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and a root of the covariance."""
    loc = weights @ x
    half = np.sqrt(weights)[:, None] * (x - loc)
    tiny = 1e-5 * np.linalg.norm(half) * np.eye(len(loc))
    upper: Any = np.linalg.qr(np.concatenate([half, tiny]), mode="r")
    return loc, upper.T * np.where(np.diagonal(upper) < 0, -1, 1)


def _fitted(
    x: np.ndarray, weights: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, centers and roots of a mixture of Student t's, by weighted expectation
    maximization; covariances of few points are drawn to that of all.

    **Reference:** Cappé, Douc, Guillin, Marin and Robert (2008), *Adaptive importance
    sampling in general mixture classes*, Statistics and Computing 18(4).
    """
    dim, whole = x.shape[1], _whole(x, weights)[1]
    whole = whole @ whole.T
    locs = x[generator.choice(len(x), _NUM_PARTS, p=weights)]
    covariances = np.repeat(whole[None] / _NUM_PARTS ** (2 / dim), _NUM_PARTS, axis=0)
    shares = np.full(_NUM_PARTS, 1 / _NUM_PARTS)
    for _ in range(_NUM_ITERATIONS):
        pairs = list(zip(locs, np.linalg.cholesky(covariances), strict=True))
        parts = [Elliptical(loc, root, float(DF)) for loc, root in pairs]
        each = np.stack([part.log_prob(x) for part in parts]) + np.log(shares)[:, None]
        owns = ss.softmax(each, axis=0) * weights
        shares = np.sum(owns, axis=1)
        for j, part in enumerate(parts):
            if shares[j] < 1e-3:
                locs[j] = x[generator.choice(len(x), p=weights)]
                covariances[j], shares[j] = whole, 1e-2
                continue
            own = owns[j] / shares[j]
            squares = np.sum(part.inside(x) ** 2, axis=1)
            heavy = own * (DF + dim) / (DF + squares)
            locs[j] = own @ x
            moved = x - locs[j]
            effective = max(1 / np.sum(own**2), 1.0)
            drawn = dim / (dim + effective)
            found = (moved.T * heavy) @ moved
            covariances[j] = (1 - drawn) * found + drawn * whole
            covariances[j] += 1e-9 * np.trace(whole) / dim * np.eye(dim)
        shares = shares / shares.sum()
    return shares, locs, np.linalg.cholesky(covariances)
