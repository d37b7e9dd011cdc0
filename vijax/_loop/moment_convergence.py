import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._family.base import AbstractFamily
from .._misc import as_positive, as_whole, lenient_promotion
from .base import AbstractStop


# How much longer the run is at each look than at the one before.
_GROWTH = 1.5
# How many looks in a row must agree: one alone may agree by luck.
_IN_A_ROW = 2
# The unit of a change of a point estimate, as a part of it.
_UNIT = 0.1


class _Memory(eqx.Module):
    mean: Float[Array, " dim"]
    std: Float[Array, " dim"]
    next_look: Int[Array, ""]
    num_agreeing: Int[Array, ""]


class MomentConvergence(AbstractStop):
    r"""Stop once the family's means and standard deviations have settled.

    They are looked at after `first` steps, and then whenever the run is half as long
    again. The run stops once two looks in a row find that in every coordinate

    $$|m - m'| < \text{tolerance} \cdot s \quad\text{and}\quad
    |\log s - \log s'| < \text{tolerance},$$

    where $m', s'$ are those of the look before. The unit is the standard deviation of
    the posterior, so one tolerance suits all models. Under [`vijax.Averaging`][] two
    looks see different parts of the run: where they agree, the noise of the steps is
    below the tolerance too. A single noisy iterate hardly ever agrees with another.

    It is what `"auto"` stops by where steps see batches.

    !!! Example

        ```python
        import jax
        import optax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * (params["x"] - 3.0) ** 2, {"x": vi.Param()}
        )
        method = vi.Averaging(vi.Descent(vi.ELBO(), optax.adam(1e-2)))
        stop = vi.MomentConvergence(tolerance=0.05)
        fit = vi.fit(target, method, key=jax.random.key(0), stop=stop)
        fit.num_steps  # Fewer than 10,000.
        ```
    """

    tolerance: float = eqx.field(static=True)
    first: int = eqx.field(static=True)

    def __init__(self, tolerance: float | int = 0.05, first: int = 500):
        """**Arguments:**

        - `tolerance`: the change that counts as none, in standard deviations.
        - `first`: the steps before the first look.

        **Raises:** `ValueError` if either is not positive; and, when the run begins, for
        a family whose `mean` and `std` are not known.
        """
        self.tolerance = as_positive("tolerance", tolerance)
        self.first = as_whole("first", first, 1)

    def init(self, family: AbstractFamily) -> _Memory:
        mean, std = _moments(family)
        zero = jnp.zeros((), jnp.int32)
        return _Memory(mean + jnp.inf, std, zero + self.first, zero)

    def update(
        self,
        state: _Memory,
        num_steps: Int[Array, ""],
        loss: Scalar,
        family: AbstractFamily,
    ) -> tuple[_Memory, Bool[Array, ""]]:
        del loss

        def look() -> tuple[_Memory, Bool[Array, ""]]:
            mean, std = _moments(family)
            with lenient_promotion():
                moved = jnp.abs(mean - state.mean) < self.tolerance * std
                grown = jnp.abs(jnp.log(std / state.std)) < self.tolerance
                count = jnp.where(jnp.all(moved & grown), state.num_agreeing + 1, 0)
                later = jnp.ceil(_GROWTH * num_steps).astype(jnp.int32)
            return _Memory(mean, std, later, count.astype(jnp.int32)), count >= _IN_A_ROW

        due = num_steps >= state.next_look
        return lax.cond(due, look, lambda: (state, jnp.array(False)))


def _moments(family: AbstractFamily) -> tuple[Array, Array]:
    mean, std = getattr(family, "mean", None), getattr(family, "std", None)
    if mean is None or std is None:
        raise ValueError(
            f"`vi.MomentConvergence` looks at mean and standard deviations, which "
            f"`{type(family).__name__}` does not know. Use `vi.LossConvergence()`."
        )
    # Point estimates have no standard deviation: a part of themselves is their unit.
    return mean, jnp.where(std > 0, std, _UNIT * jnp.maximum(1.0, jnp.abs(mean)))
