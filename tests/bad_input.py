"""What the design calls bad input, and every **Raises** of the public functions.

Each case says what was given, what was expected and, where there is something to do,
what to do. `match` looks for the words that only this mistake would bring up.

The cases are in the `test_bad_*.py` of the wings, in tables `{name: (what the user does,
what the message must hold)}`. Every case of a table `at_once` fails before anything
compiles. Those of a table `on_the_way` make arrays of their own on the way: families do,
and so do splitting a key and a look at whether a point is inside some support.
"""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import contextlib
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vijax as vi


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


def on_host(x):
    return -0.5 * np.sum(x**2, axis=1), -x


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


@contextlib.contextmanager
def nothing_compiles(caplog):
    """Whatever happens in here, XLA is not called."""
    with caplog.at_level(logging.DEBUG), jax.log_compiles():
        yield
        compiled = [r.getMessage() for r in caplog.records if "XLA" in r.getMessage()]
    assert compiled == []


def at_once_tests(table):
    """A test of each case that fails before anything compiles."""

    @pytest.mark.parametrize("name", table)
    def test_fails_before_anything_compiles(name, getkey, caplog):
        act, match = table[name]
        key = getkey()
        with nothing_compiles(caplog), pytest.raises(ValueError, match=f"(?s){match}"):
            act(key)

    return test_fails_before_anything_compiles


def on_the_way_tests(table):
    """A test of each case that fails in words."""

    @pytest.mark.parametrize("name", table)
    def test_fails_in_words(name, getkey):
        act, match = table[name]
        with pytest.raises(ValueError, match=f"(?s){match}"):
            act(getkey())

    return test_fails_in_words
