import equinox as eqx
from jaxtyping import Array, Scalar


class Estimate(eqx.Module):
    """A Monte Carlo estimate and its standard error.

    **Attributes:**

    - `mean`: the estimate.
    - `stderr`: its standard error.
    """

    mean: Scalar | Array
    stderr: Scalar | Array

    def __repr__(self):
        return eqx.tree_pformat(self, short_arrays=False)
