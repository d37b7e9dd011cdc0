import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import vijax as vi

from ..helpers import correlated_target, same


def mixture_log_density(params, data):
    """`sum_i w_i N(loc_i, scale_i**2)`, not normalized."""
    weight, loc, scale = data
    z = (params["x"][None] - loc) / scale[:, None]
    dim = params["x"].size
    log_p = jnp.log(weight) - 0.5 * jnp.sum(z**2, axis=1) - dim * jnp.log(scale)
    return jax.scipy.special.logsumexp(log_p)


def mixture(loc=((-2.0,), (3.0,)), scale=(1.0, 1.0), weight=(0.2, 0.8)):
    """Modes far enough apart that no force brings a particle from one to the other."""
    data = jnp.array(weight), jnp.array(loc), jnp.array(scale)
    return vi.from_log_density(mixture_log_density, {"x": vi.Param(len(loc[0]))}, data)


def left(fit, loc=((-2.0,), (3.0,))):
    """The share of the particles that are nearer to the first mode."""
    x = np.asarray(fit.family.x)
    to_first, to_second = (np.sum((x - np.array(at)) ** 2, axis=1) for at in loc)
    return np.mean(to_first < to_second)


def run(target, key, method, **kwargs):
    return vi.fit(target, method, key=key, progress=False, **kwargs)


# A method that moves nothing, so that every change is a birth.
still = vi.SVGD(optimizer=optax.sgd(0.0))


def after_a_step(key, particles, target, every=1, num_steps=None, inner=still):
    method = vi.BirthDeath(inner, every=every)
    state = method.init(key, particles, target)
    if num_steps is not None:
        state = dataclasses.replace(state, num_steps=jnp.array(num_steps, jnp.int32))
    moved, state, _ = eqx.filter_jit(method.step)(key, particles, target, state)
    return np.asarray(moved.x), state


@pytest.mark.slow
def test_it_weighs_the_modes(getkey):
    with_births = vi.BirthDeath(vi.SVGD(num_particles=1_000))
    for _ in range(2):
        fit = run(mixture(), getkey(), with_births, max_steps=300)
        assert abs(left(fit) - 0.2) < 0.05
        assert fit.family.x.shape == (1_000, 1)
        assert len(np.unique(fit.family.x)) == 1_000
    # Which the force alone does not do.
    fit = run(mixture(), getkey(), vi.SVGD(num_particles=1_000), max_steps=300)
    assert left(fit) > 0.27


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loc", "scale", "tolerance"),
    [
        (((-2.0,), (3.0,)), (1.0, 1.0), 0.05),
        (((-2.0,), (3.0,)), (0.5, 1.5), 0.06),
        (((-2.0,), (3.0,)), (1.5, 0.5), 0.06),
        (((-2.0,) * 5, (2.0,) * 5), (1.0, 1.0), 0.08),
    ],
    ids=["alike", "narrow and wide", "wide and narrow", "5 dimensions"],
)
def test_it_weighs_modes_of_all_kinds(loc, scale, tolerance, getkey):
    target = mixture(loc, scale)
    with_births = vi.BirthDeath(vi.SVGD(num_particles=1_000))
    shares = [
        left(run(target, getkey(), with_births, max_steps=300), loc) for _ in range(4)
    ]
    assert np.all(np.abs(np.array(shares) - 0.2) < tolerance), shares
    alone = left(run(target, getkey(), vi.SVGD(num_particles=1_000), max_steps=300), loc)
    assert abs(alone - 0.2) > tolerance


@pytest.mark.slow
def test_a_single_gaussian_is_left_unharmed(getkey):
    covariance = jnp.array([[1.0, 1.2], [1.2, 4.0]])
    target = correlated_target(jnp.array([1.0, -2.0]), jnp.linalg.inv(covariance))
    svgd = vi.SVGD(num_particles=100)
    key = getkey()
    plain = run(target, key, svgd, max_steps=1_000)
    fit = run(target, key, vi.BirthDeath(svgd), max_steps=1_000)
    sd = np.sqrt(np.diagonal(covariance))
    assert np.all(np.abs(fit.mean["x"] - plain.mean["x"]) < 0.05 * sd)
    assert np.all(np.abs(fit.std["x"] / plain.std["x"] - 1) < 0.06)
    assert not np.array_equal(fit.family.x, plain.family.x)


@pytest.mark.parametrize("num_particles", [1, 2, 5])
def test_few_particles(num_particles, getkey):
    target = correlated_target(jnp.array([1.0, -2.0]), jnp.eye(2))
    method = vi.BirthDeath(vi.SVGD(num_particles=num_particles), every=5)
    fit = run(target, getkey(), method, max_steps=300)
    assert fit.family.x.shape == (num_particles, 2)
    assert np.all(np.abs(fit.mean["x"] - np.array([1.0, -2.0])) < 0.5)
    assert len(np.unique(fit.family.x, axis=0)) == num_particles


@pytest.mark.slow
def test_births_come_every_so_many_steps(getkey):
    # Half of the particles lie where there should be next to none.
    x = jr.normal(getkey(), (200, 1)).at[:100].add(-2.0).at[100:].add(3.0)
    target, particles = mixture(weight=(0.01, 0.99)), vi.Particles(x)
    key = getkey()
    for num_steps in (0, 1, 3, 5, 100):
        moved, state = after_a_step(key, particles, target, 5, num_steps)
        due = (num_steps + 1) % 5 == 0
        assert np.array_equal(moved, x) == (not due)
        assert state.num_steps == num_steps + 1
    moved, _ = after_a_step(key, particles, target)
    # More on the right, and no two in the same place.
    assert np.mean(moved > 0.5) > 0.55
    assert len(np.unique(moved)) == 200
    # Most are still where they were; the others near one that is.
    is_old = np.isin(moved[:, 0], np.asarray(x)[:, 0])
    assert 0.5 < np.mean(is_old) < 1.0
    nearest = np.min(np.abs(moved - np.asarray(x).T), axis=1)
    assert np.max(nearest) < 2.0
    # At other steps, and by another key, others are born.
    assert not np.array_equal(moved, after_a_step(getkey(), particles, target)[0])


def test_births_become_rarer(getkey):
    x = jr.normal(getkey(), (200, 1)).at[:100].add(-2.0).at[100:].add(3.0)
    target, particles = mixture(weight=(0.2, 0.8)), vi.Particles(x)
    key = getkey()
    moved = [after_a_step(key, particles, target, num_steps=t)[0] for t in (0, 3_000)]
    early, late = (np.mean(~np.isin(m[:, 0], np.asarray(x)[:, 0])) for m in moved)
    assert late < 0.5 * early


def test_right_weights_are_left_alone_on_average(getkey):
    # Exact draws: as many go as come, and what changes is noise.
    x = jr.normal(getkey(), (500, 1)).at[:100].add(-2.0).at[100:].add(3.0)
    share = [
        np.mean(after_a_step(getkey(), vi.Particles(x), mixture())[0] < 0.5)
        for _ in range(5)
    ]
    assert abs(np.mean(share) - np.mean(np.asarray(x) < 0.5)) < 0.03


def test_the_optimizer_remembers_the_parents(getkey):
    # With momentum each particle has a memory of its own, here as large as its place.
    x = jr.normal(getkey(), (60, 2)).at[:30].add(-3.0).at[30:].add(3.0)
    target = mixture(((-3.0, -3.0), (3.0, 3.0)), weight=(0.01, 0.99))
    inner = vi.SVGD(optimizer=optax.adam(1e-3))
    particles, key = vi.Particles(x), getkey()
    plain, inner_state, _ = eqx.filter_jit(inner.step)(
        key, particles, target, inner.init(key, particles, target)
    )
    moved, state = after_a_step(key, particles, target, inner=inner)
    old, old_memory = np.asarray(plain.x), _memory(inner_state, (60, 2))
    memory = _memory(state.inner, (60, 2))
    assert len(memory) == len(old_memory) == 2  # Both moments.
    parent, num_born = None, 0
    for i in range(60):
        is_parent = np.all(old == moved[i], axis=1)
        if np.any(is_parent):
            parent = np.argmax(is_parent)
        else:
            num_born += 1  # A twin stands next to the one before it.
        assert parent is not None
        for new, before in zip(memory, old_memory, strict=True):
            assert np.array_equal(new[i], before[parent])
    assert num_born > 3
    # What is not a particle's own stays: the count of the steps.
    counts = [leaf for leaf in jax.tree.leaves(state.inner) if leaf.shape == ()]
    assert all(count == 1 for count in counts)
    assert counts


def _memory(state: Any, shape: tuple[int, ...]):
    leaves = jax.tree.leaves(state)
    return [np.asarray(leaf) for leaf in leaves if jnp.shape(leaf) == shape]


def test_none_stay_where_the_density_vanishes(getkey):
    # The force does not know of the edge: there is no gradient beyond it.
    target = vi.from_log_density(
        lambda params: jnp.where(
            params["x"] > 0, -0.5 * (params["x"] - 1) ** 2, -jnp.inf
        ),
        {"x": vi.Param(initial=0.5)},
    )
    x = vi.Particles(jr.normal(getkey(), (200, 1)) + 0.2)
    key = getkey()
    beyond = [
        np.mean(
            np.asarray(run(target, key, method, family=x, max_steps=400).family.x) < 0
        )
        for method in (vi.SVGD(), vi.BirthDeath(vi.SVGD(), every=10))
    ]
    assert beyond[1] < 0.08
    assert beyond[0] > 0.2


def rows_target(batch_size):
    return vi.from_likelihood(
        lambda params: -0.5 * params["mu"] ** 2,
        lambda params, y: -0.5 * ((y - params["mu"]) / 3.0) ** 2,
        {"mu": vi.Param()},
        jnp.linspace(-4.0, 8.0, 60),
        batch_size=batch_size,
    )


def test_no_births_with_batches_of_rows(getkey):
    key, target = getkey(), rows_target(6)
    svgd = vi.SVGD(num_particles=60)
    plain = run(target, key, svgd, max_steps=60)
    fit = run(target, key, vi.BirthDeath(svgd, every=3), max_steps=60)
    assert np.array_equal(fit.family.x, plain.family.x)
    assert np.array_equal(fit.losses, plain.losses)


@pytest.mark.parametrize(
    "first",
    [None, pytest.param(6, marks=pytest.mark.slow)],
    ids=["batches later", "batches first"],
)
def test_going_on_with_other_batches(first, getkey):
    # What matters is whether the steps see batches now, not whether the first ones did.
    method = vi.BirthDeath(vi.SVGD(optimizer=optax.sgd(0.0), num_particles=60), every=3)
    then = 6 if first is None else None
    fit = run(rows_target(first), getkey(), method, max_steps=7)
    further = fit.resume(9, target=rows_target(then), progress=False)
    are_born = not np.array_equal(further.family.x, fit.family.x)
    assert are_born == (then is None)


def test_resuming_is_going_on(getkey, tmp_path):
    key, target = getkey(), mixture()
    method = vi.BirthDeath(vi.SVGD(num_particles=60), every=7)
    whole = run(target, key, method, max_steps=60)
    assert same(whole, run(target, key, method, max_steps=60))
    part = run(target, key, method, max_steps=25)
    vi.save(tmp_path / "fit", part)
    loaded = vi.load(tmp_path / "fit", like=run(target, getkey(), method, max_steps=0))
    assert same(whole, loaded.resume(35, progress=False))


@pytest.mark.slow
def test_inside_jit_and_vmap(getkey):
    method, keys = (
        vi.BirthDeath(vi.SVGD(num_particles=60), every=7),
        jr.split(getkey(), 2),
    )
    one = lambda key: run(mixture(), key, method, max_steps=30, throw=False).family.x
    many = jax.jit(jax.vmap(one))(keys)
    for i in range(2):
        assert np.allclose(many[i], one(keys[i]), rtol=1e-6, atol=1e-9)


def test_particles_are_not_averaged(getkey):
    # An average over a particle's own past is one; its ancestors were somebody else.
    for method in (vi.BirthDeath(vi.SVGD()), vi.SVGD()):
        with pytest.raises(ValueError, match="Cannot use `vi.Averaging`"):
            run(mixture(), getkey(), vi.Averaging(method), max_steps=10)


@pytest.mark.parametrize("method", [vi.Descent(vi.ELBO(), optax.adam(0.1)), vi.SVGD()])
def test_only_particles_are_born(method, getkey):
    with pytest.raises(ValueError, match="(?s)Cannot use.*`MeanField`.*particles"):
        run(mixture(), getkey(), vi.BirthDeath(method), family=vi.MeanField)


def test_births_need_a_method_that_moves_particles(getkey):
    method = vi.BirthDeath(vi.Descent(vi.ELBO(), optax.adam(0.1)))
    with pytest.raises(ValueError, match="(?s)Cannot use.*`MeanField`.*particles"):
        run(mixture(), getkey(), method)
