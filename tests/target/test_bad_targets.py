"""Bad input to targets: supports, starting points, data and batches."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import vijax as vi

from ..bad_input import (
    at_once_tests,
    density,
    likelihood,
    log_density,
    on_the_way_tests,
    param,
    target,
)


pytestmark = pytest.mark.usefixtures("as_for_users")


at_once = {
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
    "support: nothing in it": (
        lambda key: vi.Param((), constraints.interval(1.0, 0.0)),
        r"nothing in it.*\[1.0, 0.0\].*lower one comes first",
    ),
    "support: nothing in one of them": (
        lambda key: vi.Param((2,), constraints.interval(0.0, np.array([1.0, 0.0]))),
        "nothing in it",
    ),
    "support: NaN": (
        lambda key: vi.Param((), constraints.greater_than(np.nan)),
        "nothing in it",
    ),
    "support: words": (
        lambda key: vi.Param((), constraints.interval("a", "b")),  # pyright: ignore[reportArgumentType]
        "bounds that are no numbers.*'a'",
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
}


test_fails_before_anything_compiles = at_once_tests(at_once)


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
    "data: NaN in an array of JAX": (
        lambda key: likelihood({"y": jnp.array([1.0, jnp.nan])}),
        r"`data\['y'\]` has 1 NaN among its 2 entries",
    ),
}


test_fails_in_words = on_the_way_tests(on_the_way)


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
