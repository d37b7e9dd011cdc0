"""Every feature of a PyMC model together with every other."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from .pymc_features import APART, build, outcome, PAIRS, X


# PyTensor's own compilation warns where there is no BLAS, or of how others set it up.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:pytensor"),
    pytest.mark.usefixtures("many_programs"),
]

QUICK = [{"batches", other} for other in ("dims", "two axes")] + [
    {"imputed", "predict"},
]


def _id(pair: frozenset[str]) -> str:
    return " and ".join(sorted(pair))


def _point(model: Any, target: vi.Target, x: jax.Array) -> dict[str, np.ndarray]:
    parts = target.unravel(x)
    names = {rv.name: model.rvs_to_values[rv].name for rv in model.free_RVs}
    return {names[name]: np.asarray(part) for name, part in parts.items()}


def _by_pymc(model: Any, target: vi.Target) -> Callable[[str, jax.Array], Any]:
    """PyMC's own log density, its gradient, or what of it is not the likelihood."""
    prior = [*model.free_RVs, *model.potentials]
    compiled = {
        "density": functools.partial(model.compile_logp, mode="FAST_COMPILE"),
        "slope": functools.partial(model.compile_dlogp, mode="FAST_COMPILE"),
        "prior": functools.partial(model.compile_logp, vars=prior, mode="FAST_COMPILE"),
    }

    def call(what: str, x: jax.Array) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compiled[what]()(_point(model, target, x))

    return call


def _check_batches(target: vi.Target, x: jax.Array, key: jax.Array) -> None:
    look = lambda i: jax.value_and_grad(target.batch(key, i).log_density)(x)
    values, slopes = jax.jit(jax.vmap(look))(jnp.arange(3))
    whole = target.log_density(x)
    np.testing.assert_allclose(values.mean(), whole, rtol=1e-9)
    assert np.ptp(values) > 0
    assert np.all(np.isfinite(slopes))


def _check_draws(target: vi.Target, by_pymc: Callable, key: jax.Array) -> vi.Draws:
    """The rows of the likelihood are the density less the prior and potentials."""
    draws = vi.draw(vi.MeanField(target.model.initial(), 0.2), target, 2, key=key)
    rows = draws.log_likelihood()
    for i, x in enumerate(draws.x):
        total = sum(float(value[i].sum()) for value in rows.values())
        expected = by_pymc("density", x) - by_pymc("prior", x)
        np.testing.assert_allclose(total, expected, rtol=1e-8)
    return draws


def _check_shapes(pair: frozenset[str], target: vi.Target, draws: vi.Draws) -> None:
    labels = target.model.labels(target.data)
    sizes = {dim: len(ticks) for dim, ticks in labels.coords.items()}
    shapes = {name: value.shape[1:] for name, value in draws.params.items()}
    shapes |= {name: value.shape for name, value in labels.observed.items()}
    for name, dims in labels.dims.items():
        known = [sizes.get(dim) for dim in dims]
        assert len(known) == len(shapes[name]), name
        pairs = zip(known, shapes[name], strict=True)
        assert all(n in (None, length) for n, length in pairs), name
    if "imputed" not in pair:
        assert labels.observed["y"].shape == outcome(pair).shape


def _check_predictions(pair: frozenset[str], draws: vi.Draws, key: jax.Array) -> None:
    new = draws.predict(key=key)
    assert all(np.all(np.isfinite(value)) for value in new.values())
    if "imputed" not in pair:
        assert new["y"].shape == (2, *outcome(pair).shape)


def _check_float32(model: Any, target: vi.Target, x: jax.Array) -> None:
    expected = target.log_density(x)
    with jax.enable_x64(False):
        narrow = vi.from_pymc(model)
        look = jax.jit(jax.value_and_grad(lambda x: narrow.log_density(x)))
        value, slope = look(x.astype(jnp.float32))
        assert value.dtype == slope.dtype == jnp.float32
        assert np.all(np.isfinite(slope))
        params = narrow.constrain(x.astype(jnp.float32))
        rows = narrow.model.log_likelihood(params, narrow.data)
    assert all(v.dtype == jnp.float32 for v in rows.values())
    np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "pair",
    [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in PAIRS],
    ids=_id,
)
def test_features_of_a_pair_go_together(pair, getkey):
    if pair in APART:
        error, words = APART[pair]
        with pytest.raises(error, match=words):
            vi.from_pymc(build(pair))
        return
    model, whole = build(pair), build(pair, whole=True)
    target = vi.from_pymc(model)
    by_pymc = _by_pymc(whole, target)
    x = target.model.initial() + 0.3 * jr.normal(getkey(), (target.dim,))
    value, slope = jax.jit(jax.value_and_grad(lambda x: target.log_density(x)))(x)
    np.testing.assert_allclose(value, by_pymc("density", x), rtol=1e-8)
    np.testing.assert_allclose(slope, by_pymc("slope", x), rtol=1e-6, atol=1e-7)
    assert np.all(np.isfinite(slope))
    if "batches" in pair:
        _check_batches(target, x, getkey())
    draws = _check_draws(target, by_pymc, getkey())
    if "dims" in pair:
        _check_shapes(pair, target, draws)
    if "data" in pair:
        new = target.with_data({"x": 2.0 * X})
        expected = _by_pymc(build(pair, whole=True, x=2.0 * X), target)("density", x)
        np.testing.assert_allclose(new.log_density(x), expected, rtol=1e-8)
    if "predict" in pair:
        _check_predictions(pair, draws, getkey())
    if "float32" in pair:
        _check_float32(model, target, x)
