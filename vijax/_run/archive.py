"""Pytrees of arrays in a file: written at once or not at all, read back bit for bit."""

import json
import os
import pathlib
import tempfile
import zipfile
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree


T = TypeVar("T")

_FORMAT = "vijax-fit-1"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jr.key_data(leaf) if _is_key(leaf) else leaf)


def _entries(tree: PyTree) -> dict[str, Any]:
    return {jtu.keystr(path): leaf for path, leaf in jtu.tree_flatten_with_path(tree)[0]}


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def write(path: str | os.PathLike, fixed: PyTree, growing: PyTree, context: dict) -> None:
    """Write arrays to `path`.

    **Arguments:**

    - `path`: the file. Replaced in one go, so that it never holds half of anything.
    - `fixed`: arrays whose shapes must agree on reading.
    - `growing`: arrays whose leading axes may be longer or shorter on reading.
    - `context`: what else must agree on reading: `{name: description}`.
    """
    path = pathlib.Path(path)
    entries = _entries((fixed, growing))
    header = {
        "format": _FORMAT,
        "context": context,
        "leaves": {name: _describe(leaf) for name, leaf in entries.items()},
    }
    arrays = {f"leaf{i}": _to_numpy(leaf) for i, leaf in enumerate(entries.values())}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)  # pyright: ignore[reportArgumentType]  # A name is no `allow_pickle`.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _parts(path: str | os.PathLike, *, arrays: bool = True) -> tuple[dict, list]:
    try:
        # Opened here, since NumPy leaves a damaged file open.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header.get("format") != _FORMAT:
                raise KeyError("format")
            count = len(header["leaves"]) if arrays else 0
            return header, [file[f"leaf{i}"] for i in range(count)]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise ValueError(
            f"{os.fspath(path)!r} is not a file that this version of vijax wrote with "
            "`vi.save`, or it is damaged."
        ) from e


def read_context(path: str | os.PathLike) -> dict[str, str]:
    """What [`write`][] was told that must agree.

    **Raises:** `ValueError` if the file is none of ours.
    """
    return _parts(path, arrays=False)[0]["context"]


def read(
    path: str | os.PathLike, fixed: PyTree, growing: PyTree, context: dict
) -> tuple[PyTree, PyTree]:
    """Read what [`write`][] wrote, shaped like `fixed` and `growing`.

    **Raises:** `ValueError` if the file is none of ours, or does not match.
    """
    like = _entries((fixed, growing))
    num_fixed = len(jtu.tree_leaves(fixed))
    header, arrays = _parts(path)

    def refuse(what: str, in_file: Any, in_like: Any):
        raise ValueError(
            f"{os.fspath(path)!r} does not match `like`: {what} is {in_file} in the "
            f"file, but {in_like} in `like`. Build `like` with the target, method, "
            "family, stopping rule and trackers of the fit that was saved."
        )

    for name in sorted({*header["context"], *context}):
        there, here = header["context"].get(name), context.get(name)
        if there != here:
            refuse(name, there or "absent", here or "absent")
    for name in [*header["leaves"], *like]:
        if name not in like or name not in header["leaves"]:
            there = header["leaves"].get(name, "absent")
            refuse(
                f"`{name}`", there, _describe(like[name]) if name in like else "absent"
            )
    out = []
    for i, (name, leaf) in enumerate(like.items()):
        there, here = header["leaves"][name], _describe(leaf)
        tail = arrays[i].shape[1:] == leaf.shape[1:]
        same = there == here if i < num_fixed else tail and there[:3] == here[:3]
        if not same:
            refuse(f"`{name}`", there, here)
        value = jax.device_put(arrays[i])
        if _is_key(leaf):
            value = jr.wrap_key_data(value, impl=jr.key_impl(leaf))
        out.append(value)
    return jtu.tree_unflatten(jtu.tree_structure((fixed, growing)), out)
