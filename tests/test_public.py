import contextlib
import inspect
import io
import pathlib
import re
import subprocess
import sys

import jax
import pytest

import vijax as vi

from .helpers import elbos, families, kernels, objectives


root = pathlib.Path(__file__).parent.parent
public = {k: v for k, v in vars(vi).items() if not k.startswith("_")}
public = {k: v for k, v in public.items() if not inspect.ismodule(v)}


def _members(name):
    """A public name, and the public methods of a class."""
    yield name, public[name]
    if inspect.isclass(public[name]) and public[name] is not vi.RESULTS:
        for attr, value in vars(public[name]).items():
            if not attr.startswith("_") and (
                callable(value) or isinstance(value, property)
            ):
                yield f"{name}.{attr}", value


def _inherits_documentation(name):
    cls, _, attr = name.partition(".")
    bases = public[cls].__mro__[1:] if attr else ()
    return any(attr in vars(base) and inspect.getdoc(vars(base)[attr]) for base in bases)


@pytest.mark.parametrize("name", public)
def test_documented(name):
    for member, value in _members(name):
        assert inspect.getdoc(value) or _inherits_documentation(member), member


def _without_examples():
    # What one does not call, but subclass, or is handed.
    abstract = {name for name in public if name.startswith("Abstract")}
    handed = {"Estimate", "Draws", "Fit", "FitError", "ParetoKhat", "RESULTS", "Target"}
    return (
        abstract | handed | {"Report", "VSBC", "LinearResponse", "KernelSteinDiscrepancy"}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in public if n not in _without_examples()])
def test_example_in_the_docstring_runs(name):
    doc = inspect.getdoc(public[name]) or ""
    blocks = re.findall(r"```python\n(.*?)```", doc, re.S)
    assert blocks, f"{name} has no example."
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(inspect.cleandoc(block), {})


@pytest.mark.parametrize("name", public)
def test_abstract_or_final(name):
    cls = public[name]
    bases = vi.AbstractFamily, vi.AbstractObjective, vi.AbstractMethod, vi.AbstractStop
    bases = *bases, vi.AbstractKernel
    if not (inspect.isclass(cls) and issubclass(cls, bases)):
        return
    assert inspect.isabstract(cls) == name.startswith("Abstract")
    ours = [base for base in cls.__mro__[1:] if base.__module__.startswith("vijax")]
    # A kind of method may be a kind of another; whatever is final is inherited by none.
    assert all(inspect.isabstract(base) for base in ours), (
        f"{name} inherits a final class."
    )
    kinds = vi.AbstractAskTell | vi.AbstractOnHost
    assert len(ours) <= (2 if issubclass(cls, kinds) else 1)


@pytest.mark.parametrize(
    ("base", "table"),
    [
        (vi.AbstractFamily, families),
        (vi.AbstractObjective, objectives),
        (vi.AbstractKernel, kernels),
    ],
)
def test_every_final_class_is_in_its_table(base, table):
    final = {
        name
        for name, cls in public.items()
        if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
    }
    # A point mass has no density for the contract: tests/family/test_point_estimates.py.
    assert final - {"PointEstimates"} == {name.split(",")[0] for name in table}


def test_every_objective_but_these_is_an_elbo():
    assert set(objectives) - set(elbos) == {"SteinForce"}


@pytest.mark.slow
def test_readme():
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.S)
    assert blocks
    scope = {}
    output = io.StringIO()
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        contextlib.redirect_stdout(output),
    ):
        for block in blocks:
            exec(block, scope)


@pytest.mark.parametrize("first", ["import vijax", "import numpyro.distributions"])
def test_numpyro_is_whole_after_arviz(first):
    # ArviZ makes NumPyro a lazy module, whose packages then lack their submodules.
    code = (
        f"import arviz_base; {first}; import vijax, numpyro; "
        "assert hasattr(numpyro.distributions, 'distribution')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version_is_that_of_the_project():
    text = (root / "pyproject.toml").read_text()
    assert f'version = "{vi.__version__}"' in text


def test_heavy_imports_wait_until_they_are_used():
    code = (
        "import sys, vijax; "
        "heavy = {'arviz_base', 'arviz_stats', 'matplotlib', 'pymc', 'xarray'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
