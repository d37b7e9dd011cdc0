"""Files of fits as somebody might forge them, or as a bad disk leaves them."""

import io
import json
import pathlib
import warnings
import zipfile

import jax.random as jr
import numpy as np
import optax

import vijax as vi
from vijax._run.archive import _checksum

from ..helpers import diagonal_target


def tiny_fit():
    """A fit with a stopping rule and records of a tracker."""
    return vi.fit(
        diagonal_target(),
        vi.Descent(vi.ELBO(), optax.adam(0.05)),
        key=jr.key(8),
        stop=vi.LossConvergence(),
        track={"mean": lambda key, family, target: family.mean},
        track_every=5,
        max_steps=20,
        progress=False,
    )


def as_file(value):
    """An array as a file of NumPy."""
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def preamble(text):
    """What NumPy writes before the numbers of an array."""
    text = text.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text


class Forged:
    """The parts of a file. Whatever becomes of them, the checksum is right in the end,
    unless it is in the header by then."""

    def __init__(self, path: pathlib.Path):
        with zipfile.ZipFile(path) as file:
            self.parts = {name: file.read(name) for name in file.namelist()}
        self.header = json.loads(str(np.load(io.BytesIO(self.parts.pop("header.npy")))))
        del self.header["checksum"]
        # What may stand in place of the whole file, and of its header.
        self.bytes = None
        self.text = None
        self.head = None
        self.has_checksum = True
        self.compression = zipfile.ZIP_STORED
        self.more = {}

    def key(self, name):
        """The part that holds an array, whose name ends in `name`."""
        (found,) = (i for i, x in enumerate(self.header["leaves"]) if x.endswith(name))
        return f"leaf{found}.npy"

    def get(self, name):
        return np.load(io.BytesIO(self.parts[self.key(name)]))

    def put(self, name, value):
        self.parts[self.key(name)] = value if isinstance(value, bytes) else as_file(value)

    def describe(self, name, text):
        """Put another description of an array into the header."""
        (found,) = (x for x in self.header["leaves"] if x.endswith(name))
        self.header["leaves"][found] = text

    def checksum(self):
        return _checksum(self.header, list(self.parts.values()))

    def whole(self):
        """The file."""
        if self.bytes is not None:
            return self.bytes
        sealed = {"checksum": self.checksum()} | self.header
        text = json.dumps(sealed if self.has_checksum else self.header)
        head = as_file(np.array(text if self.text is None else self.text))
        parts = [("header.npy", head if self.head is None else self.head)]
        buffer = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as file:
            warnings.simplefilter("ignore")  # That a name is there twice.
            for name, part in [*parts, *self.parts.items(), *self.more.items()]:
                file.writestr(name, part, self.compression)
        return buffer.getvalue()


def array(name, change):
    """A change of an array, but not of its description."""
    return lambda forged: forged.put(name, change(forged.get(name)))


def entry(name, value):
    """A change of one number of an array, the last."""

    def act(forged):
        numbers = forged.get(name).copy()
        numbers[(-1,) * numbers.ndim] = value
        forged.put(name, numbers)

    return act


def raw(name, change):
    """A change of an array as a file of NumPy."""

    def act(forged):
        key = forged.key(name)
        forged.parts[key] = change(forged.parts[key])

    return act


def header(**parts):
    """A change of the header."""
    return lambda forged: forged.header.update(parts)


def instead(**parts):
    """Something in place of a part of the file, or of all of it."""
    return lambda forged: vars(forged).update(parts)


def old(*changes):
    """A file of the format that has no checksum."""

    def act(forged):
        forged.header["format"] = "vijax-fit-1"
        forged.has_checksum = False
        for change in changes:
            change(forged)

    return act


def unsealed(change):
    """A change that the checksum knows nothing of."""

    def act(forged):
        forged.header["checksum"] = forged.checksum()
        change(forged)

    return act


def patch(before, after, *, last=False):
    """Other bytes somewhere in the file as a whole."""

    def act(forged):
        whole = forged.whole()
        at = whole.rindex(before) if last else whole.index(before)
        forged.bytes = whole[:at] + after + whole[at + len(after) :]

    return act


def cut(fraction):
    """The first part of the file."""

    def act(forged):
        whole = forged.whole()
        forged.bytes = whole[: int(fraction * len(whole))]

    return act
