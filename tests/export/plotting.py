"""What is drawn, and what is read off a picture."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vijax as vi


def gaussian():
    return vi.from_log_density(
        lambda params: -0.5 * jnp.sum(params["x"] ** 2), {"x": vi.Param(2)}
    )


def run(key, **options):
    options = {"max_steps": 100, "progress": False} | options
    return vi.fit(gaussian(), "fullrank_advi", key=key, **options)


def ended(result, num_steps=500):
    """As much of a fit as a picture of its loss looks at."""
    losses = np.linspace(3.0, 1.0, num_steps)
    return SimpleNamespace(
        losses=losses, result=getattr(vi.RESULTS, result), num_steps=num_steps
    )


def tracked(**trackers):
    num_records = len(jax.tree.leaves(trackers)[0])
    steps = 10 * np.arange(1, num_records + 1)
    return SimpleNamespace(trackers=trackers, tracked_steps=steps)


def words(of: Any):
    return [text.get_text() for text in of.texts]


def titles(axes):
    return [axis.get_title() for axis in axes]
