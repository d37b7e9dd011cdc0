"""Samples of other programs, such as NUTS, as particles."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._custom_types import Params
from .._family.particles import Particles
from .._target.target import check_target, Target


def _arrays(samples: Any) -> Mapping[str, Any]:
    """Samples by name, from a dictionary or from ArviZ data."""
    samples = getattr(samples, "posterior", samples)
    samples = getattr(samples, "data_vars", samples)
    if not isinstance(samples, Mapping):
        raise ValueError(
            "`samples` must be a dictionary {name: array} or ArviZ data with a group "
            f"`posterior`, but it is a {type(samples).__name__}."
        )
    return samples


def _checked(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Samples of one parameter as an array."""
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError) as e:
        raise ValueError(f"The samples of `{name}` are no numbers: {e}") from e
    num_leading = array.ndim - len(shape)
    if num_leading not in (1, 2) or array.shape[num_leading:] != shape:
        raise ValueError(
            f"The samples of `{name}` have shape {array.shape}, but they must have shape "
            f"(draws, ...) or (chains, draws, ...) where ... is the parameter's own "
            f"shape, {shape}."
        )
    return array


@eqx.filter_jit
def _unconstrain(
    target: Target, params: dict[str, Any]
) -> tuple[Float[Array, "draws dim"], dict[str, Bool[Array, " draws"]]]:
    def one(params: Params):
        x = target.unconstrain(params)
        # There and back again: what is outside its support does not return.
        back = target.constrain(x)
        near = lambda a, b: jnp.all(jnp.abs(a - b) <= 1e-3 * (1 + jnp.abs(a)))
        finite = {k: jnp.all(jnp.isfinite(v)) for k, v in target.unravel(x).items()}
        return x, {k: finite[k] & near(params[k], back[k]) for k in finite}

    return jax.vmap(one)(params)


def to_particles(samples: Any, target: Target) -> Particles:
    """Samples of the parameters, such as those of NUTS, as a [`vijax.Particles`][].

    A chain then serves wherever a fitted family does: `vi.draw`, plots, a start for
    [`vijax.SVGD`][].

    **Arguments:**

    - `samples`: `{name: array}` of parameters inside their supports, of shape
        `(draws, ...)` or `(chains, draws, ...)`, such as `mcmc.get_samples()`; or ArviZ
        data with a group `posterior`. Names that the target does not have are left out.
    - `target`: whose parameters they are.

    **Returns:**

    A [`vijax.Particles`][] of all the draws of all the chains, on the unconstrained
    scale.

    **Raises:** `ValueError` for a parameter that is missing, shapes that do not fit, or
    samples outside the supports.

    !!! Example

        ```python
        import jax.numpy as jnp
        import vijax as vi
        from numpyro.distributions import constraints

        target = vi.from_log_density(
            lambda params: -params["rate"], {"rate": vi.Param((), constraints.positive)}
        )
        particles = vi.to_particles({"rate": jnp.array([0.5, 1.0, 2.0])}, target)
        particles.x  # Their logarithms, of shape (3, 1).
        ```
    """
    check_target(target)
    samples = _arrays(samples)
    example = eqx.filter_eval_shape(lambda t: t.constrain(t.model.initial()), target)
    missing = [name for name in example if name not in samples]
    if missing:
        raise ValueError(
            f"`samples` has no {', '.join(f'`{name}`' for name in missing)}. Its names "
            f"are {', '.join(map(str, samples))}; the target's are {', '.join(example)}."
        )
    arrays = {k: _checked(k, samples[k], leaf.shape) for k, leaf in example.items()}
    leading = {k: x.shape[: x.ndim - example[k].ndim] for k, x in arrays.items()}
    if len(set(leading.values())) > 1:
        raise ValueError(
            "The parameters differ in their chains or in their number of draws: "
            f"{ ({k: n[0] if len(n) == 1 else n for k, n in leading.items()}) }."
        )
    if 0 in next(iter(leading.values())):
        raise ValueError("`samples` holds no draws.")
    params = {
        name: arrays[name].reshape(-1, *leaf.shape).astype(leaf.dtype)
        for name, leaf in example.items()
    }
    x, inside = _unconstrain(target, params)
    for name, is_inside in inside.items():
        count = int(np.sum(~np.asarray(is_inside)))
        if count:
            raise ValueError(
                f"{count} of {len(x)} samples of `{name}` are not finite or not strictly "
                "inside its support."
            )
    return Particles(x)
