"""Functions and methods, and what each of their arguments cannot be."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import jax.random as jr
import numpy as np

import vijax as vi

from .bad_input import density, likelihood, on_host, rowwise, target
from .malformed_values import (
    arrays,
    counts,
    data,
    family,
    flags,
    functions,
    given_counts,
    keys,
    labels,
    loc,
    made,
    names,
    nan,
    not_functions,
    objects,
    paths,
    points,
    sizes,
    steps,
    thing,
)


# {name: (the function, the good arguments that it needs, {argument: what it cannot be})}.
table = {
    "Coupling.with_base": (
        lambda base: vi.Coupling(family(), key=jr.key(0), width=2).with_base(base),
        dict,
        {"base": [*objects, None, vi.MeanField(np.zeros(3))]},
    ),
    "Draws.evaluate": (lambda fn: made()[1].evaluate(fn), dict, {"fn": functions}),
    "Draws.log_likelihood": (
        lambda data: made()[2].log_likelihood(data),
        dict,
        {"data": data[1:]},
    ),
    "Draws.predict": (
        lambda **given: made()[1].predict(**given),
        lambda: {"key": jr.key(0)},
        {"key": keys, "names": [*names, "a word", []]},
    ),
    "Draws.resample": (
        lambda **given: made()[1].resample(**given),
        lambda: {"key": jr.key(0)},
        {"num_draws": given_counts, "key": keys, "replace": [*flags, None]},
    ),
    "Fit.draw": (
        lambda **given: made()[0].draw(**given),
        lambda: {"num_draws": 5, "key": jr.key(0)},
        {"num_draws": counts, "key": keys, "corrected": flags},
    ),
    "Fit.resume": (
        lambda **given: made()[0].resume(**{"max_steps": 1} | given),
        dict,
        {
            "max_steps": steps,
            "method": objects[1:],
            "target": objects,
            "stop": objects,
            "callbacks": [0, nan, thing, {"a": print}, None, [None], lambda: None],
            "callback_every": [*steps, 0],
            "progress": [*flags, None],
            "checkpoint": paths,
            "throw": [*flags, None],
        },
    ),
    "Target.batch": (
        lambda **given: likelihood(batch_size=5).batch(**given),
        lambda: {"key": jr.key(0)},
        {"key": keys, "step": counts},
    ),
    "Target.constrain": (lambda x: target().constrain(x), dict, {"x": points}),
    "Target.log_density": (lambda x: target().log_density(x), dict, {"x": points}),
    "Target.unconstrain": (
        lambda params: target().unconstrain(params),
        dict,
        {"params": [None, "x", 0, nan, [], {}, {"z": loc()}, {"x": np.ones(3)}, thing]},
    ),
    "Target.unravel": (lambda x: target().unravel(x), dict, {"x": points}),
    "Target.with_batch_size": (
        lambda batch_size: likelihood().with_batch_size(batch_size),
        dict,
        {"batch_size": [*sizes, 11]},
    ),
    "Target.with_data": (
        lambda data: likelihood().with_data(data),
        dict,
        {"data": data},
    ),
    "draw": (
        vi.draw,
        lambda: {
            "family": family(),
            "target": target(),
            "num_draws": 5,
            "key": jr.key(0),
        },
        {
            "family": [*objects, None],
            "target": [*objects, None],
            "num_draws": [*counts, 0],
            "key": keys,
            "origin": ["a word", 0, nan, [], np.ones(2), thing],
        },
    ),
    "elbo": (vi.elbo, dict, {"draws": [*objects, None]}),
    "expectation": (
        vi.expectation,
        lambda: {"draws": made()[1], "fn": lambda params: params["x"]},
        {"draws": [*objects, None], "fn": functions},
    ),
    "fit": (
        vi.fit,
        lambda: {"target": target(), "key": jr.key(0), "max_steps": 1},
        {
            "target": [*objects, None],
            "method": [*objects[1:], None],
            "family": functions,
            "key": keys,
            "max_steps": steps,
            "stop": objects,
            "track": [*not_functions, {"a": lambda key: 0.0}, {1: lambda *_: 0.0}],
            "track_every": [*counts, 0],
            "callbacks": [0, nan, thing, {"a": print}, None, [None], lambda: None],
            "callback_every": [*steps, 0],
            "progress": [*flags, None],
            "checkpoint": paths,
            "throw": [*flags, None],
        },
    ),
    "from_host": (
        vi.from_host,
        lambda: {"fn": on_host, "params": {"x": vi.Param()}},
        {
            "fn": [*functions, None],
            # Any dictionary of numbers is good.
            "params": [*(x for x in objects if not isinstance(x, dict)), None, {}],
        },
    ),
    "from_likelihood": (
        vi.from_likelihood,
        lambda: {
            "log_prior": density,
            "log_likelihood": rowwise,
            "params": {"x": vi.Param()},
            "data": np.arange(10.0),
        },
        {
            "log_prior": [*functions, None],
            "log_likelihood": [*functions, None],
            "params": [*objects, None, {}],
            "data": data,
            "batch_size": [*sizes, 11],
        },
    ),
    "from_log_density": (
        vi.from_log_density,
        lambda: {"log_density": density, "params": {"x": vi.Param()}},
        {
            "log_density": [*functions, None],
            "params": [*objects, None, {}],
            "data": ["a word", ["a"], nan, np.array([nan]), thing],
        },
    ),
    "from_numpyro": (
        lambda model=lambda x: None, **given: vi.from_numpyro(model, np.ones(3), **given),
        dict,
        {
            "model": [*not_functions, None],
            "static": [*names, None, "z", ["z"]],
            "point": [*names, None],
        },
    ),
    "kernel_stein_discrepancy": (
        vi.kernel_stein_discrepancy,
        lambda: {"x": np.eye(2), "target": target(), "key": jr.key(0)},
        {"x": [*arrays, np.ones((3, 2))], "target": [*objects, None], "key": keys},
    ),
    "linear_response": (vi.linear_response, dict, {"fit": [*objects, None]}),
    "load": (
        vi.load,
        lambda: {"path": "nowhere.npz", "like": made()[0]},
        {"path": [*paths, None], "like": [*objects, None]},
    ),
    "loo": (
        vi.loo,
        lambda: {"draws": made()[2]},
        {"draws": [*objects, None], "name": [*names, "a word"]},
    ),
    "pareto_khat": (vi.pareto_khat, dict, {"draws": [*objects, None]}),
    "plot_densities": (
        vi.plot_densities,
        lambda: {"sources": made()[1]},
        {"sources": [*objects, None], "names": [*names, "z", []], "axes": objects},
    ),
    "plot_loss": (
        vi.plot_loss,
        lambda: {"fit": made()[0]},
        {
            "fit": ["a word", 0, nan, {}, None, 10**400, thing],
            "window": [*given_counts, 3],
            "log": flags,
            "ax": objects,
        },
    ),
    "plot_trackers": (
        vi.plot_trackers,
        lambda: {"fit": made()[0]},
        {"fit": [*objects, None], "names": [*names, "z", []], "axes": objects},
    ),
    "report": (
        vi.report,
        lambda: {"fit": made()[0], "key": jr.key(0)},
        {
            "fit": [*objects, None],
            "key": keys,
            "num_draws": counts,
            "num_starts": counts,
        },
    ),
    "save": (
        vi.save,
        lambda: {"path": "fit.npz", "fit": made()[0]},
        {"path": [*paths, "no/such/folder/fit.npz"], "fit": [*objects, None]},
    ),
    "to_arviz": (
        vi.to_arviz,
        lambda: {"draws": made()[1]},
        {
            "draws": [*objects, None],
            "key": keys[1:],
            "predictions": objects,
            "log_likelihood": [*flags, None],
            "coords": labels,
            "dims": labels,
        },
    ),
    "to_nuts": (
        vi.to_nuts,
        lambda: {"approximation": made()[1], "key": jr.key(0)},
        {
            "approximation": [*objects, None],
            "num_chains": [*counts, 0],
            "dense": flags,
            "neutra": flags,
            "key": keys[1:],
        },
    ),
    "to_particles": (
        vi.to_particles,
        lambda: {"samples": {"x": np.ones((3, 2))}, "target": target()},
        {"samples": [*objects, None], "target": [*objects, None]},
    ),
    "vsbc": (
        vi.vsbc,
        lambda: {"target": likelihood(), "simulate": lambda key: None, "key": jr.key(0)},
        {
            "target": [*objects, None],
            "simulate": [*functions, None],
            "method": [*objects[1:], None],
            "family": functions,
            "key": keys,
            "num_simulations": counts,
            "num_draws": counts,
            "max_steps": counts,
        },
    ),
}
