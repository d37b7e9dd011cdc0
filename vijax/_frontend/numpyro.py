"""NumPyro models as targets."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array
from numpyro import handlers

from .._closures import Held
from .._custom_types import Data
from .._misc import as_names
from .._target.data import as_data
from .._target.plates import plate_minibatch
from .._target.target import Target
from .numpyro_brute_force import check_sums
from .numpyro_handlers import (
    array_places,
    handlers_as_pytrees,
    place_of,
    split_arguments,
)
from .numpyro_model import NumPyroModel
from .numpyro_points import check_points, lifted
from .numpyro_sites import Layout, NOTHING, zeros_of
from .numpyro_traces import look_at


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


def _check_networks(model: NumPyroModel, data: Data) -> None:
    """Raise if the density depends on a value that has no prior."""
    values = zeros_of(model.layout.tree.networks)
    if not values:
        return

    def density(values: Any, data: Data) -> Array:
        fn, args, kwargs = model.called(data)
        fn = handlers.substitute(fn, data=values)
        return model.density_of(fn, args, kwargs, jnp.zeros(model.dim))

    names = [place_of(path) for path, _ in jtu.tree_flatten_with_path(values)[0]]
    used = _needed(jax.make_jaxpr(density)(values, data).jaxpr)[: len(names)]
    culprits = [name for name, is_used in zip(names, used, strict=True) if is_used]
    if culprits:
        site = next(name for name in values if culprits[0].startswith(name))
        raise ValueError(
            f"The model has a `numpyro.param` site, {site!r}, which has no prior, and "
            f"its density depends on it (on {', '.join(culprits[:3])}). Give it one: "
            "`numpyro.sample`, with `dist.ImproperUniform` for a flat one; or "
            "`numpyro.handlers.lift(model, prior={...})`. To maximize over it, "
            f"`vi.from_numpyro(..., point=({site!r},))`. To keep its first value, "
            f"`numpyro.handlers.block(model, hide=[{site!r}])`."
        )


def _needed(jaxpr: Any) -> list[bool]:
    """Which inputs of a program its outputs depend on, at most."""
    needed = {id(var) for var in jaxpr.outvars}
    for eqn in reversed(jaxpr.eqns):
        if any(id(var) in needed for var in eqn.outvars):
            needed |= {id(var) for var in eqn.invars}
    return [id(var) in needed for var in jaxpr.invars]


def from_numpyro(
    model: Any, /, *args: Any, static: Any = (), point: Any = (), **kwargs: Any
) -> Target:
    """A target from a NumPyro model.

    All that NumPyro's own NUTS can sample from works: any continuous support, nested
    plates, factors, deterministic sites, effect handlers, supports that depend on other
    parameters. The log density is that of `numpyro.infer.util.potential_energy`.

    Plates with a `subsample_size` are seen in batches at each step of a fit, with
    indices in shuffled epochs; everything else, such as draws and diagnostics, sees them
    whole. Where the data are given as batches already, so that the model cannot be called
    with whole plates, they are taken as they are, scaled as the plate says.

    Discrete sites are summed out, which needs the extra `enumerate`. Deterministic sites
    are not reported then. What NumPyro's sum comes to is checked: a site that depends on
    a discrete one beyond its plates is refused, and where the discrete sites have no more
    than 2,000 joint values, each of these is tried at a random point.

    Models may compute with some arrays as NumPy does (`np.log(times)`,
    `len(np.unique(group))`, loops over rows): such arrays, found by trying, become
    constants of the model, and new values of them compile anew. All the others are data.

    What `obs_mask=` leaves open is a latent site. Where something was observed, or
    another mask is, it has a standard normal density, on the unconstrained scale, lest it
    be flat there.

    **Arguments:**

    - `model`: a NumPyro model, possibly in effect handlers such as
        `numpyro.handlers.reparam` or `condition`.
    - `args`, `kwargs`: what it is called with. Arrays are data: the same model with
        others of equal shapes does not compile again. Everything else (numbers, words,
        arrays that hold one whole number) is a part of the model.
    - `static`: names of arguments whose arrays are constants of the model. Default: those
        that have to be. Keyword only; where the model has an argument of this name, it is
        the model's.

    - `point`: names of sites that are estimated by a number each, in place of a
        posterior: `sample` sites, with their priors, and `param` sites, which have none.
        They are maximized over together with the family (variational EM), on the scale
        that the model was written in: [`vijax.PointEstimates`][]. Keyword only; where
        the model has an argument of this name, it is the model's.

    **Returns:**

    A [`vijax.Target`][]. Its `data` are a dictionary by the names of the model's
    arguments; `target.with_data({"y": new})` replaces some of them.

    **Raises:** `ValueError` if the model fails with these arguments, for a support that
    NumPyro has no transform to, a `numpyro.param` site that the density depends on, a
    discrete site that cannot be summed out, a latent site within a subsampled plate, or
    where NaN in the data make the density or its gradient NaN.

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
    if "static" in signature.parameters and static != ():
        kwargs, static = kwargs | {"static": static}, ()
    if "point" in signature.parameters and point != ():
        kwargs, point = kwargs | {"point": point}, ()
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as e:
        raise ValueError(
            f"The model cannot be called with these arguments: {e}. Its signature is "
            f"`{signature}`."
        ) from e
    arguments = dict(bound.arguments)
    points = (point,) if isinstance(point, str) else point
    points = tuple(dict.fromkeys(as_names("point", points, '`("sigma",)`')))
    starts: dict[str, Any] = {}
    if points:
        model, starts = lifted(model, bound.args, bound.kwargs, points)
    fn = handlers_as_pytrees(model)

    def make(constants: frozenset[str], layout: Layout = NOTHING, *, whole: bool = False):
        arrays, rest = split_arguments(arguments, constants)
        held = Held(rest), constants, Held(layout)
        out = NumPyroModel(fn, *held, whole, points, Held(starts))
        return out, as_data(arrays, nan_allowed=True)

    constants, layout = _first_look(make, arguments, _chosen(static, arguments))
    if not layout.shapes:
        raise ValueError(
            "The model has no latent site with a continuous distribution: there is "
            f"nothing to fit. Its observed sites are {list(layout.observed)}."
        )
    check_points(points, layout)
    _check_discrete(layout)
    _check_plates(layout)
    out, arrays = make(constants, layout)
    minibatch = None
    # The data may be a batch already; then whole plates do not fit them.
    with contextlib.suppress(Exception):
        if layout.seen:
            whole = look_at(*make(constants, whole=True))
            minibatch = plate_minibatch(layout.seen, layout.lengths, ())
            out, arrays = make(constants, whole, whole=True)
    _check_networks(out, arrays)
    target = Target(out, arrays, minibatch)
    check_sums(out, target.data)
    return target


def _chosen(static: Any, arguments: dict[str, Any]) -> frozenset[str]:
    """The places of the arrays that the user declares to be constants."""
    one = isinstance(static, str)
    static = (static,) if one else as_names("static", static, f"{list(arguments)}")
    for name in static:
        if name not in arguments:
            raise ValueError(
                f"`static` names {name!r}, which is no argument of this call of the "
                f"model. There are {list(arguments)}."
            )
    return frozenset(array_places({name: arguments[name] for name in static}))


def _first_look(
    make: Callable, arguments: dict[str, Any], constants: frozenset[str]
) -> tuple[frozenset[str], Layout]:
    """What the model consists of, and which arrays are constants of it: no more of them
    than have to be."""
    try:
        return constants, look_at(*make(constants))
    except Exception as error:
        found = _looked(make, frozenset(array_places(arguments)))
        if found is None:
            if isinstance(error, ValueError):
                raise
            raise _refusal(error, arguments) from error
    needed = frozenset(array_places(arguments))
    for place in sorted(needed - constants):
        fewer = _looked(make, needed - {place})
        if fewer is not None:
            needed, found = needed - {place}, fewer
    return needed, found


def _looked(make: Callable, constants: frozenset[str]) -> Layout | None:
    try:
        return look_at(*make(constants))
    except Exception:
        return None


def _refusal(error: Exception, arguments: dict[str, Any]) -> ValueError:
    words = lambda x: f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else x
    return ValueError(
        f"The model raised {type(error).__name__}: {error}. It was called with "
        f"{jax.tree.map(words, arguments)}. What it computes with its parameters must be "
        "of `jax.numpy`, and no shape or branch may depend on them."
    )
