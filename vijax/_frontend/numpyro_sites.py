"""What a NumPyro model consists of, and which indices its plates see."""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array
from numpyro.distributions import (
    biject_to,
    Distribution,
    ExpandedDistribution,
    MaskedDistribution,
    Unit,
)
from numpyro.primitives import Messenger


class PlateIndices(Messenger):
    """Says which indices each plate sees: those given, else all, else the first ones."""

    def __init__(self, fn: Callable, indices: dict[str, Array], *, whole: bool):
        super().__init__(fn)
        self.indices = indices
        self.whole = whole

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "sample":
            # NumPyro writes the axes of a site into this, which sites may share.
            msg["infer"] = dict(msg["infer"])
        if msg["type"] != "plate":
            return
        length, size = msg["args"]
        indices = self.indices.get(msg["name"])
        if indices is None:
            indices = jnp.arange(length if self.whole or size is None else size)
        # A plate that is told another size than its indices have would warn.
        msg["args"] = length, indices.shape[0]
        msg["value"] = indices


class StandInsForSeen(Messenger):
    """Gives what `obs_mask=` leaves open a density: `names` are latent sites that matter
    only where nothing was observed, and no other mask is. Elsewhere they would be flat,
    which no posterior is; a standard normal takes that place, on the unconstrained
    scale."""

    def __init__(self, fn: Callable, names: tuple[str, ...]):
        super().__init__(fn)
        self.names = names

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "sample" and msg["name"] in self.names:
            msg["fn"] = _Filled(msg["fn"], 1.0 if msg["scale"] is None else msg["scale"])


class _Filled(Distribution):
    """A masked distribution, with a standard normal where it is masked, whatever `scale`
    the site has."""

    def __init__(self, fn: Distribution, scale: Any):
        self._inner, self._masks = _unmasked(fn)
        self._scale = scale
        super().__init__(fn.batch_shape, fn.event_shape)

    @property
    def support(self) -> Any:
        return self._inner.support

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        del intermediates
        transform = biject_to(self.support)
        x = transform.inv(value)
        normal = -0.5 * (x**2 + np.log(2 * np.pi).item())
        axes = tuple(range(x.ndim - transform.domain.event_dim, x.ndim))
        # Without the log-Jacobian, which NumPyro masks too.
        stand_in = jnp.sum(normal, axis=axes)
        axes = tuple(range(len(self.batch_shape) - stand_in.ndim, 0))
        stand_in = jnp.sum(stand_in, axis=axes) if axes else stand_in
        mask = functools.reduce(jnp.logical_and, self._masks)
        return jnp.where(mask, self._inner.log_prob(value), stand_in / self._scale)


def _unmasked(fn: Any) -> tuple[Any, list[Any]]:
    """A distribution without what plates have expanded it to and without its masks, of
    which each handler and the model itself may have added one; and these."""
    masks = []
    while isinstance(fn, ExpandedDistribution | MaskedDistribution):
        masks += [fn._mask] if isinstance(fn, MaskedDistribution) else []
        fn = fn.base_dist
    return fn, masks


class Parts(eqx.Module):
    """The shapes and dtypes of a pytree of arrays, and its structure."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]


def zeros_of(parts: dict[str, Parts]) -> dict[str, Any]:
    """Pytrees of zeros."""
    out = {}
    for name, part in parts.items():
        pairs = zip(part.shapes, part.dtypes, strict=True)
        leaves = [jnp.zeros(shape, dtype) for shape, dtype in pairs]
        out[name] = jtu.tree_unflatten(part.structure, leaves)
    return out


def _parts(tree: Any) -> Parts:
    leaves, structure = jtu.tree_flatten(tree)
    shapes = tuple(tuple(jnp.shape(leaf)) for leaf in leaves)
    return Parts(structure, shapes, tuple(str(jnp.result_type(leaf)) for leaf in leaves))


class Discrete(eqx.Module):
    """A discrete site: the shape of its value, and how many values an entry may take."""

    shape: tuple[int, ...]
    num_values: int

    @property
    def size(self) -> int:
        """How many entries there are."""
        return math.prod(self.shape)


class Layout(eqx.Module):
    """What a model consists of: known before anything is computed."""

    # Latent sites, with their unconstrained shapes.
    shapes: dict[str, tuple[int, ...]]
    observed: tuple[str, ...]
    deterministic: tuple[str, ...]
    discrete: dict[str, Discrete]
    # The length of each plate, and of those that say so how much of it a step sees.
    lengths: dict[str, int]
    seen: dict[str, int]
    # Sites with a value for each index of a plate, by plate.
    within: dict[str, tuple[str, ...]]
    dims: dict[str, tuple[str | None, ...]]
    nesting: int
    # Values without a prior: of networks, whose weights have priors of their own.
    networks: dict[str, Parts]
    # What `obs_mask=` leaves open.
    filled: tuple[str, ...]
    # Plates within a `scan`, of which a trace shows no more than the sites in them.
    inner: tuple[str, ...]

    @property
    def named_dims(self) -> dict[str, list[str]]:
        """The names of the axes of sites within plates."""
        return {
            name: [dim or f"{name}_dim_{i}" for i, dim in enumerate(axes)]
            for name, axes in self.dims.items()
            if any(axes)
        }


# Before a model was looked at.
NOTHING = Layout({}, (), (), {}, {}, {}, {}, {}, 0, {}, (), ())


def _transform(site: dict) -> Any:
    name, support = site["name"], site["fn"].support
    try:
        return biject_to(support)
    except NotImplementedError as e:
        raise ValueError(
            f"The site `{name}` has the support {support}, which NumPyro has no "
            "transform from real numbers to. Reparameterize it, e.g. with "
            f"`numpyro.handlers.reparam(model, config={{{name!r}: ...}})`."
        ) from e


def at_zero(site: dict) -> Any:
    """The value of a latent site whose unconstrained value is zero."""
    if site["type"] != "sample" or site["is_observed"] or site["value"] is not None:
        return None
    if site["fn"].support.is_discrete:
        return None
    transform = _transform(site)
    shape = tuple(site["fn"].shape(site["kwargs"].get("sample_shape", ())))
    return transform(jnp.zeros(transform.inverse_shape(shape)))


def is_factor(fn: Any) -> bool:
    return isinstance(_unmasked(fn)[0], Unit)


def describe(sites: dict[str, dict]) -> Layout:
    shapes, observed, deterministic, discrete = {}, [], [], {}
    lengths, seen, within, dims, nesting = {}, {}, {}, {}, 0
    networks, filled, plates = {}, [], set()
    for name, site in sites.items():
        if site["type"] == "plate":
            length, size = site["args"]
            lengths[name] = length
            if size is not None and size != length:
                seen[name] = size
            continue
        if site["type"] == "param":
            networks[name] = _parts(site["value"])
        if site["type"] not in ("sample", "deterministic"):
            continue
        frames = site["cond_indep_stack"]
        dims[name] = _dims(site, frames)
        plates |= {frame.name for frame in frames}
        nesting = max([nesting, *(-frame.dim for frame in frames)])
        if site["type"] == "deterministic":
            deterministic.append(name)
        elif is_factor(site["fn"]):
            continue
        elif site["is_observed"]:
            observed.append(name)
        elif site["fn"].support.is_discrete:
            if not site["fn"].has_enumerate_support:
                raise ValueError(
                    f"The site `{name}` is discrete, and has no finite number of values "
                    "that could be summed out. Write the model without it, e.g. "
                    "`dist.GammaPoisson` for counts of a random rate."
                )
            discrete[name] = _discrete(site)
        else:
            shape = tuple(jnp.shape(site["value"]))
            shapes[name] = tuple(_transform(site).inverse_shape(shape))
            if _is_left_open(site, sites):
                filled.append(name)
            for frame in frames:
                within[frame.name] = (*within.get(frame.name, ()), name)
    return Layout(
        shapes,
        tuple(observed),
        tuple(deterministic),
        discrete,
        lengths,
        seen,
        within,
        dims,
        nesting,
        networks,
        tuple(filled),
        tuple(sorted(plates - lengths.keys())),
    )


def _is_left_open(site: dict, sites: dict[str, dict]) -> bool:
    """Whether a latent site is what `obs_mask=` leaves out of an observed one."""
    stem, found, _ = site["name"].rpartition("_unobserved")
    is_masked = bool(found) and bool(_unmasked(site["fn"])[1])
    return is_masked and f"{stem}_observed" in sites


def check_shapes(site: dict) -> None:
    """Raise unless the value of a site goes with its distribution and its plates."""
    shape, fn = jnp.shape(site["value"]), site["fn"]
    frames, cause = site["cond_indep_stack"], None
    axes = {frame: len(shape) - fn.event_dim + frame.dim for frame in frames}
    fits = all(k < 0 or shape[k] in (1, frame.size) for frame, k in axes.items())
    try:
        fn.log_prob(site["value"])
    except (TypeError, ValueError) as e:
        cause = e
    if cause is None and fits:
        return
    plates = {frame.name: frame.size for frame in frames}
    raise ValueError(
        f"The site `{site['name']}` has a value of shape {shape}, but its distribution "
        f"is of shape {fn.shape()}, in plates that see {plates}. Index the data as the "
        "plate says. What `numpyro.handlers.condition` gives is not seen in batches: "
        "make it an argument and `obs=`, or leave out `subsample_size`."
    ) from cause


def _discrete(site: dict) -> Discrete:
    fn = site["fn"]
    shape = tuple(jnp.shape(site["value"]))
    shape = shape[: len(shape) - fn.event_dim]
    return Discrete(shape, fn.enumerate_support(expand=False).shape[0])


def _dims(site: dict, frames: list) -> tuple[str | None, ...]:
    """The plate that each axis runs over, as far as there is one."""
    shape = jnp.shape(site["value"])
    event_dim = site["fn"].event_dim if site["type"] == "sample" else 0
    out: list[str | None] = [None] * len(shape)
    for frame in frames:
        axis = len(shape) - event_dim + frame.dim
        if axis >= 0 and shape[axis] == frame.size:
            out[axis] = frame.name
    return tuple(out)
