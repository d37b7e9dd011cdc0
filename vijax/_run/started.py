"""A fit from its first step on: a start is looked for where that is needed."""

from collections.abc import Callable
from typing import Any

from .._family.base import AbstractFamily
from .._loop.base import Problem
from .._method.base import AbstractAskTell, Recipe
from .explain import explain_start
from .host import begun, conduct
from .host_run import find_point_on_host
from .options import Options
from .start import find_point


def fit_on_host(
    problem: Problem,
    start_from: AbstractFamily | Recipe | None,
    max_steps: int,
    options: Options,
    make_fit: Callable,
) -> Any:
    """A run from a family, or a recipe at a point where the density is finite."""
    key, target = problem.key, problem.target
    run = begun(problem, start_from)
    if not isinstance(start_from, AbstractFamily) and not run.begins_well():
        # Looking for a point takes a program of its own, so only now.
        on_host = isinstance(problem.method, AbstractAskTell)
        point, found = (find_point_on_host if on_host else find_point)(key, target)
        if not bool(found):
            raise ValueError(explain_start(target, key))
        run = begun(problem, start_from, point)
    return conduct(run, max_steps, options, make_fit)
