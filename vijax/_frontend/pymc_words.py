"""Why a PyMC model cannot be a target, and what is in it, in words."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import jax

from .._misc import listed
from .pymc_data import Shapes
from .pymc_forms import NoForm
from .pymc_graph import PyMCGraph
from .pymc_host import NoGradient
from .pymc_jax import Program


_UNKNOWN_SHAPE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
)
_OTHERWISE = (
    "Write it with other functions, give the log density yourself by `pm.CustomDist`, or "
    "sample with PyMC's own NUTS, `pm.sample()`."
)
_ALL_ROWS = (
    " All the rows stand in place of a `pm.Minibatch` too: what is as long as one must "
    "take its length from it, such as `batch.shape[0]`."
)


def _with_shapes(shapes: Shapes) -> str:
    return listed(f"{name} {shape}" for name, shape in shapes)


def of_a_row(name: str) -> str:
    """What is wrong with a free variable of a batch."""
    return (
        f"{name!r} has a value for each row of a `pm.Minibatch`, but a free variable "
        "cannot belong to the rows of a batch: the next batch has others. Integrate it "
        "out, or give the model all the rows, without `pm.Minibatch`."
    )


def check_batches(graph: PyMCGraph) -> None:
    """Raise if batches of what is observed would not average to the whole."""
    graph.check_total_size()
    dims_of = graph.model.named_vars_to_dims
    observed = {rv.name: rv for rv in graph.model.observed_RVs}
    for name in graph.data.in_batches:
        rv = observed[name].owner.inputs[0]  # Behind its `total_size`.
        if getattr(rv.owner.op, "ndim_supp", 0) == rv.type.ndim:
            raise ValueError(
                f"{name!r} is a single draw from a distribution of many dimensions, of "
                "which a `pm.Minibatch` sees some: their log density is no part of that "
                "of all of them. Give it all at once, without `pm.Minibatch`."
            )
        for free in graph.model.free_RVs:
            dims = dims_of.get(free.name, ())
            if dims_of.get(name) and dims_of[name][0] in dims:
                raise ValueError(of_a_row(free.name))


def check_on_host(program: Program, *, in_batches: bool) -> None:
    """Say which part of a log density PyTensor computes itself, if it does.

    **Raises:** `ValueError` if it is to see batches.
    """
    if program.on_host is None:
        return
    unknown = program.unknown()
    op = next(iter(unknown.values()), "a sum")
    what = (
        f"{listed(map(repr, unknown))} is computed with `{op}`, which PyTensor's JAX "
        "backend does not know"
    )
    if in_batches:
        raise ValueError(
            f"{what}, and PyTensor itself sees no batches here. Give the model all the "
            f"rows, without `pm.Minibatch`. {_OTHERWISE}"
        )
    warnings.warn(
        f"{what}: the log density and its gradient come from PyTensor's own functions, "
        "called from JAX for one point after another, on the host.",
        stacklevel=3,
    )


def _of_rows(graph: PyMCGraph, values: Shapes) -> list[str]:
    """The free variables that may belong to the rows of a batch."""
    used = [name for names in graph.data.in_batches.values() for name in names]
    sizes = {graph.data.minibatches[name][1] for name in used}
    return [name for name, shape in values if sizes.intersection(shape)]


def _without_density(model: Any) -> dict[str, Exception]:
    """The variables whose log density PyMC does not know, and what it says."""
    from pymc.logprob.basic import conditional_logp

    out = {}
    for rv in model.basic_RVs:
        try:
            conditional_logp({rv: rv.type()}, warn_rvs=False)
        except Exception as e:
            out[str(rv.name)] = e
    return out


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(".") if lines else type(error).__name__
    return text if len(text) < 200 else text[:200] + "..."


def explained(
    error: Exception,
    graph: PyMCGraph,
    values: Shapes,
    shapes: Shapes,
    attempt: Callable[[str], Exception | None],
) -> str:
    """Why a model with data of some shapes raised an error.

    `attempt` says what the part of one variable or potential raises.
    """
    model = graph.model
    variables = (*model.basic_RVs, *model.potentials, *model.deterministics)
    tried = {str(var.name): attempt(str(var.name)) for var in variables}
    found = {name: e for name, e in tried.items() if e is not None}
    error = next(iter(found.values()), error)
    # What fails for every variable, and is about none of them, has no name.
    everywhere = not found or len(found) == len(tried) > 1
    of = "The model" if everywhere else listed(map(repr, found))
    if isinstance(error, NoGradient):
        cause = error.__cause__ or error
        return (
            f"{of} is computed with `{error}`, which PyTensor's JAX backend does not "
            "know. PyTensor itself cannot differentiate it either: "
            f"{type(cause).__name__}: {_first_line(cause)}. Give the Op a gradient "
            "(`grad`, or `pullback` in newer versions), or sample with `pm.sample()`, "
            "which then takes a method that needs none."
        )
    if isinstance(error, NoForm):
        of = listed(map(repr, found)) if found else of
        return (
            f"{of} is computed with `{error}`, which PyTensor's JAX backend does not "
            f"know. {_OTHERWISE}"
        )
    unknown = _without_density(model)
    if unknown:
        name, error = next(iter(unknown.items()))
        return (
            f"PyMC finds no log density of {name!r}: {_first_line(error)}. Give it one "
            "by `pm.CustomDist`, or write it by other distributions."
        )
    rows = _of_rows(graph, values)
    if rows:
        return of_a_row(rows[0])
    if isinstance(error, _UNKNOWN_SHAPE) or "concrete values" in str(error):
        return (
            f"{of} is computed with an array whose shape depends on the data, but JAX "
            "compiles for shapes that it knows. Select by `pm.math.switch` instead of a "
            "mask, or make constants, not `pm.Data`, of what decides the shape."
        )
    cause = f"{type(error).__name__}: {_first_line(error)}"
    if not re.search("shape|dimension|broadcast|axis|size|length", cause):
        return f"{of} cannot be computed in JAX, which raised {cause}. {_OTHERWISE}"
    where = "" if everywhere else f", in {of}"
    return (
        f"The data of the PyMC model do not fit together in shape{where}: they are "
        f"{_with_shapes(shapes)}. ({cause}.){_ALL_ROWS if graph.data.in_batches else ''}"
    )
