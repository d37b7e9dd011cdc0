from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Bool, Float, Scalar

from .._custom_types import Data, Key, Params, Point
from .._draws.proposal import flattened
from .._family.affine import Affine
from .._family.base import AbstractFamily
from .._linalg import equilibrated_cholesky
from .._misc import is_traced
from .._target.model import AbstractModel
from .._target.target import Target
from .base import AbstractMethod, F, State


class _WhitenedModel(AbstractModel):
    """A model in the coordinates `u` of `x = loc + tril u`, as a method sees it."""

    model: AbstractModel
    loc: Point
    tril: Float[Array, "dim dim"]

    @property
    def dim(self) -> int:
        return self.model.dim

    def _out(self, u: Point) -> Point:
        return self.loc + self.tril @ u

    def initial(self) -> Point:
        moved = self.model.initial() - self.loc
        return jsl.solve_triangular(self.tril, moved, lower=True)

    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.tril)))
        return self.model.log_density(self._out(x), data, weight) + log_det

    def unravel(self, x: Point) -> Params:
        return self.model.unravel(self._out(x))

    def constrain(self, x: Point, data: Data) -> Params:
        return self.model.constrain(self._out(x), data)

    def unconstrain(self, params: Params, data: Data) -> Point:
        moved = self.model.unconstrain(params, data) - self.loc
        return jsl.solve_triangular(self.tril, moved, lower=True)

    def check(self, data: Data, *, in_batches: bool) -> None:
        self.model.check(data, in_batches=in_batches)


class Whitened(AbstractMethod):
    r"""Another method, run in coordinates in which a rough fit is a standard normal.

    Methods that are not affine invariant feel unequal scales and correlations: kernels
    see only the widest direction, one learning rate suits only one scale, and score
    matching starts from far away. Here the method inside works on $u$, where
    $x = \text{loc} + \text{tril}\,u$, and starts at the rough fit. What comes out,
    `fit.family`, `fit.mean` and draws, is in the model's own coordinates, and the loss is
    the same.

    A family that is given to `vi.fit` must be a [`vijax.Affine`][]; a recipe such as
    `vi.MeanField` is for `vi.Descent` alone, which needs no more than such a family.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        precision = jnp.array([[1e4, 90.0], [90.0, 1.0]])
        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] @ precision @ params["x"],
            {"x": vi.Param(2)},
        )
        rough = vi.fit(target, vi.Laplace(), key=jax.random.key(0))
        method = vi.Whitened(vi.SVGD(), rough.family)
        fit = vi.fit(target, method, key=jax.random.key(1), max_steps=500)
        fit.std["x"]  # Of a hundred particles.
        ```
    """

    method: AbstractMethod
    loc: Point
    tril: Float[Array, "dim dim"]

    def __init__(self, method: AbstractMethod, rough: AbstractFamily):
        """**Arguments:**

        - `method`: the method to run, such as `vi.SVGD()` or `vi.BaM()`.
        - `rough`: a family with a mean and a covariance, such as `fit.family` of a fit by
            [`vijax.Laplace`][] or [`vijax.Pathfinder`][].

        **Raises:** `ValueError` for anything else, or if the covariance is not finite and
        positive definite, as that of fewer particles than coordinates.
        """
        if not isinstance(method, AbstractMethod):
            raise ValueError(
                f"`method` must be a method such as `vi.SVGD()`, but it is {method!r}."
            )
        has_moments = hasattr(type(rough), "mean") and hasattr(type(rough), "covariance")
        if not (isinstance(rough, AbstractFamily) and has_moments):
            raise ValueError(
                "`rough` must be a family with a mean and a covariance, such as "
                "`vi.fit(target, vi.Laplace(), key=key).family`, but it is a "
                f"{type(rough).__name__}."
            )
        self.method = method
        self.loc, self.tril = _moments(rough)
        if not is_traced(self.tril) and not np.all(np.isfinite(self.tril)):
            raise ValueError(
                "The covariance of `rough` is not finite and positive definite: is it "
                "that of fewer particles than coordinates? Use another family."
            )

    def _target(self, target: Target) -> Target:
        model = _WhitenedModel(target.model, self.loc, self.tril)
        return eqx.tree_at(lambda t: t.model, target, model)

    def start(self, key: Key, loc: Point) -> AbstractFamily:
        # The rough fit is a better place than the model's own.
        origin = jnp.zeros_like(loc)
        return Affine(self.method.start(key, origin), self.loc, self.tril)

    def init(self, key: Key, family: AbstractFamily, target: Target) -> State:
        if not isinstance(family, Affine):
            raise ValueError(
                "`vi.Whitened` moves what is inside a `vi.Affine`, but the family is a "
                f"`{type(family).__name__}`. Leave it out, or pass `vi.Affine(family, "
                "method.loc, method.tril)`, where `family` is the one in whitened "
                "coordinates."
            )
        return self.method.init(key, family.family, self._target(target))

    def step(
        self, key: Key, family: F, target: Target, state: State
    ) -> tuple[F, State, Scalar]:
        assert isinstance(family, Affine)
        inner, state, loss = self.method.step(
            key, family.family, self._target(target), state
        )
        return eqx.tree_at(lambda f: f.family, family, inner), state, loss

    def done(self, state: State) -> Bool[Array, ""] | None:
        return self.method.done(state)

    def answer(self, family: AbstractFamily, state: State) -> AbstractFamily:
        assert isinstance(family, Affine)
        inner = self.method.answer(family.family, state)
        return flattened(Affine(inner, family.loc, family.tril))

    def proposal(self, family: AbstractFamily, state: State) -> AbstractFamily | None:
        assert isinstance(family, Affine)
        inner = self.method.proposal(family.family, state)
        return None if inner is None else Affine(inner, family.loc, family.tril)


@eqx.filter_jit
def _moments(rough: Any) -> tuple[Point, Float[Array, "dim dim"]]:
    return rough.mean, equilibrated_cholesky(rough.covariance, 0.0)
