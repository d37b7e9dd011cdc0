import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Scalar

from .._custom_types import Key, Point
from .._host_distributions import AbstractHostDistribution
from .._keys import Seed
from .._misc import as_key, as_whole, eager, float_dtype, in_blocks
from .base import AbstractFamily, check_family


# How many draws are bent side by side.
_BLOCK = 512


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
        key = as_key(key)

        xp, done = eager(base, key)

        def fan(place, n_in, n_out):
            shape = num_layers, n_out, n_in
            if xp is np:
                draws = Seed(key).generator(place).standard_normal(shape).astype(dtype)
            else:
                draws = jr.normal(jr.fold_in(key, place), shape, dtype)
            return done(draws / np.sqrt(n_in).astype(dtype))

        zeros = lambda *shape: done(xp.zeros((num_layers, *shape), dtype))
        self.layers = _Layers(
            first=fan(0, dim, width),
            first_bias=zeros(width),
            second=fan(1, width, width),
            second_bias=zeros(width),
            # Zero, so that the flow starts as the identity.
            last=zeros(2, dim, width),
            last_bias=zeros(2, dim),
            kept=done(xp.asarray(_halves(num_layers, dim), dtype)),
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

    def on_host(self) -> "_HostCoupling | None":
        base = self.base.on_host()
        return None if base is None else _HostCoupling(base, self.layers)

    def outward(self, z: Point) -> tuple[Point, Scalar]:
        u, log_det = self.base.outward(z)
        x, bent = _forward(self.layers, u)
        return x, log_det + bent

    def inward(self, x: Point) -> Point:
        return self.base.inward(_backward(self.layers, x)[0])

    def sample_and_log_prob(self, key: Key) -> tuple[Point, Scalar]:
        z, log_q = self.base.sample_and_log_prob(key)
        x, log_det = _forward(self.layers, z)
        return x, log_q - log_det

    def log_prob(self, x: Point) -> Scalar:
        z, log_det = _backward(self.layers, x)
        return self.base.log_prob(z) - log_det


def _forward(layers: _Layers, z: Point) -> tuple[Point, Scalar]:
    """Where a draw of the base comes to, and the log-determinant there."""

    def layer(carry, weights):
        x, log_det = carry
        log_scale, shift, kept = _condition(weights, x)
        x = kept * x + (1 - kept) * (x * jnp.exp(log_scale) + shift)
        return (x, log_det + jnp.sum(log_scale)), None

    return lax.scan(layer, (z, jnp.zeros((), z.dtype)), layers)[0]


def _backward(layers: _Layers, x: Point) -> tuple[Point, Scalar]:
    """Where a draw comes from, and the log-determinant there."""

    def layer(carry, weights):
        x, log_det = carry
        log_scale, shift, kept = _condition(weights, x)
        x = kept * x + (1 - kept) * (x - shift) * jnp.exp(-log_scale)
        return (x, log_det + jnp.sum(log_scale)), None

    return lax.scan(layer, (x, jnp.zeros((), x.dtype)), layers, reverse=True)[0]


@eqx.filter_jit
def _all_forward(layers: _Layers, z: Float[Array, "draws dim"]) -> tuple[Array, Array]:
    return jax.vmap(lambda z: _forward(layers, z))(z)


@eqx.filter_jit
def _all_pulled(
    layers: _Layers, x: Float[Array, "draws dim"], slope: Float[Array, "draws dim"]
) -> tuple[Array, Array, Array]:
    """Where draws come from, the log-determinants, and the gradient of the log density
    if that of the base is `slope` there."""

    def one(x: Point, slope: Point) -> tuple[Point, Scalar, Point]:
        (z, log_det), pull = jax.vjp(lambda x: _backward(layers, x), x)
        return z, log_det, pull((slope, -jnp.ones_like(log_det)))[0]

    return jax.vmap(one)(x, slope)


@dataclasses.dataclass(frozen=True)
class _HostCoupling(AbstractHostDistribution):
    """A flow around a base on the host. The layers alone are compiled, whatever the base:
    one program to draw, another to look back."""

    base: AbstractHostDistribution
    layers: _Layers

    def _through(self, program: Callable, *rows: np.ndarray) -> list[np.ndarray]:
        """What one of the programs makes of draws, with 64 bits again."""
        narrow = [x.astype(self.layers.first.dtype) for x in rows]
        out = in_blocks(lambda *x: program(self.layers, *x), _BLOCK, *narrow)
        return [x.astype(np.float64) for x in out]

    def draw(
        self, generator: np.random.Generator, num_draws: int
    ) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, " draws"]]:
        z, log_q = self.base.draw(generator, num_draws)
        x, log_det = self._through(_all_forward, z)
        return x, log_q - log_det

    def log_prob(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, " draws"]:
        z, log_det, _ = self._through(_all_pulled, x, np.zeros_like(x))
        return self.base.log_prob(z) - log_det

    def score(self, x: Float[np.ndarray, "draws dim"]) -> Float[np.ndarray, "draws dim"]:
        z, _, _ = self._through(_all_pulled, x, np.zeros_like(x))
        return self._through(_all_pulled, x, self.base.score(z))[2]


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
