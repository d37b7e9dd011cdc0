"""What a NumPyro model is called with: data, constants, NaN, networks, missing rows."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.core import Tracer
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import random_eqx_module
from scipy.stats import gamma, norm

import vijax as vi


sample: Any = numpyro.sample
rng = np.random.default_rng(2)
TIMES = np.linspace(1.0, 5.0, 12)
GROUP = np.arange(12) % 3
Y = rng.normal(size=12)


def value(target, **params):
    """The log density at constrained parameters, Jacobian included."""
    x = target.unconstrain({name: jnp.asarray(v, float) for name, v in params.items()})
    return jax.jit(lambda x: target.log_density(x))(x)


def as_numpy(times, group, y):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("groups", len(np.unique(group))):
        a = sample("a", dist.Normal(0.0, 1.0))
    for i in range(int(group.max()) + 1):
        numpyro.factor(f"f{i}", -0.5 * a[i])
    sample("y", dist.Normal(a[group] + slope * np.log(times), 1.0), obs=y)


def expected(times, group, y, slope, a):
    out = norm.logpdf(slope) + norm.logpdf(a).sum() - 0.5 * a.sum()
    return out + norm.logpdf(y, a[group] + slope * np.log(times), 1.0).sum()


def test_data_used_as_numpy_does_are_constants():
    target, a = vi.from_numpyro(as_numpy, TIMES, GROUP, Y), np.array([0.1, -0.2, 0.3])
    right = expected(TIMES, GROUP, Y, 0.4, a)
    np.testing.assert_allclose(value(target, slope=0.4, a=a), right)
    # No more of them than have to be.
    assert set(target.data) == {"y"}
    # And new ones are seen.
    other = target.with_data({"times": 2 * TIMES, "y": -Y})
    right = expected(2 * TIMES, GROUP, -Y, 0.4, a)
    np.testing.assert_allclose(value(other, slope=0.4, a=a), right)
    assert set(other.data) == {"y"}


def test_equal_constants_compile_nothing():
    traces = 0

    def model(times, y):
        nonlocal traces
        slope = sample("slope", dist.Normal(0.0, 1.0))
        traces += isinstance(jnp.sum(y), Tracer)
        sample("y", dist.Normal(slope * np.log(times), 1.0), obs=y)

    density = eqx.filter_jit(lambda target, x: target.log_density(x))
    for i in range(3):
        target = vi.from_numpyro(model, TIMES.copy(), Y + i)
        before = traces
        density(target, jnp.zeros(1))
        assert (traces == before) == (i > 0)


def test_branches_on_data_and_pandas_columns():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"group": GROUP, "name": list("abc") * 4, "y": Y})

    def model(group, names, y):
        scale = 2.0 if (y > 5).any() else 1.0
        with numpyro.plate("groups", group.nunique()):
            a = sample("a", dist.Normal(0.0, scale))
        code = names.astype("category").cat.codes.to_numpy()
        sample("y", dist.Normal(a[code], 1.0), obs=y.to_numpy())

    target = vi.from_numpyro(model, table["group"], table["name"], table["y"])
    a = np.array([0.1, -0.2, 0.3])
    right = norm.logpdf(a).sum() + norm.logpdf(Y, a[GROUP], 1.0).sum()
    np.testing.assert_allclose(value(target, a=a), right)


def test_constants_can_be_named():
    def model(x, y):
        slope = sample("slope", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(slope * x, 1.0), obs=y)

    assert set(vi.from_numpyro(model, TIMES, Y).data) == {"x", "y"}
    target = vi.from_numpyro(model, TIMES, Y, static=("x",))
    assert set(target.data) == {"y"}
    assert set(target.with_data({"x": -TIMES}).data) == {"y"}
    with pytest.raises(ValueError, match="`x` is a constant of the model.*known"):
        jax.jit(lambda x: target.with_data({"x": x}).log_density(jnp.zeros(1)))(TIMES)
    with pytest.raises(ValueError, match="`static` names 'z'"):
        vi.from_numpyro(model, TIMES, Y, static=("z",))

    def with_own(static, y):
        sample("y", dist.Normal(sample("mu", dist.Normal()), static), obs=y)

    target = vi.from_numpyro(with_own, static=2.0, y=Y)
    assert value(target, mu=0.1) < 0


def aligned(x):
    """A copy that begins where a device on the host would go on with it as it is."""
    room = np.empty(x.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    out = room[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def test_what_the_caller_changes_later_changes_nothing():
    y, times = aligned(Y), aligned(TIMES)
    ways = {
        "numpyro": lambda: vi.from_numpyro(as_numpy, times, GROUP, y),
        "condition": lambda: vi.from_numpyro(
            handlers.condition(as_numpy, data={"y": y}), times, GROUP, None
        ),
        "log_density": lambda: vi.from_log_density(
            lambda p, y: -jnp.sum((p["x"] - y) ** 2), {"x": vi.Param()}, y
        ),
        "likelihood": lambda: vi.from_likelihood(
            lambda p: -(p["x"] ** 2),
            lambda p, y: -((p["x"] - y) ** 2),
            {"x": vi.Param()},
            y,
        ),
        "with_data": lambda: vi.from_log_density(
            lambda p, y: -jnp.sum((p["x"] - y) ** 2), {"x": vi.Param()}, Y
        ).with_data(y),
        "example": lambda: vi.from_log_density(
            lambda p: -jnp.sum(p["x"] ** 2), {"x": times}
        ),
        "initial": lambda: vi.from_log_density(
            lambda p: -jnp.sum(p["x"] ** 2), {"x": vi.Param(12, initial=times)}
        ),
    }
    for name, make in ways.items():
        target = make()
        before = jax.tree.map(np.array, (target.data, target.model.initial()))
        density = np.array(target.log_density(target.model.initial()))
        y[:], times[:] = 99.0, 77.0
        after = target.data, target.model.initial()
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after))), name
        assert density == target.log_density(target.model.initial()), name
        y[:], times[:] = Y, TIMES


# NaN and missing rows ------------------------------------------------------------------


def masked(y):
    x = sample("x", dist.Normal(0.0, 1.0))
    known = ~jnp.isnan(y)
    with handlers.mask(mask=known):
        sample("y", dist.Normal(x, 0.5).expand([4]), obs=jnp.where(known, y, 0.0))


def masked_too_late(y):
    # The value is finite, but not its gradient: zero times NaN.
    x = sample("x", dist.Normal(0.0, 1.0))
    log_prob = jnp.where(jnp.isnan(y), 0.0, dist.Normal(x, 0.5).log_prob(y))
    numpyro.factor("y", log_prob.sum())


def test_nan_that_the_model_masks():
    y = np.array([0.3, np.nan, 1.2, 0.7])
    target = vi.from_numpyro(masked, y)
    right = norm.logpdf(0.4) + norm.logpdf(y[[0, 2, 3]], 0.4, 0.5).sum()
    np.testing.assert_allclose(value(target, x=0.4), right)
    other = np.array([np.nan, 0.1, 0.2, 0.3])
    right = norm.logpdf(0.4) + norm.logpdf(other[1:], 0.4, 0.5).sum()
    np.testing.assert_allclose(value(target.with_data({"y": other}), x=0.4), right)


def test_nan_that_reach_the_gradient_are_refused():
    with pytest.raises(ValueError, match=r"`data\['y'\]` has 1 NaN.*not finite"):
        vi.from_numpyro(masked_too_late, np.array([0.3, np.nan, 1.2, 0.7]))


@pytest.mark.parametrize("positive", [False, True])
def test_rows_that_obs_mask_leaves_out(positive, getkey):
    y = rng.gamma(2.0, size=10) if positive else rng.normal(size=10)
    seen = np.arange(10) < 7

    def model(y, seen):
        x = sample("x", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("rows", 10):
            fn = dist.Gamma(2.0, x) if positive else dist.Normal(x, 0.5)
            sample("y", fn, obs=y, obs_mask=seen)

    target = vi.from_numpyro(model, y, seen)
    x = jr.normal(getkey(), (target.dim,))
    scale, rest = np.exp(x[0]), np.asarray(x[1:])
    right = norm.logpdf(x[0]) + norm.logpdf(rest[seen]).sum()
    if positive:
        right += gamma.logpdf(y[seen], 2.0, scale=1 / scale).sum()
        right += (gamma.logpdf(np.exp(rest[~seen]), 2.0, scale=1 / scale)).sum()
        right += rest[~seen].sum()
    else:
        right += norm.logpdf(y[seen], scale, 0.5).sum()
        right += norm.logpdf(rest[~seen], scale, 0.5).sum()
    density = jax.jit(jax.value_and_grad(lambda x: target.log_density(x)))(x)
    np.testing.assert_allclose(density[0], right, rtol=1e-10)
    assert jnp.all(jnp.isfinite(density[1]))
    # What was seen is what it was.
    params = jax.jit(lambda x: target.constrain(x))(x)
    np.testing.assert_allclose(params["y"][seen], y[seen])


def test_what_obs_mask_leaves_out_within_plates(getkey):
    # The mask has one plate's axis; the plate around it expands what is masked.
    y, seen = rng.normal(size=(3, 4)), np.arange(4) < 2

    def model(y, seen):
        x = sample("x", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 3, dim=-2), numpyro.plate("columns", 4, dim=-1):
            sample("y", dist.Normal(x, 0.5), obs=y, obs_mask=seen)

    target = vi.from_numpyro(model, y, seen)
    x = np.asarray(jr.normal(getkey(), (target.dim,)))
    rest = x[1:].reshape(3, 4)
    right = norm.logpdf(x[0]) + norm.logpdf(y[:, seen], x[0], 0.5).sum()
    right += norm.logpdf(rest[:, seen]).sum()
    right += norm.logpdf(rest[:, ~seen], x[0], 0.5).sum()
    got = jax.jit(lambda x: target.log_density(x))(x)
    np.testing.assert_allclose(got, right, rtol=1e-10)


def test_what_a_handler_gives_is_not_seen_one_row_at_a_time():
    # A batch of one row, against which all that is given would broadcast.
    def model(size):
        x = sample("x", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 12, subsample_size=size):
            sample("y", dist.Normal(x, 1.0))

    given = handlers.condition(model, data={"y": rng.normal(size=12)})
    vi.from_numpyro(given, None)
    with pytest.raises(ValueError, match=r"`y` has.*\(12,\).*'rows': 1.*condition"):
        vi.from_numpyro(given, 1)


# Networks ------------------------------------------------------------------------------

NET = eqx.nn.MLP(1, 1, 2, 1, key=jr.key(0))
X = np.linspace(-1.0, 1.0, 12)[:, None]


def network(x, y, prior):
    net = random_eqx_module("net", NET, prior=prior)
    sample("y", dist.Normal(jax.vmap(net)(x)[:, 0], 0.1), obs=y)


def test_a_network_whose_weights_have_priors(getkey):
    target = vi.from_numpyro(network, X, Y, dist.Normal(0.0, 1.0))
    assert target.dim == 7
    x = jr.normal(getkey(), (7,))
    params = {name: np.asarray(v) for name, v in target.constrain(x).items()}
    first = np.maximum(X @ params["net/layers[0].weight"].T, -np.inf)
    hidden = np.maximum(first + params["net/layers[0].bias"], 0.0)
    mean = hidden @ params["net/layers[1].weight"].T + params["net/layers[1].bias"]
    right = norm.logpdf(x).sum() + norm.logpdf(Y, mean[:, 0], 0.1).sum()
    np.testing.assert_allclose(target.log_density(x), right, rtol=1e-6)


def test_a_value_without_a_prior_is_refused():
    prior = {"layers[0].weight": dist.Normal(0.0, 1.0)}
    with pytest.raises(ValueError, match=r"'net\$params'.*bias.*lift.*hide=\['net"):
        vi.from_numpyro(network, X, Y, prior)

    def model(y):
        loc = numpyro.param("loc", 0.5)
        sample("y", dist.Normal(sample("mu", dist.Normal(loc, 1.0)), 1.0), obs=y)

    with pytest.raises(ValueError, match="'loc'.*no prior"):
        vi.from_numpyro(model, Y)
    # As the sentence says.
    target = vi.from_numpyro(handlers.block(model, hide=["loc"]), Y)
    right = norm.logpdf(0.1, 0.5, 1.0) + norm.logpdf(Y, 0.1, 1.0).sum()
    np.testing.assert_allclose(value(target, mu=0.1), right)


def test_a_subsampled_plate_in_a_scan_is_refused_in_words():
    def model(y):
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))

        def step(mean, rows):
            with numpyro.plate("rows", rows.shape[0], subsample_size=3) as i:
                numpyro.sample("y", dist.Normal(mean, sigma), obs=rows[i])
            return 0.5 * mean, None

        scan(step, 1.0, y)

    with pytest.raises(ValueError, match="inside of a `scan`.*around the `scan`"):
        vi.from_numpyro(model, np.ones((4, 10)))
