"""Bad input to methods."""

# pyright: reportArgumentType=false
# Arguments of the wrong type are what is tried here.

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vijax as vi

from ..bad_input import at_once_tests, descent, fit, on_the_way_tests


pytestmark = pytest.mark.usefixtures("as_for_users")


at_once = {
    "SVGD: the optimizer first": (
        lambda key: vi.SVGD(optax.adam(0.1)),
        r"`kernel` must be a kernel such as `vi\.RBF\(\)`.*GradientTransformation",
    ),
    "SVGD: optimizer": (
        lambda key: vi.SVGD(optimizer=0.1),
        "`optimizer` must be an Optax optimizer.*0.1",
    ),
    "SVGD: no particles": (
        lambda key: vi.SVGD(num_particles=0),
        "`num_particles` must be a whole number of at least 1.*0",
    ),
    "SVGD: half a particle": (
        lambda key: vi.SVGD(num_particles=2.5),
        "`num_particles` must be a whole number of at least 1.*2.5",
    ),
    "SVGD: negative jitter": (
        lambda key: vi.SVGD(jitter=-1),
        "`jitter` must be finite and not negative.*-1",
    ),
    "SVGD: jitter is NaN": (
        lambda key: vi.SVGD(jitter=np.nan),
        "`jitter` must be finite and not negative.*nan",
    ),
    "SVGD: jitter is a word": (lambda key: vi.SVGD(jitter="a"), "`jitter` must be.*'a'"),
    "SVGD: temperature": (
        lambda key: vi.SVGD(temperature=np.inf),
        "`temperature` must be positive and finite.*inf",
    ),
    "SVGD: temperature is a word": (
        lambda key: vi.SVGD(temperature="hot"),
        "`temperature` must be.*'hot'",
    ),
    "BirthDeath: an objective": (
        lambda key: vi.BirthDeath(vi.SteinForce()),
        r"`method` must be a method such as `vi\.SVGD\(\)`.*SteinForce",
    ),
    "BirthDeath: every": (
        lambda key: vi.BirthDeath(vi.SVGD(), every=0),
        "`every` must be a whole number of at least 1.*0",
    ),
    "Descent: objective": (
        lambda key: vi.Descent(vi.ELBO, optax.adam(0.1)),
        r"`objective` must be an objective such as `vi\.ELBO",
    ),
    "Descent: optimizer": (
        lambda key: vi.Descent(vi.ELBO(), 0.1),
        "`optimizer` must be an Optax optimizer.*0.1",
    ),
    "Descent: optimizer not called": (
        lambda key: vi.Descent(vi.ELBO(), optax.adam),
        "`optimizer` must be an Optax optimizer.*adam",
    ),
    "Averaging: method": (
        lambda key: vi.Averaging(optax.adam(0.1)),
        r"`method` must be a method such as `vi\.Descent",
    ),
    "Averaging: power": (
        lambda key: vi.Averaging(descent(), power=-1.0),
        "`power` must not be negative.*-1",
    ),
}


test_fails_before_anything_compiles = at_once_tests(at_once)


on_the_way = {
    "SVGD: dim": (
        lambda key: fit(key, method=vi.SVGD(), family=vi.Particles(jnp.ones((3, 3)))),
        "`family` has 3 coordinates but `target` has 2",
    ),
    "SVGD: a kernel that returns a vector": (
        lambda key: fit(key, method=vi.SVGD(kernel=lambda x, y: x * y)),
        r"`kernel` must.*scalar.*\(2,\)",
    ),
    # There is no objective along whose values a line could be searched.
    "SVGD: a line search": (
        lambda key: fit(key, method=vi.SVGD(optimizer=optax.lbfgs())),
        "`?optimizer`?|line search",
    ),
}


test_fails_in_words = on_the_way_tests(on_the_way)
