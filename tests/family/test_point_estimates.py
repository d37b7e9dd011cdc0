"""Numbers beside a family: moments, draws and densities are those of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vijax as vi

from ..helpers import TRIL


INNER = vi.FullRank(jnp.array([1.0, 2.0, 3.0]), TRIL)
FAMILY = vi.PointEstimates(INNER, jnp.array([7.0, -8.0]), (1, 4))


def test_draws_have_the_estimates_in_their_places(getkey):
    key = getkey()
    x, log_prob = FAMILY.sample_and_log_prob(key)
    inner, expected = INNER.sample_and_log_prob(key)
    np.testing.assert_array_equal(x, [inner[0], 7.0, inner[1], inner[2], -8.0])
    assert log_prob == expected
    np.testing.assert_allclose(FAMILY.log_prob(x), expected)
    mirrored = FAMILY.mirror(x)[np.array([0, 2, 3])]
    np.testing.assert_allclose(mirrored, INNER.mirror(inner))


def test_moments():
    np.testing.assert_allclose(FAMILY.mean, [1.0, 7.0, 2.0, 3.0, -8.0])
    covariance = np.asarray(FAMILY.covariance)
    np.testing.assert_allclose(FAMILY.std**2, np.diagonal(covariance))
    np.testing.assert_allclose(covariance[np.ix_([0, 2, 3], [0, 2, 3])], TRIL @ TRIL.T)
    assert np.all(covariance[[1, 4]] == 0)
    assert np.all(covariance[:, [1, 4]] == 0)


def test_what_the_family_inside_does_not_know(getkey):
    flow = vi.Coupling(vi.MeanField(jnp.zeros(2)), key=getkey())
    family = vi.PointEstimates(flow, jnp.zeros(1), (0,))
    assert not hasattr(family, "mean")
    assert jax.vmap(family.sample)(jax.random.split(getkey(), 3)).shape == (3, 3)


@pytest.mark.parametrize("places", [(3,), (-1,), (1, 1), (2, 0)])
def test_places_are_checked(places):
    with pytest.raises(ValueError, match="`places` must be"):
        vi.PointEstimates(vi.MeanField(jnp.zeros(2)), jnp.zeros(len(places)), places)


def test_values_go_with_their_places():
    with pytest.raises(ValueError, match="`values` must be 1 floating"):
        vi.PointEstimates(vi.MeanField(jnp.zeros(2)), jnp.zeros(2), (1,))
