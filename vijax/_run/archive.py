"""Pytrees of arrays in a file, read back bit for bit or not at all."""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, IO, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from .files import replace_file


_FORMAT = "vijax-fit-2"
# The one before it has no checksum.
_FORMATS = "vijax-fit-1", _FORMAT
# What NumPy writes before an array of plain numbers. To read it like this, and not by
# NumPy, allocates nothing and runs nothing that the file asks for.
_PREAMBLE = re.compile(
    rb"\x93NUMPY\x01\x00(?P<size>[\x00-\xff]{2})\{'descr': '(?P<dtype>[^']*)', "
    rb"'fortran_order': (?P<order>True|False), 'shape': (?P<shape>\([\d, ]*\)), \} *\n"
)


class _Damage(Exception):
    """What is wrong with a file, in words that follow "it is damaged: "."""


class Stored(NamedTuple):
    """What a file holds, whole but not yet arrays.

    **Attributes:**

    - `path`: the file.
    - `context`: what [`write`][] was told that must agree.
    - `leaves`: `{name: description}` of each array.
    - `arrays`: each array as a file of NumPy.
    """

    path: pathlib.Path
    context: dict[str, str]
    leaves: dict[str, str]
    arrays: list[bytes]


def damaged(path: pathlib.Path, why: str) -> ValueError:
    """What to raise for a file that is not whole, or makes no sense."""
    return ValueError(
        f"{str(path)!r} is not a file that this version of vijax wrote with `vi.save`, "
        f"or it is damaged: {why}."
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> Any:
    return jr.key_data(leaf) if _is_key(leaf) else leaf


def _entries(tree: PyTree) -> dict[str, Any]:
    return {jtu.keystr(path): leaf for path, leaf in jtu.tree_flatten_with_path(tree)[0]}


def _describe(dtype: Any, shape: tuple[int, ...]) -> str:
    return f"{dtype}{list(shape)}"


def _as_file(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
    return buffer.getvalue()


def _names(count: int) -> list[str]:
    return ["header.npy", *(f"leaf{i}.npy" for i in range(count))]


def _checksum(header: dict, arrays: list[bytes]) -> str:
    """Of names, dtypes, shapes, numbers, and what must agree."""
    out = hashlib.sha256(json.dumps(header).encode())
    for array in arrays:
        out.update(array)
    return out.hexdigest()


def write(path: pathlib.Path, fixed: PyTree, growing: PyTree, context: dict) -> None:
    """Write arrays to `path`.

    **Arguments:**

    - `path`: the file. Replaced in one go, so that it never holds half of anything.
    - `fixed`: arrays whose shapes must agree on reading.
    - `growing`: arrays whose leading axes may be longer or shorter on reading.
    - `context`: what else must agree on reading: `{name: description}`.
    """
    entries = _entries((fixed, growing))
    leaves = {name: _describe(leaf.dtype, leaf.shape) for name, leaf in entries.items()}
    arrays = [_as_file(np.asarray(_numbers(leaf))) for leaf in entries.values()]
    header = {"format": _FORMAT, "context": context, "leaves": leaves}
    header["checksum"] = _checksum(header, arrays)
    parts = [_as_file(np.array(json.dumps(header))), *arrays]

    def fill(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as out:
            for name, part in zip(_names(len(arrays)), parts, strict=True):
                # Without the time, so that equal fits are equal files.
                out.writestr(zipfile.ZipInfo(name), part)

    replace_file(path, fill)


def read(path: pathlib.Path) -> Stored:
    """What is in a file that [`write`][] wrote, this version's or one before.

    Takes memory for the bytes that the file has, not for those that it speaks of.

    **Raises:** `ValueError`, naming the file, if it is none of ours or not whole;
    `OSError` as `open` does.
    """
    with open(path, "rb") as file:
        try:
            header, arrays = _parts(file)
        except _Damage as e:
            raise damaged(path, str(e)) from e
    return Stored(path, header["context"], header["leaves"], arrays)


@contextlib.contextmanager
def _or_damage(why: str) -> Iterator[None]:
    """Whatever other people's code stumbles over in here is the file's fault, except for
    what the disk reports."""
    try:
        yield
    except Exception as e:
        # To seek to before the start of a file is an `OSError` too.
        if isinstance(e, _Damage) or (isinstance(e, OSError) and e.errno != errno.EINVAL):
            raise
        raise _Damage(why) from e


def _parts(file: IO[bytes]) -> tuple[dict, list[bytes]]:
    """The header, and each array as a file of NumPy."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise _Damage("it is empty")
    if file.read(4) != b"PK\3\4":
        raise _Damage("it is no zip file")
    with _or_damage("it was cut short, or overwritten at its end"):
        archive = zipfile.ZipFile(file)
    with archive:
        # Parts that overlap could hold more than the file.
        if sum(info.compress_size for info in archive.infolist()) > size:
            raise _Damage("it says that it holds more than there is in it")
        infos = {info.filename: info for info in archive.infolist()}
        if "header.npy" not in infos:
            raise _Damage("it has no header")
        header = _header(_part(archive, infos["header.npy"]))
        names = _names(len(header["leaves"]))
        if sorted(archive.namelist()) != sorted(names):
            odd = sorted({*names} ^ infos.keys()) or ["one of them twice"]
            raise _Damage(f"its parts are not those of its header: {', '.join(odd[:3])}")
        arrays = [_part(archive, infos[name]) for name in names[1:]]
    checksum = header.pop("checksum", None)
    if header["format"] == _FORMAT and checksum != _checksum(header, arrays):
        raise _Damage("its checksum is not that of its content")
    return header, arrays


def _part(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    name = info.filename
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise _Damage(f"`{name}` is compressed, which it never is")
    with _or_damage(f"`{name}` is cut short or overwritten"), archive.open(info) as part:
        return part.read()


def _header(part: bytes) -> dict:
    preamble = _preamble(part, "the header")
    if not re.fullmatch(rb"<U\d+", preamble["dtype"]) or preamble["shape"] != b"()":
        raise _Damage("its header is no text")
    with _or_damage("its header is no text"):
        text = part[preamble.end() :].decode("utf-32-le")
    with _or_damage("its header is no JSON, or too deep"):
        header = json.loads(text)
    is_text = lambda x: (
        isinstance(x, dict) and all(isinstance(v, str) for v in x.values())
    )
    if not isinstance(header, dict) or header.get("format") not in _FORMATS:
        raise _Damage("its header is of no known format")
    if not is_text(header.get("context")) or not is_text(header.get("leaves")):
        raise _Damage("its header does not describe what it holds")
    return header


def _preamble(part: bytes, what: str) -> re.Match[bytes]:
    found = _PREAMBLE.match(part)
    if found is None or 10 + int.from_bytes(found["size"], "little") != found.end():
        raise _Damage(f"{what} is no array of numbers or text")
    return found


def _array(part: bytes, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An array of just this dtype and shape."""
    found = _preamble(part, f"`{name}`")
    there = found["dtype"].decode("latin1"), found["shape"].decode("latin1")
    here = dtype.str, repr(shape)
    if there != here:
        has, should = " ".join(there), " ".join(here)
        raise _Damage(f"`{name}` is an array {has}, but by its description {should}")
    if len(part) - found.end() != math.prod(shape) * dtype.itemsize:
        raise _Damage(f"`{name}` is shorter or longer than its shape says")
    order = "F" if found["order"] == b"True" else "C"
    array = np.ndarray(shape, dtype, part, found.end(), order=order)
    if dtype == np.bool_ and np.any(array.view(np.uint8) > 1):
        raise _Damage(f"`{name}` holds truth values that are neither 0 nor 1")
    return array


class Varies(NamedTuple):
    """By their names: which arrays may have any shape with as many axes, which any
    length, and which a file of an earlier version does not have."""

    in_shape: Callable[[str], bool]
    in_length: Callable[[str], bool]
    is_new: Callable[[str], bool]


def fill_in(
    stored: Stored,
    fixed: PyTree,
    growing: PyTree,
    context: dict,
    varies: Varies,
) -> tuple[PyTree, PyTree]:
    """The arrays of a file, in the places of `fixed` and `growing`.

    **Raises:** `ValueError` if they do not match, or are not as they are described.
    """
    like = _entries((fixed, growing))
    num_fixed = len(jtu.tree_leaves(fixed))

    def refuse(what: str, in_file: Any, in_like: Any):
        raise ValueError(
            f"{str(stored.path)!r} does not match `like`: {what} is {in_file} in the "
            f"file, but {in_like} in `like`. Build `like` with the target, method, "
            "family, stopping rule and trackers of the fit that was saved."
        )

    for name in sorted({*stored.context, *context}):
        there, here = stored.context.get(name), context.get(name)
        if there != here:
            refuse(name, there or "absent", here or "absent")
    described = {name: _describe(leaf.dtype, leaf.shape) for name, leaf in like.items()}
    absent = {name for name in like if name not in stored.leaves and varies.is_new(name)}
    for name in [*stored.leaves, *like]:
        if (name not in like or name not in stored.leaves) and name not in absent:
            there = stored.leaves.get(name, "absent")
            refuse(f"`{name}`", there, described.get(name, "absent"))
    parts = dict(zip(stored.leaves, stored.arrays, strict=True))
    out = []
    for i, (name, leaf) in enumerate(like.items()):
        if name in absent:
            out.append(leaf)
            continue
        there, shape = stored.leaves[name], leaf.shape
        if varies.in_shape(name):
            shape = _shape(there, len(shape)) or shape
        elif i >= num_fixed or varies.in_length(name):
            shape = (_num_rows(there), *shape[1:])
        dtype = leaf.dtype
        if isinstance(leaf, np.ndarray) and there == _describe("float32", shape):
            # What the host keeps with 64 bits an earlier version had with fewer.
            dtype = np.dtype(np.float32)
        if there != _describe(dtype, shape):
            refuse(f"`{name}`", there, described[name])
        out.append(_as_leaf(stored.path, parts[name], name, leaf, shape, dtype))
    return jtu.tree_unflatten(jtu.tree_structure((fixed, growing)), out)


def _num_rows(description: str) -> int:
    """The length of the leading axis; 0 if there is none, which fits no description."""
    found = re.search(r"\[(\d{1,18})[,\]]", description)
    return int(found[1]) if found else 0


def _shape(description: str, num_axes: int) -> tuple[int, ...] | None:
    """The shape in a description, if it has so many axes."""
    sizes = re.findall(r"(?<=[\[ ])\d{1,18}(?=[,\]])", description)
    return tuple(map(int, sizes)) if len(sizes) == num_axes else None


def _as_leaf(
    path: pathlib.Path, part: bytes, name: str, leaf: Any, shape: tuple, dtype: Any
) -> Any:
    numbers = _numbers(leaf)
    whole = shape + numbers.shape[leaf.ndim :]
    try:
        value = _array(part, name, numbers.dtype if _is_key(leaf) else dtype, whole)
    except _Damage as e:
        raise damaged(path, str(e)) from e
    if isinstance(leaf, np.ndarray):
        return value.astype(leaf.dtype)
    value = jax.device_put(value)
    return jr.wrap_key_data(value, impl=jr.key_impl(leaf)) if _is_key(leaf) else value
