"""Where starts that may lead to other modes are: around an answer, and at its images."""

import itertools
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from .._solver.quasi_newton import uniform_starts


# So many standard deviations from an answer the next one may be; and at times so many.
_NEAR, _FAR = (2.0, 10.0), (10.0, 1000.0)
# One in so many starts is far.
_OFTEN = 4
# How far the box of several modes goes beyond them, in their standard deviations.
_MARGIN = 3.0
# Images of an answer that are tried, and vectors whose entries may be labels.
_MOST, _MOST_LABELS = 128, 16


def around(
    generator: np.random.Generator,
    loc: Float[np.ndarray, "gaussians dim"],
    tril: Float[np.ndarray, "gaussians dim dim"],
    around_which: Int[np.ndarray, " count"],
) -> Float[np.ndarray, "count dim"]:
    """Starts around some Gaussians, two to ten standard deviations off, for a quarter of
    them up to a thousand: half in all coordinates at once, half in one, which the others
    follow."""
    count, dim = len(around_which), loc.shape[1]
    noise = generator.standard_normal((count, dim))
    far = np.arange(count) % _OFTEN == _OFTEN - 1
    low, high = (np.where(far, f, n) for n, f in zip(_NEAR, _FAR, strict=True))
    size = low * (high / low) ** generator.random(count)
    sign = generator.choice([-1.0, 1.0], count)
    which = generator.permuted(np.arange(count) % dim)
    alone = generator.permutation(count) < count // 2
    # One coordinate moves, and the others by their regression on it.
    rows = tril[around_which, which]
    sds = np.sqrt(np.sum(rows**2, axis=1))
    one = noise + (sign * size / sds)[:, None] * rows
    z = np.where(alone[:, None], one, size[:, None] * noise)
    for i in np.unique(around_which):
        z[around_which == i] = z[around_which == i] @ tril[i].T
    return loc[around_which] + z


def between(
    generator: np.random.Generator,
    loc: Float[np.ndarray, "gaussians dim"],
    tril: Float[np.ndarray, "gaussians dim dim"],
    count: int,
) -> Float[np.ndarray, "count dim"]:
    """Starts where several modes leave room for others: half of them anywhere in the box
    that they span, half with each coordinate from one of them.

    Around known modes most starts lead back to these, and in many dimensions hardly any
    direction leads to another; but modes often differ in the same few coordinates.
    """
    sds = np.sqrt(np.sum(tril**2, axis=2))
    low, high = np.min(loc - _MARGIN * sds, axis=0), np.max(loc + _MARGIN * sds, axis=0)
    anywhere = low + (high - low) * generator.random((count, loc.shape[1]))
    which = generator.integers(len(loc), size=anywhere.shape)
    crossed = loc + sds * generator.standard_normal((count, *loc.shape))
    crossed = np.take_along_axis(crossed, which[:, None], axis=1)[:, 0]
    return np.where(np.arange(count)[:, None] % 2 == 0, anywhere, crossed)


def spread(
    generator: np.random.Generator, count: int, dim: int
) -> Float[np.ndarray, "count dim"]:
    """Starts that know nothing: uniform in (-2, 2), every fourth in (-8, 8)."""
    factor = np.where(np.arange(count) % _OFTEN == _OFTEN - 1, 4.0, 1.0)
    return factor[:, None] * uniform_starts(generator.standard_normal((count, dim)))


def images(
    numbers: dict[str, np.ndarray],
) -> tuple[Int[np.ndarray, "images dim"], Float[np.ndarray, "images dim"]]:
    """What symmetries of models do to a point, on the unconstrained scale: which
    coordinate is put at each place, and its sign.

    Other signs of parameters, and of what belongs to one label in all of them; and two
    labels that change places in all of them.
    """
    dim = sum(part.size for part in numbers.values())
    places, signs = [], []

    def add(place: np.ndarray | None, negative: Iterable) -> None:
        sign = np.ones(dim)
        for part in negative:
            sign[np.ravel(part)] = -1.0
        places.append(np.arange(dim) if place is None else place)
        signs.append(sign)

    names = list(numbers)
    pairs = itertools.combinations(names, 2)
    for several in itertools.islice([names, *([n] for n in names), *pairs], _MOST // 2):
        add(None, [numbers[name] for name in several])
    for parts in _labelled(numbers):
        count = len(parts[0])
        for first, second in itertools.combinations(range(count), 2):
            place = np.arange(dim)
            for part in parts:
                place[part[first]], place[part[second]] = part[second], part[first]
            add(place, [])
        for label in range(count):
            add(None, [part[label] for part in parts])
    return np.array(places[:_MOST]), np.array(signs[:_MOST])


def _labelled(numbers: dict[str, np.ndarray]) -> list[list[np.ndarray]]:
    """The coordinates of parameters that have an axis of the same length, which is first
    here, for each such length."""
    lengths = {n for part in numbers.values() for n in part.shape}
    out = []
    for length in sorted(n for n in lengths if 2 <= n <= _MOST_LABELS):
        having = [part for part in numbers.values() if length in part.shape]
        out.append([np.moveaxis(p, p.shape.index(length), 0) for p in having])
    return out
