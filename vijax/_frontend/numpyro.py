import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Scalar
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from .._closures import Held
from .._custom_types import Data, Key, Params, Point
from .._misc import lenient_promotion, map_in_batches, tree_size
from .._target.param import named_parts
from .._target.plates import plate_minibatch, PlateMinibatch, Seen
from .._target.target import AbstractModel, as_data, Labels, named_arrays, Target
from .numpyro_handlers import (
    build_handlers,
    handlers_as_pytrees,
    innermost,
    split_arguments,
)
from .numpyro_sites import at_zero, describe, is_factor, Layout, NOTHING, PlateIndices


class _NumPyroModel(AbstractModel):
    """A NumPyro model, whose arguments that are arrays are the data."""

    fn: Any
    rest: Held = eqx.field(static=True)
    layout: Held = eqx.field(static=True)
    # Whether the model can be called with whole plates.
    whole: bool = eqx.field(static=True)

    @property
    def _layout(self) -> Layout:
        return self.layout.tree

    @property
    def enumerates(self) -> bool:
        """Whether discrete sites are summed out."""
        return bool(self._layout.discrete)

    @property
    def dim(self) -> int:
        return sum(int(np.prod(shape)) for shape in self._layout.shapes.values())

    def initial(self) -> Point:
        return jnp.zeros(self.dim)

    def _call(self, data: Data) -> tuple[Callable, tuple, dict]:
        """The model as it sees its plates, and what it is called with."""
        indices = data.indices if isinstance(data, Seen) else {}
        arrays = data.data if isinstance(data, Seen) else data
        arguments = {
            name: eqx.combine(arrays[name], rest) if name in arrays else rest
            for name, rest in self.rest.tree.items()
        }
        signature: Any = inspect.signature(innermost(self.fn))
        bound = inspect.BoundArguments(signature, arguments)
        fn = PlateIndices(build_handlers(self.fn), indices, whole=self.whole)
        if self.enumerates:
            from numpyro.contrib.funsor import config_enumerate

            fn = config_enumerate(fn)
        return fn, bound.args, bound.kwargs

    def _trace(self, data: Data, wrap: Callable, key: Key) -> dict[str, dict]:
        fn, args, kwargs = self._call(data)
        with lenient_promotion():
            model = wrap(handlers.seed(fn, key))
            return handlers.trace(model).get_trace(*args, **kwargs)

    def log_density(self, x: Point, data: Data, weight: Any) -> Scalar:
        del weight  # Plates scale by themselves.
        fn, args, kwargs = self._call(data)
        with lenient_promotion():
            if self.enumerates:
                from numpyro.contrib.funsor import enum

                fn = enum(fn, -self._layout.nesting - 1)
            energy = potential_energy(
                fn, args, kwargs, self.unravel(x), enum=self.enumerates
            )
        return -jnp.asarray(energy).astype(x.dtype)

    def unravel(self, x: Point) -> Params:
        shapes = self._layout.shapes
        return named_parts(x, tuple(shapes), tuple(shapes.values()))

    def constrain(self, x: Point, data: Data) -> Params:
        fn, args, kwargs = self._call(data)
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
        fn, args, kwargs = self._call(data)
        if self.enumerates:
            fn = handlers.seed(fn, jr.key(0))
        with lenient_promotion():
            parts = unconstrain_fn(fn, args, kwargs, self._latents(params))
        return jnp.concatenate([jnp.ravel(parts[name]) for name in self._layout.shapes])

    def check(self, data: Data, *, in_batches: bool) -> None:
        del in_batches
        found = _look_at(self, data)
        if found.shapes != self._layout.shapes:
            raise ValueError(
                "With these data the model has other parameters: unconstrained shapes "
                f"{found.shapes}, not {self._layout.shapes}. Make a new target with "
                "`vi.from_numpyro`."
            )

    def minibatch(self, batch_size: Any, old: Any) -> PlateMinibatch | None:
        layout = self._layout
        is_open = lambda name: self.whole and name not in layout.within
        lengths = {name: n for name, n in layout.lengths.items() if is_open(name)}
        usual = tuple(name for name, _, _ in old.plates) if old else tuple(lengths)
        return plate_minibatch(batch_size, lengths, usual)

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
        arrays, rest = split_arguments(new)
        kept = {name: leaf for name, leaf in old.items() if name not in new}
        rest = Held(self.rest.tree | {name: rest[name] for name in new})
        return dataclasses.replace(self, rest=rest), kept | arrays

    def log_likelihood(self, params: Params, data: Data) -> Params:
        if self.enumerates:
            raise ValueError(
                "What one observation adds is not known where discrete sites "
                f"{self._layout.discrete} are summed out. Write them as a mixture, e.g. "
                "`dist.MixtureSameFamily`."
            )
        latents = self._latents(params)
        wrap = lambda fn: handlers.substitute(fn, data=latents)
        sites = self._trace(data, wrap, jr.key(0))
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
        return _predict(self, keys, latents, data, names or self._layout.observed)

    def sample_prior(self, key: Key, num_draws: int, data: Data) -> tuple[Params, Params]:
        layout = self._layout
        deterministic = () if self.enumerates else layout.deterministic
        inner = (*layout.shapes, *deterministic)
        names = (*inner, *layout.observed)
        out = _predict(self, jr.split(key, num_draws), {}, data, names)
        return {k: out[k] for k in inner}, {k: out[k] for k in layout.observed}

    def labels(self, data: Data) -> Labels:
        # Anew: with data to predict from, plates may have other lengths.
        layout = _look_at(self, data)
        observed = jax.tree.map(np.asarray, _observed(self, data))
        seen = [np.asarray(value) for value in observed.values()]
        is_new = lambda x: not any(np.array_equal(x, y) for y in seen)
        constants = {k: v for k, v in named_arrays(data).items() if is_new(v)}
        dims = {
            name: [dim or f"{name}_dim_{i}" for i, dim in enumerate(axes)]
            for name, axes in layout.dims.items()
            if any(axes)
        }
        used = {dim for axes in dims.values() for dim in axes}
        lengths = layout.lengths.items()
        coords = {name: np.arange(n) for name, n in lengths if name in used}
        return Labels(observed, constants, coords, dims)


def _look_at(model: _NumPyroModel, data: Data) -> Layout:
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), data)

    def look(arrays: Data) -> None:
        wrap = lambda fn: handlers.substitute(fn, substitute_fn=at_zero)
        sites = model._trace(arrays, wrap, jr.key(0))
        found.append(describe(sites))
        with lenient_promotion():  # Shapes that disagree show only here.
            for site in sites.values():
                if site["type"] == "sample":
                    site["fn"].log_prob(site["value"])

    found: list[Layout] = []
    jax.eval_shape(look, abstract)
    return found[0]


@eqx.filter_jit
def _observed(model: _NumPyroModel, data: Data) -> Params:
    wrap = lambda fn: handlers.substitute(fn, substitute_fn=at_zero)
    sites = model._trace(data, wrap, jr.key(0))
    return {name: sites[name]["value"] for name in model._layout.observed}


@eqx.filter_jit
def _predict(
    model: _NumPyroModel,
    keys: Array,
    latents: Params,
    data: Data,
    names: tuple[str, ...],
) -> Params:
    def one(args: tuple[Key, Params]) -> Params:
        key, latents = args
        wrap = lambda fn: handlers.substitute(handlers.uncondition(fn), data=latents)
        sites = model._trace(data, wrap, key)
        unknown = [name for name in names if name not in sites]
        if unknown:
            raise ValueError(
                f"There is no site {unknown[0]!r} in the model. There are {list(sites)}."
            )
        return {name: sites[name]["value"] for name in names}

    return map_in_batches(one, (keys, latents), tree_size(data))


def _check_discrete(layout: Layout) -> None:
    if not layout.discrete:
        return
    names = ", ".join(f"`{name}`" for name in layout.discrete)
    try:
        import funsor  # noqa: F401
    except ImportError as e:
        raise ValueError(
            f"The sites {names} are discrete. NumPyro can sum them out with funsor: "
            '`pip install "vijax[enumerate]"`. Or write the sum yourself, e.g. as '
            "`dist.MixtureSameFamily`."
        ) from e


def _check_plates(layout: Layout) -> None:
    for plate, size in layout.seen.items():
        if layout.within.get(plate):
            names = ", ".join(f"`{name}`" for name in layout.within[plate])
            raise ValueError(
                f"{names} has a value for each of the {layout.lengths[plate]} indices of "
                f"the plate {plate!r}, of which a step sees {size}. Such local latent "
                "variables cannot be fitted from batches: leave out `subsample_size`, "
                "so that a step sees all of them, or integrate them out."
            )


def from_numpyro(model: Any, /, *args: Any, **kwargs: Any) -> Target:
    """A target from a NumPyro model.

    All that NumPyro's own NUTS can sample from works: any continuous support, nested
    plates, factors, deterministic sites, effect handlers, supports that depend on other
    parameters. The log density is that of `numpyro.infer.util.potential_energy`.

    Plates with a `subsample_size` are seen in batches at each step of a fit, with
    indices in shuffled epochs; everything else, such as draws and diagnostics, sees them
    whole. Where the data are given as batches already, so that the model cannot be called
    with whole plates, they are taken as they are, scaled as the plate says.

    Discrete sites are summed out, which needs the extra `enumerate`. Deterministic sites
    are not reported then.

    **Arguments:**

    - `model`: a NumPyro model, possibly in effect handlers such as
        `numpyro.handlers.reparam` or `condition`.
    - `args`, `kwargs`: what it is called with. Arrays are data: the same model with
        others of equal shapes does not compile again. Everything else (numbers, words,
        arrays that hold one whole number) is a part of the model.

    **Returns:**

    A [`vijax.Target`][]. Its `data` are a dictionary by the names of the model's
    arguments; `target.with_data({"y": new})` replaces some of them.

    **Raises:** `ValueError` if the model fails with these arguments, for a support that
    NumPyro has no transform to, a `numpyro.param` site, a discrete site that cannot be
    summed out, a latent site within a subsampled plate, or NaN in the data.

    !!! Example

        ```python
        import jax.numpy as jnp
        import numpyro
        import numpyro.distributions as dist
        import vijax as vi

        def model(group, y=None):
            mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
            tau = numpyro.sample("tau", dist.HalfNormal(5.0))
            with numpyro.plate("groups", 3):
                theta = numpyro.sample("theta", dist.Normal(mu, tau))
            with numpyro.plate("rows", group.shape[0]):
                numpyro.sample("y", dist.Normal(theta[group], 1.0), obs=y)

        group = jnp.array([0, 0, 1, 1, 2, 2])
        target = vi.from_numpyro(model, group, y=jnp.arange(6.0))
        ```
    """
    if not callable(model):
        raise ValueError(
            "`model` must be a NumPyro model, a function that calls `numpyro.sample`, "
            f"but it is a {type(model).__name__}."
        )
    signature = inspect.signature(model)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as e:
        raise ValueError(
            f"The model cannot be called with these arguments: {e}. Its signature is "
            f"`{signature}`."
        ) from e
    arrays, rest = split_arguments(dict(bound.arguments))
    arrays, fn = as_data(arrays), handlers_as_pytrees(model)
    make = lambda layout, whole: _NumPyroModel(fn, Held(rest), Held(layout), whole)
    layout, minibatch = _first_look(make(NOTHING, False), arrays), None
    if not layout.shapes:
        raise ValueError(
            "The model has no latent site with a continuous distribution: there is "
            f"nothing to fit. Its observed sites are {list(layout.observed)}."
        )
    _check_discrete(layout)
    _check_plates(layout)
    out = make(layout, False)
    # The data may be a batch already; then whole plates do not fit them.
    with contextlib.suppress(Exception):
        if layout.seen:
            whole = _look_at(make(NOTHING, True), arrays)
            minibatch = plate_minibatch(layout.seen, layout.lengths, ())
            out = make(whole, True)
    return Target(out, arrays, minibatch)


def _first_look(model: _NumPyroModel, arrays: Data) -> Layout:
    try:
        return _look_at(model, arrays)
    except ValueError:
        raise
    except Exception as e:
        words = lambda x: f"{x.dtype}{list(x.shape)}"
        raise ValueError(
            f"The model raised {type(e).__name__}: {e}. It was called with the arrays "
            f"{jax.tree.map(words, arrays)}, whose values are not known while JAX "
            f"traces it, and with {model.rest.tree}. What decides shapes or branches "
            "must be a plain number or a word, not an array."
        ) from e
