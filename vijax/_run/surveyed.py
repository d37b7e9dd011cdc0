"""More starts after the first stage of the default, for modes that it did not see."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._keys import key_for, Seed
from .._misc import float_dtype, on_device
from .._survey.survey import survey
from .._target.coordinates import numbers_of
from .._target.probe import HostProbe
from .._target.threads import one_thread
from .interrupt import Interruption
from .progress_bar import noted


# A number that no method folds into the key of its steps.
_SURVEYING = 0x5112


def surveyed(fit: Any, *, show: bool) -> Any:
    """A fit by `Auto` that knows a mode, with all modes that more starts lead to."""
    state = jax.tree.map(np.asarray, fit.state)
    if int(state.modes.num_modes) == 0 or int(state.survey.num_starts) > 0:
        return fit
    method, seed = fit.problem.method, Seed(key_for(fit.problem.key, _SURVEYING))
    numbers = numbers_of(fit.target)
    with (
        noted("more starts", show=show),
        Interruption() as interruption,
        one_thread(fit.target),
    ):
        probe = HostProbe(fit.target, interruption.look)
        state = survey(state, probe, seed, numbers, method.max_evaluations)
    known = fit.progress.family
    family = method.place(jax.tree.map(np.asarray, known), state)
    family = on_device(family, float_dtype(known))
    progress = fit.progress._replace(family=family, state=state)
    return eqx.tree_at(lambda fit: fit.progress, fit, progress)
