"""The rules of the house: imports only go down, and nothing stands outside of it."""

import ast
import re

import pytest

from . import house


files = house.files()


@pytest.mark.parametrize("here", files, ids=".".join)
def test_imports_only_go_down(here):
    code = ast.parse(files[here].read_text())
    for there in house.imports(here, code):
        problem = house.problem_of(here, there)
        assert problem is None, problem


@pytest.mark.parametrize("here", files, ids=".".join)
def test_imports_of_the_package_come_first_and_are_relative(here):
    # A late one would hide a circle. Heavy packages of others may be imported on use.
    text = files[here].read_text()
    code = ast.parse(text)
    first = ast.Module([n for n in code.body if isinstance(n, ast.ImportFrom)], [])
    assert list(house.imports(here, code)) == list(house.imports(here, first))
    if here != ("__main__",):
        # Examples in docstrings have their `import vijax as vi`.
        assert not re.search(r"^\s*(import|from) vijax\b(?! as vi$)", text, re.M)


def test_the_table_is_the_house():
    known = {wing for floor in house.FLOORS for wing in floor}
    there = {path.stem for path in house.ROOT.iterdir() if path.suffix in ("", ".py")}
    assert there - {"__pycache__"} == known
    for wing, stories in house.WITHIN.items():
        for name in " ".join(stories).split():
            assert (wing, name) in files, f"`{wing}/{name}.py` is gone."


@pytest.mark.parametrize(
    "here", [parts for parts in files if parts[-1] == "__init__" and len(parts) > 1]
)
def test_folders_export_nothing(here):
    assert files[here].read_text() == ""


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("_family.new", "_draws.draws"),
        ("_family.new", "_family.mean_field"),
        ("_family.new", "_kernel.base"),
        ("_draws.psis", "_draws.draws"),
        ("_target.target", "_target.plates"),
        ("_new", "_misc"),
        ("_run.fit", "_new"),
        ("_misc", "_linalg"),
    ],
)
def test_what_is_forbidden(here, there):
    assert house.problem_of(tuple(here.split(".")), tuple(there.split(".")))


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("_family.new", "_family.base"),
        ("_family.new", "_misc"),
        ("_run.new", "_run.fit_result"),
        ("_export.plots.new", "_export.plots.base"),
    ],
)
def test_what_is_allowed(here, there):
    problem = house.problem_of(tuple(here.split(".")), tuple(there.split(".")))
    assert problem is None, problem


def test_the_picture_in_the_readme_is_the_house():
    text = house.README.read_text()
    assert house.picture() in text
    assert house.drawn(text) == text, "Draw it anew: `python -m tests.house`."
