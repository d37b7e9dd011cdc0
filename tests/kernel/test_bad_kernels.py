"""Bad input to kernels."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import numpy as np
import pytest

import vijax as vi

from ..bad_input import at_once_tests


pytestmark = pytest.mark.usefixtures("as_for_users")


at_once = {
    "RBF: bandwidth zero": (
        lambda key: vi.RBF(0.0),
        "`bandwidth` must be a positive number.*0.0",
    ),
    "RBF: bandwidth infinite": (
        lambda key: vi.RBF(np.inf),
        "`bandwidth` must be a positive number.*inf",
    ),
    "RBF: bandwidth is a word": (
        lambda key: vi.RBF("median"),
        "`bandwidth` must be a positive number.*'median'",
    ),
    "RBF: two bandwidths": (
        lambda key: vi.RBF([1.0, 2.0]),
        r"`bandwidth` must be a positive number.*\[1.0, 2.0\]",
    ),
    "IMQ: bandwidth negative": (
        lambda key: vi.IMQ(-1.0),
        "`bandwidth` must be a positive number.*-1.0",
    ),
    "IMQ: exponent positive": (
        lambda key: vi.IMQ(exponent=0.5),
        "`exponent` must be between -1 and 0.*0.5",
    ),
    "IMQ: exponent -1": (
        lambda key: vi.IMQ(exponent=-1),
        "`exponent` must be between -1 and 0.*-1",
    ),
    "IMQ: exponent is a word": (
        lambda key: vi.IMQ(exponent="a"),
        "`exponent` must be between -1 and 0.*'?a'?",
    ),
    "MixtureKernel: no kernel": (
        lambda key: vi.MixtureKernel([]),
        "at least one kernel",
    ),
    "MixtureKernel: no list": (
        lambda key: vi.MixtureKernel(vi.RBF()),
        "`kernels`",
    ),
    "MixtureKernel: something else": (
        lambda key: vi.MixtureKernel([vi.RBF(), 3.0]),
        r"`kernel` must be a kernel such as `vi\.RBF\(\)`.*3.0",
    ),
    "MixtureKernel: number of weights": (
        lambda key: vi.MixtureKernel([vi.RBF(), vi.IMQ()], [1.0]),
        "2 kernels and 1 weights.*one weight for each",
    ),
    "MixtureKernel: negative weight": (
        lambda key: vi.MixtureKernel([vi.RBF(), vi.IMQ()], [1.0, -1.0]),
        r"`weights` must be positive.*-1.0",
    ),
    "MixtureKernel: infinite weight": (
        lambda key: vi.MixtureKernel([vi.RBF(), vi.IMQ()], [np.inf, 1.0]),
        r"`weights` must be positive.*inf",
    ),
}


test_fails_before_anything_compiles = at_once_tests(at_once)
