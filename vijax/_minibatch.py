import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import PyTree

from ._custom_types import Data, Key
from ._misc import as_whole


def leading_lengths(data: Data) -> dict[str, int]:
    """The length of the leading axis of each array in `data`, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(data)
    return {f"data{jax.tree_util.keystr(path)}": len(leaf) for path, leaf in leaves}


def _as_batch_size(batch_size: int) -> int:
    return as_whole("batch_size", batch_size, 1)


class Minibatch(eqx.Module):
    """Which rows of the data one step sees: `batch_size` of them, drawn with
    replacement, so that a step costs what its rows cost and never what all rows do.
    """

    batch_size: int = eqx.field(static=True, converter=_as_batch_size)

    def check(self, data: Data) -> None:
        """Raise unless a batch can be taken of `data`."""
        lengths = leading_lengths(data)
        num_rows = min(lengths.values(), default=0)
        if self.batch_size > num_rows:
            raise ValueError(
                f"`batch_size` is {self.batch_size}, but the data have {num_rows} rows. "
                f"Give a number from 1 to {num_rows}, or `batch_size=None` to see all "
                "rows at every step."
            )

    def __call__(self, key: Key, data: Data) -> tuple[PyTree, float]:
        """A batch, and the weight that scales a sum over it to all the rows."""
        num_rows = min(leading_lengths(data).values())
        rows = jr.randint(key, (self.batch_size,), 0, num_rows)
        take = lambda leaf: leaf.at[rows].get(mode="promise_in_bounds")
        return jax.tree.map(take, data), num_rows / self.batch_size
