import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest


matplotlib.use("Agg")


@pytest.fixture
def tidy():
    """Every picture can be drawn, and settings are as they were."""
    before = matplotlib.rcParams.copy()
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
    assert matplotlib.rcParams == before


@pytest.fixture
def rng(request):
    return np.random.default_rng(len(request.node.name))
