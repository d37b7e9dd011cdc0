import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Scalar

from .._custom_types import Key, Point
from .._misc import as_key, as_whole, float_dtype
from .base import AbstractFamily, check_family


class _Layers(eqx.Module):
    """The weights of all layers, leading with the layer."""

    first: Float[Array, "layers width dim"]
    first_bias: Float[Array, "layers width"]
    second: Float[Array, "layers width width"]
    second_bias: Float[Array, "layers width"]
    last: Float[Array, "layers 2 dim width"]
    last_bias: Float[Array, "layers 2 dim"]
    kept: Float[Array, "layers dim"]


class Coupling(AbstractFamily):
    r"""A small normalizing flow: affine couplings around a family.

    In each layer one half of the coordinates says how the other half is shifted and
    scaled; every second layer draws other halves. It starts as that family itself. With a
    standard normal, put it into the coordinates of a Gaussian fit with
    [`vijax.Affine`][], and train it with [`vijax.StickTheLanding`][]. It bends and
    funnels, but does not split into modes. In one dimension it only shifts and scales.

    **Reference:** Dinh, Sohl-Dickstein and Bengio (2017), *Density estimation using Real
    NVP*, [arXiv:1605.08803](https://arxiv.org/abs/1605.08803), equations 7 and 8, with
    log scales $2 \tanh(s / 2)$.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import optax
        import vijax as vi

        target = vi.from_log_density(
            lambda params: -0.5 * params["x"] ** 2
            - 0.5 * (params["y"] - params["x"] ** 2) ** 2,
            {"x": vi.Param(), "y": vi.Param()},
        )
        normal = vi.MeanField(jnp.zeros(2), scale=1.0)
        flow = vi.Coupling(normal, key=jax.random.key(0))
        method = vi.Descent(vi.StickTheLanding(64), optax.adam(5e-3))
        fit = vi.fit(target, method, flow, key=jax.random.key(1), max_steps=500)
        ```
    """

    base: AbstractFamily
    layers: _Layers

    def __init__(
        self,
        base: AbstractFamily,
        *,
        key: Key,
        num_layers: int = 6,
        width: int = 32,
    ):
        """**Arguments:**

        - `base`: the family that the layers bend, such as
            `vi.MeanField(jnp.zeros(dim), scale=1.0)`. It is trained with them.
        - `key`: randomness of the first weights. Keyword only.
        - `num_layers`: how many couplings. Keyword only.
        - `width`: the width of the two hidden layers of each. Keyword only.

        **Raises:** `ValueError` for numbers that are not positive, or a `base` that is no
        family.
        """
        check_family("base", base)
        self.base = base
        num_layers = as_whole("num_layers", num_layers, 1)
        width = as_whole("width", width, 1)
        dim, dtype = base.dim, float_dtype(base)
        keys = jr.split(as_key(key), 2)

        def fan(key, n_in, n_out):
            draws = jr.normal(key, (num_layers, n_out, n_in), dtype)
            return draws / np.sqrt(n_in).astype(dtype)

        zeros = lambda *shape: jnp.zeros((num_layers, *shape), dtype)
        self.layers = _Layers(
            first=fan(keys[0], dim, width),
            first_bias=zeros(width),
            second=fan(keys[1], width, width),
            second_bias=zeros(width),
            # Zero, so that the flow starts as the identity.
            last=zeros(2, dim, width),
            last_bias=zeros(2, dim),
            kept=jnp.asarray(_halves(num_layers, dim), dtype),
        )

    @property
    def dim(self) -> int:
        return self.base.dim

    def with_base(self, base: AbstractFamily) -> "Coupling":
        """The same flow around another family, such as one with heavy tails."""
        check_family("base", base)
        if base.dim != self.dim:
            raise ValueError(
                f"`base` has {base.dim} coordinates, but the flow has {self.dim}."
            )
        return eqx.tree_at(lambda flow: flow.base, self, base)

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        z, log_q = self.base.sample_and_log_prob(key)

        def layer(carry, weights):
            x, log_det = carry
            log_scale, shift, kept = _condition(weights, x)
            x = kept * x + (1 - kept) * (x * jnp.exp(log_scale) + shift)
            return (x, log_det + jnp.sum(log_scale)), None

        start = z, jnp.zeros((), z.dtype)
        (x, log_det), _ = lax.scan(layer, start, self.layers)
        return x, log_q - log_det

    def log_prob(self, x: Point) -> Scalar:
        def layer(carry, weights):
            x, log_det = carry
            log_scale, shift, kept = _condition(weights, x)
            x = kept * x + (1 - kept) * (x - shift) * jnp.exp(-log_scale)
            return (x, log_det + jnp.sum(log_scale)), None

        start = x, jnp.zeros((), x.dtype)
        (z, log_det), _ = lax.scan(layer, start, self.layers, reverse=True)
        return self.base.log_prob(z) - log_det


def _halves(num_layers: int, dim: int) -> np.ndarray:
    """Which coordinates each layer keeps: one half, and the other in the next layer; then
    other halves, since two coordinates that are never apart cannot bend each other."""
    shuffles = np.random.default_rng(0)
    orders = [np.arange(dim)]
    orders += [shuffles.permutation(dim) for _ in range(num_layers // 2)]
    return np.stack([(orders[i // 2] + i) % 2 for i in range(num_layers)])


def _condition(weights: _Layers, x: Point) -> tuple[Point, Point, Point]:
    """How one layer changes the coordinates that it does not keep."""
    kept = lax.stop_gradient(weights.kept)
    hidden = jnp.tanh(weights.first @ (kept * x) + weights.first_bias)
    hidden = jnp.tanh(weights.second @ hidden + weights.second_bias)
    log_scale, shift = weights.last @ hidden + weights.last_bias
    log_scale = 2 * jnp.tanh(log_scale / 2)
    return (1 - kept) * log_scale, (1 - kept) * shift, kept
