"""Why a PyMC model is refused: one cause, one sentence, with the names in it."""

import numpy as np
import pytest

import vijax as vi

from .pymc_models import pm, rng, X, Y


pt = pytest.importorskip("pytensor.tensor")

# PyTensor's own compilation warns where there is no BLAS, or of how others set it up.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytensor")


def _opaque():
    from pytensor.compile.ops import wrap_py

    @wrap_py(itypes=[pt.dvector], otypes=[pt.dvector])
    def opaque(x):
        return np.asarray(x)

    slope = pm.Normal("slope")
    pm.Normal("y", opaque(slope * X[:, 0]), 1.0, observed=Y)


def _opaque_everywhere():
    pm.PolyaGamma("x", 2.0, 0.5)


def _no_density():
    a = pm.Normal("a")
    pm.CustomDist(
        "y",
        a,
        dist=lambda a, size: pt.sin(pm.Normal.dist(a, size=size)),
        observed=np.tanh(Y),
    )


def _shape_of_data():
    a = pm.Normal("a")
    known = pm.Data("known", (Y > 0).astype(float))
    pm.Normal("y", a * pt.sort(known[known > 0])[0], 1.0, observed=Y)


def _rows_with_a_value():
    y = pm.Minibatch(Y, batch_size=5)
    pm.Normal("y", pm.Normal("local", shape=5), 1.0, observed=y, total_size=20)


def _rows_with_a_dimension():
    y = pm.Minibatch(Y, batch_size=5)
    local = pm.Normal("local", dims="row")
    pm.Normal("y", local, 1.0, observed=y, total_size=20, dims="row")


def _length_written_down():
    y = pm.Minibatch(Y, batch_size=5)
    mean = pm.Normal("mu") * pt.ones(5) + np.arange(5)
    pm.Normal("y", mean, 1.0, observed=y, total_size=20)


def _one_draw_in_batches():
    y = pm.Minibatch(Y, batch_size=5)
    pm.MvNormal("y", pm.Normal("mu") * pt.ones(5), np.eye(5), observed=y, total_size=20)


REFUSED = {
    "an Op without a form": (_opaque, r"'y' is computed with `.*a gradient.*pm\.sample"),
    "all of it": (_opaque_everywhere, "'x' is computed with `_PolyaGamma"),
    "no log density": (_no_density, "no log density of 'y'.*pm.CustomDist"),
    "a mask of data": (_shape_of_data, "whose shape depends on the data.*pm.math.switch"),
    "a value for each row": (_rows_with_a_value, "'local' has a value for each row"),
    "a dimension of rows": (_rows_with_a_dimension, "'local' has a value for each row"),
    "a length written down": (
        _length_written_down,
        r"do not fit together in shape.*batch\.shape\[0\]",
    ),
    "one draw of many": (_one_draw_in_batches, "'y' is a single draw.*pm.Minibatch"),
}


@pytest.mark.parametrize(("write", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_has_its_cause(write, words):
    with pm.Model(coords={"row": range(5)}) as model:
        write()
    with pytest.raises(ValueError, match=words) as caught:
        vi.from_pymc(model)
    assert len(str(caught.value)) < 600


def test_a_long_list_of_names_is_cut():
    with pm.Model() as model:
        for i in range(30):
            pm.Normal(f"coefficient_{i}", shape=7)
        pm.Normal("y", 0.0, 1.0, observed=Y)
    text = repr(vi.from_pymc(model))
    assert "coefficient_0 (7,)" in text
    assert "and 22 more" in text
    assert len(text.splitlines()) <= 10


@pytest.mark.parametrize(
    "how",
    [
        *("constant", "minibatch"),
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("data", "large")),
    ],
)
def test_arrays_are_copied(how):
    y = rng.normal(size=2_000 if how == "large" else 20)
    with pm.Model() as model:
        mu = pm.Normal("mu")
        if how == "data":
            pm.Normal("y", mu, 1.0, observed=pm.Data("data", y))
        elif how == "minibatch":
            rows = pm.Minibatch(y, batch_size=5)
            pm.Normal("y", mu, 1.0, observed=rows, total_size=20)
        else:
            pm.Normal("y", mu, 1.0, observed=y)
    target = vi.from_pymc(model)
    new = target.with_data({name: y for name in target.data})
    x = target.model.initial()
    before = target.log_density(x)
    assert new.log_density(x) == before
    y[:] = 100.0
    assert target.log_density(x) == before
    assert new.log_density(x) == before
