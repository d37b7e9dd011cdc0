"""A NumPyro model as a log density of one vector, with its arrays as data."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Scalar
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from .._closures import Held
from .._custom_types import Data, Key, Params, Point
from .._misc import lenient_promotion
from .._target.data import named_arrays
from .._target.model import AbstractModel, Labels
from .._target.param import named_parts
from .._target.plates import plate_minibatch, PlateMinibatch, Seen
from .numpyro_enumeration import check_plates, in_words, marked, summed_log_density
from .numpyro_handlers import (
    build_handlers,
    innermost,
    split_arguments,
    whole_arguments,
)
from .numpyro_points import at_estimates
from .numpyro_sites import (
    is_factor,
    Layout,
    PlateIndices,
    StandInsForSeen,
    zeros_of,
)
from .numpyro_traces import drawn_from, look_at, observed_in


class NumPyroModel(AbstractModel):
    """A NumPyro model, whose arguments that are arrays are the data.

    **Attributes:**

    - `fn`: the model, with its effect handlers as pytrees.
    - `rest`: its other arguments.
    - `constants`: the places of arrays among them: what shapes or branches depend on.
    - `layout`: what it consists of.
    - `whole`: whether it can be called with whole plates.
    - `estimated`: sites that are estimated by a number each.
    - `starts`: where some of them begin, on the unconstrained scale.
    """

    fn: Any
    rest: Held = eqx.field(static=True)
    constants: frozenset[str] = eqx.field(static=True)
    layout: Held = eqx.field(static=True)
    whole: bool = eqx.field(static=True)
    estimated: tuple[str, ...] = eqx.field(static=True, default=())
    starts: Held = eqx.field(static=True, default=Held({}))

    @property
    def _layout(self) -> Layout:
        return self.layout.tree

    @property
    def enumerates(self) -> bool:
        """Whether discrete sites are summed out."""
        return bool(self._layout.discrete)

    @property
    def point_names(self) -> tuple[str, ...]:
        return self.estimated

    @property
    def points(self) -> tuple[int, ...]:
        names, sizes = zip(
            *((name, math.prod(shape)) for name, shape in self._layout.shapes.items()),
            strict=True,
        )
        of_names = np.repeat(np.isin(names, self.estimated), sizes)
        return tuple(np.flatnonzero(of_names).tolist())

    @property
    def judges_nan(self) -> bool:
        return True

    @property
    def dim(self) -> int:
        return sum(int(np.prod(shape)) for shape in self._layout.shapes.values())

    def initial(self) -> Point:
        start = {name: np.zeros(shape) for name, shape in self._layout.shapes.items()}
        start |= self.starts.tree
        flat = np.concatenate([np.ravel(np.array(part)) for part in start.values()])
        return jax.device_put(flat.astype(jnp.result_type(float)))

    def called(self, data: Data) -> tuple[Callable, tuple, dict]:
        """The model as it sees its plates, and what it is called with."""
        indices = data.indices if isinstance(data, Seen) else {}
        arrays = data.data if isinstance(data, Seen) else data
        arguments = whole_arguments(arrays, self.rest.tree)
        signature: Any = inspect.signature(innermost(self.fn))
        bound = inspect.BoundArguments(signature, arguments)
        fn = PlateIndices(build_handlers(self.fn), indices, whole=self.whole)
        if self._layout.networks:
            # Nothing depends on these values: each is replaced by a draw.
            fn = handlers.substitute(fn, data=zeros_of(self._layout.networks))
        if self.enumerates:
            fn = marked(fn)
        return fn, bound.args, bound.kwargs

    def sites(self, data: Data, wrap: Callable, key: Key) -> dict[str, dict]:
        """The sites of the model, seeded and then wrapped in a handler."""
        fn, args, kwargs = self.called(data)
        with lenient_promotion():
            model = wrap(handlers.seed(fn, key))
            return handlers.trace(model).get_trace(*args, **kwargs)

    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        del weight  # Plates scale by themselves.
        return self.density_of(*self.called(data), x)

    def density_of(self, fn: Callable, args: tuple, kwargs: dict, x: Point) -> Scalar:
        """The log density of the model, perhaps within further handlers."""
        fn = StandInsForSeen(fn, self._layout.filled)
        with lenient_promotion():
            fn, latents = self.placed(fn, args, kwargs, x)
            if self.enumerates:
                value = summed_log_density(fn, args, kwargs, latents, self._layout)
            else:
                value = -jnp.asarray(potential_energy(fn, args, kwargs, latents))
        return value.astype(x.dtype)

    def placed(
        self, fn: Callable, args: tuple, kwargs: dict, x: Point
    ) -> tuple[Callable, Params]:
        """The model with its point estimates put in, and the other latents."""
        latents = self.unravel(x)
        if not self.point_names:
            return fn, latents
        return at_estimates(fn, args, kwargs, latents, self.point_names)

    def unravel(self, x: Point) -> Params:
        shapes = self._layout.shapes
        return named_parts(x, tuple(shapes), tuple(shapes.values()))

    def constrain(self, x: Point, data: Data) -> Params:
        fn, args, kwargs = self.called(data)
        # What depends on a discrete site that is summed out has no one value.
        deterministic = not self.enumerates
        if self.enumerates:
            fn = handlers.seed(fn, jr.key(0))
        with lenient_promotion():
            return constrain_fn(
                fn, args, kwargs, self.unravel(x), return_deterministic=deterministic
            )

    def _latents(self, params: Params) -> Params:
        missing = [name for name in self._layout.shapes if name not in params]
        if missing:
            raise ValueError(f"`params` lacks {missing}: it has {sorted(params)}.")
        return {name: params[name] for name in self._layout.shapes}

    def unconstrain(self, params: Params, data: Data) -> Point:
        fn, args, kwargs = self.called(data)
        if self.enumerates:
            fn = handlers.seed(fn, jr.key(0))
        with lenient_promotion():
            parts = unconstrain_fn(fn, args, kwargs, self._latents(params))
        return jnp.concatenate([jnp.ravel(parts[name]) for name in self._layout.shapes])

    def check(self, data: Data, *, in_batches: bool) -> None:
        found = look_at(self, data)
        if found.shapes != self._layout.shapes:
            raise ValueError(
                "With these data the model has other parameters: unconstrained shapes "
                f"{found.shapes}, not {self._layout.shapes}. Make a new target with "
                "`vi.from_numpyro`."
            )
        self._check_program(data, in_batches=in_batches)
        if self.enumerates:
            latents = lambda: self.unravel(self.initial())
            call = lambda data: check_plates(*self.called(data), latents(), self._layout)
            jax.eval_shape(call, data)

    def _check_program(self, data: Data, *, in_batches: bool) -> None:
        """Raise unless the very program that a fit runs can be traced."""
        x = jax.eval_shape(self.initial)
        program = jax.value_and_grad(self.log_density)
        try:
            jax.eval_shape(lambda x, data: program(x, data, 1.0), x, data)
        except Exception as e:
            batch = " with a batch of its plates" if in_batches else ""
            where, why = in_words(self._layout)
            if self._layout.inner:
                why += (
                    f" The plates {list(self._layout.inner)} are inside of a `scan`, "
                    "where a `subsample_size` is not seen in batches: put the plate "
                    "around the `scan`, or leave out `subsample_size`."
                )
            raise ValueError(
                f"The log density of the model{batch}{where} raised {type(e).__name__}: "
                f"{e}.{why}"
            ) from e

    def minibatch(self, batch_size: Any, old: Any) -> PlateMinibatch | None:
        layout = self._layout
        is_open = lambda name: self.whole and name not in layout.within
        lengths = {name: n for name, n in layout.lengths.items() if is_open(name)}
        usual = tuple(name for name, _, _ in old.plates) if old else tuple(lengths)
        return plate_minibatch(batch_size, lengths, usual)

    def refitted(self, data: Data, old: Any) -> tuple[AbstractModel, Any]:
        lengths = look_at(self, data).lengths
        layout = dataclasses.replace(self._layout, lengths=lengths)
        model = dataclasses.replace(self, layout=Held(layout))
        sizes = {name: size for name, _, size in old.plates} if old else None
        return model, model.minibatch(sizes, old)

    @property
    def is_generative(self) -> bool:
        return True

    def rebind(self, new: Data, old: Data) -> tuple[AbstractModel, Data]:
        names = tuple(inspect.signature(innermost(self.fn)).parameters)
        if not isinstance(new, dict) or set(new) - set(names):
            got = sorted(new) if isinstance(new, dict) else f"a {type(new).__name__}"
            raise ValueError(
                "`data` must be a dictionary of those of the model's arguments that "
                f"change; they are {list(names)}, but it is {got}."
            )
        arrays, rest = split_arguments(new, self.constants)
        kept = {name: leaf for name, leaf in old.items() if name not in new}
        rest = Held(self.rest.tree | {name: rest[name] for name in new})
        return dataclasses.replace(self, rest=rest), kept | arrays

    def log_likelihood(self, params: Params, data: Data) -> Params:
        if self.enumerates:
            raise ValueError(
                "What one observation adds is not known where discrete sites "
                f"{list(self._layout.discrete)} are summed out. Write them as a mixture, "
                "e.g. `dist.MixtureSameFamily`."
            )
        latents = self._latents(params)
        wrap = lambda fn: handlers.substitute(fn, data=latents)
        sites = self.sites(data, wrap, jr.key(0))
        return {
            name: site["fn"].log_prob(site["value"])
            for name, site in sites.items()
            if site["type"] == "sample"
            and site["is_observed"]
            and not is_factor(site["fn"])
        }

    def predict(
        self, key: Key, params: Params, data: Data, names: tuple[str, ...] | None
    ) -> Params:
        latents = self._latents(params)
        keys = jr.split(key, jtu.tree_leaves(latents)[0].shape[0])
        return drawn_from(self, keys, latents, data, names or self._layout.observed)

    def sample_prior(self, key: Key, num_draws: int, data: Data) -> tuple[Params, Params]:
        layout = self._layout
        deterministic = () if self.enumerates else layout.deterministic
        inner = (*layout.shapes, *deterministic)
        names = (*inner, *layout.observed)
        out = drawn_from(self, jr.split(key, num_draws), {}, data, names)
        return {k: out[k] for k in inner}, {k: out[k] for k in layout.observed}

    def labels(self, data: Data) -> Labels:
        # Anew: with data to predict from, plates may have other lengths.
        layout = look_at(self, data)
        observed = jax.tree.map(np.asarray, observed_in(self, data))
        seen = [np.asarray(value) for value in observed.values()]
        is_new = lambda x: not any(np.array_equal(x, y) for y in seen)
        constants = {k: v for k, v in named_arrays(data).items() if is_new(v)}
        dims = layout.named_dims
        used = {dim for axes in dims.values() for dim in axes}
        lengths = layout.lengths.items()
        coords = {name: np.arange(n) for name, n in lengths if name in used}
        return Labels(observed, constants, coords, dims)
