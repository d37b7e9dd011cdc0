"""`vi.from_numpyro` against NumPyro's own density, closed forms, and what it promises."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import norm
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer.reparam import LocScaleReparam, TransformReparam
from numpyro.infer.util import constrain_fn, potential_energy

import vijax as vi


sample: Any = numpyro.sample  # Its type is a union that nothing can be done with.
rng = np.random.default_rng(0)
Y = rng.normal(size=6)
X = rng.normal(size=(6, 2))
GROUP = np.array([0, 0, 1, 1, 2, 2])


def normal(y):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    sample("y", dist.Normal(mu, 1.0), obs=y)


def hierarchical(group, num_groups, y=None):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfNormal(5.0))
    with numpyro.plate("groups", num_groups):
        theta = sample("theta", dist.Normal(mu, tau))
    numpyro.deterministic("twice", 2 * theta)
    with numpyro.plate("rows", group.shape[0]):
        sample("y", dist.Normal(theta[group], 1.0), obs=y)


def supports():
    sample("interval", dist.Uniform(-1.0, 3.0))
    sample("unit", dist.Beta(2.0, 3.0))
    sample("simplex", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    sample("cholesky", dist.LKJCholesky(3, 2.0))
    sample("correlation", dist.LKJ(3, 2.0))
    ordered = dist.ImproperUniform(constraints.ordered_vector, (), (3,))
    x = sample("ordered", ordered)
    numpyro.factor("its_prior", dist.Normal(0.0, 1.0).log_prob(x).sum())
    sample("lognormal", dist.LogNormal(0.0, 1.0).expand([2]).to_event(1))
    positive = constraints.positive
    affine = dist.transforms.AffineTransform(1.0, 2.0, domain=positive)
    sample("transformed", dist.TransformedDistribution(dist.Gamma(2.0), affine))
    sample("half", dist.TruncatedNormal(0.0, 1.0, low=-0.5))
    mirror = dist.transforms.AffineTransform(0.0, -1.0, domain=positive)
    sample("left", dist.TransformedDistribution(dist.HalfNormal(), mirror))


def dynamic():
    low = sample("low", dist.Normal(0.0, 1.0))
    high = sample("high", dist.TruncatedNormal(0.0, 1.0, low=low))
    sample("between", dist.Uniform(low, high))


def nested(x, y):
    with numpyro.plate("a", 3, dim=-2):
        scale = sample("scale", dist.Gamma(2.0, 1.0))
        with numpyro.plate("b", 2, dim=-1):
            z = sample("z", dist.Dirichlet(jnp.ones(3)))
            w = sample("w", dist.Exponential(scale))
    loc = (x @ jnp.ones(2)).sum() + z.sum() + w.sum()
    sample("y", dist.StudentT(4.0, loc, 1.0), obs=y)


def walk(y):
    sd = sample("sd", dist.HalfNormal(1.0))

    def step(state, y):
        state = sample("state", dist.Normal(state, sd))
        sample("y", dist.Normal(state, 0.5), obs=y)
        return state, state

    scan(step, 0.0, y)


def scaled(y):
    with handlers.scale(scale=0.5):
        sd = sample("sd", dist.HalfNormal(1.0))
    with handlers.mask(mask=jnp.arange(6) < 4):
        sample("y", dist.Normal(0.0, sd), obs=y)


def funnel(config):
    def model():
        tau = sample("tau", dist.HalfNormal(2.0))
        sample("theta", dist.Normal(jnp.ones(4), tau).to_event(1))

    return handlers.reparam(model, config=config)


def lognormal():
    base = dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), dist.transforms.ExpTransform()
    )
    sample("x", base)


models = {
    "normal": (normal, (Y,)),
    "hierarchical": (hierarchical, (GROUP, 3, Y)),
    "supports": (supports, ()),
    "dynamic": (dynamic, ()),
    "nested": (nested, (X, Y)),
    "scan": (walk, (Y,)),
    "scale and mask": (scaled, (Y,)),
    "LocScaleReparam": (funnel({"theta": LocScaleReparam(0.0)}), ()),
    "TransformReparam": (
        handlers.reparam(lognormal, config={"x": TransformReparam()}),
        (),
    ),
    "condition": (handlers.condition(hierarchical, data={"y": Y}), (GROUP, 3)),
    "substitute": (
        handlers.substitute(hierarchical, data={"mu": jnp.array(1.0)}),
        (GROUP, 3, Y),
    ),
    "do": (handlers.do(hierarchical, data={"tau": jnp.array(2.0)}), (GROUP, 3, Y)),
}


@pytest.mark.parametrize("name", models)
def test_density_and_parameters_are_those_of_numpyro(name, getkey):
    model, args = models[name]
    target = vi.from_numpyro(model, *args)
    x = 0.5 * jr.normal(getkey(), (target.dim,))
    parts = target.unravel(x)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        expected = -jax.jit(lambda: potential_energy(model, args, {}, parts))()
        params = jax.jit(
            lambda: constrain_fn(model, args, {}, parts, return_deterministic=True)
        )()
    value, grad = jax.jit(lambda x: jax.value_and_grad(target.log_density)(x))(x)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert jnp.all(jnp.isfinite(grad))
    got = jax.jit(lambda x: target.constrain(x))(x)
    assert set(got) == set(params)
    for site, value in params.items():
        np.testing.assert_allclose(got[site], value, rtol=1e-12)
    again = jax.jit(lambda params: target.unconstrain(params))(got)
    np.testing.assert_allclose(again, x, rtol=1e-6, atol=1e-6)
    assert sum(part.size for part in parts.values()) == target.dim


def test_the_density_in_closed_form(getkey):
    # N(mu; 0, 5) and its Jacobian for a positive tau by hand.
    target = vi.from_numpyro(hierarchical, GROUP, 3, y=Y)
    x = jr.normal(getkey(), (5,))
    mu, tau, theta = x[0], jnp.exp(x[1]), x[2:]
    expected = norm.logpdf(mu, 0.0, 5.0)
    expected += jnp.log(2.0) + norm.logpdf(tau, 0.0, 5.0) + x[1]
    expected += norm.logpdf(theta, mu, tau).sum()
    expected += norm.logpdf(jnp.asarray(Y), theta[jnp.asarray(GROUP)], 1.0).sum()
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-12)


@pytest.mark.slow
def test_the_fit_is_the_conjugate_posterior(getkey):
    y = rng.normal(1.0, 1.0, size=50)
    fit = vi.fit(vi.from_numpyro(normal, y), key=getkey(), progress=False)
    precision = 50 + 1 / 25
    np.testing.assert_allclose(fit.mean["mu"], y.sum() / precision, atol=0.01)
    np.testing.assert_allclose(fit.std["mu"], precision**-0.5, rtol=0.02)


# Plates with a subsample_size --------------------------------------------------------


def by_index(x, y, size):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", y.shape[0], subsample_size=size) as rows:
        sample("y", dist.Normal(slope * x[rows], 1.0), obs=y[rows])


def by_subsample(x, y, size):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", y.shape[0], subsample_size=size):
        x = numpyro.subsample(x, event_dim=0)
        y = numpyro.subsample(y, event_dim=0)
        sample("y", dist.Normal(slope * x, 1.0), obs=y)


def two_plates(x, y, size):
    # A matrix, whose rows and columns are both seen in part.
    slope = sample("slope", dist.Normal(0.0, 1.0))
    rows = numpyro.plate("rows", y.shape[0], subsample_size=size, dim=-2)
    columns = numpyro.plate("columns", y.shape[1], subsample_size=3, dim=-1)
    with rows as i, columns as j:
        seen = y[i[:, None], j[None, :]]
        sample("y", dist.Normal(slope * x[i][:, None], 1.0), obs=seen)


LONG = rng.normal(size=60)
MATRIX = rng.normal(size=(60, 12))


@pytest.mark.parametrize("model", [by_index, by_subsample])
def test_batches_of_an_epoch_average_to_the_full_density(model, getkey):
    target = vi.from_numpyro(model, LONG, LONG[::-1].copy(), 10)
    full = vi.from_numpyro(model, LONG, LONG[::-1].copy(), None)
    x, key = jr.normal(getkey(), (1,)), getkey()
    np.testing.assert_allclose(target.log_density(x), full.log_density(x), rtol=1e-12)
    batches = [target.batch(key, step) for step in range(6)]
    values = jnp.array([batch.log_density(x) for batch in batches])
    assert jnp.std(values) > 0.01
    np.testing.assert_allclose(values.mean(), full.log_density(x), rtol=1e-12)
    seen = np.concatenate([batch.data.indices["rows"] for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(60))


@pytest.mark.slow
def test_two_plates_are_scaled_by_the_product(getkey):
    target = vi.from_numpyro(two_plates, LONG, MATRIX, 10)
    x, key = jr.normal(getkey(), (1,)), getkey()
    values = jax.vmap(lambda step: target.batch(key, step).log_density(x))(
        jnp.arange(4_000)
    )
    stderr = values.std() / 4_000**0.5
    assert abs(values.mean() - target.log_density(x)) < 4 * stderr
    assert stderr < 0.01 * abs(target.log_density(x))


@pytest.mark.parametrize("model", [by_index, by_subsample, two_plates])
def test_a_batch_costs_what_it_sees(model, getkey):
    long = jnp.zeros((5_000, 12) if model is two_plates else 5_000)
    target = vi.from_numpyro(model, jnp.zeros(5_000), long, 10)

    def step(key, x, target):
        return jax.grad(target.batch(key, 3).log_density)(x)

    jaxpr = eqx.filter_make_jaxpr(step)(getkey(), jnp.zeros(1), target)[0]
    text = str(jaxpr)
    # The data themselves come in, and nothing of their length is made of them.
    made = [line for line in text.split("\n") if "= " in line]
    assert not any("5000" in line.split(" = ")[0] for line in made)


@pytest.mark.slow
def test_a_fit_in_batches_finds_the_posterior(getkey):
    x = rng.normal(size=2_000)
    y = 0.7 * x + rng.normal(size=2_000)
    target = vi.from_numpyro(by_index, x, y, 100)
    fit = vi.fit(target, key=getkey(), progress=False, max_steps=4_000)
    precision = 1 + np.sum(x**2)
    np.testing.assert_allclose(
        fit.mean["slope"], np.sum(x * y) / precision, atol=0.25 * precision**-0.5
    )
    np.testing.assert_allclose(fit.std["slope"], precision**-0.5, rtol=0.1)


def test_other_batch_sizes(getkey):
    target = vi.from_numpyro(by_index, LONG, LONG, 10)
    batch = lambda t: t.batch(getkey()).data.indices
    assert batch(target.with_batch_size(7))["rows"].shape == (7,)
    assert batch(target.with_batch_size({"rows": 8}))["rows"].shape == (8,)
    whole = target.with_batch_size(None)
    assert whole.batch(getkey()) is whole
    assert batch(whole.with_batch_size(5))["rows"].shape == (5,)
    matrix = vi.from_numpyro(two_plates, LONG, MATRIX, 10)
    assert {k: v.size for k, v in batch(matrix).items()} == {"rows": 10, "columns": 3}
    only = matrix.with_batch_size({"rows": 4})
    assert {k: v.size for k, v in batch(only).items()} == {"rows": 4}
    with pytest.raises(ValueError, match="which plate"):
        matrix.with_batch_size(5)
    with pytest.raises(ValueError, match="no plate 'row'.*rows"):
        matrix.with_batch_size({"row": 5})
    with pytest.raises(ValueError, match="whose length is 60"):
        target.with_batch_size(61)


def test_data_that_are_a_batch_already(getkey):
    # The plate says of how many; the data are all there is to see.
    def model(y):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 100, subsample_size=6):
            sample("y", dist.Normal(mu, 1.0), obs=y)

    target = vi.from_numpyro(model, Y)
    x = jr.normal(getkey(), (1,))
    rows = norm.logpdf(jnp.asarray(Y), x[0], 1.0)
    expected = norm.logpdf(x[0]) + 100 / 6 * rows.sum()
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-12)
    assert target.minibatch is None


# Discrete sites ----------------------------------------------------------------------


def mixture(y):
    weight = sample("weight", dist.Beta(1.0, 1.0))
    locs = sample("locs", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", y.shape[0]):
        z = sample("z", dist.Bernoulli(weight))
        sample("y", dist.Normal(locs[z], 1.0), obs=y)


def hidden_markov(y):
    stay = sample("stay", dist.Beta(2.0, 2.0))
    to = jnp.stack([jnp.stack([stay, 1 - stay]), jnp.stack([1 - stay, stay])])
    locs = jnp.array([-1.0, 1.0])
    z = 0
    for t in range(4):
        z = sample(f"z{t}", dist.Categorical(to[z]))
        sample(f"y{t}", dist.Normal(locs[z], 1.0), obs=y[t])


def test_discrete_sites_are_summed_out(getkey):
    target = vi.from_numpyro(mixture, Y)
    assert target.dim == 3
    x = jr.normal(getkey(), (3,))
    params = target.constrain(x)
    weight, locs = params["weight"], params["locs"]
    y = jnp.asarray(Y)
    parts = jnp.stack(
        [
            jnp.log(1 - weight) + norm.logpdf(y, locs[0], 1.0),
            jnp.log(weight) + norm.logpdf(y, locs[1], 1.0),
        ]
    )
    expected = jax.nn.logsumexp(parts, axis=0).sum()
    expected += jnp.log(weight) + jnp.log1p(-weight)  # The Jacobian of a sigmoid.
    expected += norm.logpdf(locs, 0.0, 2.0).sum()
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-10)
    np.testing.assert_allclose(target.unconstrain(params), x, rtol=1e-9)


def test_a_hidden_markov_chain_is_summed_out(getkey):
    target = vi.from_numpyro(hidden_markov, Y)
    x = jr.normal(getkey(), (1,))
    stay = jax.nn.sigmoid(x[0])
    to = jnp.array([[stay, 1 - stay], [1 - stay, stay]])
    forward = jnp.array([1.0, 0.0])
    for y in Y[:4]:
        forward = (forward @ to) * norm.pdf(y, jnp.array([-1.0, 1.0]), 1.0)
    prior = dist.Beta(2.0, 2.0).log_prob(stay) + jnp.log(stay * (1 - stay))
    expected = jnp.log(forward.sum()) + prior
    value = jax.jit(lambda x: target.log_density(x))(x)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


@pytest.mark.slow
def test_draws_with_discrete_sites(getkey):
    draws = vi.fit(
        vi.from_numpyro(mixture, Y), key=getkey(), max_steps=100, progress=False
    ).draw(200, key=getkey())
    assert set(draws.params) == {"weight", "locs"}
    assert draws.predict(key=getkey())["y"].shape == (200, 6)
    with pytest.raises(ValueError, match="MixtureSameFamily"):
        draws.log_likelihood()


# Compilation -------------------------------------------------------------------------


def test_other_data_or_an_equal_model_compile_nothing(getkey):
    traces = 0

    def model(y, num):
        nonlocal traces
        traces += 1
        mu = sample("mu", dist.Normal(jnp.zeros(num), 5.0).to_event(1))
        sample("y", dist.Normal(mu.sum(), 1.0), obs=y)

    @eqx.filter_jit
    def value(target):
        nonlocal compiled
        compiled += 1
        return target.log_density(jnp.ones(2))

    compiled = 0
    targets = [vi.from_numpyro(model, Y, 2), vi.from_numpyro(model, Y + 1, np.int64(2))]
    targets += [vi.from_numpyro(model, num=jnp.array(2), y=Y)]
    targets += [targets[0].with_data({"y": Y - 1})]
    values = {float(value(target)) for target in targets}
    assert len(values) == 3
    assert compiled == 1
    fits = [vi.fit(t, key=getkey(), max_steps=20, progress=False) for t in targets[:1]]
    before = traces
    fits += [vi.fit(t, key=getkey(), max_steps=20, progress=False) for t in targets]
    assert traces == before
    value(vi.from_numpyro(model, Y, num=2))
    assert compiled == 1


def test_equal_handlers_are_equal_models():
    compiled = 0

    @eqx.filter_jit
    def value(target):
        nonlocal compiled
        compiled += 1
        return target.log_density(jnp.ones(target.dim))

    def theirs():
        tau = sample("tau", dist.HalfNormal(2.0))
        sample("theta", dist.Normal(jnp.ones(4), tau).to_event(1))

    for scale in (1.0, 2.0):
        model = handlers.reparam(theirs, config={"theta": LocScaleReparam(0.0)})
        model = handlers.condition(model, data={"tau": jnp.array(scale)})
        value(vi.from_numpyro(model))
    assert compiled == 1
    value(vi.from_numpyro(handlers.reparam(theirs, {"theta": LocScaleReparam(0.5)})))
    assert compiled == 2


# After the fit -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def draws():
    target = vi.from_numpyro(hierarchical, GROUP, 3, Y)
    key = jr.key(0)
    x = 0.3 * jr.normal(key, (500, target.dim))
    log_p = jax.vmap(target.log_density)(x)
    return vi.Draws(x, -0.5 * jnp.sum((x / 0.3) ** 2, axis=-1), log_p, target)


def test_log_likelihood(draws):
    got = draws.log_likelihood()
    theta = draws.params["theta"][:, jnp.asarray(GROUP)]
    expected = norm.logpdf(jnp.asarray(Y)[None], theta, 1.0)
    assert set(got) == {"y"}
    np.testing.assert_allclose(got["y"], expected, rtol=1e-10)
    part = draws.log_likelihood({"group": GROUP[:2], "y": Y[:2]})
    np.testing.assert_allclose(part["y"], expected[:, :2], rtol=1e-10)


def test_predictions(draws, getkey):
    theta = draws.params["theta"]
    replicated = draws.predict(key=getkey())
    assert set(replicated) == {"y"}
    noise = replicated["y"] - theta[:, jnp.asarray(GROUP)]
    assert abs(noise.mean()) < 4 / 3_000**0.5
    assert abs(noise.std() - 1) < 4 / 6_000**0.5
    key = getkey()
    group = np.array([2, 2, 2, 0])
    for new in ({"group": group, "y": None}, {"group": group}):
        out = draws.predict(new, key=key, names=["y", "twice"])
        assert out["y"].shape == (500, 4)
        np.testing.assert_allclose(out["twice"], 2 * theta)
        noise = out["y"] - theta[:, jnp.asarray(group)]
        assert abs(noise.std() - 1) < 4 / 4_000**0.5


def test_an_argument_that_had_its_default(getkey):
    def model(x, y=None, noise=1.0):
        slope = sample("slope", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(slope * x, noise), obs=y)

    target = vi.from_numpyro(model, Y, y=Y)
    quiet = target.with_data({"noise": 0.5})
    other = vi.from_numpyro(model, Y, Y, 0.5)
    x = jnp.ones(1)
    assert quiet.log_density(x) == other.log_density(x) != target.log_density(x)
    draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 10, key=getkey())
    noise = draws.predict({"noise": 1e-9, "y": None}, key=getkey())["y"]
    np.testing.assert_allclose(noise, draws.params["slope"][:, None] * Y[None], atol=1e-6)


def test_errors_after_the_fit(draws, getkey):
    with pytest.raises(ValueError, match=r"'group', 'num_groups', 'y'.*\['x'\]"):
        draws.predict({"x": 1.0}, key=getkey())
    with pytest.raises(ValueError, match=r"no site 'z'.*theta"):
        draws.predict(key=getkey(), names=["z"])
    with pytest.raises(ValueError, match="other parameters"):
        draws.target.with_data({"num_groups": 4})


def test_export(draws, getkey):
    tree = vi.to_arviz(
        draws,
        key=getkey(),
        predictions={"group": GROUP[:4], "y": None},
        log_likelihood=True,
        coords={"groups": ["a", "b", "c"]},
    )
    assert tree.posterior["theta"].dims == ("chain", "draw", "groups")
    assert list(tree.posterior["groups"].values) == ["a", "b", "c"]
    assert set(tree.observed_data) == {"y"}
    assert set(tree.constant_data) == {"group"}
    np.testing.assert_allclose(tree.observed_data["y"].values, Y)
    assert tree.log_likelihood["y"].sizes == {"chain": 1, "draw": 500, "rows": 6}
    assert tree.posterior_predictive["y"].sizes == {"chain": 1, "draw": 500, "rows": 6}
    assert tree.predictions["y"].sizes == {"chain": 1, "draw": 500, "rows": 4}
    assert set(tree.predictions_constant_data) == {"group"}
    prior = tree.prior
    assert prior["theta"].shape == (1, 500, 3)
    assert abs(prior["mu"].std() - 5) < 5 * 5 / 1_000**0.5
    assert set(tree.prior_predictive) == {"y"}


def test_no_prior_group_of_an_improper_prior(getkey):
    def model(y):
        mu = sample("mu", dist.ImproperUniform(constraints.real, (), ()))
        sample("y", dist.Normal(mu, 1.0), obs=y)

    target = vi.from_numpyro(model, Y)
    draws = vi.draw(vi.MeanField(jnp.zeros(1)), target, 50, key=getkey())
    tree = vi.to_arviz(draws, key=getkey())
    assert "posterior_predictive" in tree.children
    assert "prior" not in tree.children


# What cannot be done -----------------------------------------------------------------


def local(y):
    tau = sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("rows", 60, subsample_size=10) as i:
        z = sample("z", dist.Normal(0.0, tau))
        sample("y", dist.Normal(z, 1.0), obs=y[i])


def poisson():
    sample("count", dist.Poisson(2.0))


def with_param():
    sample("x", dist.Normal(numpyro.param("loc", 0.0), 1.0))


def on_a_sphere():
    sample("x", dist.ProjectedNormal(jnp.ones(3)))


def branches():
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(0.0, 1.0 if x > 0 else 2.0))


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (local, (LONG,), r"(?s)`z` has a value for each of the 60.*'rows'.*10"),
        (poisson, (), r"`count`.*no finite number of values"),
        (with_param, (), r"numpyro.param.*'loc'.*lift"),
        (on_a_sphere, (), r"`x` has the support.*reparam"),
        (branches, (), r"no shape or branch may depend on them"),
        (normal, (), "missing a required argument: 'y'"),
        (normal, (np.array([1.0, np.nan]),), r"data\['y'\]` has 1 NaN"),
        (3.0, (), "must be a NumPyro model"),
    ],
)
def test_errors(model, args, message):
    with pytest.raises(ValueError, match=message):
        vi.from_numpyro(model, *args)


def test_a_target_without_parameters_is_refused():
    with pytest.raises(ValueError, match="no latent"):
        vi.from_numpyro(handlers.condition(normal, data={"mu": 1.0}), Y)


def test_tables_are_refused_and_their_columns_taken():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"y": Y})
    with pytest.raises(ValueError, match="by name"):
        vi.from_numpyro(normal, table)
    target = vi.from_numpyro(normal, table["y"])
    other = vi.from_numpyro(normal, Y)
    assert target.log_density(jnp.ones(1)) == other.log_density(jnp.ones(1))
    assert jtu.tree_structure(target.data) == jtu.tree_structure(other.data)
