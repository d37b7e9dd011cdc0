"""The house: its wings, what each file may import, and the picture in the README.

`python -m tests.house` draws that picture anew.
"""

import ast
import functools
import pathlib
import re
from collections.abc import Iterator

import vijax


ROOT = pathlib.Path(vijax.__file__).parent
README = ROOT.parent / "README.md"

# The wings of each floor, from the top down, and what they hold. A file imports lower
# floors and the `base` of its own folder.
FLOORS: tuple[dict[str, str], ...] = (
    {"__main__": "a demonstration: `python -m vijax`"},
    {"__init__": "the public names"},
    {
        "_report": "how far to trust a fit: evidence, verdict, text",
        "_export": "ArviZ, NUTS, plots",
    },
    {"_run": "the host's side: fit, resume, save, load, Ctrl-C"},
    {"_loop": "the compiled loop and its stopping rules"},
    {
        "_method": "public methods, one a file",
        "_diagnostic": "functions of draws, one a file",
        "_survey": "more starts, for modes that nobody has seen",
    },
    {"_auto": "the default: stages, modes, what comes next"},
    {
        "_draws": "draws, their weights, what the weights say",
        "_nested": "some coordinates, and the others given them",
        "_objective": "losses, one a file",
        "_solver": "algorithms on points, values and scores",
    },
    {
        "_frontend": "models of all kinds as targets, one function a file",
        "_family": "distributions, one a file",
        "_kernel": "kernels, one a file",
    },
    {"_target": "what is approximated, and how a step sees it"},
    {
        "_closures": "functions that compare by value",
        "_host_distributions": "Gaussians and their kin in NumPy",
        "_interpolation": "values between scattered points",
        "_linalg": "roots of matrices",
    },
    {
        "_arrays": "what works on arrays of JAX and of NumPy",
        "_custom_types": "aliases",
        "_factors": "many sparse triangular matrices",
        "_keys": "keys, and the host's random numbers",
        "_misc": "helpers that know nothing of inference",
    },
)
# Some wings tell a story, where a file rests on others. From the ground up, each line on
# those before it; files that are not named stand on top. In all other wings no file
# imports its siblings.
WITHIN: dict[str, tuple[str, ...]] = {
    "_target": ("data permutation support axes", "minibatch", "model", "plates target"),
    "_frontend": (
        "numpyro_sites numpyro_handlers pymc_special pymc_rewrite host_call",
        "numpyro_enumeration numpyro_points numpyro_traces pymc_forms pymc_data",
        "pymc_host",
        "numpyro_model pymc_jax",
        "numpyro_brute_force pymc_graph pymc_sample",
        "pymc_words",
        "pymc_model",
    ),
    "_draws": (
        "psis resample proposal hamiltonian evaluation",
        "draws",
        "draw diagnosis particle_draws",
    ),
    "_family": ("nested_on_host",),
    "_export": ("nuts_start",),
    "_auto": ("modes budget judgement",),
    "_solver": ("score_regression",),
    "_nested": (
        "curvature restart split t_mixture",
        "conditional curvature_change",
        "state",
        "design marginal",
    ),
    "_method": ("auto",),
    "_survey": ("climb optima rest starts", "rounds"),
    "_run": (
        "files",
        "archive interrupt results progress_bar checks method_names points history",
        "checkpoint start options",
        "explain",
        "compiled_run host_run",
        "host surveyed",
        "richer_family started",
        "auto_batches",
        "resume",
        "fit_result",
    ),
    "_report": (
        "mirror_images mode_search number_format trajectories",
        "evidence",
        "verdict text",
    ),
}

_FLOOR_OF = {wing: -i for i, floor in enumerate(FLOORS) for wing in floor}
Parts = tuple[str, ...]


@functools.cache
def files() -> dict[Parts, pathlib.Path]:
    """The files of the package by the parts of their names."""
    paths = sorted(ROOT.rglob("*.py"))
    return {path.relative_to(ROOT).with_suffix("").parts: path for path in paths}


def imports(here: Parts, code: ast.AST) -> Iterator[Parts]:
    """What some code in the file `here` imports from the package."""
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            base = here[: len(here) - node.level]
            base += tuple(node.module.split(".")) if node.module else ()
            # A name in a folder may be a file of it.
            inside = ((*base, alias.name) for alias in node.names)
            found = [parts for parts in inside if parts in files()]
            yield from found or [base]


def problem_of(here: Parts, there: Parts) -> str | None:
    """What is wrong with an import of `there` in `here`, if anything is."""
    names = ".".join(here), ".".join(there)
    unknown = [parts[0] for parts in (here, there) if parts[0] not in _FLOOR_OF]
    if unknown:
        return f"`{unknown[0]}` is no wing of the table in `tests/house.py`."
    if here[0] != there[0]:
        if _FLOOR_OF[there[0]] < _FLOOR_OF[here[0]]:
            return None
        return "`{}` must not import `{}`, which is not on a lower floor.".format(*names)
    if there == (*here[:-1], "base") or _story(there) < _story(here):
        return None
    return "`{}` must not import its sibling `{}`.".format(*names)


def _story(parts: Parts) -> int:
    """On which floor of its wing a file stands."""
    stories = WITHIN.get(parts[0], ())
    named = [i for i, names in enumerate(stories) if parts[1] in names.split()]
    return named[0] if named else len(stories)


def wings() -> dict[str, set[str]]:
    """Which wings each wing imports."""
    out: dict[str, set[str]] = {wing: set() for floor in FLOORS for wing in floor}
    for here, path in files().items():
        for there in imports(here, ast.parse(path.read_text())):
            out[here[0]] |= {there[0]} - {here[0]}
    # The demonstration imports the package as a user does.
    out["__main__"] = {"__init__"}
    return out


def picture() -> str:
    """The floors from the top down, with the wings that each rests on directly."""
    graph = wings()
    ground = set().union(*FLOORS[-2:])

    def below(wing: str) -> set[str]:
        return graph[wing].union(*(below(other) for other in graph[wing]))

    lines = []
    for i, floor in enumerate(FLOORS[:-2]):
        for wing, holds in floor.items():
            through = set().union(*(below(other) for other in graph[wing]))
            direct = [w for f in FLOORS for w in f if w in graph[wing] - through - ground]
            number = f"{len(FLOORS) - 2 - i}" if wing == next(iter(floor)) else ""
            rest = f" -> {' '.join(direct)}" if direct else ""
            lines.append(f"{number:>2s}  {wing:12s} {holds:52s}{rest}".rstrip())
    helpers = " ".join(f"{wing}.py" for wing in sorted(ground))
    return "\n".join([*lines, f" 0  {helpers}"])


def drawn(text: str) -> str:
    """The text of the README with the picture as it is now."""
    pattern = r"(<!-- house -->\n```text\n).*?(```\n)"
    return re.sub(pattern, lambda m: m[1] + picture() + "\n" + m[2], text, flags=re.S)


if __name__ == "__main__":
    README.write_text(drawn(README.read_text()))
    print(picture())
