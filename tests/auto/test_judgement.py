"""What draws of one distribution see of the mass that another one leaves out."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import vijax as vi
from vijax._auto.judgement import misses_mass


@pytest.mark.parametrize(
    ("part", "is_missed"), [(0.5, True), (0.15, True), (0.01, False), (0.0, False)]
)
def test_a_mode_with_mass_is_missed(part, is_missed):
    # Two modes twenty sds apart; the family has one, and so of the evidence a part.
    x, log_q = np.linspace(-30, 30, 4_001), np.full(4_001, -np.log(60))
    with np.errstate(divide="ignore"):
        first = np.log(1 - part) + norm.logpdf(x, -10)
        log_p = np.logaddexp(first, np.log(part) + norm.logpdf(x, 10))
    family = vi.FullRank(jnp.array([-10.0]), scale=1.0)
    evidence = float(np.log(1 - part))
    assert misses_mass(family, evidence, x[:, None], log_q, log_p) == is_missed


def test_draws_without_a_finite_density_see_nothing():
    family = vi.FullRank(jnp.zeros(1), scale=1.0)
    nowhere = np.full(3, -np.inf)
    assert not misses_mass(family, 0.0, np.zeros((3, 1)), np.zeros(3), nowhere)
