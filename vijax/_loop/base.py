import abc

import equinox as eqx
from jaxtyping import Array, Bool, Int, PyTree, Scalar

from .._family.base import AbstractFamily


class AbstractStop(eqx.Module):
    """A rule that says when a run may end, evaluated inside the loop at every step.

    To add a rule implement `init` and `update`, as pure functions.
    """

    @abc.abstractmethod
    def init(self, family: AbstractFamily) -> PyTree:
        """The rule's memory before the first step."""

    @abc.abstractmethod
    def update(
        self,
        state: PyTree,
        num_steps: Int[Array, ""],
        loss: Scalar,
        family: AbstractFamily,
    ) -> tuple[PyTree, Bool[Array, ""]]:
        """Take in one step.

        **Arguments:**

        - `state`: the rule's memory.
        - `num_steps`: how many steps were made, this one included.
        - `loss`: the loss of this step.
        - `family`: the family after this step.

        **Returns:**

        The new memory, and whether to stop.
        """
