"""Bad input to stopping rules."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import pytest

import vijax as vi

from ..bad_input import at_once_tests


pytestmark = pytest.mark.usefixtures("as_for_users")


at_once = {
    "LossConvergence: window": (
        lambda key: vi.LossConvergence(window=10),
        "window of 10 steps.*Raise `window` to 800",
    ),
    "LossConvergence: window for its tolerance": (
        lambda key: vi.LossConvergence(window=800, tolerance=0.05),
        "window of 800 steps.*Raise `window` to 3200",
    ),
    "LossConvergence: tolerance": (
        lambda key: vi.LossConvergence(tolerance=0.0),
        "`tolerance` must be positive.*0",
    ),
    "ParameterConvergence: diff": (
        lambda key: vi.ParameterConvergence(diff="rel"),
        '`diff` must be "relative" or "absolute".*\'rel\'',
    ),
    "ParameterConvergence: every": (
        lambda key: vi.ParameterConvergence(every=0),
        "`every` must be a whole number of at least 1.*0",
    ),
    "ParameterConvergence: tolerance": (
        lambda key: vi.ParameterConvergence(tolerance=-1.0),
        "`tolerance` must be positive.*-1",
    ),
}


test_fails_before_anything_compiles = at_once_tests(at_once)
