"""The constructors, and what each of their arguments cannot be."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import jax.random as jr
import numpy as np
import optax

import vijax as vi

from .bad_input import descent, target
from .malformed_values import (
    arrays,
    counts,
    family,
    finite,
    flags,
    functions,
    huge,
    keys,
    loc,
    names,
    nan,
    numbers,
    objects,
    sizes,
    supports,
    thing,
)


# {name: (the function, the good arguments that it needs, {argument: what it cannot be})}.
table = {
    "Affine": (
        vi.Affine,
        lambda: {"family": family(), "loc": loc(), "tril": np.ones(2)},
        {"family": [*objects, None], "loc": arrays, "tril": [*arrays, -1.0, nan, 0]},
    ),
    "Auto": (vi.Auto, dict, {"num_starts": counts, "max_evaluations": counts}),
    "Averaging": (
        vi.Averaging,
        lambda: {"method": descent()},
        {"method": [*objects, None], "power": [*finite, None]},
    ),
    "BaM": (vi.BaM, dict, {"num_draws": counts}),
    "BirthDeath": (
        vi.BirthDeath,
        lambda: {"method": vi.SVGD()},
        {"method": [*objects, None], "every": counts},
    ),
    "Coupling": (
        vi.Coupling,
        lambda: {"base": family(), "key": jr.key(0)},
        {
            "base": [*objects, None],
            "key": keys,
            "num_layers": counts,
            "width": counts,
        },
    ),
    "DADVI": (
        vi.DADVI,
        dict,
        {"num_draws": counts, "max_draws": counts, "tolerance": [*numbers, None]},
    ),
    "Descent": (
        vi.Descent,
        lambda: {"objective": vi.ELBO(), "optimizer": optax.adam(0.1)},
        {"objective": [*objects, None], "optimizer": [*objects, None, optax.adam]},
    ),
    "ELBO": (vi.ELBO, dict, {"num_draws": counts, "antithetic": [*flags, None]}),
    "FixedDraws": (
        vi.FixedDraws,
        lambda: {"objective": vi.ELBO(), "key": jr.key(0)},
        {"objective": [*objects, None], "key": keys},
    ),
    "FullRank": (
        vi.FullRank,
        lambda: {"loc": loc()},
        {"loc": arrays, "scale": [*arrays, -1.0, nan, 0, -np.eye(2), np.ones((2, 2))]},
    ),
    "GSM": (vi.GSM, dict, {"num_draws": counts}),
    "IMQ": (vi.IMQ, dict, {"bandwidth": finite, "exponent": [*finite, None, 0]}),
    "Laplace": (vi.Laplace, dict, {"num_starts": counts}),
    "LinearKernel": (vi.LinearKernel, dict, {}),
    "LossConvergence": (
        vi.LossConvergence,
        dict,
        {"window": counts, "tolerance": [*numbers, None, 0]},
    ),
    "MeanField": (
        vi.MeanField,
        lambda: {"loc": loc()},
        {"loc": arrays, "scale": [*arrays, -1.0, nan, 0, np.inf]},
    ),
    "Minibatch": (
        vi.Minibatch,
        lambda: {"batch_size": 2},
        {
            "batch_size": sizes,
            "replace": [*flags, None],
            "total_size": sizes,
            "dtype": ["a word", 0, nan, object, str, thing],
        },
    ),
    "Mixture": (
        vi.Mixture,
        lambda: {"components": [family(), family()]},
        {
            "components": [*objects, None, [family(), 3.0]],
            "weights": [*arrays[1:], [1.0, nan], [1.0, np.inf], [1.0, -1.0], [1.0]],
        },
    ),
    "MixtureKernel": (
        vi.MixtureKernel,
        lambda: {"kernels": [vi.RBF(), vi.IMQ()]},
        {
            "kernels": [*objects, None],
            "weights": [
                {"wrong": 1.0},
                0,
                nan,
                "ab",
                [],
                thing,
                {1, 2},
                [1.0, nan],
                [1.0, "a"],
                [1.0, True],
            ],
        },
    ),
    "MomentConvergence": (
        vi.MomentConvergence,
        dict,
        {"tolerance": [*numbers, None, 0], "first": [*counts, 0]},
    ),
    "NaturalGradient": (vi.NaturalGradient, dict, {}),
    "Param": (
        vi.Param,
        dict,
        {
            "shape": ["a word", b"a", -1, 2.5, nan, True, {1}, {}, [None], huge, thing],
            "support": supports,
            "initial": ["a word", 1j, True, huge, ["a"], [], np.ones(3), nan, {}, thing],
        },
    ),
    "ParameterConvergence": (
        vi.ParameterConvergence,
        dict,
        {
            "every": [*counts, 0],
            "tolerance": [*numbers, None, 0],
            "diff": [*objects, None],
            "ord": ["a word", "2", nan, True, 1j, [], np.ones(2), {}, None, thing],
        },
    ),
    "Particles": (
        vi.Particles,
        lambda: {"x": np.zeros((3, 2))},
        {"x": [*arrays, np.zeros(3)], "bandwidth": [*arrays[1:], -1.0, nan, 0, np.inf]},
    ),
    "Pathfinder": (vi.Pathfinder, dict, {"num_paths": counts, "num_elbo_draws": counts}),
    "RBF": (vi.RBF, dict, {"bandwidth": finite}),
    "Nested": (
        vi.Nested,
        dict,
        {
            "globals": [*names, "tau"],
            "num_starts": counts,
            "max_evaluations": counts,
        },
    ),
    "PointEstimates": (
        vi.PointEstimates,
        lambda: {"family": family(), "values": np.ones(1), "places": (2,)},
        {
            "family": [*objects, None],
            "values": arrays,
            "places": [*objects, None, (), (0, 1), (-1,), (3,), (0.5,), ("a",)],
        },
    ),
    "SVGD": (
        vi.SVGD,
        dict,
        {
            "kernel": [*functions, vi.RBF],
            "optimizer": [*objects, optax.adam],
            "num_particles": [*counts, 0],
            "jitter": [*finite, None],
            "temperature": [*finite, None, 0],
        },
    ),
    "SteinForce": (
        vi.SteinForce,
        dict,
        {
            "num_draws": [*counts, 0],
            "kernel": [*functions, vi.RBF],
            "temperature": [*finite, None, 0],
        },
    ),
    "StickTheLanding": (vi.StickTheLanding, dict, {"num_draws": [*counts, 0]}),
    "StudentT": (
        vi.StudentT,
        lambda: {"loc": loc()},
        {
            "loc": arrays,
            "scale": [*arrays, -1.0, nan, 0],
            "df": [*finite, None, 0, huge],
        },
    ),
    "Target": (
        vi.Target,
        lambda: {"model": target().model},
        {
            "model": [*objects, None],
            "data": ["a word", ["a"], nan, np.array([nan]), thing],
            "minibatch": objects,
        },
    ),
    "Whitened": (
        vi.Whitened,
        lambda: {"method": vi.SVGD(), "rough": family()},
        {"method": [*objects, None], "rough": [*objects, None]},
    ),
}
