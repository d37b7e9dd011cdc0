"""What an argument of each kind cannot be, and good ones to stand beside it."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import functools

import jax.random as jr
import numpy as np
from numpyro.distributions import constraints

import vijax as vi

from .bad_input import descent, likelihood, target


nan, thing, huge = np.nan, object(), 10**30
ragged = [[1.0], [1.0, 2.0]]
objects = ["a word", 0, nan, True, [], np.ones(2), {"wrong": 1.0}, thing, vi.MeanField]
steps = ["a word", -1, 2.5, nan, np.inf, True, [], np.ones(2), {}, None, thing]
counts = [*steps, huge]
given_counts = [count for count in counts if count is not None]
flags = ["a word", 0, 2.5, nan, [], np.ones(2), {}, thing]
numbers = ["a word", "1.0", nan, -1.0, True, 1j, [], ["a"], np.ones(3), {}, thing]
finite = [*numbers, np.inf, 10**400]
arrays = [None, "a word", 1j, huge, thing, {}, [], ["a", "b"], [1.0, "a", None], ragged]
arrays += [np.ones((2, 2, 2)), True]
keys = [None, "a word", 0, 2.5, True, [], np.ones(2), thing]
not_functions = ["a word", 0, nan, [], np.ones(2), {"wrong": 1.0}, thing]
functions = [*not_functions, lambda: None, lambda a, b, c, d: a]
names = [0, nan, [1.0], [None], [[]], np.ones((2, 2)), thing]
labels = ["a word", 0, nan, [], ["a"], np.ones(2), {"x": 1.0}, thing]
paths = [0, nan, True, [], np.ones(2), {}, thing]
data = [None, {}, [], "a word", 2.5, ["a", "b"], np.ones(()), np.array([nan]), thing]
points = [None, "a word", 0.0, [0.0, 0.0], np.ones(3), np.ones((2, 2, 2)), {}, thing]
sizes = ["a word", 0, -1, 2.5, nan, True, [], [[1, 2, 3]], {"a": 1}, thing]
supports = [
    *objects,
    None,
    constraints.interval(1.0, 0.0),
    constraints.interval(-np.inf, np.inf),
    constraints.interval(0.0, 1e400),
    constraints.interval(0, huge),
    constraints.greater_than(10**400),
    constraints.greater_than(np.inf),
    constraints.less_than(-np.inf),
    constraints.less_than(nan),
    constraints.greater_than([0.0, 1.0]),
    constraints.greater_than(None),
    constraints.independent(constraints.interval(1.0, 1.0), 1),
    constraints.zero_sum(0),
    constraints.zero_sum(-1),
    constraints.positive_integer,
]


@functools.cache
def made():
    """A fit with a tracker, draws of its target, and draws of one that has rows."""
    track = {"loc": lambda key, family, target: family.loc}
    options = {"max_steps": 2, "progress": False, "track": track, "track_every": 1}
    run = vi.fit(target(), descent(), family(), key=jr.key(0), **options)
    x, log_p = jr.normal(jr.key(1), (100, 2)), jr.normal(jr.key(2), (100,))
    draws = vi.Draws(x, log_p / 2, log_p, run.target)
    return run, draws, vi.Draws(x[:, :1], log_p / 2, log_p, likelihood())


def loc():
    return np.zeros(2)


def family():
    return vi.MeanField(loc())
