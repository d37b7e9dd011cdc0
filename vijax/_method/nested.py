"""A few coordinates by importance sampling, the others by Laplace's method."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool

from .._auto.stages import AutoState, best_gaussian
from .._custom_types import AnyArray
from .._family.base import AbstractFamily
from .._misc import as_names, as_whole, float_dtype
from .._nested import stages
from .._nested.state import NestedState
from .._target.coordinates import coordinates_of
from .._target.probe import HostProbe
from .._target.target import Target
from .auto import Auto
from .base import AbstractOnHost, check_gaussian, F, moved, start_wide


class Nested(AbstractOnHost):
    r"""A few *globals* of any shape by adaptive importance sampling, and the other
    coordinates Gaussian, or nearly, given these, by Laplace's method.

    This is what hierarchies, funnels and latent Gaussian models look like: given a scale
    or a correlation the effects are nearly Gaussian, and simple, while together they are
    not. No model language is asked for. From a Gaussian by [`vijax.Auto`][] the globals
    are found as those whose movement changes the curvature of the others; modes and
    curvature of the others are solved for at some 20-100 points of the globals, by
    differences of scores that see several columns of a sparse matrix at once, and
    interpolated; and a mixture of Student t's is fitted to all weighted draws of the
    globals, round by round. The answer is a [`vijax.NestedGaussian`][], and nothing of it
    compiles anything but the target. The weights of its draws are those of the joint
    density, so that no approximation hides.

    Losses are negative ELBOs until the Gaussian is found, then negative log evidences.

    The default goes on with it by itself wherever weights of the Gaussian are poor, up to
    300 coordinates. The name `"nested"` stands for it. It needs the host: inside
    `jax.jit` there is only `"auto"`, which does without it.

    Where no globals are found, or the others have several modes given these, the answer
    is that of [`vijax.Auto`][].

    **Reference:** Rue, Martino and Chopin (2009), *Approximate Bayesian inference for
    latent Gaussian models by using integrated nested Laplace approximations*, JRSS B
    71(2); Cappé, Douc, Guillin, Marin and Robert (2008), *Adaptive importance sampling in
    general mixture classes*, Statistics and Computing 18(4).

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import vijax as vi

        def funnel(params):
            v, x = params["v"], params["x"]
            prior = -0.5 * (v / 3) ** 2 - 0.5 * v * x.size
            return prior - 0.5 * jnp.sum(x**2) * jnp.exp(-v)

        target = vi.from_log_density(funnel, {"v": vi.Param(), "x": vi.Param((9,))})
        fit = vi.fit(target, vi.Nested(), key=jax.random.key(0))
        fit.globals  # ("v",)
        fit.draw(1_000, key=jax.random.key(1)).params["v"].std()  # 3
        ```
    """

    globals: tuple[str, ...] | None = eqx.field(static=True)
    auto: Auto
    before: AutoState | None

    def __init__(
        self,
        globals: Sequence[str] | None = None,
        *,
        num_starts: int = 16,
        max_evaluations: int = 500_000,
    ):
        """**Arguments:**

        - `globals`: the names of the parameters that are globals, all of their
            coordinates. Default: they are found.
        - `num_starts`: as in [`vijax.Auto`][]. Keyword only.
        - `max_evaluations`: the most gradients of the log density. Keyword only.

        **Raises:** `ValueError` for bad arguments, and in [`vijax.fit`][] for names that
        the target does not have.
        """
        named = None if globals is None else as_names("globals", globals, '["tau"]')
        self.globals = named
        most = as_whole("max_evaluations", max_evaluations, 1)
        self.auto = Auto(num_starts, most)
        self.before = None

    start = start_wide

    check = check_gaussian

    def begin(
        self, generator: np.random.Generator, family: Any, target: Target
    ) -> NestedState:
        chosen = np.zeros(0, np.int32)
        if self.globals is not None:
            chosen = coordinates_of(target, self.globals)
        if self.before is not None:
            state = stages.begin(self.before, family.dim, chosen)
            gaussian = best_gaussian(family.loc, family.tril, self.before)
            return stages.from_gaussian(state, *gaussian)
        noise = generator.standard_normal(self.auto.begin_noise(family.dim))
        return stages.begin(self.auto.begin(noise, family), family.dim, chosen)

    def advance(
        self, generator: np.random.Generator, state: NestedState, probe: HostProbe
    ) -> tuple[NestedState, Any]:
        stage, made = int(state.stage), probe.num_evaluations
        if stage == stages.FITTING:
            return self._fit(generator, state, probe)
        move = stages.look if stage == stages.LOOKING else stages.explore
        state = move(state, probe, generator)
        made = int(state.num_evaluations) + probe.num_evaluations - made
        state = state._replace(num_evaluations=np.array(made, np.int32))
        spent = made + int(state.before.num_evaluations) > self.auto.max_evaluations
        return stages.finish(state) if spent else state, state.loss

    def _fit(
        self, generator: np.random.Generator, state: NestedState, probe: HostProbe
    ) -> tuple[NestedState, Any]:
        noise = generator.standard_normal(self.auto.step_noise(state.loc.size))
        x, count = self.auto.ask(noise, state.before)
        before, loss = self.auto.tell(noise, state.before, probe(x, int(count)))
        state = state._replace(before=before, loss=np.asarray(loss))
        if self.auto.done(before):
            gaussian = best_gaussian(state.loc, state.tril, before)
            state = stages.from_gaussian(state, *gaussian)
        return state, loss

    def place(self, family: F, state: NestedState) -> F:
        if int(state.stage) == stages.FITTING:
            return self.auto.place(family, state.before)
        return moved(family, state.loc, state.tril)

    def done(self, state: NestedState) -> Bool[AnyArray, ""]:
        return np.asarray(int(state.stage) == stages.DONE)

    def doing(self, state: NestedState) -> str:
        if int(state.stage) == stages.FITTING:
            return self.auto.doing(state.before)
        made = int(state.before.num_evaluations) + int(state.num_evaluations)
        return f"globals, {made:,} gradients"

    def answer(self, family: AbstractFamily, state: NestedState) -> AbstractFamily:
        if not stages.has_answer(state):
            return self.auto.answer(family, state.before)
        return stages.answer(state, float_dtype(family))

    def proposal(self, family: AbstractFamily, state: NestedState) -> AbstractFamily:
        if not stages.has_answer(state):
            return self.auto.proposal(family, state.before)
        return stages.answer(state, float_dtype(family), as_proposal=True)
