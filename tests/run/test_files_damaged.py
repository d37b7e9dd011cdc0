"""Files that are damaged or forged are refused, in words and by name."""

import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

import vijax as vi

from .forge import (
    array,
    as_file,
    cut,
    entry,
    Forged,
    header,
    instead,
    old,
    patch,
    preamble,
    raw,
    tiny_fit,
    unsealed,
)


@pytest.fixture(scope="module")
def fit():
    return tiny_fit()


@pytest.fixture
def saved(fit, tmp_path):
    vi.save(tmp_path / "fit.npz", fit)
    return tmp_path / "fit.npz"


LOSSES, LOC, MEANS, STEPS = "[1][0]", ".family.loc", "['mean']", "[1][2]"
DECLARED = "{'descr': '<f8', 'fortran_order': False, 'shape': %s, }"


def huge(forged):
    """Descriptions that agree on more than there is on any disk."""
    forged.describe(LOSSES, f"float64[{10**15}]")
    forged.put(LOSSES, preamble(DECLARED % f"({10**15},)"))


def bomb(forged):
    """A hundred times as large as the file."""
    forged.describe(LOSSES, f"float64[{10**7}]")
    forged.put(LOSSES, np.zeros(10**7))
    forged.compression = zipfile.ZIP_DEFLATED


def turned(part):
    return part.replace(b"False, 'shape': (4, 3), }", b"True, 'shape': (4, 3), } ")


def swapped(forged):
    one, other = forged.key(LOC), forged.key(".family.log_scale")
    parts = forged.parts
    parts[one], parts[other] = parts[other], parts[one]


def fewer_losses(forged):
    forged.describe(LOSSES, "float64[19]")
    forged.put(LOSSES, forged.get(LOSSES)[:19])


def fewer_records(forged):
    forged.describe(MEANS, "float64[3, 3]")
    forged.put(MEANS, forged.get(MEANS)[:3])


def overlapping(forged):
    """Entries of the table of contents that share their bytes."""
    whole = bytearray(forged.whole())
    half = struct.pack("<I", len(whole) // 2)
    for found in re.finditer(re.escape(b"PK\1\2"), bytes(whole)):
        whole[found.start() + 20 : found.start() + 28] = half + half
    forged.bytes = bytes(whole)


def table(at):
    """Another size (-10) or place (-6) of the table of contents."""

    def act(forged):
        whole = bytearray(forged.whole())
        whole[at : at + 4] = b"\xff\xff\xff\x7f"
        forged.bytes = bytes(whole)

    return act


def lacks(name):
    return lambda forged: forged.parts.pop(name)


OBJECTS = DECLARED.replace("<f8", "|O") % "(3,)"
DEEP = "[" * 100_000 + "]" * 100_000

# {what was done: (how, what is said of it)}
FORGED = {
    # Arrays that are not what their descriptions say.
    "float32": (array(LOC, lambda x: x.astype("f4")), "is an array <f4.*description <f8"),
    "integers": (array(LOC, lambda x: x.view("i8")), "is an array <i8"),
    "unsigned": (array(".num_steps", lambda x: x.astype("u4")), "is an array <u4"),
    "complex": (array(LOC, lambda x: x.astype("c16")), "is an array <c16"),
    "other byte order": (array(LOC, lambda x: x.astype(">f8")), "is an array >f8"),
    "text": (array(LOC, lambda x: x.astype("U")), "is an array <U"),
    "a row": (array(LOC, lambda x: x[None]), r"\(1, 3\), but by its desc.* \(3,\)"),
    "a number": (array(LOC, lambda x: x[0]), r"<f8 \(\), but"),
    "an array for a number": (array(".num_steps", lambda x: x[None]), r"<i4 \(1,\), but"),
    "longer": (array(LOC, lambda x: np.append(x, x)), r"\(6,\), but"),
    "empty": (array(LOC, lambda x: x[:0]), r"\(0,\), but"),
    "more losses": (array(LOSSES, lambda x: np.append(x, x)), r"\(40,\), but.*\(20,\)"),
    "an odd key": (array("[0][2]", lambda x: np.append(x, x)), r"\(4,\), but.*\(2,\)"),
    "objects": (raw(LOC, lambda _: preamble(OBJECTS)), r"is an array \|O"),
    "a pickle": (raw(LOC, lambda _: as_file(np.array([{}, 1, 2]))), r"is an array \|O"),
    "records": (
        array(LOC, lambda x: x.view([("a", "f8")])),
        "is no array of numbers or text",
    ),
    "huge": (huge, "shorter or longer than its shape"),
    "huge, not described": (
        raw(LOC, lambda _: preamble(DECLARED % f"({10**15},)")),
        r"\(1000000000000000,\), but",
    ),
    "negative": (raw(LOC, lambda _: preamble(DECLARED % "(-3,)")), "is no array"),
    "half a number": (raw(LOC, lambda part: part[:-4]), "shorter or longer than its sh"),
    "more bytes": (raw(LOC, lambda part: part + b"\0"), "shorter or longer than its sh"),
    "nothing": (raw(LOC, lambda _: b""), "is no array of numbers"),
    "a later NumPy": (raw(LOC, lambda x: x[:6] + b"\4" + x[7:]), "is no array of numb"),
    "too deep for NumPy": (raw(LOC, lambda _: preamble("(" * 60_000)), "is no array"),
    "its size is off": (raw(LOC, lambda x: x[:8] + b"\1\0" + x[10:]), "is no array"),
    "neither true nor false": (raw(".met", lambda x: x[:-1] + b"\2"), "neither 0 nor 1"),
    # Arrays that are, but make no sense.
    "more steps than losses": (entry(".num_steps", 21), "num_steps.* 21, .* 20 losses"),
    "fewer steps": (entry(".num_steps", 15), "num_steps.* 15, .* 20 losses"),
    "negative steps": (entry(".num_steps", -1), "num_steps.* -1, .* 20 losses"),
    "fewer losses": (fewer_losses, "num_steps.* 20, .* 19 losses"),
    "skipped all and one": (entry(".num_skipped", 21), "of 20 steps 21 were skipped"),
    "skipped less than none": (entry(".num_skipped", -1), "of 20 steps -1 were skipped"),
    "none skipped, one last": (entry(".num_nonfinite", 1), "0 were skipped, 1 of them"),
    "no such result": (entry("._value", 7), "result` is 7, which is none"),
    "negative result": (entry("._value", -1), "result` is -1, which is none"),
    "a family of NaN": (entry(LOC, np.nan), "its family is not finite"),
    "an infinite family": (entry(".family.log_scale", -np.inf), "family is not finite"),
    "records in no order": (array(STEPS, lambda x: x[::-1]), "do not go up"),
    "records before": (entry(STEPS, -5), "do not go up"),
    "records beyond": (entry(STEPS, 21), "do not go up from 0 to `num_steps`.*20"),
    "fewer records": (fewer_records, r"of shape \(4,\), but records are of \[\(3,\)\]"),
    # What no checksum knows of.
    "another number": (unsealed(entry(LOC, 0.5)), "its checksum"),
    "another key": (unsealed(entry("[0][2]", 7)), "its checksum"),
    "two arrays in each other's place": (unsealed(swapped), "its checksum"),
    "turned on its side": (unsealed(raw(MEANS, turned)), "its checksum"),
    "another part to agree": (unsealed(header(more="x")), "its checksum"),
    "checksum gone": (instead(has_checksum=False), "its checksum"),
    "checksum is a number": (header(checksum=3), "its checksum"),
    "old: a family of NaN": (old(entry(LOC, np.nan)), "its family is not finite"),
    "old: float32": (old(array(LOC, lambda x: x.astype("f4"))), "is an array <f4"),
    "old: negative result": (old(entry("._value", -1)), "result` is -1"),
    # Headers.
    "header: no JSON": (instead(text="{"), "its header is no JSON"),
    "header: too deep": (instead(text=DEEP), "its header is no JSON, or too deep"),
    "header: a huge number": (instead(text="1" * 9_999), "its header is no JSON"),
    "header: a list": (instead(text="[]"), "its header is of no known format"),
    "header: a number": (instead(text="3"), "its header is of no known format"),
    "header: null": (instead(text="null"), "its header is of no known format"),
    "header: empty": (instead(text=""), "its header is no JSON"),
    "header: no text": (instead(head=as_file(np.zeros(3))), "its header is no text"),
    "header: no array": (instead(head=b"{}"), "the header is no array"),
    "header: no letters": (
        instead(head=as_file(np.array("abc")).replace(b"a\0\0\0", b"\xff\xff\xff\xff")),
        "its header is no text",
    ),
    "header: another format": (header(format="theirs"), "its header is of no known fo"),
    "header: format is a list": (header(format=[]), "its header is of no known format"),
    "header: no format": (lambda f: f.header.pop("format"), "header is of no known form"),
    "header: no context": (lambda f: f.header.pop("context"), "does not describe"),
    "header: context is a list": (header(context=[]), "does not describe"),
    "header: context of numbers": (header(context={"the method": 3}), "does not descr"),
    "header: leaves are a list": (header(leaves=["x"]), "does not describe"),
    "header: leaves are null": (header(leaves=None), "does not describe"),
    "header: a leaf is null": (lambda f: f.describe(LOC, None), "does not describe"),
    "header: no such length": (lambda f: f.describe(LOSSES, "float64[-1]"), "not match"),
    "header: no length": (lambda f: f.describe(LOSSES, "float64"), "does not match"),
    "header: other tail": (lambda f: f.describe(MEANS, "float64[4, 2]"), "not match"),
    # The container.
    "nothing in it": (instead(bytes=b""), "it is empty"),
    "zeros": (instead(bytes=bytes(5_000)), "it is no zip file"),
    "one array": (instead(bytes=as_file(np.zeros(3))), "it is no zip file"),
    "cut short": (cut(0.5), "it was cut short"),
    "cut very short": (instead(bytes=b"PK\3\4"), "it was cut short"),
    "its end cut off": (cut(0.999), "it was cut short"),
    "its start cut off": (
        lambda f: vars(f).update(bytes=b"PK\3\4" + f.whole()[2_000:]),
        "cut short|overwritten",
    ),
    "other files": (lambda f: f.parts.clear(), "its parts are not those of its header"),
    "no header": (patch(b"header", b"reader", last=True), "it has no header"),
    "a part too few": (lacks("leaf3.npy"), "not those of its header: leaf3.npy"),
    "a part too many": (
        instead(more={"leaf99.npy": as_file(np.zeros(1))}),
        "not those of its header: leaf99.npy",
    ),
    "a part twice": (
        instead(more={"leaf0.npy": as_file(np.zeros(3))}),
        "not those of its header: one of them twice",
    ),
    "a bomb": (bomb, "is compressed, which it never is"),
    "overlapping": (overlapping, "it holds more than there is"),
    "another number in a part": (patch(b"NUMPY", b"NUMPI", last=True), "overwritten"),
    "encrypted": (patch(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"), "overwritten"),
    "a table that is elsewhere": (table(-6), "cut short"),
    "a table of no end": (table(-10), "cut short"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_is_refused(name, fit, saved):
    act, match = FORGED[name]
    forged = Forged(saved)
    act(forged)
    whole = forged.whole()
    saved.write_bytes(whole)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"(?s)fit.npz' .*{match}") as info:
            vi.load(saved, like=fit)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert info.type is ValueError
    assert most < 20 * len(whole) + 3e6
