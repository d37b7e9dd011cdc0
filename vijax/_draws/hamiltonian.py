"""Draws moved towards the target by trajectories of Hamiltonian Monte Carlo."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .._custom_types import Key
from .._family.base import AbstractFamily
from .._family.full_rank import FullRank
from .._family.nested_gaussian import NestedGaussian
from .._host_distributions import AbstractCoordinates, Back, Elliptical
from .._keys import Seed
from .._linalg import equilibrated_cholesky
from .._target.probe import HostProbe


# Trajectories of a quarter of the period that the target has where it is what the family
# is: one of them forgets where it began.
NUM_TRAJECTORIES = 4
_LENGTH = np.pi / 2
# Steps of this length over the fourth root of the dimension are accepted at .8 then.
_STEP = 1.2
_HALVINGS = 2
# Below, the family's coordinates are not those in which the target is easy.
FEWEST_ACCEPTED = 0.5
# The draws that try a step.
_NUM_TRIED = 32
# Draws that are moved side by side.
_BLOCK = 256
# Above so many coordinates roots of covariances cost more than they bring.
_DENSE_DIM = 1_000


def own_coordinates(
    family: AbstractFamily, x: Float[np.ndarray, "draws dim"]
) -> Elliptical:
    """Where the family has mean zero and unit covariance: by its own account, or by its
    draws'; unit variances where covariances are too many."""
    if isinstance(family, FullRank):
        return family.on_host()
    return _of_draws(x)


def _of_draws(x: Float[np.ndarray, "draws dim"]) -> Elliptical:
    loc, dim = np.mean(x, axis=0), x.shape[1]
    if dim > _DENSE_DIM or len(x) < 2 * dim:
        return Elliptical(loc, np.std(x, axis=0))
    moved = x - loc
    return Elliptical(loc, equilibrated_cholesky(moved.T @ moved / len(x), 1e-5))


@dataclasses.dataclass(frozen=True)
class _Rescaled(AbstractCoordinates):
    """Coordinates of coordinates, in which draws have unit covariance."""

    first: AbstractCoordinates
    then: Elliptical

    def inside(self, x: np.ndarray) -> np.ndarray:
        return self.then.inside(self.first.inside(x))

    def out_and_back(self, z: np.ndarray) -> tuple[np.ndarray, Back]:
        x, back_of_first = self.first.out_and_back(self.then.outside(z))

        def back(log_p: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_p, score = back_of_first(log_p, score)
            return log_p, self.then.score_inside(score)

        return x, back


def _coordinates(family: AbstractFamily, x: Float[np.ndarray, "draws dim"]):
    """Where trajectories move: those of a nested family do not curve, where its globals
    change the scales of its locals."""
    nested = family.on_host() if isinstance(family, NestedGaussian) else None
    if nested is None:
        return own_coordinates(family, x)
    return _Rescaled(nested, _of_draws(nested.inside(x)))


class Carried(NamedTuple):
    """Draws after the last trajectory, their log densities, and the part of the last
    trajectories' ends that was accepted."""

    x: Float[np.ndarray, "draws dim"]
    log_p: Float[np.ndarray, " draws"]
    acceptance: float


class _Places(NamedTuple):
    """Where the draws are in the family's coordinates, and the target there: on its own
    scale, and with its gradient in these coordinates."""

    x: Float[np.ndarray, "draws dim"]
    z: Float[np.ndarray, "draws dim"]
    log_p: Float[np.ndarray, " draws"]
    inside: Float[np.ndarray, " draws"]
    score: Float[np.ndarray, "draws dim"]


def _at(probe: HostProbe, coordinates: AbstractCoordinates, z: np.ndarray) -> _Places:
    blocks = (z[i : i + _BLOCK] for i in range(0, len(z), _BLOCK))
    parts = [_some(probe, coordinates, block) for block in blocks]
    return _Places(*map(np.concatenate, zip(*parts, strict=True)))


def _some(probe: HostProbe, coordinates: AbstractCoordinates, z: np.ndarray) -> _Places:
    x, back = coordinates.out_and_back(z)
    probes = probe(x)
    return _Places(x, z, probes.log_p, *back(probes.log_p, probes.score))


def _trajectory(
    probe: HostProbe,
    coordinates: AbstractCoordinates,
    start: _Places,
    step: float,
    generator: np.random.Generator,
) -> tuple[_Places, np.ndarray]:
    """The ends of leapfrog trajectories that were accepted, else their starts; and with
    which probability each was."""
    momentum = generator.standard_normal(start.z.shape)
    energy = start.inside - 0.5 * np.sum(momentum**2, axis=1)
    end = start
    for _ in range(int(np.ceil(_LENGTH / step))):
        momentum = momentum + 0.5 * step * end.score
        end = _at(probe, coordinates, end.z + step * momentum)
        momentum = momentum + 0.5 * step * end.score
    with np.errstate(all="ignore"):
        gain = end.inside - 0.5 * np.sum(momentum**2, axis=1) - energy
        probability = np.nan_to_num(np.exp(np.minimum(gain, 0)))
    accepted = generator.uniform(size=len(probability)) < probability
    pick = lambda new, old: np.where(
        accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old
    )
    return _Places(*map(pick, end, start)), probability


def _carry(
    probe: HostProbe,
    coordinates: AbstractCoordinates,
    x: Float[np.ndarray, "draws dim"],
    step: float,
    generator: np.random.Generator,
) -> Carried:
    places, probability = _at(probe, coordinates, coordinates.inside(x)), np.zeros(1)
    for _ in range(NUM_TRAJECTORIES):
        places, probability = _trajectory(probe, coordinates, places, step, generator)
    return Carried(places.x, places.log_p, float(np.mean(probability)))


def carried(
    probe: HostProbe,
    family: AbstractFamily,
    x: Float[np.ndarray, "draws dim"],
    key: Key,
) -> Carried:
    """Draws of the family, moved by a few trajectories each.

    No divergence from the target grows by that, since the target's is what a trajectory
    leaves as it is (Cover and Thomas, *Elements of Information Theory*, section 4.4).
    """
    seed, coordinates = Seed(key), _coordinates(family, x)
    step = _STEP * x.shape[1] ** -0.25
    for _ in range(_HALVINGS):
        few = _carry(probe, coordinates, x[:_NUM_TRIED], step, seed.generator(0))
        if few.acceptance >= FEWEST_ACCEPTED:
            break
        step /= 2
    return _carry(probe, coordinates, x, step, seed.generator(1))
