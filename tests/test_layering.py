"""The floors of the package, and the rule that imports only go down."""

import ast
import pathlib

import pytest

import vijax


root = pathlib.Path(vijax.__file__).parent

# From the ground floor up. A module may import its own folder's `base`, and anything
# on a lower floor.
floors = (
    ("_custom_types", "_misc", "_results", "_archive", "_interrupt", "_lazy_numpyro"),
    ("_closures", "_linalg", "_param", "_permutation"),
    ("_minibatch",),
    ("_plates", "_numpyro_sites", "_numpyro_handlers", "_pymc_jax"),
    ("_pymc_graph", "_pymc_sample"),
    ("_target",),
    ("_family", "_frontend", "_kernel"),
    ("_psis", "_resample", "_modes"),
    ("_stein", "_draws", "_probe", "_proposal"),
    ("_natural_gradient", "_quasi_newton", "_score_matching"),
    ("_auto_stages",),
    ("_objective",),
    ("_hamiltonian",),
    ("_method", "_diagnostic", "_diagnosis"),
    ("_correct", "_verdict"),
    ("_settled",),
    ("_arviz", "_loo", "_plots", "_to_particles", "_nuts", "_loop", "_named"),
    ("_checks", "_start", "_progress"),
    ("_checkpoint",),
    ("_host",),
    ("_step_up",),
    ("_fit_result", "_load"),
    ("_report_text",),
    ("_other_modes", "_particle_draws"),
    ("_auto_batches", "_report", "_linear_response"),
    ("_fit",),
    ("_vsbc",),
    ("__init__",),
    ("__main__",),
)
floor_of = {name: i for i, names in enumerate(floors) for name in names}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            base = path.parent.parts[len(root.parts) :]
            base = base[: len(base) - (node.level - 1)]
            if node.module is None:
                yield from ((*base, alias.name) for alias in node.names)
            else:
                yield (*base, *node.module.split("."))


@pytest.mark.parametrize(
    "path", sorted(root.rglob("*.py")), ids=lambda p: str(p.relative_to(root))
)
def test_imports_only_go_down(path):
    here = path.relative_to(root).with_suffix("").parts
    for there in _imports(path):
        assert there[0] in floor_of, f"Give `{there[0]}` a floor."
        same_folder_base = there[0] == here[0] and there[1:] == ("base",)
        assert floor_of[there[0]] < floor_of[here[0]] or same_folder_base, (
            f"{'.'.join(here)} must not import {'.'.join(there)}."
        )
