"""One compiled program a model: what a first fit, its draws and its report compile."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro.distributions import constraints

import vijax as vi

from .programs import compiled


# What depends on the model: its values and scores, and its named parameters.
OF_A_MODEL = ["_program", "_constrained"]
# Of numbers only, whatever the model.
HELPERS = {
    "key_for",
    "split_key",
    "convert_element_type",
    "equal",
    "not_equal",
    "greater_equal",
}


def regression_log_density(params, data):
    x, y = data
    off = (y - x @ params["slope"]) / params["noise"]
    prior = -0.5 * jnp.sum(params["slope"] ** 2) / 25 - params["noise"]
    return prior - 0.5 * jnp.sum(off**2) - 60 * jnp.log(params["noise"])


def regression(dim, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, dim))
    y = x @ np.arange(1.0, dim + 1) + rng.normal(size=60)

    params = {"slope": vi.Param(dim), "noise": vi.Param(support=constraints.positive)}
    return vi.from_log_density(regression_log_density, params, (x, y))


def two_modes():
    def log_density(params):
        first = -0.5 * jnp.sum((params["x"] - 3) ** 2)
        return jnp.logaddexp(first, -0.5 * jnp.sum((params["x"] + 3) ** 2))

    return vi.from_log_density(log_density, {"x": vi.Param(2)})


def heavy_tails():
    def log_density(params):
        return -3.0 * jnp.log1p(jnp.sum(params["x"] ** 2) / 3.0)

    return vi.from_log_density(log_density, {"x": vi.Param(2)})


def hierarchy():
    """Given `log_scale` the effects are Gaussian, and together nothing is."""

    def log_density(params):
        effects, log_scale = params["effects"], params["log_scale"]
        far = jnp.sum(effects**2) * jnp.exp(-2 * log_scale)
        near = jnp.sum((effects - jnp.arange(6.0)) ** 2) / 25
        return -0.5 * (log_scale**2 + far + near) - 6 * log_scale

    params = {"effects": vi.Param(6), "log_scale": vi.Param()}
    return vi.from_log_density(log_density, params)


KEYS = [jr.key(seed) for seed in range(3)]


def everything(target, seed):
    """A fit, draws of some numbers, all parameters, and a report."""
    key = KEYS[seed]
    fit = vi.fit(target, key=key, progress=False)
    for num_draws in (10, 4_000, 5_000):
        jax.block_until_ready(fit.draw(num_draws, key=key).params)
    assert vi.report(fit, key=key).trustworthy
    return fit


def warm():
    """Whatever does not depend on a model."""
    everything(vi.from_log_density(lambda p: -0.5 * p["x"] ** 2, {"x": vi.Param()}), 0)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: regression(3, 0), vi.FullRank),
        (two_modes, vi.Mixture),
        (heavy_tails, vi.FullRank),
        (hierarchy, vi.NestedGaussian),
    ],
    ids=["Gaussian", "mixture", "heavy tails", "nested"],
)
def test_two_programs_a_model(make, kind):
    warm()
    target = make()
    with compiled() as names:
        fit = everything(target, 1)
    assert isinstance(fit.family, kind)
    assert sorted(names) == sorted(OF_A_MODEL)


def test_nothing_else_is_compiled_the_first_time():
    jax.clear_caches()
    target = regression(4, 0)
    with compiled() as names:
        everything(target, 1)
    assert sorted(set(names) - HELPERS) == sorted(OF_A_MODEL)
    assert all(names.count(name) == 1 for name in OF_A_MODEL)


def test_the_same_model_with_other_data_compiles_nothing():
    everything(regression(5, 0), 1)
    with compiled() as names:
        everything(regression(5, 1).with_data(regression(5, 2).data), 2)
    with compiled() as of_another:
        everything(regression(6, 0), 1)
    assert names == []
    # And one of another dimension no more than its own two.
    assert sorted(of_another) == sorted(OF_A_MODEL)


ASKING = [
    vi.Auto(),
    vi.NaturalGradient(),
    vi.Laplace(),
    vi.Pathfinder(),
    vi.BaM(),
    vi.GSM(),
    vi.DADVI(),
]


@pytest.mark.parametrize("method", ASKING, ids=lambda method: type(method).__name__)
def test_methods_that_ask_and_tell_compile_the_target_alone(method):
    target = regression(10 + ASKING.index(method), 0)
    vi.fit(two_modes(), method, key=KEYS[0], max_steps=2, progress=False)
    with compiled() as names:
        vi.fit(target, method, key=KEYS[0], max_steps=60, progress=False)
    assert names == ["_program"]


def test_the_reports_own_search_and_trajectories_compile_nothing():
    target = vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(120)}
    )
    # Somewhat too wide in each of 120 coordinates: close, but the weights are few.
    family = vi.FullRank(np.zeros(120), scale=1.18)
    run = {"key": KEYS[0], "max_steps": 0, "progress": False}
    fit = vi.fit(target, vi.Laplace(), family, **run)
    vi.report(vi.fit(target, vi.Laplace(), **run), key=KEYS[1])
    with compiled() as names:
        report = vi.report(fit, key=KEYS[0])
    assert names == []
    assert report.num_agreeing is not None
    assert report.acceptance is not None
    assert all(abs(np.log(q.std)) < 0.1 for q in report.quantities)


@pytest.mark.slow
def test_a_flow_takes_three_programs_more_and_its_report_one():
    def log_density(params):  # A banana.
        x, y = params["x"], params["y"]
        return -0.5 * x**2 - 0.5 * ((y - x**2) / 0.3) ** 2

    warm()
    target = vi.from_log_density(log_density, {"x": vi.Param(), "y": vi.Param()})
    with compiled() as names:
        fit = vi.fit(target, key=KEYS[0], progress=False)
        jax.block_until_ready(fit.draw(4_000, key=KEYS[1]).params)
    assert isinstance(fit.family, vi.Affine)
    flow = ["start", "advance", "_all_forward"]
    assert sorted(set(names) - HELPERS) == sorted(OF_A_MODEL + flow)
    with compiled() as names:
        vi.report(fit, key=KEYS[2])
    assert names == ["_all_pulled"]


def test_the_bar_says_what_is_happening(capsys):
    def log_density(params):
        return -0.5 * jnp.sum((params["x"] - 1.0) ** 2)

    target = vi.from_log_density(log_density, {"x": vi.Param(3)})
    vi.fit(target, key=KEYS[0])
    said = capsys.readouterr().err
    stages = "compiling the model", "search, ", "Gaussian, ", "importance sampling"
    places = [said.find(stage) for stage in stages]
    assert -1 not in places
    assert places == sorted(places)
    assert "gradients" in said
    vi.fit(target, key=KEYS[1], progress=False)
    assert capsys.readouterr().err == ""
