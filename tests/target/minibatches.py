"""Targets in batches, and data that tell where a batch was taken from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi


E = Ellipsis
slow = lambda *case: pytest.param(*case, marks=pytest.mark.slow)


def log_prior(params):
    return -0.5 * jnp.sum(params["mu"] ** 2)


def linear(params, rows):
    """A likelihood that says what its weight is: linear in the first array."""
    return params["mu"] * jax.tree.leaves(rows)[0].astype(float)


def linear_target(data, batch_size=None, **options):
    if options:
        batch_size = vi.Minibatch(batch_size, **options)
    params = {"mu": vi.Param()}
    return vi.from_likelihood(log_prior, linear, params, data, batch_size=batch_size)


def encoded(*shape, dtype: type = float):
    """An array whose entries say where they are."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def decoded(batch, shape):
    """From where along each axis a batch of `encoded(*shape)` was taken. Fails unless it
    is what `np.ix_` takes of that array there."""
    batch = np.asarray(batch)
    assert np.all((batch >= 0) & (batch < np.prod(shape)))
    positions = np.unravel_index(batch.astype(int), shape)
    indices = []
    for axis, position in enumerate(positions):
        first = tuple(slice(None) if i == axis else 0 for i in range(batch.ndim))
        indices.append(position[first])
    assert np.array_equal(encoded(*shape)[np.ix_(*indices)], batch)
    return indices


def matrix_data(n=8, m=6):
    """A matrix, and for each entry which row and column it is in."""
    return encoded(n, m), np.arange(n)[:, None], np.arange(m)[None, :]


def factorization_target(batch_size):
    """A matrix as a product of factors, of which rows and columns are drawn."""
    rng = np.random.default_rng(1)
    matrix = 3 * rng.normal(size=(6, 5)) + np.arange(6)[:, None]
    data = matrix, np.arange(6)[:, None], np.arange(5)[None, :]

    def log_likelihood(params, data):
        matrix, rows, columns = data
        found = params["u"][rows[:, 0]] @ params["v"][columns[0]].T
        return -0.5 * (matrix - found) ** 2

    prior = lambda params: -0.5 * sum(jnp.sum(p**2) for p in params.values())
    params = {"u": vi.Param((6, 2)), "v": vi.Param((5, 2))}
    return vi.from_likelihood(prior, log_likelihood, params, data, batch_size=batch_size)  # pyright: ignore[reportArgumentType]  # `sum` starts from 0.


def normal_target(y, batch_size, log_likelihood=None):
    """The mean of a normal of standard deviation three, whose own prior is N(0, 1)."""
    default = lambda params, y: -0.5 * ((y - params["mu"]) / 3.0) ** 2
    params = {"mu": vi.Param()}
    log_likelihood = log_likelihood or default
    return vi.from_likelihood(log_prior, log_likelihood, params, y, batch_size=batch_size)


def other_target(dim):
    return vi.from_log_density(lambda params: log_prior(params), {"mu": vi.Param(dim)})
