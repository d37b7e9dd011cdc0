"""A fit from its first step on: a start is looked for where that is needed."""

from collections.abc import Callable
from typing import Any

from .._family.base import AbstractFamily
from .._loop.base import Problem
from .._method.base import Recipe
from .explain import explain_start
from .host import conduct, kind_of
from .options import Options
from .progress_bar import noted


def fit_on_host(
    problem: Problem,
    start_from: AbstractFamily | Recipe | None,
    max_steps: int,
    options: Options,
    make_fit: Callable,
) -> Any:
    """A run from a family, or a recipe at a point where the density is finite."""
    key, target = problem.key, problem.target
    kind = kind_of(problem)
    run = kind.begin(problem, start_from)
    if not isinstance(start_from, AbstractFamily):
        with noted("compiling the model", show=options.show):
            well = run.begins_well()
        if not well:
            # Looking for a point takes a program of its own, so only now.
            point, found = kind.find_point(key, target)
            if not bool(found):
                raise ValueError(explain_start(target, key))
            run = kind.begin(problem, start_from, point)
    return conduct(run, max_steps, options, make_fit)
