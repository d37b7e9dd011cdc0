"""Natural gradients by regression, seen as ask and tell."""

import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr

from vijax._linalg import mirrored
from vijax._misc import lenient_promotion
from vijax._solver import natural_gradient
from vijax._target.probe import probe

from ..helpers import correlated_target


LOC = jnp.array([30.0, -2.0])
PRECISION = jnp.array([[400.0, 9.0], [9.0, 1.0]])


def test_one_iteration_is_enough_on_a_gaussian(getkey):
    # The residual is linear in the noise, and the regression exact.
    target = correlated_target(LOC, PRECISION)

    def further(loop):
        key, ascent = loop
        key, half_key = jr.split(key)
        e = mirrored(jr.normal(half_key, (natural_gradient.BATCH // 2, 2)))
        with lenient_promotion():
            probes = probe(target, natural_gradient.ask(e, ascent), len(e))
            return key, natural_gradient.tell(e, ascent, probes)

    @jax.jit
    def climbed(key):
        first = natural_gradient.begin(jnp.zeros(2), 0.1 * jnp.eye(2))
        unfinished = lambda loop: loop[1].num_iterations < 2
        return lax.while_loop(unfinished, further, (key, first))[1]

    ascent = climbed(getkey())
    std = jnp.sqrt(jnp.diagonal(jnp.linalg.inv(PRECISION)))
    assert jnp.all(jnp.abs(ascent.loc - LOC) < 1e-3 * std)
    covariance = ascent.tril @ ascent.tril.T
    scale = jnp.outer(std, std)
    assert jnp.all(jnp.abs(covariance - jnp.linalg.inv(PRECISION)) < 1e-3 * scale)
