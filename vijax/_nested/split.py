"""Coordinates as globals and the others, locals, with a Gaussian's account of both."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from .._linalg import triangular_root


@dataclasses.dataclass(frozen=True)
class Split:
    """A Gaussian of some coordinates, and of the others given these.

    **Attributes:**

    - `globals`, `locals`: the numbers of the coordinates.
    - `center`, `root`: the mean of the globals, and a root of their covariance.
    - `loc`, `scale`: the mean of the locals at the center, and their conditional sds.
    - `slope`: how the locals follow the globals.
    """

    globals: Int[np.ndarray, " globals"]
    locals: Int[np.ndarray, " locals"]
    center: Float[np.ndarray, " globals"]
    root: Float[np.ndarray, "globals globals"]
    loc: Float[np.ndarray, " locals"]
    scale: Float[np.ndarray, " locals"]
    slope: Float[np.ndarray, "locals globals"]

    def joined(
        self,
        g: Float[np.ndarray, "points globals"],
        y: Float[np.ndarray, "points locals"],
    ) -> Float[np.ndarray, "points dim"]:
        """Points, of globals and of locals in units of their scales."""
        x = np.empty((len(g), g.shape[1] + y.shape[1]))
        x[:, self.globals], x[:, self.locals] = g, self.loc + self.scale * y
        return x

    def expected(
        self, g: Float[np.ndarray, "points globals"]
    ) -> Float[np.ndarray, "points locals"]:
        """Where the Gaussian has the locals, in units of their scales."""
        return (g - self.center) @ self.slope.T / self.scale


def split(
    loc: Float[np.ndarray, " dim"],
    tril: Float[np.ndarray, "dim dim"],
    chosen: Int[np.ndarray, " globals"],
    rest: Int[np.ndarray, " locals"],
) -> Split:
    """A Gaussian's account of chosen coordinates, and of the rest."""
    g = np.asarray(chosen, int)
    order = np.concatenate([g, rest])
    root = triangular_root(tril[order])
    count = len(g)
    slope = np.linalg.solve(root[:count, :count].T, root[count:, :count].T).T
    scale = np.linalg.norm(root[count:, count:], axis=1)
    return Split(g, rest, loc[g], root[:count, :count], loc[rest], scale, slope)
