"""Bad input to batches. Every case fails before anything compiles."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are among what is tried here.

import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi

from ..bad_input import nothing_compiles
from .minibatches import (
    E,
    encoded,
    linear,
    linear_target,
    log_prior,
    normal_target,
    other_target,
)


M = encoded(10, 6)
y = np.arange(10.0)
whole_number = "`batch_size` must be a whole number of at least 1"
at_once = {
    "two ellipses": (lambda: vi.Minibatch((E, 2, E)), r"`batch_size`.*two `\.\.\.`"),
    "two ellipses, plain": (lambda: linear_target(M, (E, E)), r"two `\.\.\.`"),
    "zero": (lambda: vi.Minibatch(0), f"{whole_number}.*it is 0"),
    "zero on an axis": (lambda: linear_target(M, (2, 0)), f"{whole_number}.*it is 0"),
    "zero with a seed": (lambda: linear_target(M, [(0, 1)]), f"{whole_number}.*it is 0"),
    "negative": (lambda: vi.Minibatch((2, -3)), f"{whole_number}.*it is -3"),
    "float": (lambda: vi.Minibatch((2, 3.0)), f"{whole_number}.*it is 3.0"),
    "float array": (lambda: vi.Minibatch(np.ones(2)), f"{whole_number}.*1\\."),
    "boolean": (lambda: vi.Minibatch(True), f"{whole_number}.*it is True"),
    "boolean on an axis": (lambda: vi.Minibatch((2, True)), f"{whole_number}.*is True"),
    "NumPy boolean": (lambda: vi.Minibatch(np.bool_(1)), f"{whole_number}.*True"),
    "string": (lambda: vi.Minibatch("10"), f"{whole_number}.*it is '10'"),
    "string on an axis": (lambda: vi.Minibatch((2, "3")), f"{whole_number}.*it is '3'"),
    "bytes": (lambda: vi.Minibatch(b"10"), f"{whole_number}.*it is b'10'"),
    "dictionary": (lambda: vi.Minibatch({2: 3}), f"{whole_number}.*it is {{2: 3}}"),
    "set": (lambda: vi.Minibatch({2, 3}), f"{whole_number}.*it is {{2, 3}}"),
    "a class": (lambda: linear_target(M, vi.Minibatch), whole_number),
    "a triple": (lambda: vi.Minibatch([(2, 3, 4)]), rf"{whole_number}.*\(2, 3, 4\)"),
    "nested": (lambda: vi.Minibatch([((2, 3), 4)]), rf"{whole_number}.*\(2, 3\)"),
    "seed: negative": (lambda: vi.Minibatch([(2, -1)]), "seed.*at least 0.*-1"),
    "seed: float": (lambda: vi.Minibatch([(2, 0.5)]), "seed.*whole number.*0.5"),
    "seed: boolean": (lambda: vi.Minibatch([(2, True)]), "seed.*whole number.*True"),
    "seed: string": (lambda: vi.Minibatch([(2, "a")]), "seed.*whole number.*'a'"),
    "seed: None": (lambda: vi.Minibatch([(2, None)]), "seed.*whole number.*None"),
    "seed: key": (lambda: vi.Minibatch([(2, np.ones(2))]), "seed.*whole number"),
    "seed: huge": (lambda: linear_target(y, [(2, 2**70)]), "seed"),
    "seed alone": (lambda: vi.Minibatch([(None, 2)]), f"{whole_number}.*None"),
    "too large": (lambda: linear_target(y, 11), "`batch_size` is 11.*10.*from 1 to 10"),
    "too large, columns": (
        lambda: linear_target(M, (2, 7)),
        "`batch_size` is 7.*length 6.*from 1 to 6",
    ),
    "too large, replaced": (
        lambda: linear_target(y, 11, replace=True),
        "`batch_size` is 11.*10",
    ),
    "too large, seed": (lambda: linear_target(y, [(11, 3)]), "`batch_size` is 11.*10"),
    "with_batch_size: too large": (
        lambda: linear_target(M).with_batch_size((E, 7)),
        "`batch_size` is 7.*length 6",
    ),
    "lengths, rows": (
        lambda: linear_target({"a": y, "b": np.ones(9)}, 2),
        r"lengths are \{.*'a'.*10.*'b'.*9",
    ),
    "lengths, columns": (
        lambda: linear_target({"a": M, "b": np.ones((10, 5))}, (2, 3)),
        r"must agree.*entry 1.*'a'\] axis 1.: 6.*'b'\] axis 1.: 5",
    ),
    "lengths, last axis": (
        lambda: linear_target({"a": M, "b": np.ones((10, 5, 4))}, (E, 3)),
        r"must agree.*'a'\] axis 1.: 6.*'b'\] axis 2.: 4",
    ),
    "lengths, one and two": (
        lambda: linear_target((M, np.ones((2, 1))), (3, 2)),
        "10.*2",
    ),
    "too many entries": (
        lambda: linear_target({"a": y, "b": M}, (2, 3, 4)),
        r"`batch_size` is 4.*no array.*\(10,\).*\(10, 6\)",
    ),
    "too few axes for the ellipsis": (
        lambda: linear_target({"a": M, "b": y}, (2, E, 3)),
        r"2 axes besides `\.\.\.`.*'b'.*has 1.*\(10,\)",
    ),
    "total_size: too small": (
        lambda: linear_target(y, 2, total_size=9),
        "`total_size` is 9.*10",
    ),
    "total_size: that of the batch": (
        lambda: linear_target(y, 2, total_size=2),
        "`total_size` is 2.*10",
    ),
    "total_size: too few columns": (
        lambda: linear_target(M, 2, total_size=(None, 5)),
        "`total_size` is 5 along axis 1.*6",
    ),
    "total_size: too many axes": (
        lambda: linear_target(y, 2, total_size=(10, 6)),
        "`total_size` speaks of 2 axes, but the data have 1",
    ),
    "total_size: too many axes, ellipsis": (
        lambda: linear_target(M, 2, total_size=(10, E, 6, 6)),
        "`total_size` speaks of 3 axes, but the data have 2",
    ),
    "total_size: of no columns": (
        lambda: linear_target(np.ones((10, 0)), 2, total_size=(20, 5)),
        "`total_size`.*5",
    ),
    "total_size: two ellipses": (
        lambda: vi.Minibatch(2, total_size=(E, 2, E)),
        r"`total_size`.*two `\.\.\.`",
    ),
    "total_size: zero": (
        lambda: vi.Minibatch(2, total_size=0),
        "`total_size` must be a whole number of at least 1.*it is 0",
    ),
    "total_size: float": (
        lambda: vi.Minibatch(2, total_size=1e6),
        "`total_size` must be a whole number.*1000000.0",
    ),
    "total_size: boolean": (
        lambda: vi.Minibatch(2, total_size=True),
        "`total_size` must be a whole number.*True",
    ),
    "total_size: string": (
        lambda: vi.Minibatch(2, total_size="auto"),
        "`total_size` must be a whole number.*'auto'",
    ),
    "total_size: seeds": (
        lambda: vi.Minibatch(2, total_size=[(20, 42)]),
        r"`total_size` must be a whole number.*\(20, 42\)",
    ),
    "dtype: unknown": (lambda: vi.Minibatch(2, dtype="int33"), "`dtype`.*'int33'"),
    "dtype: number": (lambda: vi.Minibatch(2, dtype=32), "`dtype`.*32"),
    "dtype: object": (lambda: linear_target(y, 2, dtype=object), "`dtype`.*object"),
    "dtype: string": (lambda: linear_target(y, 2, dtype="U3"), "`dtype`.*U3"),
    "dtype: time": (lambda: linear_target(y, 2, dtype="M8[s]"), "`dtype`.*M8"),
    "replace: string": (lambda: vi.Minibatch(2, replace="yes"), "`replace`.*'yes'"),
    "replace: number": (lambda: vi.Minibatch(2, replace=1), "`replace`.*1"),
    "replace: None": (lambda: vi.Minibatch(2, replace=None), "`replace`.*None"),
    "all rows, hard-coded": (
        lambda: normal_target(y, 3, lambda params, y: y * params["mu"] + np.ones(10)),
        r"`log_likelihood`.*\(3,\).*\(10,\)",
    ),
    "all rows, a parameter each": (
        lambda: vi.from_likelihood(
            log_prior, linear, {"mu": vi.Param(10)}, y, batch_size=3
        ),
        r"`log_likelihood`.*\(10,\).*\(3,\)|`log_likelihood`.*\(3,\).*\(10,\)",
    ),
    "all columns, hard-coded": (
        lambda: normal_target(
            M, (3, 2), lambda params, y: y * params["mu"] + np.ones((1, 6))
        ),
        r"`log_likelihood`.*\(3, 2\).*\(1, 6\)",
    ),
    "all rows, whatever it is given": (
        lambda: normal_target(y, 3, lambda params, y: np.ones(10) * params["mu"]),
        r"`log_likelihood`.*\(3,\).*\(10,\)",
    ),
    "added up": (
        lambda: normal_target(y, 3, lambda params, y: jnp.sum(y * params["mu"])),
        r"`log_likelihood`.*one value a row.*shape \(\)",
    ),
    "NaN": (lambda: linear_target(np.full(10, np.nan), 3), "`data` has 10 NaN"),
    "NaN, to be integers": (
        lambda: linear_target(np.full(10, np.nan), 3, dtype="int32"),
        "`data` has 10 NaN",
    ),
    "with_data: NaN": (
        lambda: linear_target(M, (2, 3)).with_data(np.where(M == 7, np.nan, M)),
        "`data` has 1 NaN",
    ),
    "a log density as a whole": (
        lambda: other_target(1).with_batch_size((2, 3)),
        "from_likelihood|no data",
    ),
}


@pytest.mark.usefixtures("as_for_users")
@pytest.mark.parametrize("name", at_once)
def test_fails_before_anything_compiles(name, caplog):
    act, match = at_once[name]
    with nothing_compiles(caplog), pytest.raises(ValueError, match=f"(?s){match}"):
        act()
