"""Keys of a run, and the host's own random numbers from them."""

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray


class Seed:
    """A key on the host: NumPy's random numbers, as many streams as there are paths."""

    def __init__(self, key: PRNGKeyArray):
        self._words = np.asarray(jr.key_data(key)).ravel().tolist()

    def generator(self, first: int, *rest: int) -> np.random.Generator:
        """The stream of a path of whole numbers."""
        # One at least: NumPy takes words that are missing for zeros.
        return np.random.default_rng([len(self._words), *self._words, first, *rest])


@jax.jit
def split_key(key: PRNGKeyArray) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Two keys of one, as one small program."""
    first, second = jr.split(key)
    return first, second


@jax.jit
def key_for(key: PRNGKeyArray, purpose: int | Array) -> PRNGKeyArray:
    """A key that no step of a run uses: these fold in just one number."""
    return jr.fold_in(jr.fold_in(key, 0), purpose)
