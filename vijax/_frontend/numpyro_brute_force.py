"""NumPyro's sum over discrete sites against one over all of their joint values."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer.util import potential_energy

from .._custom_types import Data, Params
from .._misc import is_traced, lenient_promotion
from .numpyro_model import NumPyroModel
from .numpyro_sites import Discrete


# As many joint values of the discrete sites are tried one by one, at the most.
_MOST_CONFIGURATIONS = 2_000
# The rounding of a sum of many terms, as a power of that of one.
_ROUNDING = 0.65


def check_sums(model: NumPyroModel, data: Data) -> None:
    """Raise unless what NumPyro sums to at a random point is the sum over all joint
    values of the discrete sites, where these can be tried."""
    discrete = model.layout.tree.discrete
    every = _configurations(discrete) if discrete else None
    if every is None or is_traced(data):
        return
    summed, brute = map(np.asarray, _both(model, data, jax.device_put(every)))
    tolerance = np.finfo(brute.dtype).eps ** _ROUNDING * (1 + abs(brute))
    if not np.isfinite(brute) or abs(summed - brute) < tolerance:
        return
    names = ", ".join(f"`{name}`" for name in discrete)
    raise ValueError(
        f"NumPyro's sum over the discrete sites {names} is not that of the model: at a "
        f"random point its log density is {summed:.6g}, but with each of their joint "
        f"values in turn it is {brute:.6g}. Write the sum yourself, e.g. with "
        "`dist.MixtureSameFamily`, or `numpyro.factor`."
    )


@eqx.filter_jit
def _both(model: NumPyroModel, data: Data, every: Params) -> tuple[Array, Array]:
    """The log density at a random point by NumPyro's sum, and by each joint value."""
    initial = model.initial()
    x = 0.5 * jr.normal(jr.key(0), initial.shape, initial.dtype)
    fn, args, kwargs = model.called(data)

    def one(numbers: dict[str, Array]) -> Array:
        given = lambda site: _value(site, numbers)
        fixed = handlers.substitute(placed, substitute_fn=given)
        energy = potential_energy(fixed, args, kwargs, latents)
        return -jnp.asarray(energy, x.dtype)

    with lenient_promotion():
        placed, latents = model.placed(fn, args, kwargs, x)
        brute = jax.nn.logsumexp(jax.lax.map(one, every, batch_size=64))
    return model.log_density(x, data, 1.0), brute


def _configurations(discrete: dict[str, Discrete]) -> dict[str, np.ndarray] | None:
    """Every joint value of some discrete sites, by the numbers of their values; `None` if
    there are too many."""
    entries = [site.num_values for site in discrete.values() for _ in range(site.size)]
    if math.prod(entries) > _MOST_CONFIGURATIONS:
        return None
    rows = np.array(list(itertools.product(*map(range, entries))), np.int32)
    ends = np.cumsum([site.size for site in discrete.values()])[:-1]
    parts = np.split(rows, ends, axis=1)
    named = zip(discrete.items(), parts, strict=True)
    return {name: part.reshape(-1, *site.shape) for (name, site), part in named}


def _value(site: dict, numbers: dict[str, Array]) -> Array | None:
    """The value of a discrete site with this number."""
    if site["type"] != "sample" or site["name"] not in numbers:
        return None
    fn, number = site["fn"], numbers[site["name"]]
    step = site["infer"].get("_scan_current_index")
    if step is not None and number.ndim > len(fn.batch_shape):
        number = number[step]
    support = fn.enumerate_support(expand=False)
    return jnp.reshape(support, (-1, *fn.event_shape))[number]
