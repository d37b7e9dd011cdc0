"""Paths as users give them, and files that are replaced in one go."""

import contextlib
import hashlib
import os
import pathlib
import re
import secrets
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any, IO


# After so long without a change nobody writes a file any more, in seconds.
_ABANDONED = 24 * 60 * 60.0
# The longest name, in bytes, that leaves room for what a temporary name adds.
_LONGEST = 200
# The temporary names that this process is writing to.
_IN_USE: set[str] = set()


def as_path(name: str, path: Any) -> pathlib.Path:
    """`path` with its `~` expanded, or an error that names the argument."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(
            f'`{name}` must be a path such as "fit.npz", a string or a `pathlib.Path`, '
            f"but it is {path!r}."
        )
    return pathlib.Path(os.path.expanduser(text))


def check_no_other(name: str, path: pathlib.Path) -> None:
    """Raise if what is at `path`, or where a link there leads, is something other than a
    file. Nothing may be there."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        what = "a folder. Name a file in it."
    elif not stat.S_ISREG(mode):
        what = "a device, a pipe or the like. Name a file."
    else:
        return
    raise ValueError(f"`{name}` is {str(path)!r}, which is {what}")


def replace_file(path: pathlib.Path, fill: Callable[[IO[bytes]], None]) -> None:
    """Write a file whole or not at all, on the disk by the time that this returns.

    Its permissions are those that it has, or those of any new file.

    **Arguments:**

    - `path`: the file, or a link to it, which stays one.
    - `fill`: writes the content.
    """
    path, mode = pathlib.Path(os.path.realpath(path)), None
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
    temporary = str(path.parent / f"{_prefix(path)}{_writer()}-{secrets.token_hex(4)}")
    opener = lambda name, flags: os.open(name, flags, 0o666 if mode is None else mode)
    _IN_USE.add(temporary)
    try:
        with open(temporary, "xb", opener=opener) as file:
            if mode is not None:
                # The umask applied to it. Some file systems know no permissions.
                with contextlib.suppress(OSError):
                    os.chmod(temporary, mode)
            # First, since they may be what fills the disk.
            _clear_abandoned(path, os.fstat(file.fileno()).st_mtime)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        _IN_USE.discard(temporary)
    _sync_folder(path.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    # Else the file may have its old name after a power cut. Not all systems have this.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _prefix(path: pathlib.Path) -> str:
    """How the names of temporary files for `path` begin."""
    name = os.fsencode(path.name)
    short = path.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()
    return f".{short}.vijax-"


def _writer() -> str:
    return f"{_place() or 'unknown'}-{os.getpid()}"


def _place() -> str | None:
    """Where numbers of processes mean the same: this machine since it was started, and on
    it this container. `None` where that cannot be found out."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    text = f"{socket.gethostname()} {boot} {numbers}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _clear_abandoned(path: pathlib.Path, now: float) -> None:
    """Remove what killed processes left of this file.

    **Arguments:**

    - `path`: the file that they were to replace.
    - `now`: the time, by the clock of the file system, which may not be ours.
    """
    with contextlib.suppress(OSError):
        for entry, place, number in _temporaries(path):
            with contextlib.suppress(OSError):
                if _is_abandoned(entry, place, number, now):
                    os.unlink(entry.path)


def _temporaries(path: pathlib.Path) -> Iterator[tuple[os.DirEntry, str, int]]:
    """The temporary files for `path`, where they are written, and by which process."""
    name = re.compile(re.escape(_prefix(path)) + r"([a-z0-9]+)-(\d{1,9})-[0-9a-f]{8}")
    with os.scandir(path.parent) as entries:
        for entry in entries:
            found = name.fullmatch(entry.name)
            if found and entry.is_file(follow_symlinks=False):
                yield entry, found[1], int(found[2])


def _is_abandoned(entry: os.DirEntry, place: str, number: int, now: float) -> bool:
    seen = entry.stat(follow_symlinks=False)
    if hasattr(os, "geteuid") and seen.st_uid != os.geteuid():
        return False
    if place != _place():
        # A process of another machine or container: who knows whether it is alive.
        return now - seen.st_mtime > _ABANDONED
    if number == os.getpid():
        # Another thread's, or of a process that had our number before us.
        return entry.path not in _IN_USE
    return not _is_alive(number)


def _is_alive(number: int) -> bool:
    # Only where `_place` is known, and so not on Windows, where this would be Ctrl-C.
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
