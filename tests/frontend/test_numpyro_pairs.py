"""Every feature of a NumPyro model together with every other."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array
from numpyro.infer.util import log_likelihood, potential_energy

import vijax as vi

from .numpyro_by_hand import by_hand, ByHand
from .numpyro_features import (
    APART,
    arguments,
    BATCH,
    build,
    in_batches,
    OTHERS,
    outcome,
    PAIRS,
    ROWS,
    SCALE,
)


pytestmark = pytest.mark.usefixtures("many_programs")

QUICK = [
    *({"batches", other} for other in ("nested", "with_data", "condition")),
    *({"missing", "scale"}, {"predict", "seed"}, {"enumeration", "factor"}),
    *({"float32", "reparam"}, {"distribution mask", "log_likelihood"}),
]


@pytest.fixture(scope="module", autouse=True)
def _no_optimization():
    """Programs run a few times each: a compiler that tries hard takes twice the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def _id(pair: frozenset[str]) -> str:
    return " and ".join(sorted(pair))


def _plates(target: vi.Target) -> Any:
    """The name, the length and the batch of each plate that is seen in part."""
    return getattr(target.minibatch, "plates", ())


@eqx.filter_jit
def _density(target: vi.Target, points: Array) -> tuple[Array, Array]:
    return jax.vmap(jax.value_and_grad(target.log_density))(points)


@eqx.filter_jit
def _density_of_batch(target: vi.Target, x: Array, key: Array, step: Array) -> Any:
    return jax.value_and_grad(target.batch(key, step).log_density)(x)


@eqx.filter_jit
def _unconstrained(target: vi.Target, params: dict[str, Array]) -> Array:
    return jax.vmap(target.unconstrain)(params)


def _by_hand(
    pair: frozenset[str], target: vi.Target, data: dict[str, Any], points: Array
) -> tuple[ByHand, Array]:
    """What the model comes to at each point, and the slope of its density."""
    data = {"y": outcome(pair, rows=len(data["x"]))} | data
    constants = {"group", "times"} if "static" in pair else set()
    fixed = {name: tuple(data[name].tolist()) for name in constants}
    arrays = {k: jnp.asarray(v) for k, v in data.items() if k not in constants}
    return _look_by_hand(pair, target, arrays, fixed, points)


@eqx.filter_jit
def _look_by_hand(
    pair: frozenset[str],
    target: vi.Target,
    arrays: dict[str, Array],
    fixed: dict[str, tuple],
    points: Array,
) -> tuple[ByHand, Array]:
    data = arrays | {name: np.array(values) for name, values in fixed.items()}

    def look(x: Array) -> tuple[Array, ByHand]:
        out = by_hand(pair, data, target.unravel(x))
        return out.density, out

    (_, out), slopes = jax.vmap(jax.value_and_grad(look, has_aux=True))(points)
    return out, slopes


def _check_density(
    target: vi.Target, points: Array, right: ByHand, slopes: Array
) -> None:
    got = _density(target, points)
    np.testing.assert_allclose(got[0], right.density, rtol=1e-9)
    np.testing.assert_allclose(got[1], slopes, rtol=1e-7, atol=1e-9)
    assert np.all(np.isfinite(got[1]))


def _check_batches(
    target: vi.Target, x: Array, right: ByHand, slopes: Array, key: Array
) -> None:
    assert target.batch(key).data.indices["rows"].shape == (BATCH,)
    (length,) = {n // size for _, n, size in _plates(target)}
    seen = [_density_of_batch(target, x, key, step) for step in jnp.arange(length)]
    values, grads = map(np.stack, zip(*seen, strict=True))
    np.testing.assert_allclose(values.mean(), right.density[0], rtol=1e-9)
    np.testing.assert_allclose(grads.mean(axis=0), slopes[0], rtol=1e-7, atol=1e-9)
    assert np.ptp(values) > 1e-3


def _check_values(pair: frozenset[str], draws: vi.Draws, right: ByHand) -> None:
    """Parameters and deterministic sites are what the model makes of the point."""
    params = draws.params
    assert set(right.values) <= set(params)
    assert ("mean" in params) == ("deterministic" in pair and "enumeration" not in pair)
    for name, value in right.values.items():
        np.testing.assert_allclose(params[name], value, rtol=1e-8, err_msg=name)
    again = _unconstrained(draws.target, params)
    np.testing.assert_allclose(again, draws.x, rtol=1e-6, atol=1e-6)


def _check_log_likelihood(pair: frozenset[str], draws: vi.Draws, right: ByHand) -> None:
    """The rows of the likelihood are the density less all that is none."""
    if "enumeration" in pair:
        with pytest.raises(ValueError, match="What one observation adds is not known"):
            draws.log_likelihood()
        return
    rows = draws.log_likelihood()
    assert set(rows) == set(right.rows)
    total = draws.log_p - right.prior
    for name, value in rows.items():
        np.testing.assert_allclose(value, right.rows[name], rtol=1e-8, atol=1e-12)
        scale = SCALE if "scale" in pair and name.startswith("y") else 1.0
        total -= scale * value.reshape(len(draws), -1).sum(axis=1)
    np.testing.assert_allclose(total, 0.0, atol=1e-8)


def _check_numpyro(pair: frozenset[str], draws: vi.Draws, right: ByHand) -> None:
    """What NumPyro itself says of the model, so that it is what is written by hand."""
    if "enumeration" in pair:
        return
    model, data = build(pair - {"batches", "subsample"}), arguments(pair)
    latents = draws.target.unravel(draws.x[0])
    params = {name: v for name, v in draws.params.items() if name in latents}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        rows = log_likelihood(model, params, **data)
        energy = potential_energy(model, (), data, latents)
    for name, value in right.rows.items():
        np.testing.assert_allclose(value, rows[name], rtol=1e-8, atol=1e-12)
    if "missing" not in pair:
        np.testing.assert_allclose(right.density[0], -energy, rtol=1e-9)


def _check_data(
    pair: frozenset[str], target: vi.Target, points: Array, key: Array
) -> None:
    """Other data of the same shapes, all of them and one by one; and longer ones."""
    data = arguments(pair)
    # The mask repeats itself after four rows, so that NaN stay where it is. The order of
    # some data does not matter, their size does.
    larger = lambda value: 1.5 * value if value.dtype == float else value
    moved = lambda value, n: larger(np.roll(value, n, axis=0))
    changes = [{name: moved(value, 4)} for name, value in data.items()]
    every = {name: moved(value, 1) for name, value in data.items()}
    for change in [*changes, every]:
        new = target.with_data(change)
        _check_density(new, points, *_by_hand(pair, new, data | change, points))
    longer = arguments(pair, rows=2 * ROWS)
    if "missing" in pair or "condition" in pair:
        with pytest.raises(ValueError, match="other parameters|handlers.condition"):
            target.with_data(longer)
        return
    new = target.with_data(longer)
    right, slopes = _by_hand(pair, new, longer, points)
    _check_density(new, points, right, slopes)
    if in_batches(pair):
        _check_batches(new, points[0], right, slopes, key)
        assert ("rows", 2 * ROWS, 9) in _plates(new.with_batch_size({"rows": 9}))
        short = arguments(pair, rows=3)
        with pytest.raises(ValueError, match="`batch_size` is 4.*whose length is 3"):
            target.with_data(short)


def _check_predictions(
    pair: frozenset[str], target: vi.Target, x: Array, right: ByHand, key: Array
) -> None:
    """New data from one point, many times: their mean is that of the model."""
    count = 400
    draws = vi.Draws(jnp.tile(x, (count, 1)), None, jnp.zeros(count), target)
    new = draws.predict(key=key)
    shapes = {"y_observed" if "missing" in pair else "y": outcome(pair).shape}
    shapes |= {"w": OTHERS.shape} if "several" in pair else {}
    shapes |= {"v": (5,)} if "scan" in pair else {}
    assert {name: value.shape[1:] for name, value in new.items()} == shapes
    assert all(np.all(np.isfinite(value)) for value in new.values())
    y = new["y_observed" if "missing" in pair else "y"]
    error = np.abs(y.mean(axis=0) - right.mean[0]) / y.std(axis=0)
    assert np.max(error) < 5 / math.sqrt(count)
    if "deterministic" in pair and "enumeration" not in pair:
        mean = draws.predict(key=key, names=["mean"])["mean"]
        np.testing.assert_allclose(mean[0], right.values["mean"][0], rtol=1e-8)


def _check_labels(draws: vi.Draws) -> None:
    labels = draws.target.model.labels(draws.target.data)
    sizes = {dim: len(ticks) for dim, ticks in labels.coords.items()}
    shapes = {name: value.shape[1:] for name, value in draws.params.items()}
    shapes |= {name: value.shape for name, value in labels.observed.items()}
    for name in labels.dims.keys() & shapes.keys():
        known = [sizes.get(dim) for dim in labels.dims[name]]
        pairs = list(zip(known, shapes[name], strict=True))
        assert all(n in (None, length) for n, length in pairs), name
    assert all(sizes[dim] for dim in ("rows", "groups"))


def _check_float32(pair: frozenset[str], points: Array, right: ByHand) -> None:
    with jax.enable_x64(False):
        narrow = vi.from_numpyro(build(pair), **arguments(pair))
        values, slopes = _density(narrow, points.astype(jnp.float32))
        assert values.dtype == slopes.dtype == jnp.float32
        assert np.all(np.isfinite(slopes))
        draws = vi.Draws(points.astype(jnp.float32), None, values, narrow)
        out = dict(draws.params)
        if "enumeration" not in pair:
            out |= draws.log_likelihood()
    assert all(v.dtype == jnp.float32 for v in out.values())
    np.testing.assert_allclose(values, right.density, rtol=1e-4)


@pytest.mark.parametrize(
    "pair",
    [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in PAIRS],
    ids=_id,
)
def test_features_of_a_pair_go_together(pair, getkey):
    data = arguments(pair)
    if pair in APART:
        if APART[pair] is not None:
            with pytest.raises(ValueError, match=APART[pair]):
                vi.from_numpyro(build(pair), **data)
        return
    target = vi.from_numpyro(build(pair), **data)
    points = 0.4 * jr.normal(getkey(), (2, target.dim))
    right, slopes = _by_hand(pair, target, data, points)
    _check_density(target, points, right, slopes)
    if in_batches(pair):
        _check_batches(target, points[0], right, slopes, getkey())
    draws = vi.Draws(points, None, _density(target, points)[0], target)
    _check_values(pair, draws, right)
    _check_log_likelihood(pair, draws, right)
    if "log_likelihood" in pair:
        _check_numpyro(pair, draws, right)
    if "deterministic" in pair:
        _check_labels(draws)
    if "with_data" in pair:
        _check_data(pair, target, points, getkey())
    if "predict" in pair:
        _check_predictions(pair, target, points[0], right, getkey())
    if "float32" in pair:
        _check_float32(pair, points, right)
