"""All distributions of PyMC as all that they can be in a model."""

import pytest

from .pymc_roles import ABSENT, ROLES, verdict
from .pymc_zoo import pm, ZOO


# PyTensor's own compilation warns where there is no BLAS, or of how others set it up.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:pytensor"),
    pytest.mark.usefixtures("many_programs"),
]

QUICK = {
    ("Cauchy", "truncated"),
    ("ExGaussian", "observed"),
    ("HurdleGamma", "batches"),
    ("ICAR", "free"),
    ("MvNormal", "batches"),
}
PAIRS = [(name, role) for name in ZOO for role in ROLES]
# Classes of which others are made, a function, and what has a density by simulation only.
NO_DISTRIBUTIONS = {
    *("Censored", "Continuous", "CustomDist", "DensityDist", "DiracDelta", "Discrete"),
    *("Distribution", "Lognormal", "Simulator", "SymbolicRandomVariable", "Truncated"),
    *("WishartBartlett",),
}


def test_the_zoo_has_all_distributions():
    assert ZOO.keys() | NO_DISTRIBUTIONS == set(pm.distributions.__all__)


@pytest.mark.parametrize(
    ("name", "role"),
    [p if p in QUICK else pytest.param(*p, marks=pytest.mark.slow) for p in PAIRS],
)
def test_density_and_gradient_are_those_of_pymc(name, role):
    kind, words = verdict(name, role)
    assert (kind == "none") == (name in ABSENT[role]), words
    if name == "PolyaGamma":
        assert kind == "refused"
        assert "'y'" in words or "'x'" in words
        assert "_PolyaGamma" in words
        assert "pm.sample" in words
    else:
        assert kind in ("right", "none"), words
