"""What a new user waits for: first answers, in fresh processes.

`python -m benchmarks.cold`, from the root of the repository. Each model meets each of
these in a process of its own, which has imported everything, started JAX and made the
target before the clock starts:

- `floor`: the first call of `jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))`,
    at 64 points. Whatever fits a model has to compile this much.
- `fit`: the first `vi.fit`, then 4,000 draws with their parameters, then `vi.report` and
    its text, all counted from the start; then a second `vi.fit` with another key.
- `nuts`: NumPyro's NUTS on the same log density, four vectorized chains of 500 steps of
    warm-up and 1,000 draws, from points between -2 and 2; then once more by the same
    `MCMC`. Its draws are fetched as flat vectors, neither turned into the model's
    parameters nor diagnosed.
- `svi`: NumPyro's AutoMultivariateNormal, 20,000 steps of Adam, the first call.
- `pathfinder`: that of pymc-extras on PyMC's own model, with its defaults and with what
    PyTensor's cache on disk holds; only for models in PyMC, where pymc-extras is there.

Processor seconds are those of all threads, and of child processes that ended. Imports
that a call makes itself count. Peaks are of resident memory, until the report or the end
of the first NUTS; "before" is that of imports and target alone. Tables hold medians over
processes. The bars on the floor are for answers without a flow; a flow that was tried and
set aside counts as none. `--cache FOLDER` keeps JAX's compiled programs on disk, and the
second run with the same folder shows what that gains.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.cold.models import MODELS, PYMC_MODELS
from benchmarks.cold.table import Figures, tables
from benchmarks.harness import where


ROOT = pathlib.Path(__file__).parents[2]
WHAT = ("floor", "fit", "nuts", "svi", "pathfinder")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    several = lambda text: text.split(",")
    parser.add_argument("--models", type=several, default=[*MODELS], help="a,b,...")
    parser.add_argument("--only", type=several, default=[*WHAT], help="fit,nuts,...")
    parser.add_argument("--repeats", type=int, default=1, help="fresh processes each")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--timeout", type=float, help="wall seconds a process may take")
    parser.add_argument("--json", type=pathlib.Path, help="append figures, one a line")
    parser.add_argument("--cache", type=pathlib.Path, help="folder for JAX's programs")
    parser.add_argument("--one", help="measure this model here; needs `--what`")
    parser.add_argument("--what", choices=WHAT, help="what `--one` measures")
    parsed = parser.parse_args()
    for name, known in ((parsed.models, MODELS), (parsed.only, WHAT)):
        if unknown := sorted(set(name) - set(known)):
            parser.error(f"there is no {', '.join(unknown)}, only {', '.join(known)}")
    if (parsed.one is None) != (parsed.what is None) or parsed.one not in {None, *MODELS}:
        parser.error(f"`--one` takes one of {', '.join(MODELS)}, along with `--what`")
    return parsed


def environment(cache: pathlib.Path | None) -> dict[str, str]:
    """With errors as they were raised, so that their last line says what happened."""
    usual = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}
    if cache is None:
        return usual
    return {
        **usual,
        "JAX_COMPILATION_CACHE_DIR": str(cache.resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def in_child(name: str, what: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Figures of a fresh process, whose last line is JSON; none where it failed."""
    command = [sys.executable, "-m", "benchmarks.cold", "--one", name, "--what", what]
    command += ["--seed", str(asked.seed)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(asked.cache),
            timeout=asked.timeout,
        )
    except subprocess.TimeoutExpired:
        print(f"{name}, {what}: more than {asked.timeout:g} seconds", file=sys.stderr)
        return {}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        print(f"{name}, {what}: exit status {done.returncode}, {last}", file=sys.stderr)
        return {}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(asked: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of each process; repeats come last, so that noise meets all alike."""
    for repeat in range(asked.repeats):
        for name in asked.models:
            for what in asked.only:
                if what == "pathfinder" and name not in PYMC_MODELS:
                    continue
                figures = in_child(name, what, asked)
                if not figures:
                    continue
                print(f"{name}, {what}: {figures}", file=sys.stderr, flush=True)
                if asked.json:
                    row = {"model": name, "what": what, "repeat": repeat}
                    row |= {"seed": asked.seed, "cache": asked.cache is not None}
                    row |= {"load": os.getloadavg()[0], **figures}
                    with asked.json.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                yield name, figures


def main() -> None:
    asked = options()
    if asked.one:
        from benchmarks.cold.measure import measure

        print(json.dumps(measure(asked.one, asked.what, asked.seed)))
        return
    results: dict[str, Figures] = {}
    for name, figures in measured(asked):
        row = results.setdefault(name, {})
        for key, value in figures.items():
            row.setdefault(key, []).append(value)
    print(tables(results))
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
