import equinox as eqx
from jaxtyping import Array, PyTree


class Estimate(eqx.Module):
    """A Monte Carlo estimate and its standard error.

    **Attributes:**

    - `mean`: the estimate: a scalar, an array, or a pytree of them.
    - `stderr`: its standard error, of the same shape.
    """

    mean: PyTree[Array]
    stderr: PyTree[Array]

    def __repr__(self):
        return eqx.tree_pformat(self, short_arrays=False)
