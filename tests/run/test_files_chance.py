"""Damage by chance, of which none may go unseen; and what is odd but right."""

import random

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vijax as vi

from ..helpers import diagonal_target, same
from .forge import Forged, old, tiny_fit, unsealed


@pytest.fixture(scope="module")
def fit():
    return tiny_fit()


@pytest.fixture
def saved(fit, tmp_path):
    vi.save(tmp_path / "fit.npz", fit)
    return tmp_path / "fit.npz"


def is_same(first, second):
    """Whether two fits agree in all that a file holds of them."""
    rest = lambda f: (np.asarray(jr.key_data(f.problem.key)), np.asarray(f.result._value))
    pairs = zip(rest(first), rest(second), strict=True)
    return same(first, second) and all(np.array_equal(a, b) for a, b in pairs)


def test_no_damage_by_chance_goes_unseen(fit, saved):
    whole, chance = saved.read_bytes(), random.Random(20_261_126)
    bad = [whole[: chance.randrange(len(whole))] for _ in range(60)]
    for _ in range(240):
        at, bit = chance.randrange(len(whole)), chance.randrange(8)
        bad.append(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    complaints = []
    for content in bad:
        saved.write_bytes(content)
        try:
            loaded = vi.load(saved, like=fit)
        except Exception as e:
            complaints.append(e)
        else:
            assert is_same(loaded, fit)
    assert all(type(e) is ValueError and "fit.npz" in str(e) for e in complaints)
    # The rest was in what a zip file says of times and the like.
    assert len(complaints) > 0.8 * len(bad)


def test_no_flipped_bit_of_an_array_is_loaded(fit, saved):
    chance = random.Random(7)
    for key in Forged(saved).parts:
        forged = Forged(saved)
        part = bytearray(forged.parts[key])
        part[chance.randrange(len(part))] ^= 1 << chance.randrange(8)
        unsealed(lambda f, key=key, part=part: f.parts.update({key: bytes(part)}))(forged)
        # What a zip file has for checks of its own is right.
        saved.write_bytes(forged.whole())
        with pytest.raises(ValueError, match="its checksum is not that of its content"):
            vi.load(saved, like=fit)


@pytest.mark.parametrize("act", [lambda forged: None, old()], ids=["now", "before"])
def test_forging_by_itself_changes_nothing(act, fit, saved):
    forged = Forged(saved)
    act(forged)
    saved.write_bytes(forged.whole())
    assert is_same(vi.load(saved, like=fit), fit)


def test_equal_fits_are_equal_files(fit, saved):
    before = saved.read_bytes()
    vi.save(saved, vi.load(saved, like=fit))
    assert saved.read_bytes() == before


def test_what_a_loop_inside_jit_leaves_empty_is_loaded(fit, saved):
    longer = lambda x, rest: jnp.concatenate([x, jnp.full_like(x[:1], rest)])
    losses = longer(fit.losses.at[3:5].set(jnp.nan), jnp.nan)
    records = longer(fit.trackers["mean"], 0), longer(fit.tracked_steps, 0)
    get = lambda f: (f.losses, f.trackers["mean"], f.tracked_steps)
    odd = eqx.tree_at(get, fit, (losses, *records))
    vi.save(saved, odd)
    assert is_same(vi.load(saved, like=fit), odd)


def test_many_fits_are_loaded_though_one_began_badly(tmp_path, getkey, as_for_users):
    def run(loc, key):
        start = eqx.tree_at(lambda f: f.loc, vi.MeanField(jnp.zeros(3)), loc)
        return vi.fit(
            diagonal_target(), "advi", start, key=key, max_steps=20, throw=False
        )

    locs = jnp.zeros((3, 3)).at[1].set(jnp.nan)
    fits = eqx.filter_vmap(run)(locs, jr.split(getkey(), 3))
    assert not jnp.all(jnp.isfinite(fits.progress.family.loc))
    vi.save(tmp_path / "fits", fits)
    assert is_same(vi.load(tmp_path / "fits", like=fits), fits)
    healthy = eqx.filter_vmap(run)(jnp.zeros((3, 3)), jr.split(getkey(), 3))
    with pytest.raises(ValueError, match="its family is not finite"):
        vi.load(tmp_path / "fits", like=healthy)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_numbers_are_loaded(dtype, tmp_path, getkey):
    density = lambda params: -0.5 * jnp.sum(params["x"] ** 2)
    target = vi.from_log_density(density, {"x": vi.Param(2)})
    start = vi.MeanField(jnp.zeros(2, dtype))
    fit = vi.fit(target, "advi", start, key=getkey(), max_steps=5, progress=False)
    assert jax.tree.leaves(fit.family)[0].dtype == dtype
    vi.save(tmp_path / "fit", fit)
    assert is_same(vi.load(tmp_path / "fit", like=fit), fit)
