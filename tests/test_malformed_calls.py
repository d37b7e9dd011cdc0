"""Every argument of every public function, given what it cannot be.

All other arguments are good. Each call must end in a `ValueError` that names the argument
and, but for a few, before anything compiles. What is special about one function is in the
`test_bad_*.py` of its wing; here is what each kind of argument has in common.
"""

import contextlib
import inspect

import pytest

import vijax as vi

from . import malformed_calls, malformed_objects
from .bad_input import nothing_compiles
from .malformed_values import made


pytestmark = pytest.mark.usefixtures("as_for_users")


table = malformed_objects.table | malformed_calls.table
arguments = [f"{name}.{arg}" for name, (_, _, bad) in table.items() for arg in bad]

# Where the message has other words than the name of the argument.
words = {
    "Param.support": "The support|the support|cannot have the support",
    "plot_densities.sources": "A source must be",
}

# Classes that are handed back, or that one derives one's own from.
handed = """Draws Estimate Fit FitError KernelSteinDiscrepancy LinearResponse NUTSStart
NestedGaussian ParetoKhat RESULTS Report VSBC"""
# What is no mistake, whatever it is, and where the others are tried.
excepted = {
    "Draws.predict.data": "the model's own arguments: `tests/frontend`",
    "from_numpyro.args": "the model's own arguments",
    "from_numpyro.kwargs": "the model's own arguments",
    "from_pymc.model": "PyMC takes seconds to import: `tests/frontend`",
    "Draws.evaluate.args": "the function's own arguments",
    "expectation.args": "the function's own arguments",
    "plot_loss.label": "what matplotlib can write",
}
# What methods and diagnostics call on a family, within a program that is compiled.
for_algorithms = (
    "Coupling.inward.",
    "Coupling.log_prob.",
    "Coupling.mirror.",
    "Coupling.outward.",
    "Coupling.sample.",
    "Coupling.sample_and_log_prob.",
)

# Families are made of arrays, and what draws hold is looked at first.
on_the_way = """Affine. Coupling FullRank. MeanField. Mixture. Particles. PointEstimates.
StudentT. Draws.log_likelihood. from_numpyro.point loo.name plot_densities.names"""


@pytest.mark.parametrize("where", arguments)
def test_fails_in_words(where, caplog):
    name, argument = where.rsplit(".", 1)
    function, good, bad = table[name]
    made()
    others, match = good(), words.get(where, f"`{argument}")
    may_compile = where.startswith(tuple(on_the_way.split()))
    problems = []
    with contextlib.nullcontext() if may_compile else nothing_compiles(caplog):
        for value in bad[argument]:
            try:
                with pytest.raises(ValueError, match=match):
                    function(**others | {argument: value})
            except (Exception, pytest.fail.Exception) as e:
                problems.append(f"{value!r}: {type(e).__name__}: {str(e)[:300]}")
    assert not problems, "\n".join(problems)


def parameters(name):
    """The arguments of a public function, class or method, by the names in the table."""
    owner, _, method = name.partition(".")
    what = getattr(vi, owner)
    what = inspect.unwrap(getattr(what, method)) if method else what
    return {f"{name}.{p}" for p in inspect.signature(what).parameters if p != "self"}


def public():
    """What a user calls: functions, constructors, and methods of what these return."""
    for name, value in vars(vi).items():
        if name.startswith(("_", "Abstract")) or not callable(value):
            continue
        if name not in handed.split():
            yield name
        if name in ("Coupling", "Draws", "Fit", "Target"):
            methods = inspect.getmembers(value, lambda x: callable(inspect.unwrap(x)))
            yield from (f"{name}.{m}" for m, _ in methods if not m.startswith("_"))


def test_every_argument_of_every_public_function_is_here():
    there = set().union(*(parameters(name) for name in public()))
    for_methods = {w for w in there if w.startswith(for_algorithms)}
    assert set(arguments) | set(excepted) == there - for_methods
    assert not set(arguments) & set(excepted)
