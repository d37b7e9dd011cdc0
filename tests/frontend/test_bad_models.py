"""Bad input to the front ends: densities, parameters and likelihoods."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import vijax as vi

from ..bad_input import at_once_tests, density, likelihood, log_density, param, rowwise


pytestmark = pytest.mark.usefixtures("as_for_users")


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
    "log density: a loop of unknown length": (
        lambda key: log_density(
            lambda params: (
                -lax.while_loop(lambda x: x < 9.0, lambda x: x + params["x"][0] ** 2, 0.0)
            )
        ),
        "not its gradient.*while_loop.*lax.scan",
    ),
    "log density: on the host, without a gradient": (
        lambda key: log_density(
            lambda params: jax.pure_callback(
                lambda x: np.zeros(()), jax.ShapeDtypeStruct((), float), params["x"]
            )
        ),
        "not its gradient.*jax.pure_callback.*jax.custom_vjp",
    ),
    "likelihood: a loop of unknown length": (
        lambda key: likelihood(
            log_likelihood=lambda params, y: lax.while_loop(
                lambda x: jnp.all(x < 9.0), lambda x: x + params["x"] ** 2, y
            )
        ),
        "not its gradient.*lax.scan",
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
    "params: no entries": (
        lambda key: vi.from_log_density(lambda params: 0.0, {"x": vi.Param((0, 3))}),
        "parameters have no entries",
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
}


test_fails_before_anything_compiles = at_once_tests(at_once)


def test_a_support_is_not_a_parameter():
    with pytest.raises(ValueError, match="is a support. Write `vi.Param"):
        vi.from_log_density(density, {"x": constraints.positive})


def test_a_table_would_lose_its_names():
    class Table:
        columns = ("x", "y")

    with pytest.raises(ValueError, match="is a table.*to_numpy"):
        vi.from_log_density(density, {"x": vi.Param()}, Table())
