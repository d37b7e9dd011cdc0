import functools

import equinox as eqx
import hypothesis as hp
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.random as jr
import jax.scipy.stats as jstats
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to, constraints

import vijax as vi


# A minimal set of constrained coordinates, with as many entries as the set that the
# parameter lives in has dimensions. All act on the trailing axes, for stacks.
def _all(y):
    return jnp.ravel(y)


def _but_last(y):
    return jnp.ravel(y[..., :-1])


def _below(y):
    rows, columns = np.tril_indices(y.shape[-1], -1)
    return jnp.ravel(y[..., rows, columns])


def _lower(y):
    rows, columns = np.tril_indices(y.shape[-1])
    return jnp.ravel(y[..., rows, columns])


# {name: (shape, support, dim, minimal coordinates)}. Vectors that sum to zero fill a
# hyperplane askew to the axes, which no selection of entries measures: their volume is
# taken by a Gram determinant in a test of its own.
cases = {
    "cat": (
        (5,),
        constraints.cat([constraints.positive, constraints.real], lengths=[2, 3]),
        5,
        _all,
    ),
    "circular": ((2,), constraints.circular, 2, _all),
    "corr_cholesky": ((3, 3), constraints.corr_cholesky, 3, _below),
    "corr_cholesky stack": ((2, 3, 3), constraints.corr_cholesky, 6, _below),
    "corr_matrix": ((3, 3), constraints.corr_matrix, 3, _below),
    "greater_than": ((2,), constraints.greater_than(2.0), 2, _all),
    "greater_than array": ((2,), constraints.greater_than(np.array([1.0, 2])), 2, _all),
    "greater_than_eq": ((2,), constraints.greater_than_eq(2), 2, _all),
    "independent": ((3,), constraints.independent(constraints.positive, 1), 3, _all),
    "interval": ((2,), constraints.interval(-1.0, 3.0), 2, _all),
    "interval array": (
        (2,),
        constraints.interval(np.array([-1.0, 0.0]), np.array([3.0, 2.0])),
        2,
        _all,
    ),
    "interval integers": ((), constraints.interval(-1, 3), 1, _all),
    "l1_ball": ((4,), constraints.l1_ball, 4, _all),
    "less_than": ((2,), constraints.less_than(2.0), 2, _all),
    "less_than_eq": ((2,), constraints.less_than_eq(2.0), 2, _all),
    "lower_cholesky": ((3, 3), constraints.lower_cholesky, 6, _lower),
    "nonnegative": ((2,), constraints.nonnegative, 2, _all),
    "open_interval": ((2,), constraints.open_interval(-1.0, 3.0), 2, _all),
    "ordered_vector": ((4,), constraints.ordered_vector, 4, _all),
    "ordered_vector stack": ((3, 2), constraints.ordered_vector, 6, _all),
    "positive": ((), constraints.positive, 1, _all),
    "positive matrix": ((2, 3), constraints.positive, 6, _all),
    "positive_definite": ((3, 3), constraints.positive_definite, 6, _lower),
    "positive_definite stack": ((2, 2, 2), constraints.positive_definite, 6, _lower),
    "positive_ordered_vector": ((4,), constraints.positive_ordered_vector, 4, _all),
    "positive_semidefinite": ((2, 2), constraints.positive_semidefinite, 3, _lower),
    "real": ((), constraints.real, 1, _all),
    "real_matrix": ((2, 3), constraints.real_matrix, 6, _all),
    "real_vector": ((3,), constraints.real_vector, 3, _all),
    "scaled_unit_lower_cholesky": (
        (3, 3),
        constraints.scaled_unit_lower_cholesky,
        6,
        _lower,
    ),
    "simplex": ((4,), constraints.simplex, 3, _but_last),
    "simplex stack": ((2, 4), constraints.simplex, 6, _but_last),
    "softplus_lower_cholesky": ((3, 3), constraints.softplus_lower_cholesky, 6, _lower),
    "softplus_positive": ((2,), constraints.softplus_positive, 2, _all),
    "unit_interval": ((2,), constraints.unit_interval, 2, _all),
    "zero_sum": ((4,), constraints.zero_sum(1), 3, None),
    "zero_sum matrix": ((3, 4), constraints.zero_sum(2), 6, None),
    "zero_sum stack": ((2, 4), constraints.zero_sum(1), 6, None),
}
# No real parameters, no bijection from R^n, or not a support at all.
not_covered = {
    "Constraint",
    "boolean",
    "complex",
    "dependent",
    "integer_greater_than",
    "integer_interval",
    "is_dependent",
    "multinomial",
    "nonnegative_integer",
    "positive_definite_circulant_vector",
    "positive_integer",
    "sphere",
}
each_case = pytest.mark.parametrize("name", cases)
few = hp.settings(max_examples=15, deadline=None, derandomize=True, database=None)


def constantly_zero(params):
    leaves = jax.tree.leaves(params)
    return 0.0 * functools.reduce(jnp.add, [jnp.sum(leaf) for leaf in leaves])


def make(shape, support, initial=None, log_density=constantly_zero):
    return vi.from_log_density(log_density, {"y": vi.Param(shape, support, initial)})


def points(dim):
    # Integers, so that no example is a number that the hardware rounds to zero.
    return hnp.arrays(np.int64, dim, elements=st.integers(-250, 250)).map(
        lambda x: x / 100.0
    )


def inverse(support, y):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return biject_to(support).inv(y)


def forward(support, x):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return biject_to(support)(x)


def test_every_public_constraint_is_in_a_table():
    tried = {name.split()[0] for name in cases}
    assert set(constraints.__all__) <= tried | not_covered


@each_case
def test_dim_and_shapes(name):
    shape, support, dim, _ = cases[name]
    target = make(shape, support)
    assert target.dim == dim
    start = jax.eval_shape(target.model.initial)
    assert start.shape == (dim,)
    assert jax.eval_shape(target.constrain, start)["y"].shape == shape


@functools.cache
def compiled(name):
    """All that the tests below look at, in one program: each compiles for long."""
    shape, support, dim, minimal = cases[name]
    target = make(shape, support)

    @jax.jit
    def evaluate(x):
        y = target.constrain(x)["y"]
        jacobian = jax.jacfwd(lambda x: (minimal or _all)(target.constrain(x)["y"]))(x)
        if minimal is None:
            log_volume = 0.5 * jnp.linalg.slogdet(jacobian.T @ jacobian)[1]
        else:
            assert jacobian.shape == (dim, dim)
            log_volume = jnp.linalg.slogdet(jacobian)[1]
        part = target.unravel(x)["y"]
        return y, part, inverse(support, y), target.log_density(x), log_volume

    return evaluate


@each_case
def test_values_are_inside_and_go_back(name):
    shape, support, dim, _ = cases[name]

    @few
    @hp.given(points(dim))
    def check(x):
        y, part, back, *_ = compiled(name)(x)
        assert y.shape == shape
        assert np.all(support(np.asarray(y)))
        assert part.shape == back.shape
        assert np.allclose(part, back, rtol=1e-6, atol=1e-8)
        # Coordinates are laid out in order.
        assert np.array_equal(np.ravel(part), x)

    check()


@each_case
def test_log_jacobian_is_that_of_autodiff(name):
    @few
    @hp.given(points(cases[name][2]))
    def check(x):
        *_, ours, theirs = compiled(name)(x)
        assert ours.shape == ()
        assert np.allclose(ours, theirs, rtol=1e-8, atol=1e-8)

    check()


@each_case
def test_initial_is_where_the_run_starts(name):
    shape, support, dim, _ = cases[name]
    x = np.linspace(-0.6, 0.9, dim)
    start = np.asarray(compiled(name)(x)[0])
    target = make(shape, support, initial=start)
    assert np.allclose(eqx.filter_jit(target.model.initial)(), x, rtol=1e-6, atol=1e-8)
    # Zero where nothing is said.
    assert np.array_equal(make(shape, support).model.initial(), np.zeros(dim))


@each_case
def test_float32_stays_float32(name):
    # The log density is checked with parameters of the model's dtype, so that must be
    # what it is called with.
    shape, support, _, _ = cases[name]
    params = {"x": np.zeros(2, np.float32), "y": vi.Param(shape, support)}
    target = vi.from_log_density(constantly_zero, params)
    x = target.model.initial()
    assert x.dtype == jnp.float32
    values = jax.eval_shape(target.constrain, x)
    assert {name: value.dtype for name, value in values.items()} == {
        "x": jnp.float32,
        "y": jnp.float32,
    }
    assert jax.eval_shape(target.log_density, x).dtype == jnp.float32


def several():
    return {
        "z": vi.Param(2),
        "a": vi.Param(3, constraints.simplex),
        "m": vi.Param((2, 2), constraints.corr_cholesky),
        "b": vi.Param((2, 1), constraints.interval(0.0, 4.0)),
        "c": vi.Param(support=constraints.positive),
    }


def test_several_parameters_keep_their_order_and_shapes(getkey):
    params = several()
    target = vi.from_log_density(constantly_zero, params)
    sizes = {"z": 2, "a": 2, "m": 1, "b": 2, "c": 1}
    assert target.dim == sum(sizes.values()) == 8
    x = jr.normal(getkey(), (target.dim,))
    # Not from inside `jax.jit`, which sorts dictionaries.
    assert list(target.unravel(x)) == list(params)
    parts, values = jax.jit(lambda x: (target.unravel(x), target.constrain(x)))(x)
    assert {name: part.size for name, part in parts.items()} == sizes
    assert np.array_equal(np.concatenate([np.ravel(parts[name]) for name in params]), x)
    expected = jax.jit(
        lambda parts: {
            name: forward(param.support, parts[name]) for name, param in params.items()
        }
    )(parts)
    for name, param in params.items():
        assert values[name].shape == param.shape
        assert np.allclose(values[name], expected[name], rtol=1e-12)


def test_log_jacobians_of_several_parameters_add_up(getkey):
    params = several()
    target = vi.from_log_density(constantly_zero, params)
    x = jr.normal(getkey(), (target.dim,))
    start, total = 0, 0.0
    for param in params.values():
        alone = make(param.shape, param.support)
        total = total + eqx.filter_jit(alone.log_density)(x[start : start + alone.dim])
        start += alone.dim
    assert np.allclose(eqx.filter_jit(target.log_density)(x), total, rtol=1e-12)
    assert abs(total) > 0.1


def test_initials_of_several_parameters_keep_their_order():
    params = {
        "z": vi.Param(2, initial=[1, 2]),
        "a": vi.Param(support=constraints.positive, initial=np.e**3),
        "n": vi.Param(3, constraints.simplex),
        "b": vi.Param(support=constraints.interval(0.0, 2.0), initial=1.0),
    }
    target = vi.from_log_density(constantly_zero, params)
    assert np.allclose(target.model.initial(), [1.0, 2.0, 3.0, 0.0, 0.0, 0.0], atol=1e-12)


def test_the_log_density_sees_constrained_values(getkey):
    seen = lambda params: jnp.sum(params["y"] ** 2)
    target = make((2,), constraints.interval(2.0, 5.0), log_density=seen)
    x = jr.normal(getkey(), (2,))
    part = 1 / (1 + np.exp(-np.asarray(x)))
    y = 2.0 + 3.0 * part
    log_jacobian = np.sum(np.log(3.0 * part * (1 - part)))
    expected = np.sum(y**2) + log_jacobian
    assert np.allclose(target.log_density(x), expected, rtol=1e-12)


def test_the_unconstrained_mode_of_a_gamma_is_log_four():
    # The density of log y is that of y times y: its mode moves from 3 to 4.
    gamma = lambda params: jstats.gamma.logpdf(params["y"], 4.0)
    target = make((), constraints.positive, log_density=gamma)
    grad = jax.jit(jax.grad(target.log_density))
    assert np.allclose(grad(jnp.log(jnp.array([4.0]))), 0.0, atol=1e-10)
    assert grad(jnp.log(jnp.array([3.0])))[0] > 0.5


# Normalized densities on the constrained scale, so that the integrals are one.
densities = {
    "positive": ((), constraints.positive, lambda: dist.Gamma(4.0, 1.0)),
    "nonnegative": ((), constraints.nonnegative, lambda: dist.HalfNormal(2.0)),
    "softplus_positive": (
        (),
        constraints.softplus_positive,
        lambda: dist.Gamma(4.0, 3.0),
    ),
    "unit_interval": ((), constraints.unit_interval, lambda: dist.Beta(2.0, 3.0)),
    "interval": ((), constraints.interval(-1.0, 3.0), lambda: dist.Uniform(-1.0, 3.0)),
    "greater_than": (
        (),
        constraints.greater_than(2.0),
        lambda: dist.TruncatedNormal(1.0, 2.0, low=2.0),
    ),
    "less_than": (
        (),
        constraints.less_than(2.0),
        lambda: dist.TruncatedNormal(1.0, 2.0, high=2.0),
    ),
    "simplex": (
        (3,),
        constraints.simplex,
        lambda: dist.Dirichlet(jnp.array([2.0, 1.0, 3.0])),
    ),
    "corr_cholesky": (
        (2, 2),
        constraints.corr_cholesky,
        lambda: dist.LKJCholesky(2, 1.5),
    ),
    "corr_matrix": ((2, 2), constraints.corr_matrix, lambda: dist.LKJ(2, 1.5)),
}


def integral(target):
    grid, step = np.linspace(-16.0, 16.0, 801, retstep=True)
    mesh = np.meshgrid(*[grid] * target.dim, indexing="ij")
    x = jnp.stack([axis.ravel() for axis in mesh], axis=-1)
    values = jax.jit(jax.vmap(target.log_density))(x)
    return jnp.sum(jnp.exp(values)) * step**target.dim


@pytest.mark.parametrize("name", densities)
def test_densities_integrate_to_one(name):
    shape, support, distribution = densities[name]

    def log_density(params):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return distribution().log_prob(params["y"])

    target = make(shape, support, log_density=log_density)
    assert np.allclose(integral(target), 1.0, rtol=1e-5)


def test_ordered_density_integrates_to_one():
    # Two independent normals, sorted: twice the density where they are in order.
    log_density = lambda params: jnp.log(2.0) + jnp.sum(jstats.norm.logpdf(params["y"]))
    target = make((2,), constraints.ordered_vector, log_density=log_density)
    assert np.allclose(integral(target), 1.0, rtol=1e-5)


def test_wishart_integrates_to_one():
    # Of one dimension: the density of a gamma variable with shape 5 / 2 and scale 2.
    log_density = lambda params: jstats.gamma.logpdf(params["y"][0, 0], 2.5, scale=2.0)
    target = make((1, 1), constraints.positive_definite, log_density=log_density)
    assert np.allclose(integral(target), 1.0, rtol=1e-5)


def test_through_jit_vmap_and_grad(getkey):
    log_density = lambda params: -jnp.sum(params["y"] ** 2)
    target = make((3,), constraints.simplex, log_density=log_density)
    x = jr.normal(getkey(), (5, 2))

    @eqx.filter_jit
    def both(target, x):
        one = jax.vmap(jax.value_and_grad(target.log_density))(x)
        step = 1e-6 * jnp.eye(2)
        near = lambda shift: jax.vmap(lambda x: target.log_density(x + shift))(x)
        slopes = [(near(e) - near(-e)) / 2e-6 for e in step]
        return *one, jnp.stack(slopes, axis=-1)

    values, grads, slopes = both(target, x)
    log_density = eqx.filter_jit(target.log_density)
    assert np.allclose(values, [log_density(row) for row in x], rtol=1e-12)
    assert np.allclose(grads, slopes, rtol=1e-6, atol=1e-7)


def test_a_support_with_bounds_from_data_is_traced(getkey):
    # Bounds may be computed inside a user's own `jax.jit`.
    @jax.jit
    def log_jacobian(upper, x):
        return make((2,), constraints.interval(0.0, upper)).log_density(x)

    x = jr.normal(getkey(), (2,))
    expected = make((2,), constraints.interval(0.0, 3.0)).log_density(x)
    assert np.allclose(log_jacobian(jnp.array(3.0), x), expected, rtol=1e-12)


def test_flat_layout_agrees_with_ravel_pytree(getkey):
    # Of a single matrix: rows run slowest, as everywhere in JAX.
    target = make((2, 3), constraints.real)
    y = jr.normal(getkey(), (2, 3))
    x, _ = jfu.ravel_pytree(y)
    assert np.array_equal(target.constrain(x)["y"], y)
