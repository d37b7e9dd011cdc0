"""Timing in fresh processes: what a first call costs is gone after the first call."""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def timed(fn: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until everything that `fn` returns is computed, and what it returns."""
    import jax

    began = time.perf_counter()
    out = jax.block_until_ready(fn())
    return time.perf_counter() - began, out


def warm_up() -> None:
    """Start JAX's backend, so that no contender pays for it."""
    import jax
    import jax.numpy as jnp

    jax.block_until_ready(jax.jit(lambda x: jnp.sin(x) + 1)(jnp.arange(3.0)))


def in_child(script: str, *arguments: str) -> dict[str, Any]:
    """Run `script` in a fresh process; its last line of output is JSON."""
    command = [sys.executable, script, "--child", *arguments]
    environment = {**os.environ, "EQX_ON_ERROR": "nan"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        print(done.stderr[-2_000:], file=sys.stderr)
        return {}
    return json.loads(done.stdout.strip().splitlines()[-1])


def arguments(description: str | None, **folders: str) -> argparse.Namespace:
    """What all the benchmarks can be asked, and folders of one's own with their help."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes each")
    parser.add_argument("--only", nargs="*", help="names of workloads (default: all)")
    parser.add_argument("--output", type=pathlib.Path, help="write the figures as JSON")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    for name, text in folders.items():
        parser.add_argument(f"--{name}", type=pathlib.Path, help=text)
    return parser.parse_args()


def where() -> str:
    """The versions and the machine."""
    import jax

    device = jax.devices()[0]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {device.device_kind}"
    return f"jax {jax.__version__}, Python {platform.python_version()}, {machine}"


def finish(options: argparse.Namespace, rows: Any) -> None:
    """Say where this was measured, and write the figures if asked to."""
    print(f"\n{where()}")
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1))
