import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import vijax as vi


DIM = 3
LOC = (1.0, -1.0, 0.0)
SCALE = (1.0, 2.0, 0.5)


def tree_allclose(x, y, *, rtol=1e-5, atol=1e-8):
    """Whether two pytrees agree in structure, types and, nearly, in values."""
    return eqx.tree_equal(x, y, typematch=True, rtol=rtol, atol=atol)


def same(first, second):
    """Whether two fits agree, bit for bit, in all that they computed."""
    parts = lambda f: (f.progress, f.losses, f.trackers, f.tracked_steps)
    first, second = jax.tree.leaves(parts(first)), jax.tree.leaves(parts(second))
    bits = lambda leaf: (leaf.shape, leaf.dtype, np.asarray(leaf).tobytes())
    return list(map(bits, first)) == list(map(bits, second))


def _on_the_host(target, method, *, key, **kwargs):
    return vi.fit(target, method, key=key, progress=False, **kwargs)


def _traced(target, method, *, key, **kwargs):
    run = lambda target, key: vi.fit(target, method, key=key, throw=False, **kwargs)
    return eqx.filter_jit(run)(target, key)


# Both ways in which methods that ask and tell are driven. They must come to the same.
drivers = {"host": _on_the_host, "traced": _traced}


def diagonal_log_density(params, data):
    """`N(loc, diag(scale**2))`, not normalized."""
    loc, scale = data
    return -0.5 * jnp.sum(((params["x"] - loc) / scale) ** 2)


def diagonal_target(loc=LOC, scale=SCALE):
    """A Gaussian with independent coordinates."""
    data = jnp.array(loc), jnp.array(scale)
    return vi.from_log_density(diagonal_log_density, {"x": vi.Param(len(loc))}, data)


def correlated_log_density(params, data):
    """`N(loc, inv(precision))`, not normalized."""
    loc, precision = data
    z = params["x"] - loc
    return -0.5 * z @ precision @ z


def correlated_target(loc, precision):
    """A Gaussian with any precision matrix."""
    params = {"x": vi.Param(len(loc))}
    return vi.from_log_density(correlated_log_density, params, (loc, precision))


TRIL = np.array([[0.5, 0.0, 0.0], [0.2, 0.4, 0.0], [-0.1, 0.3, 0.6]])


def bent():
    """A flow that is not the identity."""
    base = vi.MeanField(jnp.arange(1.0, DIM + 1), scale=0.5)
    flow = vi.Coupling(base, key=jr.key(0), num_layers=3, width=8)
    noise = 0.1 * jr.normal(jr.key(1), flow.layers.last.shape)
    return eqx.tree_at(lambda flow: flow.layers.last, flow, noise)


def nested():
    """One global, the middle coordinate, that bends and narrows the others."""
    t = lambda loc, scale: vi.StudentT(jnp.array([loc]), scale, df=9)
    u = jnp.array([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    return vi.NestedGaussian(
        vi.Mixture([t(0.3, 0.4), t(0.8, 0.6)], [0.7, 0.3]),
        center=jnp.array([0.5]),
        root=jnp.array([[0.6]]),
        points=u,
        modes=jnp.concatenate([0.3 * u, 0.2 * u**2], axis=1),
        factors=jnp.concatenate([0.3 * u, 0.2 - 0.1 * u, 0.4 * jnp.sin(u)], axis=1),
        loc=jnp.array([1.0, 2.0]),
        scale=jnp.array([0.5, 0.6]),
        which=(1,),
        others=(2, 0),
        entries=((1, 0),),
    )


# Every final class that vijax exports must be in one of these tables; the contract
# tests then run on it. See `test_public.py`.
families = {
    "Particles": lambda: vi.Particles(
        jnp.array([[1.0, 2.0, 3.0], [0.5, 2.2, 3.5], [1.6, 1.4, 2.6], [1.0, 2.5, 2.8]]),
        bandwidth=jnp.array([0.3, 0.5, 0.4]),
    ),
    "FullRank": lambda: vi.FullRank(jnp.arange(1.0, DIM + 1), TRIL),
    "MeanField": lambda: vi.MeanField(jnp.arange(1.0, DIM + 1), jnp.array(0.5)),
    "StudentT": lambda: vi.StudentT(jnp.arange(1.0, DIM + 1), TRIL, df=8.0),
    "StudentT, whole df": lambda: vi.StudentT(jnp.arange(1.0, DIM + 1), TRIL, df=9),
    "Mixture": lambda: vi.Mixture(
        [vi.FullRank(jnp.arange(1.0, DIM + 1), TRIL), vi.FullRank(jnp.ones(DIM), 0.4)],
        weights=[0.3, 0.6],
    ),
    "Affine": lambda: vi.Affine(
        vi.FullRank(jnp.array([0.1, -0.2, 0.3]), TRIL), jnp.arange(1.0, DIM + 1), 2 * TRIL
    ),
    "Coupling": bent,
    "NestedGaussian": nested,
}
# Arrays that draws do not depend on, or not differentiably.
untrained = {
    "Affine": (".loc", ".log_diag", ".below"),
    "Mixture": (".logits",),
    "Coupling": (".layers.kept",),
    "NestedGaussian": (
        ".globals_family.logits",
        ".globals_family.components.below",
    ),
}
# Objectives whose value is the negative ELBO, and in which settings.
elbos = {
    "ELBO": lambda key: vi.ELBO(num_draws=2_000),
    "ELBO, antithetic": lambda key: vi.ELBO(num_draws=2_000, antithetic=True),
    "FixedDraws": lambda key: vi.FixedDraws(vi.ELBO(num_draws=2_000), key),
    "StickTheLanding": lambda key: vi.StickTheLanding(num_draws=2_000),
}
# Objectives of another value have tests of their own.
others = {"SteinForce": lambda key: vi.SteinForce(num_draws=50)}
objectives = elbos | others
kernels = {
    "RBF": lambda: vi.RBF(),
    "RBF, fixed": lambda: vi.RBF(bandwidth=0.7),
    "IMQ": lambda: vi.IMQ(),
    "IMQ, fixed": lambda: vi.IMQ(bandwidth=2.0, exponent=-0.3),
    "LinearKernel": lambda: vi.LinearKernel(),
    "MixtureKernel": lambda: vi.MixtureKernel(
        [vi.RBF(), vi.IMQ(1.5), vi.LinearKernel()], weights=[0.5, 2.0, 0.1]
    ),
}
