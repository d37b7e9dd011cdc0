"""What the design calls bad input, and every **Raises** of the public functions.

Each case says what was given, what was expected and, where there is something to do,
what to do. `match` looks for the words that only this mistake would bring up.
"""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import logging

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import optax
import pytest
from numpyro.distributions import constraints

import vijax as vi


@pytest.fixture(autouse=True)
def as_for_users():
    """Without the type checker of our tests, which would speak up first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def density(params):
    return -0.5 * jnp.sum(params["x"] ** 2)


def target():
    return vi.from_log_density(density, {"x": vi.Param(2)})


def log_density(fn, data=None):
    return vi.from_log_density(fn, {"x": vi.Param(2)}, data)


def param(value):
    return vi.from_log_density(lambda params: 0.0, {"x": value})


def rowwise(params, rows):
    return -0.5 * (jax.tree.leaves(rows)[0] - params["x"]) ** 2


def likelihood(data=None, log_likelihood=rowwise, log_prior=density, **options):
    data = np.arange(10.0) if data is None else data
    params = {"x": vi.Param()}
    return vi.from_likelihood(log_prior, log_likelihood, params, data, **options)


def descent():
    return vi.Descent(vi.ELBO(), optax.adam(0.05))


def fit(key, *, fitted=None, **options):
    method = options.pop("method", None) or descent()
    options = {"max_steps": 3, "progress": False} | options
    return vi.fit(fitted or target(), method, key=key, **options)


# {name: (what the user does, what the message must hold)}. Every one of these fails
# before anything compiles.
at_once = {
    # The log density.
    "log density: vector": (
        lambda key: log_density(lambda params: params["x"]),
        r"`log_density` must return a scalar.*shape \(2,\).*jnp\.sum",
    ),
    "log density: tuple": (
        lambda key: log_density(lambda params: (density(params), 1.0)),
        r"`log_density` must return a scalar.*a tuple",
    ),
    "log density: None": (
        lambda key: log_density(lambda params: None),
        r"`log_density` must return a scalar.*NoneType",
    ),
    "log density: integers": (
        lambda key: log_density(lambda params: jnp.zeros((), int)),
        r"`log_density` must return real floating-point.*int64.*astype",
    ),
    "log density: booleans": (
        lambda key: log_density(lambda params: params["x"][0] > 0),
        r"`log_density` must return real floating-point.*bool",
    ),
    "log density: complex": (
        lambda key: log_density(lambda params: lax.complex(*params["x"])),
        r"`log_density` must return real floating-point.*complex128",
    ),
    "log density: unknown name": (
        lambda key: log_density(lambda params: params["z"] ** 2),
        r"`log_density` raised KeyError: 'z'.*\{'x'",
    ),
    "log density: unknown name, with data": (
        lambda key: log_density(lambda params, data: params["z"], np.ones(3)),
        r"`log_density` raised KeyError: 'z'.*\{'x'",
    ),
    "log density: no function": (
        lambda key: log_density(3.0),
        r"`log_density` must be a function.*float",
    ),
    # Parameters.
    "params: none": (
        lambda key: vi.from_log_density(density, {}),
        r"`params` must be a dictionary.*at least one entry.*\{\}",
    ),
    "params: list": (
        lambda key: vi.from_log_density(density, [vi.Param()]),
        r"`params` must be a dictionary",
    ),
    "params: integers": (
        lambda key: param(np.arange(3)),
        r"`params\['x'\]` has dtype int64.*not floating-point",
    ),
    "params: python integer": (
        lambda key: param(1),
        r"`params\['x'\]` has dtype int64.*not floating-point",
    ),
    "params: booleans": (
        lambda key: param(np.array([True])),
        r"`params\['x'\]` has dtype bool.*not floating-point",
    ),
    "params: complex": (
        lambda key: param(np.array([1j])),
        r"`params\['x'\]` has dtype complex128.*not floating-point",
    ),
    "params: string": (
        lambda key: param("a"),
        r"`params\['x'\]` must be a `vi\.Param` or an example array.*str",
    ),
    "params: a support": (
        lambda key: param(constraints.positive),
        r"`params\['x'\]` is a support. Write `vi\.Param",
    ),
    "params: NaN example": (
        lambda key: param(np.array([1.0, np.nan])),
        r"`params\['x'\]`.*nan.*NaN and infinities",
    ),
    "params: of a likelihood": (
        lambda key: vi.from_likelihood(density, rowwise, {"x": 1}, np.ones(3)),
        r"`params\['x'\]` has dtype int64.*not floating-point",
    ),
    # Supports.
    "support: discrete": (
        lambda key: vi.Param((), constraints.positive_integer),
        "discrete.*sum the discrete one out",
    ),
    "support: boolean": (
        lambda key: vi.Param((), constraints.boolean),
        r"Boolean\(\) is discrete",
    ),
    "support: interval of integers": (
        lambda key: vi.Param((), constraints.integer_interval(0, 3)),
        "IntegerInterval.*discrete",
    ),
    "support: no transform": (
        lambda key: vi.Param(3, constraints.sphere),
        "no transform from real numbers to the support Sphere",
    ),
    "support: string": (
        lambda key: vi.Param(3, "positive"),
        "no transform from real numbers to the support 'positive'.*constraints.positive",
    ),
    "support: a class that wants bounds": (
        lambda key: vi.Param(3, constraints.interval),
        "no transform from real numbers to the support",
    ),
    "support: dependent": (
        lambda key: vi.Param((), constraints.dependent),
        "support",
    ),
    # Not of real numbers, though `biject_to` has a transform for it.
    "support: complex": (
        lambda key: vi.Param(2, constraints.complex),
        "(?i)complex",
    ),
    "initial: NaN": (
        lambda key: vi.Param(2, initial=[1.0, np.nan]),
        "`initial` is .*nan.*not strictly inside",
    ),
    "initial: infinite": (
        lambda key: vi.Param(initial=-np.inf),
        "`initial` is -inf.*not strictly inside",
    ),
    "initial: shape": (
        lambda key: vi.Param(3, initial=[1.0, 2.0]),
        r"`initial` has shape \(2,\).*\(3,\)",
    ),
    # The prior and the likelihood.
    "prior: vector": (
        lambda key: likelihood(log_prior=lambda params: params["x"][None]),
        r"`log_prior` must return a scalar.*\(1,\)",
    ),
    "prior: integer": (
        lambda key: likelihood(log_prior=lambda params: jnp.zeros((), int)),
        "`log_prior` must return real floating-point.*int64",
    ),
    "prior: unknown name": (
        lambda key: likelihood(log_prior=lambda params: params["z"]),
        r"`log_prior` raised KeyError: 'z'.*\{'x'",
    ),
    "prior: no function": (
        lambda key: likelihood(log_prior=None),
        "`log_prior` must be a function",
    ),
    "likelihood: sums over rows": (
        lambda key: likelihood(log_likelihood=lambda p, y: jnp.sum(rowwise(p, y))),
        r"`log_likelihood` must return one value a row.*\(10,\).*shape \(\)",
    ),
    "likelihood: keeps one row": (
        lambda key: likelihood(log_likelihood=lambda p, y: rowwise(p, y)[:1]),
        r"`log_likelihood` must return one value a row.*\(10,\).*\(1,\)",
    ),
    "likelihood: rows last": (
        lambda key: likelihood(
            np.ones((10, 3)), log_likelihood=lambda p, y: y.T * p["x"]
        ),
        r"`log_likelihood` must return one value a row.*\(10,\).*\(3, 10\)",
    ),
    "likelihood: integers": (
        lambda key: likelihood(log_likelihood=lambda p, y: (y > 0).astype(int)),
        "`log_likelihood` must return real floating-point.*int64",
    ),
    "likelihood: unknown name": (
        lambda key: likelihood(log_likelihood=lambda p, y: y * p["z"]),
        r"`log_likelihood` raised KeyError: 'z'.*\{'x'",
    ),
    "likelihood: no function": (
        lambda key: likelihood(log_likelihood=1.0),
        "`log_likelihood` must be a function",
    ),
    # Data.
    "data: lengths": (
        lambda key: likelihood({"a": np.ones(3), "b": np.ones(4)}),
        r"leading axis.*data\['a'\].*3.*data\['b'\].*4",
    ),
    "data: lengths, with batches": (
        lambda key: likelihood({"a": np.ones(3), "b": np.ones(4)}, batch_size=2),
        r"leading axis.*data\['a'\].*3.*data\['b'\].*4",
    ),
    "data: lengths, with batches as long": (
        lambda key: likelihood({"a": np.ones(3), "b": np.ones(4)}, batch_size=4),
        r"leading axis.*data\['a'\].*3.*data\['b'\].*4",
    ),
    "data: scalar": (
        lambda key: likelihood({"a": np.ones(3), "b": 1.0}),
        "leading axis.*scalar",
    ),
    "data: scalar, with batches": (
        lambda key: likelihood({"a": np.ones(3), "b": 1.0}, batch_size=2),
        "leading axis.*scalar",
    ),
    "data: none": (
        lambda key: likelihood({}),
        "`data` has no arrays.*from_log_density",
    ),
    "data: none, with batches": (
        lambda key: likelihood({}, batch_size=2),
        "`data` has no arrays.*from_log_density",
    ),
    "data: strings": (
        lambda key: likelihood({"y": np.array(["a", "b"])}),
        r"`data\['y'\]` is not numeric",
    ),
    "data: NaN": (
        lambda key: likelihood({"a": np.ones(3), "b": np.array([1.0, np.nan, 3.0])}),
        r"`data\['b'\]` has 1 NaN among its 3 entries.*(Drop|impute)",
    ),
    "data: NaN in a nested leaf": (
        lambda key: likelihood((np.ones(3), [np.full(3, np.nan)])),
        r"`data\[1\]\[0\]` has 3 NaN among its 3 entries",
    ),
    "data: NaN of a log density": (
        lambda key: log_density(lambda params, y: density(params), np.full(2, np.nan)),
        "`data` has 2 NaN among its 2 entries",
    ),
    "with_data: NaN": (
        lambda key: likelihood().with_data(np.full(3, np.nan)),
        "`data` has 3 NaN among its 3 entries",
    ),
    "with_data: lengths": (
        lambda key: likelihood().with_data([np.ones(2), np.ones(3)]),
        "leading axis.*2.*3",
    ),
    "with_data: fewer rows than a batch": (
        lambda key: likelihood(batch_size=5).with_data(np.ones(3)),
        r"`batch_size` is 5.*length 3 \(rows.*from 1 to 3",
    ),
    # Batches.
    "batch_size: zero": (
        lambda key: likelihood(batch_size=0),
        "`batch_size` must be a whole number of at least 1, but it is 0",
    ),
    "batch_size: negative": (
        lambda key: likelihood(batch_size=-1),
        "`batch_size` must be a whole number of at least 1, but it is -1",
    ),
    "batch_size: too large": (
        lambda key: likelihood(batch_size=11),
        r"`batch_size` is 11.*length 10 \(rows.*from 1 to 10",
    ),
    "batch_size: boolean": (
        lambda key: likelihood(batch_size=True),
        "`batch_size` must be a whole number.*True",
    ),
    "batch_size: float": (
        lambda key: likelihood(batch_size=2.0),
        "`batch_size` must be a whole number.*2.0",
    ),
    "with_batch_size: zero": (
        lambda key: likelihood().with_batch_size(0),
        "`batch_size` must be a whole number of at least 1, but it is 0",
    ),
    "with_batch_size: too large": (
        lambda key: likelihood().with_batch_size(11),
        r"`batch_size` is 11.*length 10 \(rows",
    ),
    "with_batch_size: float": (
        lambda key: likelihood().with_batch_size(2.0),
        "`batch_size` must be a whole number.*2.0",
    ),
    "with_batch_size: no data": (
        lambda key: target().with_batch_size(2),
        "batch|rows",
    ),
    # A log density may hold a prior, which must not be scaled: it knows of no rows.
    "with_batch_size: of a log density": (
        lambda key: log_density(
            lambda params, y: density(params) + jnp.sum(y), np.ones(5)
        ).with_batch_size(2),
        "from_likelihood",
    ),
    # Objectives, methods and stopping rules.
    "ELBO: no draws": (
        lambda key: vi.ELBO(num_draws=0),
        "`num_draws` must be a whole number of at least 1.*0",
    ),
    "ELBO: float": (
        lambda key: vi.ELBO(num_draws=1.5),
        "`num_draws` must be a whole number of at least 1.*1.5",
    ),
    "StickTheLanding: no draws": (
        lambda key: vi.StickTheLanding(num_draws=0),
        "`num_draws` must be a whole number of at least 1.*0",
    ),
    "StickTheLanding: boolean": (
        lambda key: vi.StickTheLanding(num_draws=True),
        "`num_draws` must be a whole number of at least 1.*True",
    ),
    "ELBO: odd pairs": (
        lambda key: vi.ELBO(3, antithetic=True),
        "pairs.*`num_draws` must be even.*3",
    ),
    "ELBO: antithetic is a word": (
        lambda key: vi.ELBO(4, antithetic="no"),
        "`antithetic` must be True or False.*'no'",
    ),
    "SteinForce: no draws": (
        lambda key: vi.SteinForce(0),
        "`num_draws` must be a whole number of at least 1.*0",
    ),
    "SteinForce: kernel": (
        lambda key: vi.SteinForce(kernel=vi.RBF),
        r"`kernel` must be a kernel such as `vi\.RBF\(\)`.*function",
    ),
    "SteinForce: temperature": (
        lambda key: vi.SteinForce(temperature=0),
        "`temperature` must be positive and finite.*0",
    ),
    "SVGD: the optimizer first": (
        lambda key: vi.SVGD(optax.adam(0.1)),
        r"`kernel` must be a kernel such as `vi\.RBF\(\)`.*GradientTransformation",
    ),
    "SVGD: optimizer": (
        lambda key: vi.SVGD(optimizer=0.1),
        "`optimizer` must be an Optax optimizer.*0.1",
    ),
    "SVGD: no particles": (
        lambda key: vi.SVGD(num_particles=0),
        "`num_particles` must be a whole number of at least 1.*0",
    ),
    "SVGD: half a particle": (
        lambda key: vi.SVGD(num_particles=2.5),
        "`num_particles` must be a whole number of at least 1.*2.5",
    ),
    "SVGD: negative jitter": (
        lambda key: vi.SVGD(jitter=-1),
        "`jitter` must be finite and not negative.*-1",
    ),
    "SVGD: jitter is NaN": (
        lambda key: vi.SVGD(jitter=np.nan),
        "`jitter` must be finite and not negative.*nan",
    ),
    "SVGD: jitter is a word": (lambda key: vi.SVGD(jitter="a"), "`jitter` must be.*'a'"),
    "SVGD: temperature": (
        lambda key: vi.SVGD(temperature=np.inf),
        "`temperature` must be positive and finite.*inf",
    ),
    "SVGD: temperature is a word": (
        lambda key: vi.SVGD(temperature="hot"),
        "`temperature` must be.*'hot'",
    ),
    "BirthDeath: an objective": (
        lambda key: vi.BirthDeath(vi.SteinForce()),
        r"`method` must be a method such as `vi\.SVGD\(\)`.*SteinForce",
    ),
    "BirthDeath: every": (
        lambda key: vi.BirthDeath(vi.SVGD(), every=0),
        "`every` must be a whole number of at least 1.*0",
    ),
    "RBF: bandwidth zero": (
        lambda key: vi.RBF(0.0),
        "`bandwidth` must be a positive number.*0.0",
    ),
    "RBF: bandwidth infinite": (
        lambda key: vi.RBF(np.inf),
        "`bandwidth` must be a positive number.*inf",
    ),
    "RBF: bandwidth is a word": (
        lambda key: vi.RBF("median"),
        "`bandwidth` must be a positive number.*'median'",
    ),
    "RBF: two bandwidths": (
        lambda key: vi.RBF([1.0, 2.0]),
        r"`bandwidth` must be a positive number.*\[1.0, 2.0\]",
    ),
    "IMQ: bandwidth negative": (
        lambda key: vi.IMQ(-1.0),
        "`bandwidth` must be a positive number.*-1.0",
    ),
    "IMQ: exponent positive": (
        lambda key: vi.IMQ(exponent=0.5),
        "`exponent` must be between -1 and 0.*0.5",
    ),
    "IMQ: exponent -1": (
        lambda key: vi.IMQ(exponent=-1),
        "`exponent` must be between -1 and 0.*-1",
    ),
    "IMQ: exponent is a word": (
        lambda key: vi.IMQ(exponent="a"),
        "`exponent` must be between -1 and 0.*'?a'?",
    ),
    "MixtureKernel: no kernel": (
        lambda key: vi.MixtureKernel([]),
        "at least one kernel",
    ),
    "MixtureKernel: no list": (
        lambda key: vi.MixtureKernel(vi.RBF()),
        "`kernels`",
    ),
    "MixtureKernel: something else": (
        lambda key: vi.MixtureKernel([vi.RBF(), 3.0]),
        r"`kernel` must be a kernel such as `vi\.RBF\(\)`.*3.0",
    ),
    "MixtureKernel: number of weights": (
        lambda key: vi.MixtureKernel([vi.RBF(), vi.IMQ()], [1.0]),
        "2 kernels and 1 weights.*one weight for each",
    ),
    "MixtureKernel: negative weight": (
        lambda key: vi.MixtureKernel([vi.RBF(), vi.IMQ()], [1.0, -1.0]),
        r"`weights` must be positive.*-1.0",
    ),
    "MixtureKernel: infinite weight": (
        lambda key: vi.MixtureKernel([vi.RBF(), vi.IMQ()], [np.inf, 1.0]),
        r"`weights` must be positive.*inf",
    ),
    "to_particles: no target": (
        lambda key: vi.to_particles({"x": np.ones((3, 2))}, density),
        r"`target` must be a `vi\.Target`.*function",
    ),
    "to_particles: no samples": (
        lambda key: vi.to_particles(np.ones((3, 2)), target()),
        "`samples` must be a dictionary.*ArviZ.*ndarray",
    ),
    "expectation: no draws": (
        lambda key: vi.expectation({"x": np.ones(3)}, lambda params: params["x"]),
        r"`draws` must be a `vi\.Draws`.*dict",
    ),
    "Descent: objective": (
        lambda key: vi.Descent(vi.ELBO, optax.adam(0.1)),
        r"`objective` must be an objective such as `vi\.ELBO",
    ),
    "Descent: optimizer": (
        lambda key: vi.Descent(vi.ELBO(), 0.1),
        "`optimizer` must be an Optax optimizer.*0.1",
    ),
    "Descent: optimizer not called": (
        lambda key: vi.Descent(vi.ELBO(), optax.adam),
        "`optimizer` must be an Optax optimizer.*adam",
    ),
    "Averaging: method": (
        lambda key: vi.Averaging(optax.adam(0.1)),
        r"`method` must be a method such as `vi\.Descent",
    ),
    "Averaging: power": (
        lambda key: vi.Averaging(descent(), power=-1.0),
        "`power` must not be negative.*-1",
    ),
    "LossConvergence: window": (
        lambda key: vi.LossConvergence(window=10),
        "window of 10 steps.*Raise `window` to 800",
    ),
    "LossConvergence: window for its tolerance": (
        lambda key: vi.LossConvergence(window=800, tolerance=0.05),
        "window of 800 steps.*Raise `window` to 3200",
    ),
    "LossConvergence: tolerance": (
        lambda key: vi.LossConvergence(tolerance=0.0),
        "`tolerance` must be positive.*0",
    ),
    "ParameterConvergence: diff": (
        lambda key: vi.ParameterConvergence(diff="rel"),
        '`diff` must be "relative" or "absolute".*\'rel\'',
    ),
    "ParameterConvergence: every": (
        lambda key: vi.ParameterConvergence(every=0),
        "`every` must be a whole number of at least 1.*0",
    ),
    "ParameterConvergence: tolerance": (
        lambda key: vi.ParameterConvergence(tolerance=-1.0),
        "`tolerance` must be positive.*-1",
    ),
    # What a run is asked for.
    "fit: no target": (
        lambda key: vi.fit(density, key=key),
        r"`target` must be a `vi\.Target`.*function.*from_log_density",
    ),
    "fit: key is an integer": (
        lambda key: fit(0),
        r"`key` must be a JAX random key such as `jax\.random\.key\(0\)`.*0",
    ),
    "fit: key is None": (
        lambda key: fit(None),
        r"`key` must be a JAX random key such as `jax\.random\.key\(0\)`.*None",
    ),
    "fit: unknown method": (
        lambda key: fit(key, method="nuts"),
        "no method called 'nuts'.*auto, advi, fullrank_advi, svgd, asvgd",
    ),
    "fit: method is an objective": (
        lambda key: fit(key, method=vi.ELBO()),
        r"`method` must be a method.*ELBO\(\)",
    ),
    "fit: method is a class": (
        lambda key: fit(key, method=vi.Descent),
        "`method` must be a method.*Descent",
    ),
    "fit: method is None": (
        lambda key: vi.fit(target(), None, key=key),
        "`method` must be a method.*None",
    ),
    "fit: family is a string": (
        lambda key: fit(key, family="mean field"),
        "`family` must be a family, or a recipe.*'mean field'",
    ),
    "fit: max_steps negative": (
        lambda key: fit(key, max_steps=-1),
        "`max_steps` must be a whole number of at least 0.*-1",
    ),
    "fit: max_steps float": (
        lambda key: fit(key, max_steps=1e3),
        "`max_steps` must be a whole number of at least 0.*1000.0",
    ),
    "fit: stop is a lambda": (
        lambda key: fit(key, stop=lambda *_: False),
        "`stop` must be a stopping rule.*StopIteration",
    ),
    "fit: track is a list": (
        lambda key: fit(key, track=[lambda *_: 0.0]),
        r"`track` must be a dictionary \{name: fn\}",
    ),
    "fit: track is a function": (
        lambda key: fit(key, track=lambda *_: 0.0),
        r"`track` must be a dictionary \{name: fn\}",
    ),
    "fit: track holds no functions": (
        lambda key: fit(key, track={"a": 1.0}),
        r"`track` must be a dictionary \{name: fn\}.*'a': 1",
    ),
    "fit: track_every": (
        lambda key: fit(key, track_every=0),
        "`track_every` must be a whole number of at least 1.*0",
    ),
    "fit: callbacks": (
        lambda key: fit(key, callbacks=1),
        r"`callbacks` must be functions `fn\(fit_so_far\)`.*1",
    ),
    "fit: callbacks hold no functions": (
        lambda key: fit(key, callbacks=[print, None]),
        r"`callbacks` must be functions `fn\(fit_so_far\)`.*None",
    ),
    "fit: callback_every": (
        lambda key: fit(key, callback_every=0),
        "`callback_every` must be a whole number of at least 1.*0",
    ),
    "fit: checkpoint in no folder": (
        lambda key: fit(key, checkpoint="no/such/folder/fit.npz"),
        "`checkpoint` is 'no/such/folder/fit.npz'.*no folder 'no/such/folder'",
    ),
    "save: no fit": (
        lambda key: vi.save("fit.npz", 3),
        r"`fit` must be a `vi\.Fit`.*int",
    ),
}


@pytest.mark.parametrize("name", at_once)
def test_fails_before_anything_compiles(name, getkey, caplog):
    act, match = at_once[name]
    key = getkey()
    with caplog.at_level(logging.DEBUG), jax.log_compiles():
        with pytest.raises(ValueError, match=f"(?s){match}"):
            act(key)
        compiled = [r.getMessage() for r in caplog.records if "XLA" in r.getMessage()]
    assert compiled == []


def test_the_watch_for_compilations_sees_one(caplog):
    # Or the test above would test nothing.
    with caplog.at_level(logging.DEBUG), jax.log_compiles():
        jax.jit(lambda x: x * 12.3)(np.ones(3))
    assert any("XLA" in record.getMessage() for record in caplog.records)


# These make arrays of their own on the way: families do, and so do splitting a key and
# a look at whether a point is inside some support.
on_the_way = {
    # An `initial` outside of the support is NaN, or infinite, at the starting point.
    "initial: negative for positive": (
        lambda key: param(vi.Param((), constraints.positive, initial=-1.0)),
        "initial",
    ),
    "initial: on the boundary": (
        lambda key: param(vi.Param((), constraints.positive, initial=0.0)),
        "initial",
    ),
    "initial: beyond the interval": (
        lambda key: param(vi.Param((), constraints.interval(0.0, 1.0), initial=2.0)),
        "initial",
    ),
    "initial: off the simplex": (
        lambda key: param(vi.Param(3, constraints.simplex, initial=[0.5, 0.5, 0.5])),
        "initial",
    ),
    "family: dim": (
        lambda key: fit(key, family=vi.MeanField(jnp.zeros(3))),
        r"`family` has 3 coordinates but `target` has 2.*vi\.MeanField",
    ),
    "family: dim of a recipe": (
        lambda key: fit(key, family=lambda loc: vi.FullRank(jnp.zeros(3))),
        "`family` has 3 coordinates but `target` has 2",
    ),
    "family: a recipe that returns something else": (
        lambda key: fit(key, family=lambda loc: loc),
        r"`family` must be a family, or a recipe.*the recipe returned",
    ),
    "family: a recipe that returns nothing": (
        lambda key: fit(key, family=lambda loc: None),
        r"`family` must be a family, or a recipe.*the recipe returned a NoneType",
    ),
    "family: an array": (
        lambda key: fit(key, family=jnp.zeros(2)),
        "`family` must be a family, or a recipe",
    ),
    # NaN at the starting point, given by a family instead of `initial`.
    "family: NaN": (
        lambda key: fit(key, family=vi.MeanField(jnp.array([0.0, jnp.nan]))),
        "(?i)nan|finite",
    ),
    "key: an array of keys": (
        lambda key: fit(jr.split(key, 2)),
        r"`key` must be one key.*\(2,\).*filter_vmap",
    ),
    "key: an array of old keys": (
        lambda key: fit(jr.split(jr.PRNGKey(0), 2)),
        "`key` must be",
    ),
    "key: numbers that are no key": (
        lambda key: fit(np.zeros(3, np.uint32)),
        "`key` must be",
    ),
    "MeanField: loc is a scalar": (
        lambda key: vi.MeanField(1.0),
        r"`loc` must be a vector.*shape \(\).*jnp\.zeros\(1\)",
    ),
    "MeanField: loc of integers": (
        lambda key: vi.MeanField(jnp.arange(3)),
        "`loc` must be a vector of floating-point.*int64",
    ),
    "FullRank: loc is a matrix": (
        lambda key: vi.FullRank(jnp.zeros((2, 2))),
        r"`loc` must be a vector.*\(2, 2\)",
    ),
    "MeanField: negative scale": (
        lambda key: vi.MeanField(jnp.zeros(2), -0.1),
        "`scale` holds standard deviations, which must be positive.*-0.1",
    ),
    "MeanField: one scale is zero": (
        lambda key: vi.MeanField(jnp.zeros(2), jnp.array([1.0, 0.0])),
        "`scale` holds standard deviations, which must be positive",
    ),
    "FullRank: negative scale": (
        lambda key: vi.FullRank(jnp.zeros(2), -0.1),
        "`scale` holds standard deviations, which must be positive.*-0.1",
    ),
    "FullRank: NaN scale": (
        lambda key: vi.FullRank(jnp.zeros(2), np.nan),
        "`scale` holds standard deviations, which must be positive.*nan",
    ),
    "FullRank: negative diagonal": (
        lambda key: vi.FullRank(jnp.zeros(2), -jnp.eye(2)),
        "`scale` holds standard deviations, which must be positive",
    ),
    "FullRank: shape of the factor": (
        lambda key: vi.FullRank(jnp.zeros(2), jnp.eye(3)),
        r"`scale` has shape \(3, 3\).*\(2, 2\)",
    ),
    "FullRank: length of the scales": (
        lambda key: vi.FullRank(jnp.zeros(2), jnp.ones(3)),
        r"`scale`.*\(3,\).*\(2,\)",
    ),
    "MeanField: length of the scales": (
        lambda key: vi.MeanField(jnp.zeros(2), jnp.ones(3)),
        r"`scale`.*\(3,\).*\(2,\)",
    ),
    "MeanField: a matrix of scales": (
        lambda key: vi.MeanField(jnp.zeros(2), jnp.ones((2, 2))),
        r"`scale`.*\(2, 2\).*\(2,\)",
    ),
    "Particles: a vector": (
        lambda key: vi.Particles(jnp.zeros(3)),
        r"`x` must be a matrix.*\(particles, dim\).*\(3,\)",
    ),
    "Particles: none": (
        lambda key: vi.Particles(jnp.zeros((0, 3))),
        r"`x` must be a matrix.*\(0, 3\)",
    ),
    "Particles: integers": (
        lambda key: vi.Particles([[1, 2], [3, 4]]),
        r"`x` must be a matrix of floating-point.*int64",
    ),
    "Particles: bandwidth zero": (
        lambda key: vi.Particles(jnp.ones((3, 2)), bandwidth=0.0),
        "`bandwidth`.*positive.*0.0",
    ),
    "Particles: length of the bandwidths": (
        lambda key: vi.Particles(jnp.ones((3, 2)), bandwidth=jnp.ones(3)),
        r"`bandwidth`.*\(3,\).*\(2,\)",
    ),
    "Particles: NaN as a start": (
        lambda key: fit(key, method=vi.SVGD(), family=vi.Particles([[0.0, np.nan]])),
        r"`family\.x` has entries that are NaN",
    ),
    "SVGD: dim": (
        lambda key: fit(key, method=vi.SVGD(), family=vi.Particles(jnp.ones((3, 3)))),
        "`family` has 3 coordinates but `target` has 2",
    ),
    "SVGD: a kernel that returns a vector": (
        lambda key: fit(key, method=vi.SVGD(kernel=lambda x, y: x * y)),
        r"`kernel` must.*scalar.*\(2,\)",
    ),
    # There is no objective along whose values a line could be searched.
    "SVGD: a line search": (
        lambda key: fit(key, method=vi.SVGD(optimizer=optax.lbfgs())),
        "`?optimizer`?|line search",
    ),
    "expectation: one draw": (
        lambda key: vi.expectation(
            vi.draw(vi.MeanField(jnp.zeros(2)), target(), 1, key=key),
            lambda params: params["x"],
        ),
        "at least 2 draws.*only 1",
    ),
    "data: NaN in an array of JAX": (
        lambda key: likelihood({"y": jnp.array([1.0, jnp.nan])}),
        r"`data\['y'\]` has 1 NaN among its 2 entries",
    ),
    "draw: dim": (
        lambda key: vi.draw(vi.MeanField(jnp.zeros(3)), target(), 10, key=key),
        "`family` has 3 coordinates but `target` has 2",
    ),
    "draw: none": (
        lambda key: vi.draw(vi.MeanField(jnp.zeros(2)), target(), 0, key=key),
        "`num_draws` must be a whole number of at least 1.*0",
    ),
    "draw: float": (
        lambda key: vi.draw(vi.MeanField(jnp.zeros(2)), target(), 10.0, key=key),
        "`num_draws` must be a whole number of at least 1.*10.0",
    ),
    "draw: key is an integer": (
        lambda key: vi.draw(vi.MeanField(jnp.zeros(2)), target(), 10, key=0),
        "`key` must be a JAX random key",
    ),
    "draw: key is an array of keys": (
        lambda key: vi.draw(
            vi.MeanField(jnp.zeros(2)), target(), 10, key=jr.split(key, 2)
        ),
        "`key` must be one key",
    ),
}


@pytest.mark.parametrize("name", on_the_way)
def test_fails_in_words(name, getkey):
    act, match = on_the_way[name]
    with pytest.raises(ValueError, match=f"(?s){match}"):
        act(getkey())


# {name: (shape, support)}: supports of vectors and matrices want axes of their own, and
# bounds that are arrays want parameters that are as large.
misfits = {
    "simplex of a scalar": ((), constraints.simplex),
    "simplex of nothing": ((0,), constraints.simplex),
    "ordered scalar": ((), constraints.ordered_vector),
    "positive ordered scalar": ((), constraints.positive_ordered_vector),
    "real vector of a scalar": ((), constraints.real_vector),
    "real matrix of a vector": ((3,), constraints.real_matrix),
    "l1 ball of a scalar": ((), constraints.l1_ball),
    "zero sum of a scalar": ((), constraints.zero_sum(1)),
    "zero sum of too few axes": ((3,), constraints.zero_sum(2)),
    "correlations of a vector": ((3,), constraints.corr_cholesky),
    "correlations not square": ((3, 2), constraints.corr_matrix),
    "cholesky not square": ((2, 3), constraints.lower_cholesky),
    "covariance not square": ((3, 2), constraints.positive_definite),
    "bounds of another length": ((2,), constraints.interval(np.zeros(3), np.ones(3))),
    "bounds larger than a scalar": ((), constraints.interval(np.zeros(3), np.ones(3))),
    "bounds larger than one": ((1,), constraints.greater_than(np.zeros(3))),
    "negative length": (-1, constraints.real),
}


@pytest.mark.parametrize("name", misfits)
def test_a_shape_that_does_not_fit_its_support(name):
    shape, support = misfits[name]
    with pytest.raises(ValueError, match=r"(?s)shape.*(cannot|support)|negative"):
        vi.Param(shape, support)


def test_old_style_keys_work():
    runs = [fit(jr.PRNGKey(3)), fit(np.asarray(jr.PRNGKey(3))), fit(jr.key(3))]
    assert all(np.array_equal(run.losses, runs[2].losses) for run in runs)
    draws = [runs[0].draw(5, key=key) for key in (jr.PRNGKey(1), jr.key(1))]
    assert np.array_equal(draws[0].x, draws[1].x)


# {name: (the log density, the words that tell what is wrong)}.
hopeless = {
    "gradient": (
        lambda params: -(params["a"] ** 2) + jnp.sqrt(-1.0 - params["b"] ** 2),
        r"log density is nan.*gradient is not finite in `b`.*'b': 0\.0.*initial=",
    ),
    "value": (
        lambda params: jnp.log(0.0 * params["a"] ** 2) - params["b"] ** 2,
        r"log density is -inf.*initial=",
    ),
}


@pytest.mark.parametrize("name", hopeless)
def test_no_finite_starting_point(name, getkey):
    fn, match = hopeless[name]
    nowhere = vi.from_log_density(fn, {"a": vi.Param(), "b": vi.Param()})
    with pytest.raises(ValueError, match=f"(?s){match}") as e:
        fit(getkey(), fitted=nowhere)
    if name == "gradient":
        assert "not finite in `a`" not in str(e.value)


def test_a_run_that_fails_names_the_parameter(getkey):
    nowhere = vi.from_log_density(hopeless["gradient"][0], {"a": 0.0, "b": 0.0})
    family = vi.MeanField(jnp.zeros(2))
    match = "(?s)learning rate.*gradient is not finite in `b`"
    with pytest.raises(vi.FitError, match=match) as e:
        fit(getkey(), fitted=nowhere, family=family, max_steps=200)
    assert eqx.tree_equal(e.value.fit.family, family)
    assert e.value.fit.result == vi.RESULTS.nonfinite


def test_a_callback_that_raises(getkey):
    def broken(fit_so_far):
        raise RuntimeError("my own mistake")

    with pytest.raises(vi.FitError, match="RuntimeError.*my own mistake") as e:
        fit(getkey(), callbacks=broken, callback_every=2)
    assert e.value.fit.num_steps == 2
    assert isinstance(e.value.__cause__, RuntimeError)


def test_not_inside_jit(getkey, tmp_path):
    match = "`callbacks` and `checkpoint` need the host.*jax.jit"
    for options in ({"callbacks": print}, {"checkpoint": tmp_path / "fit.npz"}):
        with pytest.raises(ValueError, match=match):
            jax.jit(lambda key, options=options: fit(key, **options).losses)(getkey())
    with pytest.raises(ValueError, match="`resume` works on the host"):
        jax.jit(lambda key: fit(key).resume(3).losses)(getkey())


def test_resume_of_several_fits(getkey):
    fits = eqx.filter_vmap(lambda key: fit(key, throw=False))(jr.split(getkey(), 2))
    with pytest.raises(ValueError, match="2 fits in one.*jax.tree.map"):
        fits.resume(3)


def test_what_is_asked_of_a_fit(getkey, tmp_path):
    run = fit(getkey())
    with pytest.raises(ValueError, match="`max_steps`.*whole number.*-1"):
        run.resume(-1, progress=False)
    with pytest.raises(ValueError, match="`stop` must be a stopping rule.*3"):
        run.resume(3, stop=3, progress=False)
    with pytest.raises(ValueError, match="`method` must be a method.*0.1"):
        run.resume(3, method=0.1, progress=False)
    with pytest.raises(ValueError, match="`callbacks` must be functions"):
        run.resume(3, callbacks=1, progress=False)
    for num_draws in (0, -1, True, 10.0):
        match = f"`num_draws` must be a whole number of at least 1.*{num_draws}"
        with pytest.raises(ValueError, match=match):
            run.draw(num_draws, key=getkey())
    with pytest.raises(ValueError, match="`key` must be a JAX random key.*0"):
        run.draw(10, key=0)
    with pytest.raises(ValueError, match="at least 2 draws.*only 1"):
        vi.elbo(run.draw(1, key=getkey()))
    with pytest.raises(ValueError, match="tail of 24 weights.*at least 25"):
        vi.pareto_khat(run.draw(24, key=getkey()))
    with pytest.raises(ValueError, match="`path` is .*no folder"):
        vi.save(tmp_path / "no" / "fit.npz", run)
    with pytest.raises(FileNotFoundError):
        vi.load(tmp_path / "fit.npz", like=run)
    (tmp_path / "fit.npz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a file that this version of vijax wrote"):
        vi.load(tmp_path / "fit.npz", like=run)


def test_load_of_another_run(getkey, tmp_path):
    run, path = fit(getkey()), tmp_path / "fit.npz"
    vi.save(path, run)
    wider = vi.from_log_density(density, {"x": vi.Param(3)})
    like = fit(getkey(), fitted=wider, max_steps=0)
    with pytest.raises(ValueError, match="(?s)does not match `like`.*2.*3"):
        vi.load(path, like=like)


def test_resume_takes_names(getkey):
    run = fit(getkey(), max_steps=3).resume(3, method="advi", progress=False)
    assert type(run.problem.method) is vi.Averaging
    with pytest.raises(ValueError, match="There is no method called 'avi'"):
        run.resume(3, method="avi", progress=False)


def test_khat_of_weights_that_are_not_finite(getkey):
    half = vi.from_log_density(lambda params: jnp.log(params["x"]), {"x": vi.Param()})
    draws = vi.draw(vi.MeanField(jnp.zeros(1)), half, 100, key=getkey())
    with pytest.raises(ValueError, match=r"of 100 log weights are NaN.*supports"):
        vi.pareto_khat(draws)


def test_a_support_is_not_a_parameter():
    with pytest.raises(ValueError, match="is a support. Write `vi.Param"):
        vi.from_log_density(density, {"x": constraints.positive})


def test_a_table_would_lose_its_names():
    class Table:
        columns = ("x", "y")

    with pytest.raises(ValueError, match="is a table.*to_numpy"):
        vi.from_log_density(density, {"x": vi.Param()}, Table())


first_mean = lambda draws: vi.expectation(draws, lambda params: params["x"])


@pytest.mark.parametrize("use", [vi.elbo, vi.pareto_khat, vi.to_arviz, first_mean])
def test_a_fit_is_not_draws(use, getkey):
    run = fit(getkey(), max_steps=0)
    with pytest.raises(ValueError, match="must be a `vi.Draws`, but it is a Fit"):
        use(run)
