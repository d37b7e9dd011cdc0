"""Bad input to objectives."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import pytest

import vijax as vi

from ..bad_input import at_once_tests


pytestmark = pytest.mark.usefixtures("as_for_users")


at_once = {
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
}


test_fails_before_anything_compiles = at_once_tests(at_once)
