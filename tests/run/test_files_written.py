"""Where and how files are written: links, devices, permissions, full disks."""

import errno
import os
import pathlib
import stat
import threading

import equinox as eqx
import pytest

import vijax as vi
from vijax._run import files

from ..helpers import diagonal_target, same
from .forge import tiny_fit


@pytest.fixture(scope="module")
def fit():
    return tiny_fit()


@pytest.fixture(scope="module")
def other(fit):
    return fit.resume(5, progress=False)


def run(checkpoint, key, **options):
    options = {"method": "advi", "max_steps": 20, "progress": False} | options
    return vi.fit(diagonal_target(), key=key, checkpoint=checkpoint, **options)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_is_followed(fit, other, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "fit", tmp_path / "here" / "link"
    link.symlink_to(pathlib.Path("..") / "there" / "fit")
    # One that leads nowhere yet, and one to a file.
    for new in (fit, other):
        vi.save(link, new)
        assert link.is_symlink()
        assert not real.is_symlink()
        assert same(vi.load(real, like=fit), new)
        assert {*tmp_path.glob("*/*")} == {real, link}


def test_a_checkpoint_goes_through_links(tmp_path, getkey):
    real, links = tmp_path / "real", [tmp_path / "first", tmp_path / "second"]
    real.write_bytes(b"before")
    links[1].symlink_to(real)
    links[0].symlink_to(links[1])
    fit = run(links[0], getkey())
    assert all(link.is_symlink() for link in links)
    assert same(vi.load(real, like=fit), fit)


def make_link_to_nowhere(path):
    path.symlink_to(path.parent / "no" / "fit")


def make_device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except (OSError, AttributeError):
        pytest.skip("not permitted to make a device")


def make_link_to_a_pipe(path):
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to(path.with_name("pipe"))


OTHERS = {
    "pipe": (os.mkfifo, "is a device, a pipe or the like. Name a file"),
    "link to a pipe": (make_link_to_a_pipe, "is a device, a pipe or the like"),
    "device": (make_device, "is a device, a pipe or the like"),
    "folder": (os.mkdir, "is a folder. Name a file in it"),
    "link to nowhere": (make_link_to_nowhere, "there is no folder '.*no'. Make it first"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_file_is_refused_at_once(name, fit, tmp_path, getkey):
    make, match = OTHERS[name]
    path = tmp_path / "fit"
    make(path)
    before = path.lstat().st_ino, path.lstat().st_mode

    def never(fit):
        pytest.fail("The run has started.")

    with pytest.raises(ValueError, match=f"`checkpoint` is '{path}', .*{match}"):
        run(path, getkey(), callbacks=never, callback_every=1)
    with pytest.raises(ValueError, match=f"`path` is '{path}', .*{match}"):
        vi.save(path, fit)
    assert (path.lstat().st_ino, path.lstat().st_mode) == before
    if name == "link to nowhere":
        with pytest.raises(FileNotFoundError):
            vi.load(path, like=fit)
    else:
        with pytest.raises(ValueError, match=f"`path` is '{path}', .*{match}"):
            vi.load(path, like=fit)


def test_what_the_system_refuses_is_its_own_error(fit, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "fit")

    with pytest.raises(FileNotFoundError):
        vi.load(tmp_path / "fit", like=fit)
    (tmp_path / "fit").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        vi.load(tmp_path / "fit" / "fit", like=fit)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError):
        vi.load(tmp_path / "fit", like=fit)


@pytest.mark.parametrize("path", [b"fit", 3, None, "a\0b", ["fit"]])
def test_what_is_no_path_is_refused(path, fit, getkey, as_for_users):
    match = "must be a path such as"
    with pytest.raises(ValueError, match=f"`path` {match}"):
        vi.save(path, fit)
    with pytest.raises(ValueError, match=f"`path` {match}"):
        vi.load(path, like=fit)
    if path is not None:
        with pytest.raises(ValueError, match=f"`checkpoint` {match}"):
            run(path, getkey())


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o000])
def test_permissions_are_those_of_a_new_file(umask, fit, other, tmp_path):
    before = os.umask(umask)
    try:
        (tmp_path / "plain").write_bytes(b"")
        vi.save(tmp_path / "fit", fit)
        assert mode(tmp_path / "fit") == mode(tmp_path / "plain") == 0o666 & ~umask
        # A file that exists keeps its own.
        os.chmod(tmp_path / "fit", 0o604)
        vi.save(tmp_path / "fit", other)
        assert mode(tmp_path / "fit") == 0o604
    finally:
        os.umask(before)


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_home_is_meant_by_a_tilde(kind, fit, tmp_path, getkey, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    vi.save(kind("~/fit"), fit)
    assert same(vi.load(kind("~/fit"), like=fit), fit)
    assert same(vi.load(tmp_path / "fit", like=fit), fit)
    ours = run(kind("~/run"), getkey())
    assert same(vi.load(kind("~/run"), like=ours), ours)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit", "run"]


def test_a_long_name_is_possible(fit, tmp_path):
    path = tmp_path / ("x" * 250)
    vi.save(path, fit)
    assert list(tmp_path.iterdir()) == [path]


def test_two_threads_write_one_file(tmp_path):
    path = tmp_path / "fit"

    def outer(file):
        inner = lambda file: file.write(b"inner")
        thread = threading.Thread(target=files.replace_file, args=(path, inner))
        thread.start()
        thread.join()
        assert path.read_bytes() == b"inner"
        file.write(b"outer")

    files.replace_file(path, outer)
    assert path.read_bytes() == b"outer"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_and_then_its_folder_are_on_the_disk(fit, tmp_path, monkeypatch):
    seen, replace = [], os.replace

    def fsync(handle):
        seen.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        if seen[-1] == "folder":
            raise OSError(errno.EINVAL, "Invalid argument")  # As some systems have it.

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr(
        "os.replace", lambda *paths: (seen.append("replace"), replace(*paths))
    )
    vi.save(tmp_path / "fit", fit)
    assert seen == ["file", "replace", "folder"]
    assert same(vi.load(tmp_path / "fit", like=fit), fit)


@pytest.mark.slow
def test_a_disk_that_fills_up_between_two_stages_keeps_the_fit(
    tmp_path, getkey, monkeypatch
):
    # Weights that are poor, for once, and nothing else that fits into the budget.
    monkeypatch.setattr("vijax._run.richer_family.is_poor", lambda *_, **__: True)
    monkeypatch.setattr("vijax._run.richer_family.suits_a_flow", lambda *_: False)
    monkeypatch.setattr("vijax._run.richer_family.suits_nesting", lambda *_: False)
    full = OSError(errno.ENOSPC, "No space left on device")

    def save(path, fit):
        raise full

    monkeypatch.setattr("vijax._run.richer_family.write_last", save)
    path = tmp_path / "fit"
    match = r"OSError after \d+ steps: .*No space left.*`error.fit.resume\(max_steps\)`"
    with pytest.raises(vi.FitError, match=match) as info:
        run(path, getkey(), method="auto", max_steps=10_000)
    assert info.value.__cause__ is full
    fit = info.value.fit
    assert fit.result == vi.RESULTS.failed
    before = vi.load(path, like=fit)
    assert eqx.tree_equal((before.family, before.losses), (fit.family, fit.losses))
    assert fit.resume(progress=False).result == vi.RESULTS.converged
