"""Discrete sites of NumPyro models: summed out as the model has them, or refused."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam
from scipy.stats import norm

import vijax as vi
from vijax._frontend import numpyro_model


funsor = pytest.importorskip("funsor")
from numpyro.contrib.funsor import markov  # noqa: E402
from numpyro.ops.indexing import Vindex  # noqa: E402


sample: Any = numpyro.sample
rng = np.random.default_rng(1)
SUMMED = {"enumerate": "parallel"}
Y = rng.normal(size=5)
MATRIX = rng.normal(size=(3, 4))
PERSON = np.array([0, 0, 1, 1, 2])


def value(target, **params):
    """The log density at constrained parameters, Jacobian included."""
    x = target.unconstrain({name: jnp.asarray(v, float) for name, v in params.items()})
    return jax.jit(lambda x: target.log_density(x))(x)


def joint(shape, num_values, log_joint):
    """The logarithm of a sum over all joint values of an array of discrete variables."""
    every = itertools.product(range(num_values), repeat=int(np.prod(shape)))
    terms = [log_joint(np.array(values).reshape(shape)) for values in every]
    return jax.nn.logsumexp(jnp.stack([jnp.asarray(term) for term in terms]))


def test_a_site_in_two_plates_with_vindex():
    def model(y):
        locs = sample("locs", dist.Normal(0.0, 2.0).expand([2, 3]).to_event(2))
        with numpyro.plate("columns", 4, dim=-1), numpyro.plate("rows", 3, dim=-2):
            k = sample("k", dist.Categorical(jnp.array([0.2, 0.3, 0.5])), infer=SUMMED)
            sample("y", dist.Normal(Vindex(locs)[1, k], 1.0), obs=y)

    locs = np.arange(6.0).reshape(2, 3) / 3
    parts = np.log([0.2, 0.3, 0.5]) + norm.logpdf(MATRIX[..., None], locs[1], 1.0)
    expected = norm.logpdf(locs, 0.0, 2.0).sum() + jax.nn.logsumexp(parts, axis=-1).sum()
    target = vi.from_numpyro(model, MATRIX)
    np.testing.assert_allclose(value(target, locs=locs), expected, rtol=1e-10)


def test_a_site_within_another():
    # A class a row, and within it a part a column.
    def model(y):
        share = sample("share", dist.Beta(2.0, 2.0))
        with numpyro.plate("rows", 3, dim=-2):
            k = sample("k", dist.Bernoulli(share), infer=SUMMED)
            with numpyro.plate("columns", 4, dim=-1):
                j = sample("j", dist.Bernoulli(0.2 + 0.5 * k), infer=SUMMED)
                sample("y", dist.Normal(2.0 * k - j, 1.0), obs=y)

    def row(y, share):
        def log_joint(values):
            k, j = values[0], values[1:]
            p = 0.2 + 0.5 * k
            out = np.log(share if k else 1 - share)
            out += np.sum(np.log(np.where(j, p, 1 - p)))
            return out + norm.logpdf(y, 2.0 * k - j, 1.0).sum()

        return joint((5,), 2, log_joint)

    s = 0.3
    expected = sum(row(y, s) for y in MATRIX)
    expected += np.log(6 * s * (1 - s)) + np.log(s * (1 - s))
    target = vi.from_numpyro(model, MATRIX)
    np.testing.assert_allclose(value(target, share=s), expected, rtol=1e-10)


TO = np.array([[0.8, 0.2], [0.3, 0.7]])


def chain(y, locs):
    """A hidden Markov chain by its forward recursion."""
    state = jnp.log(jnp.array(TO[0]))
    for t in range(len(y)):
        if t > 0:
            state = jax.nn.logsumexp(state[:, None] + jnp.log(jnp.array(TO)), axis=0)
        state = state + jnp.asarray(norm.logpdf(y[t], locs, 1.0))
    return jax.nn.logsumexp(state)


def with_scan(y):
    locs = sample("locs", dist.Normal(0.0, 2.0).expand([2]).to_event(1))

    def step(k, y):
        k = sample("k", dist.Categorical(jnp.array(TO)[k]), infer={**SUMMED})
        sample("y", dist.Normal(locs[k], 1.0), obs=y)
        return k, None

    scan(step, 0, y)


def with_markov(y):
    locs = sample("locs", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    k = 0
    for t in markov(range(len(y))):
        k = sample(f"k{t}", dist.Categorical(jnp.array(TO)[k]), infer=SUMMED)
        sample(f"y{t}", dist.Normal(locs[k], 1.0), obs=y[t])


@pytest.mark.parametrize("model", [with_scan, with_markov])
def test_a_hidden_markov_chain(model):
    locs = np.array([-0.5, 1.0])
    expected = norm.logpdf(locs, 0.0, 2.0).sum() + chain(Y, locs)
    target = vi.from_numpyro(model, Y)
    np.testing.assert_allclose(value(target, locs=locs), expected, rtol=1e-10)


def test_a_class_of_a_person_in_its_own_plate_is_right():
    # What the refusal of the model below advises: rows along an axis of the persons.
    y, mask = np.zeros((2, 3)), np.zeros((2, 3), bool)
    for i, person in enumerate(PERSON):
        place = int(mask[:, person].sum())
        y[place, person], mask[place, person] = Y[i], True

    def model(y, mask):
        means = sample("means", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
        with numpyro.plate("persons", 3, dim=-1):
            k = sample("k", dist.Bernoulli(0.4), infer=SUMMED)
            with numpyro.plate("rows", 2, dim=-2), numpyro.handlers.mask(mask=mask):
                sample("y", dist.Normal(means[k], 1.0), obs=y)

    means = np.array([0.2, 1.5])
    expected = norm.logpdf(means, 0.0, 5.0).sum()
    for person in range(3):
        rows = norm.logpdf(Y[person == PERSON][:, None], means, 1.0).sum(axis=0)
        expected += jax.nn.logsumexp(np.log([0.6, 0.4]) + rows)
    target = vi.from_numpyro(model, y, mask)
    np.testing.assert_allclose(value(target, means=means), expected, rtol=1e-10)


def class_of_a_person(y):
    means = sample("means", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    with numpyro.plate("persons", 3):
        k = sample("k", dist.Bernoulli(0.4), infer=SUMMED)
    with numpyro.plate("rows", 5):
        sample("y", dist.Normal(means[k][..., PERSON], 1.0), obs=y)


def reparameterized(y):
    with numpyro.plate("persons", 3):
        k = sample("k", dist.Bernoulli(0.5), infer=SUMMED)
        mu = sample("mu", dist.Normal(k, 1.0))
    with numpyro.plate("rows", 5):
        sample("y", dist.Normal(mu[..., PERSON], 1.0), obs=y)


def by_factor(y):
    x = sample("x", dist.Normal(0.0, 1.0))
    with numpyro.plate("persons", 3):
        k = sample("k", dist.Bernoulli(0.5), infer=SUMMED)
    numpyro.factor("y", jnp.where(k == 1, x, y[0]))


def global_class(y, size):
    means = sample("means", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    k = sample("k", dist.Bernoulli(0.4), infer=SUMMED)
    with numpyro.plate("rows", 5, subsample_size=size) as i:
        sample("y", dist.Normal(means[k], 1.0), obs=y[i])


def stacked(y):
    with numpyro.plate("rows", 5):
        a = sample("a", dist.Normal(0.0, 1.0))
        k = sample("k", dist.Bernoulli(0.5), infer=SUMMED)
        sample("y", dist.Normal(jnp.vstack([a, k])[0], 1.0), obs=y)


def shifted_support(y):
    mu = sample("mu", dist.Normal(0.0, 1.0))
    k = sample("k", dist.DiscreteUniform(3, 5), infer=SUMMED)
    sample("y", dist.Normal(mu + k, 1.0), obs=y[0])


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        (class_of_a_person, (Y,), "`y` depends on.*`k`.*its plate 'persons'"),
        (
            reparam(reparameterized, config={"mu": LocScaleReparam(0)}),
            (Y,),
            "`y` depends on.*`k`.*its plate 'persons'",
        ),
        (by_factor, (Y,), "`y` depends on.*`k`.*its plate 'persons'"),
        (global_class, (Y, 2), "`y` is seen in batches.*'rows'.*`k` outside"),
        (stacked, (Y,), "`k` summed out.*raised"),
    ],
)
def test_what_numpyro_would_sum_wrongly_is_refused(model, args, words):
    with pytest.raises(ValueError, match=words):
        vi.from_numpyro(model, *args)


def test_values_that_do_not_begin_at_zero():
    # NumPyro gives the site 0, 1, 2, which are none of its values.
    with pytest.raises(ValueError, match="`k` is not that of the model.* is -inf"):
        vi.from_numpyro(shifted_support, Y)


@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
def test_a_wrong_sum_is_found_by_trying_all_values(single, monkeypatch):
    y = Y.astype(np.float32) if single else Y
    with jax.enable_x64(not single):
        vi.from_numpyro(global_class, y, None)
        # Off by a thousandth, as no rounding is.
        right = numpyro_model.summed_log_density
        wrong = lambda *args: right(*args) + 1e-3
        monkeypatch.setattr(numpyro_model, "summed_log_density", wrong)
        same = lambda y: global_class(y, None)  # But compiled anew.
        with pytest.raises(ValueError, match="over the discrete sites `k` is not that"):
            vi.from_numpyro(same, y)


def test_a_global_class_without_batches_is_right():
    means = np.array([0.2, 1.5])
    rows = norm.logpdf(Y[:, None], means, 1.0).sum(axis=0)
    expected = norm.logpdf(means, 0.0, 5.0).sum()
    expected += jax.nn.logsumexp(np.log([0.6, 0.4]) + rows)
    target = vi.from_numpyro(global_class, Y, None)
    np.testing.assert_allclose(value(target, means=means), expected, rtol=1e-10)


def test_a_dictionary_that_sites_share_does_no_harm():
    # NumPyro writes into it what the axes of one of them are, and takes it for the other.
    def model(y):
        locs = sample("locs", dist.Normal(0.0, 2.0).expand([2]).to_event(1))

        def step(k, y):
            k = sample("k", dist.Categorical(jnp.array(TO)[k]), infer=SUMMED)
            sample("y", dist.Normal(locs[k], 1.0), obs=y)
            return k, None

        scan(step, 0, y)

    locs = np.array([-0.5, 1.0])
    expected = norm.logpdf(locs, 0.0, 2.0).sum() + chain(Y, locs)
    try:
        target = vi.from_numpyro(model, Y)
    except ValueError as e:
        assert "share one dictionary" in str(e)  # noqa: PT017
        return
    np.testing.assert_allclose(value(target, locs=locs), expected, rtol=1e-10)


# Batches ------------------------------------------------------------------------------

LONG_X, LONG_Y = rng.normal(size=(2, 60))
TALL = rng.normal(size=(60, 4))


def lines(x, y, size):
    share = sample("share", dist.Beta(2.0, 2.0))
    slopes = sample("slopes", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", 60, subsample_size=size) as i:
        k = sample("k", dist.Categorical(jnp.stack([share, 1 - share])), infer=SUMMED)
        sample("y", dist.Normal(slopes[k] * x[i], 0.5), obs=y[i])


def nested(y, size):
    share = sample("share", dist.Beta(2.0, 2.0))
    with numpyro.plate("rows", 60, subsample_size=size, dim=-2) as i:
        k = sample("k", dist.Bernoulli(share), infer=SUMMED)
        with numpyro.plate("columns", 4, dim=-1):
            j = sample("j", dist.Bernoulli(0.2 + 0.5 * k), infer=SUMMED)
            sample("y", dist.Normal(2.0 * k - j, 1.0), obs=y[i])


def chains(y, size):
    locs = sample("locs", dist.Normal(0.0, 2.0).expand([2]).to_event(1))

    def step(k, y):
        with numpyro.plate("rows", 60, subsample_size=size):
            y = numpyro.subsample(y, event_dim=0)
            k = sample("k", dist.Categorical(Vindex(jnp.array(TO))[k]), infer={**SUMMED})
            sample("y", dist.Normal(locs[k], 1.0), obs=y)
        return k, None

    scan(step, jnp.zeros(size or 60, int), y.T)


def tempered(x, y, size):
    with numpyro.handlers.scale(scale=0.5):
        lines(x, y, size)


@pytest.mark.parametrize(
    ("model", "args"),
    [(lines, (LONG_X, LONG_Y)), (nested, (TALL,)), (tempered, (LONG_X, LONG_Y))],
)
def test_an_epoch_of_batches_averages_to_the_whole(model, args, getkey):
    target, whole = (vi.from_numpyro(model, *args, size) for size in (10, None))
    x, key = 0.5 * jr.normal(getkey(), (target.dim,)), getkey()
    expected = jax.jit(lambda x: whole.log_density(x))(x)
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-12)
    batch = jax.jit(lambda step: target.batch(key, step).log_density(x))
    batches = [batch(step) for step in range(6)]
    assert np.std(batches) > 0.01
    np.testing.assert_allclose(np.mean(batches), expected, rtol=1e-12)


def test_chains_in_batches_are_right_or_refused(getkey):
    whole = vi.from_numpyro(chains, TALL, None)
    locs = np.array([-0.5, 1.0])
    expected = norm.logpdf(locs, 0.0, 2.0).sum() + sum(chain(y, locs) for y in TALL)
    np.testing.assert_allclose(value(whole, locs=locs), expected, rtol=1e-10)
    try:
        target = vi.from_numpyro(chains, TALL, 10)
    except ValueError as e:
        assert "subsample" in str(e)  # noqa: PT017
        return
    x, key = jnp.asarray(locs), getkey()
    batches = [target.batch(key, step).log_density(x) for step in range(6)]
    np.testing.assert_allclose(np.mean(batches), expected, rtol=1e-10)
