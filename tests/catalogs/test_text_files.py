"""Text files from outside: bombs end in a sentence, and JSON lists are read item by item."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mufin.catalogs import released_zip, text_files, xmlrepo
from mufin.catalogs.json_text import json_items
from mufin.catalogs.text_files import begins_with, latin1_lines_of, lines_of
from mufin.corpus.fetch import Fetcher
from mufin.errors import MufinError
from tests.support.servers import limits

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    items=st.lists(VALUES, max_size=8),
    indent=st.sampled_from([None, 0, 3]),
    piece=st.integers(1, 40),
)
def test_json_items_are_those_of_the_list(tmp_path, monkeypatch, items, indent, piece):
    monkeypatch.setattr(text_files, "PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text(" \n" + json.dumps(items, indent=indent) + "\n\t", encoding="utf-8")
    assert begins_with(path, "[") and list(json_items(path)) == items


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1,\n2", r"line 2 is not JSON \(, or \] expected\); fetch it again"),
        ("[1,\n]", r"line 2 is not JSON \(Expecting value"),
        ("[1\n2]", r"line 2 is not JSON"),
        ("[]\n\n]", r"line 3 is not JSON \(text after the end of the list"),
        ('[{"a": 1},\n{"a"', r"line 2 is not JSON"),
        ('["\\ud83d"]', None),
        ("[" * 100_000, r"line 1 is not JSON \(not a product\)"),
        ("[" + "9" * 5000 + "]", r"line 1 is not JSON \(not a product\)"),
    ],
)
@pytest.mark.parametrize("piece", [3, 2**16])
def test_a_broken_json_list_is_named_with_its_line(tmp_path, monkeypatch, text, message, piece):
    monkeypatch.setattr(text_files, "PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text(text)
    if message is None:
        assert len(list(json_items(path))) == 1
        return
    with pytest.raises(MufinError, match=message):
        list(json_items(path))


def bomb(path: Path, piece: bytes, first: bytes = b"") -> Path:
    """A gzipped file that unpacks to 64 MB."""
    packer = zlib.compressobj(9, wbits=31)
    many = piece * (2**16 // len(piece))
    parts = [packer.compress(first), *(packer.compress(many) for _ in range(2**10)), packer.flush()]
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize(
    "first, piece",
    [(b"", b"\0"), (b"", b"x"), (b"[", b" "), (b'["', b"x"), (b"[[", b"[],"), (b'{"a": "', b"x")],
)
def test_a_gzip_bomb_ends_in_a_sentence_with_little_memory(tmp_path, monkeypatch, first, piece):
    """64 MB in 64 KB, for the reader of the released data set; and so in any size."""
    monkeypatch.setattr(text_files, "LONGEST", 2**20)
    path = bomb(tmp_path / "a.json.gz", piece, first)
    tracemalloc.start()
    try:
        with pytest.raises(MufinError, match=r"characters|is not JSON") as error:
            list(xmlrepo.read(tmp_path).products)
        assert tracemalloc.get_traced_memory()[1] < 60 * 2**20
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 200 + len(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize("read", [lines_of, latin1_lines_of])
def test_a_long_line_is_named_and_a_long_file_is_not(tmp_path, monkeypatch, read):
    monkeypatch.setattr(text_files, "LONGEST", 100)
    path = tmp_path / "a.txt"
    path.write_text(("x" * 90 + "\n") * 1000)
    assert len(list(lines_of(path))) == len(list(latin1_lines_of(path, 100))) == 1000
    path.write_text("x\n" + "y" * 101)
    with pytest.raises(MufinError, match="a.txt line 2 has more than 100 characters"):
        list(read(path) if read is lines_of else read(path, 100))


def test_a_zip_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(released_zip, "MUCH", 2**20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", bytes(2**23))
    with pytest.raises(MufinError, match="a.zip would unpack to 8 MB; it is not the data set"):
        released_zip.open_source(str(tmp_path / "a.zip"), tmp_path / "scratch", Fetcher(limits()))
    assert not list((tmp_path / "scratch").rglob("*.json"))


def test_a_gzipped_and_a_plain_file_are_the_same(tmp_path):
    text = "line\n\n  \nanother ☃\n"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b").write_bytes(gzip.compress(text.encode()))
    assert list(lines_of(tmp_path / "a.txt")) == list(lines_of(tmp_path / "b"))
    assert [number for number, _ in lines_of(tmp_path / "b")] == [1, 4]
