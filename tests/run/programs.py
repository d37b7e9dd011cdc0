"""Which programs are compiled, as JAX reports them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax.monitoring


_EVENT = "/jax/core/compile/backend_compile_duration"
_watched: list[list[str]] = []


def _listen(event: str, duration_secs: float, **known: Any) -> None:
    del duration_secs
    if event == _EVENT:
        name = str(known["fun_name"]).removeprefix("jit(").removesuffix(")")
        for names in _watched:
            names.append(name)


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def compiled() -> Iterator[list[str]]:
    """The names of the programs that are compiled while this is entered."""
    names: list[str] = []
    _watched.append(names)
    try:
        yield names
    finally:
        _watched.remove(names)
