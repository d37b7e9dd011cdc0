"""What killed processes leave of a file is cleared, and nothing else is."""

import os
import signal
import subprocess
import sys

import pytest

import vijax as vi
from vijax._run import files

from ..helpers import diagonal_target, same
from .forge import tiny_fit


@pytest.fixture(scope="module")
def fit():
    return tiny_fit()


def temporary(path, process, place=None):
    """A temporary file as this process would be writing."""
    place = files._place() if place is None else place
    left = path.parent / f"{files._prefix(path)}{place}-{process}-0123abcd"
    left.write_bytes(b"half")
    return left


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_only_what_dead_processes_left_is_cleared(fit, tmp_path, sleeper):
    path = tmp_path / "fit"
    alive = temporary(path, sleeper.pid)
    elsewhere = temporary(path, 1, "somewhere")
    long_ago = temporary(path, 2, "somewhere")
    os.utime(long_ago, (0, 0))
    same_number = temporary(path, os.getpid())
    others = [temporary(tmp_path / name, os.getpid()) for name in ("fit2", "2fit", "f.t")]
    others += [tmp_path / ".fit.vijax-notes", tmp_path / ".fit.abcd1234"]
    for other in others[3:]:
        other.write_bytes(b"theirs")
    vi.save(path, fit)
    assert not same_number.exists()
    assert not long_ago.exists()
    assert all(other.exists() for other in [alive, elsewhere, *others])
    sleeper.kill()
    sleeper.communicate()
    vi.save(path, fit)
    assert not alive.exists()
    assert sorted(tmp_path.iterdir()) == sorted([path, elsewhere, *others])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="not root")
def test_the_files_of_other_people_are_left_alone(fit, tmp_path):
    path = tmp_path / "fit"
    theirs = temporary(path, os.getpid())
    os.chown(theirs, 12_345, 12_345)
    link = path.parent / theirs.name.replace("0123abcd", "00000000")
    link.symlink_to(path)
    vi.save(path, fit)
    assert theirs.exists()
    assert link.is_symlink()


KILLED = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)

def fill(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(600)

files.replace_file(pathlib.Path(sys.argv[2]), fill)
"""


def test_what_a_killed_run_left_is_cleared_by_the_next(fit, tmp_path, getkey):
    path = tmp_path / "fit"
    command = [sys.executable, "-c", KILLED, files.__file__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        try:
            vi.save(path, fit)
            assert len(list(tmp_path.iterdir())) == 2  # It is still alive.
        finally:
            process.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 2
    options = {"max_steps": 20, "progress": False, "checkpoint": path}
    ours = vi.fit(diagonal_target(), "advi", key=getkey(), **options)
    assert list(tmp_path.iterdir()) == [path]
    assert same(vi.load(path, like=ours), ours)
