"""Densities that run on the host, in NumPy."""

import functools

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpyro.distributions import constraints

import vijax as vi
from vijax._linalg import hessian

from ..bad_input import on_the_way_tests


pytestmark = pytest.mark.usefixtures("as_for_users")

# A normal mean with a normal prior, of two coordinates that the data tie together.
PRECISION = np.array([[4.0, 1.0], [1.0, 3.0]])
Y = np.random.default_rng(0).multivariate_normal(
    [1.0, -2.0], np.linalg.inv(PRECISION), size=20
)
POSTERIOR = np.eye(2) + len(Y) * PRECISION
MEAN = np.linalg.solve(POSTERIOR, PRECISION @ Y.sum(axis=0))
COVARIANCE = np.linalg.inv(POSTERIOR)
# Of a Gamma distribution.
SHAPE, RATE = 3.0, 5.0


class Counted:
    """A function that remembers at how many points it was called each time."""

    def __init__(self, fn):
        self.fn = fn
        self.points = []

    def __call__(self, x):
        assert type(x) is np.ndarray
        assert x.dtype == np.float64
        self.points.append(len(x))
        return self.fn(x)


def conjugate(x):
    apart = x[:, None, :] - Y
    values = -0.5 * np.sum(x**2, axis=1)
    values -= 0.5 * np.einsum("pni,ij,pnj->p", apart, PRECISION, apart)
    return values, -x - np.sum(apart, axis=1) @ PRECISION


def gamma(x):
    values = np.sum((SHAPE - 1) * np.log(x) - RATE * x, axis=1)
    return values, (SHAPE - 1) / x - RATE


def positive(dim=()):
    return {"rate": vi.Param(dim, support=constraints.positive)}


def on_host(target, x):
    call = target.model.on_host
    assert call is not None
    return call(x, target.data)


def in_jax():
    def log_density(params):
        x = params["x"]
        apart = x[None] - Y
        return -0.5 * jnp.sum(x**2) - 0.5 * jnp.einsum(
            "ni,ij,nj->", apart, PRECISION, apart
        )

    return vi.from_log_density(log_density, {"x": vi.Param(2)})


def test_values_and_scores_are_those_of_the_same_density_in_jax(getkey):
    target = vi.from_host(conjugate, {"x": vi.Param(2)})
    x = jr.normal(getkey(), (5, 2))
    both = lambda t: jax.jit(jax.vmap(jax.value_and_grad(t.log_density)))(x)
    for ours, right in zip(both(target), both(in_jax()), strict=True):
        assert ours.dtype == right.dtype
        np.testing.assert_allclose(ours, right, rtol=1e-10)
    direct = on_host(target, np.asarray(x))
    for ours, right in zip(direct, both(in_jax()), strict=True):
        assert isinstance(ours, np.ndarray)
        np.testing.assert_allclose(ours, right, rtol=1e-10)
    assert in_jax().model.on_host is None


def test_the_order_of_parameters_is_that_in_which_they_are_given():
    def fn(x):
        weights = np.array([1.0, 10.0, 20.0, 30.0, 40.0])
        return x @ weights, np.tile(weights, (len(x), 1))

    target = vi.from_host(fn, {"b": vi.Param(), "a": np.zeros((2, 2))})
    x = target.unconstrain({"a": jnp.array([[1.0, 0], [0, 0]]), "b": jnp.array(2.0)})
    assert jax.jit(target.log_density)(x) == 12.0
    assert target.constrain(x)["a"].shape == (2, 2)


def test_through_the_transformations_of_jax(getkey):
    target = vi.from_host(conjugate, {"x": vi.Param(2)})
    x = jr.normal(getkey(), (3, 4, 2))
    right = jax.vmap(jax.vmap(in_jax().log_density))(x)
    fn = target.log_density
    np.testing.assert_allclose(jax.vmap(jax.vmap(fn))(x), right, rtol=1e-10)
    mapped = lax.map(jax.vmap(fn), x)
    np.testing.assert_allclose(mapped, right, rtol=1e-10)
    mapped = lax.map(fn, x[0], batch_size=2)
    np.testing.assert_allclose(mapped, right[0], rtol=1e-10)
    up = lambda i, x: x + 0.005 * jax.grad(fn)(x)
    top = jax.jit(lambda x: lax.fori_loop(0, 300, up, x))(x[0, 0])
    np.testing.assert_allclose(top, MEAN, rtol=1e-6)


def test_second_derivatives_are_refused_in_words():
    fn = vi.from_host(conjugate, {"x": vi.Param(2)}).log_density
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.hessian(fn)(jnp.zeros(2))
    with pytest.raises(TypeError, match="on the host.*not known"):
        jax.jacrev(jax.grad(fn))(jnp.zeros(2))


def test_curvature_is_taken_by_differences():
    fn = vi.from_host(conjugate, {"x": vi.Param(2)}).log_density
    found = hessian(fn, jnp.array([0.3, -1.0]))
    np.testing.assert_allclose(found, -POSTERIOR, rtol=1e-6)


def test_a_block_of_points_is_one_call(getkey):
    fn = Counted(conjugate)
    target = vi.from_host(fn, {"x": vi.Param(2)})
    assert fn.points == [1, 2]
    x = jr.normal(getkey(), (7, 5, 2))
    both = jax.value_and_grad(target.log_density)
    for calls, expected in (
        (lambda: jax.jit(jax.vmap(jax.vmap(both)))(x), [35]),
        (lambda: jax.jit(both)(x[0, 0]), [1]),
        (lambda: lax.map(jax.vmap(both), x), [5] * 7),
        (lambda: on_host(target, np.asarray(x[0])), [5]),
    ):
        fn.points.clear()
        jax.block_until_ready(calls())
        assert fn.points == expected


def test_a_step_is_one_call(getkey):
    fn = Counted(conjugate)
    target = vi.from_host(fn, {"x": vi.Param(2)})
    method = vi.Descent(vi.ELBO(num_draws=6), optax.adam(0.1))
    calls = []
    for num_steps in (10, 30):
        fn.points.clear()
        vi.fit(target, method, key=getkey(), max_steps=num_steps, progress=False)
        calls.append(fn.points.count(6))
    assert calls[1] - calls[0] == 20
    assert calls[0] <= 12


def test_a_function_may_write_where_it_likes():
    kept = np.zeros((9, 2))

    def fn(x):
        values, scores = conjugate(x)
        kept[: len(x)] = scores
        x[:] = np.nan
        return values, kept[: len(x)]

    target = vi.from_host(fn, {"x": vi.Param(2)})
    x = np.arange(6.0).reshape(3, 2)
    _, first = on_host(target, x)
    on_host(target, x + 1.0)
    np.testing.assert_array_equal(first, conjugate(np.arange(6.0).reshape(3, 2))[1])


def test_inside_supports_the_jacobian_is_added(getkey):
    target = vi.from_host(gamma, positive(3))
    log_density = lambda p: jnp.sum((SHAPE - 1) * jnp.log(p["rate"]) - RATE * p["rate"])
    same = vi.from_log_density(log_density, positive(3))
    x = jr.normal(getkey(), (5, 3))
    right = jax.vmap(jax.value_and_grad(same.log_density))(x)
    found = jax.vmap(jax.value_and_grad(target.log_density))(x)
    for num_points in (5, 1, 4):
        direct = on_host(target, np.asarray(x)[:num_points])
        for ours, theirs, correct in zip(direct, found, right, strict=True):
            np.testing.assert_allclose(ours, correct[:num_points], rtol=1e-10)
            np.testing.assert_allclose(theirs, correct, rtol=1e-10)


def test_a_simplex_has_an_entry_more_than_coordinates(getkey):
    concentration = np.array([2.0, 3.0, 4.0])

    def fn(x):
        scores = (concentration - 1) / x
        return np.log(x) @ (concentration - 1), scores

    params = {"p": vi.Param(3, constraints.simplex)}
    target = vi.from_host(fn, params)
    same = vi.from_log_density(lambda p: jnp.log(p["p"]) @ (concentration - 1), params)
    x = jr.normal(getkey(), (4, 2))
    right = jax.vmap(jax.value_and_grad(same.log_density))(x)
    for ours, correct in zip(on_host(target, np.asarray(x)), right, strict=True):
        np.testing.assert_allclose(ours, correct, rtol=1e-10)


@pytest.mark.parametrize("params", [{"x": np.zeros(2, np.float32)}])
def test_in_float32(params, getkey):
    target = vi.from_host(conjugate, params)
    x = jr.normal(getkey(), (3, 2), jnp.float32)
    values, scores = jax.vmap(jax.value_and_grad(target.log_density))(x)
    assert values.dtype == scores.dtype == jnp.float32
    right = conjugate(np.asarray(x, np.float64))
    np.testing.assert_allclose(values, right[0], rtol=1e-6)
    np.testing.assert_allclose(scores, right[1], rtol=1e-5, atol=1e-4)
    direct = on_host(target, np.asarray(x, np.float64))
    np.testing.assert_allclose(direct[0], right[0], rtol=1e-12)


def test_what_overflows_in_float32_is_infinite():
    fn = lambda x: (np.full(len(x), -1e300), np.full_like(x, -1e300))
    params = {"x": vi.Param(support=constraints.positive), "y": np.ones((), np.float32)}
    target = vi.from_host(fn, params)
    value, score = jax.value_and_grad(target.log_density)(jnp.zeros(2, jnp.float32))
    assert np.isneginf(value)
    assert np.all(np.isneginf(score))
    _, scores = on_host(target, np.zeros((1, 2)))
    assert np.all(np.isneginf(scores))


def test_what_is_not_finite_lies_outside():
    def fn(x):
        values = np.log(x[:, 0]) - x[:, 0]
        return values, 1 / x - 1

    target = vi.from_host(fn, {"x": np.array([1.0])})
    values, _ = jax.vmap(jax.value_and_grad(target.log_density))(
        jnp.array([[-1.0], [0.0], [2.0]])
    )
    assert np.isnan(values[0])
    assert np.isneginf(values[1])
    assert np.isfinite(values[2])


# Fits -----------------------------------------------------------------------------------

targets = {
    "conjugate": (
        lambda: vi.from_host(conjugate, {"x": vi.Param(2)}),
        "x",
        MEAN,
        np.sqrt(np.diag(COVARIANCE)),
    ),
    "gamma": (
        lambda: vi.from_host(gamma, positive()),
        "rate",
        SHAPE / RATE,
        np.sqrt(SHAPE) / RATE,
    ),
}


@pytest.mark.parametrize(
    "name", ["gamma", pytest.param("conjugate", marks=pytest.mark.slow)]
)
def test_the_default_finds_the_posterior(name, getkey):
    make, param, mean, std = targets[name]
    target = make()
    fit = vi.fit(target, key=getkey(), progress=False)
    draws = fit.draw(4_000, key=getkey()).params[param]
    np.testing.assert_allclose(np.mean(draws, 0), mean, atol=0.1 * np.max(std))
    np.testing.assert_allclose(np.std(draws, 0), std, rtol=0.1)
    report = vi.report(fit, key=getkey())
    assert report.trustworthy
    assert "Trustworthy" in str(report)


def test_advi_finds_the_posterior(getkey):
    target = vi.from_host(conjugate, {"x": vi.Param(2)})
    fit = vi.fit(target, "fullrank_advi", key=getkey(), max_steps=2_000, progress=False)
    std = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(fit.mean["x"], MEAN, atol=0.1 * std.max())
    np.testing.assert_allclose(fit.std["x"], std, rtol=0.1)
    fit = vi.fit(target, "advi", key=getkey(), max_steps=2_000, progress=False)
    narrower = 1 / np.sqrt(np.diag(POSTERIOR))
    np.testing.assert_allclose(fit.mean["x"], MEAN, atol=0.1 * std.max())
    np.testing.assert_allclose(fit.std["x"], narrower, rtol=0.1)


@pytest.mark.slow
def test_many_fits_at_once(getkey):
    target = vi.from_host(conjugate, {"x": vi.Param(2)})
    fits = eqx.filter_vmap(
        lambda key: vi.fit(target, "advi", key=key, max_steps=500, throw=False)
    )(jr.split(getkey(), 3))
    means = eqx.filter_vmap(lambda fit: fit.mean["x"])(fits)
    np.testing.assert_allclose(means, np.tile(MEAN, (3, 1)), atol=0.1)


# Mistakes -------------------------------------------------------------------------------


def made(fn, params=None):
    return vi.from_host(fn, params or {"x": vi.Param(2)})


def raises(x):
    raise KeyError("my own words")


mistakes = {
    "nothing": (lambda x: None, "must return a pair.*a NoneType"),
    "values only": (lambda x: conjugate(x)[0], "must return a pair.*a ndarray"),
    "three": (lambda x: (*conjugate(x), x), "must return a pair.*a tuple of 3"),
    "a number": (
        lambda x: (1.0, x),
        r"at points of shape \(1, 2\).*of shape \(1,\).*values have shape \(\)",
    ),
    "a column": (
        lambda x: (conjugate(x)[0][:, None], x),
        r"values have shape \(1, 1\)",
    ),
    "one point only": (
        lambda x: (conjugate(x)[0][:1], conjugate(x)[1]),
        r"at points of shape \(2, 2\).*values have shape \(1,\)",
    ),
    "part of the score": (
        lambda x: (conjugate(x)[0], x[:, :1]),
        r"of shape \(1, 2\). But its scores have shape \(1, 1\)",
    ),
    "the score of a point": (
        lambda x: (conjugate(x)[0], x[0]),
        r"scores have shape \(2,\)",
    ),
    "complex": (lambda x: (conjugate(x)[0] + 0j, x), "values have dtype complex128"),
    "words": (lambda x: (conjugate(x)[0], "a"), "scores have dtype <U1"),
    "a ragged list": (lambda x: ([1.0, [2.0]], x), "values have dtype object"),
    "an exception": (raises, "`fn` raised KeyError: 'my own words'.*a point a row"),
    "two arguments": (lambda x, y: conjugate(x), "cannot be called like that"),
    "no function": (3.0, r"`fn` must be a function `fn\(x\) -> \(values, scores\)`"),
}

test_fails_in_words = on_the_way_tests(
    {name: (lambda key, fn=fn: made(fn), match) for name, (fn, match) in mistakes.items()}
    | {
        "data": (lambda key: made(conjugate).with_data(Y), "has no `data`"),
        "batches": (lambda key: made(conjugate).with_batch_size(5), "no batches"),
        "parameters": (lambda key: made(conjugate, {"x": 1}), "not floating-point"),
    }
)


@pytest.mark.parametrize("factor", [0.5, -1.0, 2.0])
@pytest.mark.parametrize("fn", [conjugate, gamma])
def test_wrong_scores_are_told(fn, factor):
    params = {"x": vi.Param(2)} if fn is conjugate else positive()
    wrong = lambda x: (fn(x)[0], factor * fn(x)[1])
    with pytest.warns(UserWarning, match="not to be the gradient of its values"):
        vi.from_host(wrong, params)


def later(fn):
    """`fn` for three calls, and then a mistake."""
    calls = []

    def out(x, bad):
        calls.append(len(x))
        return bad(x) if len(calls) > 3 else fn(x)

    return out


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (raises, "KeyError: 'my own words'"),
        (lambda x: (x, x), r"`fn` must return a pair.*values have shape"),
    ],
)
def test_a_mistake_that_comes_later_is_told(bad, words, getkey):
    fn = functools.partial(later(conjugate), bad=bad)
    target = vi.from_host(fn, {"x": vi.Param(2)})
    with pytest.raises(Exception, match=f"(?s){words}"):
        vi.fit(target, "advi", key=getkey(), max_steps=5, progress=False)
    with pytest.raises((KeyError, ValueError), match=words.split(": ")[-1]):
        on_host(target, np.zeros((1, 2)))


def test_inside_a_trace_nothing_is_called_beforehand():
    fn = Counted(conjugate)

    @jax.jit
    def value(start):
        target = vi.from_host(fn, {"x": start})
        return target.log_density(start)

    x = jnp.array([1.0, 2.0])
    assert value(x) == pytest.approx(float(conjugate(np.asarray(x)[None])[0][0]))
    assert fn.points == [1]


def test_an_equal_function_does_not_compile_again():
    num_traces = 0

    @eqx.filter_jit
    def value(target, x):
        nonlocal num_traces
        num_traces += 1
        return target.log_density(x)

    for _ in range(2):
        value(vi.from_host(conjugate, {"x": vi.Param(2)}), jnp.zeros(2))
    assert num_traces == 1
