"""Rows of files in every form, packing, encoding and separator; and how broken ones end."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mufin.catalogs import opening, parquet_rows, spreadsheet, text_files
from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.notes import Notes
from mufin.catalogs.rows import rows_of
from mufin.errors import MufinError

ROWS = [{"id": "a", "title": "Stol på tre"}, {"id": "b", "title": 'x, "y"; z\nw'}]
COLUMNS = ["id", "title"]


def read(path: Path, notes: Notes | None = None, **settings) -> list[dict]:
    """The rows of a file, without their numbers."""
    return [row for _, row in rows_of(path, notes or Notes(), **settings)]


def refused(path: Path, message: str, **settings) -> None:
    with pytest.raises(MufinError, match=message):
        read(path, **settings)


def as_csv(separator: str = ",", rows: list[dict] = ROWS) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TEXTS = {
    "lines.jsonl": LINES,
    "a.json": json.dumps(ROWS),
    "b.json": json.dumps(ROWS, indent=2),
    "c.json": "\n".join(json.dumps(row, indent=4) for row in ROWS),
    "d.json": json.dumps({"version": 3, "products": ROWS, "more": [1]}),
    "e.json": json.dumps({"data": {"n": [{"x": 1}], "items": ROWS}}, indent=1),
    "without-ending": LINES,
    "list": json.dumps(ROWS),
    "really-json.csv": json.dumps(ROWS),
    "comma.csv": as_csv().decode(),
    "semicolon.csv": as_csv(";").decode(),
    "tab.csv": as_csv("\t").decode(),
    "bar.csv": as_csv("|").decode(),
    "declared.csv": "sep=;\r\n" + as_csv(";").decode(),
    "a.tsv": as_csv("\t").decode(),
    "comma.tsv": as_csv(",").decode(),
    "a.txt": as_csv(";").decode(),
    "blanks.csv": as_csv(rows=[{" id ": r["id"], "title ": r["title"]} for r in ROWS]).decode(),
    "blanks.jsonl": LINES.replace('"id"', '" id"').replace('"title"', '"title "'),
    "mixed-line-ends.csv": as_csv().decode().replace("\r\n", "\r", 1).replace("\r\n", "\n", 1),
    "old-line-ends.csv": as_csv().decode().replace("\r\n", "\r"),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "utf-32"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_text_gives_the_same_rows(tmp_path, name, encoding):
    content = TEXTS[name].encode(encoding.removesuffix("-mark"))
    if encoding.endswith("mark"):
        content = codecs.BOM_UTF16_BE + content
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name, columns=COLUMNS) == ROWS


@pytest.mark.parametrize("name", ["lines.jsonl", "b.json", "semicolon.csv", "declared.csv"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zip"])
def test_packed_files_are_known_by_name_or_first_bytes(tmp_path, name, named, packing):
    content = TEXTS[name].encode()
    path = tmp_path / (f"{name}.{packing}" if named else name)
    if packing == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"folder/{name}", content)
    else:
        pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[packing]
        path.write_bytes(pack(content))
    assert read(path, columns=COLUMNS) == ROWS


def test_a_zip_gives_the_rows_of_all_its_data(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.csv", as_csv())
        archive.writestr("folder/", b"")
        archive.writestr("__MACOSX/._b.csv", b"\0\1")
        archive.writestr(".hidden", b"\0\1")
        archive.writestr("README.txt", b"hello")
        archive.writestr("a.jsonl.gz", gzip.compress(LINES.encode()))
    assert read(path) == ROWS + ROWS


@pytest.mark.parametrize("around", ["%s", '{"n": 1, "products": %s}'])
def test_a_list_on_one_long_line_is_read_item_by_item(tmp_path, monkeypatch, around):
    monkeypatch.setattr(text_files, "LONGEST", 200)
    monkeypatch.setattr(text_files, "PIECE", 50)
    (tmp_path / "a.json").write_text(around % json.dumps(ROWS * 100))
    assert read(tmp_path / "a.json", columns=COLUMNS) == ROWS * 100


def test_parquet_and_xlsx_may_be_in_a_zip(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    workbook(tmp_path / "a.xlsx", [COLUMNS, *([r["id"], r["title"]] for r in ROWS)])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.parquet", "a.parquet")
        archive.write(tmp_path / "a.xlsx", "a.xlsx")
    assert read(tmp_path / "a.zip") == ROWS + ROWS
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    assert read(tmp_path / "b.parquet.gz") == ROWS


def test_a_setting_names_encodings_that_have_no_mark(tmp_path):
    path = tmp_path / "a.csv"
    for name in ("cp1252", "utf-16-le", "latin-1"):
        path.write_bytes(as_csv().decode().encode(name))
        assert read(path, encoding=name) == ROWS
    path.write_bytes(b"\xef\xbb\xbf" + as_csv())
    assert read(path, encoding="cp1252") == ROWS  # the mark goes first
    refused(
        path, "download.encoding is 'klingon', which is no encoding; set it", encoding="klingon"
    )


@pytest.mark.parametrize(
    "content, encoding, message",
    [
        ("id\né\n".encode("cp1252"), None, "line 2 is not UTF-8 .*download.encoding .*cp1252$"),
        ("id\na\n".encode("utf-16-le"), None, "line 1 has a NUL .*download.encoding to utf-16-le"),
        (b"id\na\n\x81\n", "cp1252", "line 3 is not cp1252 text; set download.encoding"),
        (b"id\nb\xc3\n", "ascii", "line 2 is not ascii text; set download.encoding"),
        (codecs.BOM_UTF16_LE + b"i\0d\0\n\0a\0\n\0\0", None, "line 3 is not utf-16 text"),
        (b"id,title\na,\0b\n", None, "line 2 has a NUL character"),
    ],
)
def test_a_wrong_encoding_is_named_with_the_setting(tmp_path, content, encoding, message):
    (tmp_path / "a.csv").write_bytes(content)
    refused(tmp_path / "a.csv", "a.csv " + message, encoding=encoding)


# Separators


@pytest.mark.parametrize(
    "text, names",
    [
        ("id\na\nb\n", ["id"]),
        ('id\n"a, b"\n', ["id"]),
        ("id;price, net;title\na;1,5;x\n", ["id", "price, net", "title"]),
        ("id,title;short\na,x;y\n", ["id", "title;short"]),
        ("id|name;title\na|b;c\n", ["id", "name;title"]),
        ('id\ttitle, long\na\t"x, y"\n', ["id", "title, long"]),
        ("id,title\na,x|y\nb,z|w\n", ["id", "title"]),
        ("id;title\n", ["id", "title"]),
        ('"id;x",title\na,b\n', ["id;x", "title"]),
    ],
)
def test_the_separator_is_known_from_header_and_rows(tmp_path, text, names):
    (tmp_path / "a.csv").write_text(text)
    rows = read(tmp_path / "a.csv", columns=["id"])
    assert not rows or list(rows[0]) == names


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    separator=st.sampled_from(",;\t|"),
    titles=st.lists(
        st.text(st.sampled_from("ab,;|\t\"' é\n")).map(lambda t: f"x{t}x"), min_size=1, max_size=5
    ),
)
def test_any_separator_that_a_writer_uses_is_found(tmp_path, separator, titles):
    rows = [{"id": str(n), "title": title, "more": ""} for n, title in enumerate(titles)]
    (tmp_path / "a.csv").write_bytes(as_csv(separator, rows))
    assert [row["id"] for row in read(tmp_path / "a.csv", columns=["id"])] == [
        row["id"] for row in rows
    ]


def test_empty_cells_after_the_last_column_are_counted(tmp_path):
    (tmp_path / "a.csv").write_text("id,title\na,b,\nc,d\n")
    notes = Notes()
    assert read(tmp_path / "a.csv", notes) == [{"id": "a", "title": "b"}, {"id": "c", "title": "d"}]
    assert notes.counts == {"rows with empty cells after the last column": 1}


def test_a_hundred_thousand_columns_are_read(tmp_path):
    names = [f"c{n}" for n in range(100_000)]
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + ",".join(names) + "\n")
    assert read(tmp_path / "a.csv", columns=["c7"])[0]["c99999"] == "c99999"


# Bad rows


FAULTY = {
    "a.csv": b"id,title\na,b\nc\nd,e,f\ng,h\n",
    "a.jsonl": b'{"id": "a"}\n{"id": \n[1]\n{"id": "g"}\n',
    "a.json": b'[{"id": "a"},\n 7,\n ["x"],\n {"id": "g"}]',
}


@pytest.mark.parametrize("name", FAULTY)
def test_bad_rows_are_dropped_and_counted_up_to_a_share(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FAULTY[name])
    notes = Notes()
    bad = BadRows(notes, 0.5)
    rows = bad.kept(rows_of(path, notes, bad=bad), lambda number, row: row["id"])
    assert list(rows) == ["a", "g"]
    bad.check()
    (said,) = notes.sentences()
    assert said.startswith("bad rows, dropped: 2, such as ") and f"{name} line" in said
    bad.allowed = 0.4
    with pytest.raises(
        MufinError, match=r"2 of 4 rows are bad, more than download.bad_rows \(0.4\)"
    ):
        bad.check()


@pytest.mark.parametrize("name", FAULTY)
def test_without_a_share_the_first_bad_row_stops(tmp_path, name):
    (tmp_path / name).write_bytes(FAULTY[name])
    refused(tmp_path / name, f"{name} line [23] .*, or set download.bad_rows to the share")


# Spreadsheets


def workbook(path: Path, *sheets: list[list]) -> None:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    book.save(path)


def test_a_spreadsheet_gives_texts_and_skips_empty_rows(tmp_path):
    workbook(
        tmp_path / "a.xlsx",
        [[], [" id ", "title"], [12.0, "x"], [None, " "], ["A1", 2.5], [8901240000000, True]],
    )
    assert list(rows_of(tmp_path / "a.xlsx", Notes())) == [
        (3, {"id": "12", "title": "x"}),
        (5, {"id": "A1", "title": 2.5}),
        (6, {"id": "8901240000000", "title": "True"}),
    ]


def test_sheets_of_the_same_columns_are_read_and_others_counted(tmp_path):
    table = [["id"], ["a"]]
    workbook(tmp_path / "a.xlsx", table, [["notes"], ["b"]], [], [["id"], ["c"]])
    notes = Notes()
    assert read(tmp_path / "a.xlsx", notes) == [{"id": "a"}, {"id": "c"}]
    assert notes.sentences() == ["sheets of other columns, not read: 1, such as 'sheet 1'"]


def test_a_spreadsheet_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    workbook(tmp_path / "a.xlsx", [["id"], *(["x" * 1000 + str(n)] for n in range(500))])
    monkeypatch.setattr(spreadsheet, "TEXTS", 10_000)
    monkeypatch.setattr(spreadsheet, "RATIO", 10)
    refused(tmp_path / "a.xlsx", "a.xlsx unpacks to too much for a .xlsx; save it as CSV")


def test_a_broken_spreadsheet_is_one_sentence(tmp_path):
    workbook(tmp_path / "a.xlsx", [["id"], ["a"]])
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in ("xl/worksheets/sheet1.xml", "xl/workbook.xml"):
        with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content[:60] if member == name else content)
        refused(tmp_path / "b.xlsx", "b.xlsx cannot be read as .xlsx .*save it again, or as CSV")


# Files of other kinds, and hostile ones


@pytest.mark.parametrize(
    "content, message",
    [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive, which is not read; unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel file .*save it as .xlsx or CSV"),
        (b"SQLite format 3\0", "a SQLite database, .*export the table as CSV"),
        (b"PK\x03\x04 no zip", "is not a complete zip; fetch it again"),
        (b"PK\x05\x06" + bytes(18), "is a zip without files"),
        (b"\x1f\x8b\x08 cut", "is a broken or cut-off gzip file; fetch it again"),
        (bz2.compress(b"id\n" * 999)[:-9], "is a broken or cut-off bzip2 file; fetch it again"),
        (lzma.compress(b"id\n" * 999)[:-9], "is a broken or cut-off xz file; fetch it again"),
        (b"BZhnothing", "is a broken or cut-off bzip2 file; fetch it again"),
        (b"PAR1", "is not a complete Parquet file"),
        (b"<?xml version='1.0'?><rss>", "is XML or a web page.* google-merchant"),
        (b'id,"title\na,b\n', "line 1 cannot be read .*close the quote that is open"),
        (b'"id\na\n', "line 1 cannot be read .*close the quote that is open"),
        (b",,\na,b,c\n", "line 1 has no names of columns; write them there"),
    ],
)
def test_a_file_of_another_kind_is_named_with_the_remedy(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    refused(tmp_path / "a.csv", "a.csv .*" + message)


def test_a_zip_in_a_zip_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.csv", as_csv())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "b.zip", "b.zip")
    refused(tmp_path / "a.zip", "b.zip is a zip in a zip; unpack it")


def test_a_zip_with_a_password_is_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", as_csv())
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "a.zip is encrypted; unpack it with its password")


@pytest.mark.parametrize("packing", ["zip", "bz2", "xz"])
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.parquet"])
def test_a_bomb_ends_in_a_sentence_with_little_memory(tmp_path, monkeypatch, packing, name):
    """64 MB in a few KB: a line, an item and a copy are bounded, and so any size is."""
    monkeypatch.setattr(text_files, "LONGEST", 2**20)
    monkeypatch.setattr(opening, "MUCH", 2**20)
    content = b"id,title\n" if name == "a.csv" else b'[{"id": "' if name == "a.json" else b"PAR1"
    content += b"x" * 2**26
    path = tmp_path / f"{name}.{packing}"
    if packing == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
    else:
        path.write_bytes({"bz2": bz2.compress, "xz": lzma.compress}[packing](content))
    del content
    tracemalloc.start()
    try:
        refused(path, "characters|unpacks to more than")
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"products": [{"id": "a"}, {"id"', "is not JSON"),
        ('[{"id": "a"} {"id": "b"}]', "is not JSON"),
        ('{\n"id": "a",\n"id": "b"\n}\n{"id": "c"}', "a product has 'id' 2 times"),
        ('{"id": "a", "id": "b"}\n{}', "line 1 has 'id' 2 times; keep one of them"),
        ("[" * 10**5, "not a product"),
    ],
)
def test_broken_json_is_named(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    refused(tmp_path / "a.json", message, columns=["id"])


def test_a_list_in_a_lone_object_is_its_rows_only_without_the_columns(tmp_path):
    row = {"id": "a", "images": [{"url": "x"}]}
    (tmp_path / "a.json").write_text(json.dumps(row))
    assert read(tmp_path / "a.json", columns=["id"]) == [row]
    (tmp_path / "a.json").write_text(json.dumps({"all": [row]}))
    assert read(tmp_path / "a.json", columns=["id"]) == [row]
    assert read(tmp_path / "a.json", columns=["other"]) == [
        row
    ]  # then a sentence names the columns


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The content of a file of each form."""
    folder = tmp_path_factory.mktemp("whole")
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    workbook(folder / "a.xlsx", [COLUMNS, ["a", "b"]])
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", as_csv() * 20)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    contents |= {name: text.encode() for name, text in TEXTS.items()}
    contents["utf-16.csv"] = as_csv().decode().encode("utf-16")
    packers = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    return contents | {f"a.csv.{name}": pack(as_csv() * 20) for name, pack in packers.items()}


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300
)
@given(data=st.data())
def test_damaged_files_give_rows_or_one_sentence(tmp_path, whole, data):
    name = data.draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        end = at + data.draw(st.integers(0, 20))
        content[at:end] = data.draw(st.binary(max_size=20))
        if not content:
            break
    (tmp_path / name).write_bytes(content)
    try:
        rows = read(tmp_path / name, columns=["id"], bad=BadRows(Notes(), 0.9))
        assert all(isinstance(row, dict) for row in rows)
    except MufinError as error:
        assert name in str(error) and "\n" not in str(error)


def test_a_batch_of_too_many_bytes_is_read_in_smaller_ones():
    rows, sizes = pa.record_batch({"a": list(range(50))}), []

    class Refusing:
        """Refuses a batch of more than 4 rows after the first 20, as Arrow one of 2 GiB."""

        def iter_batches(self, size, columns):
            sizes.append(size)
            for start in range(0, 50, size):
                if size > 4 and start >= 20:
                    raise pa.ArrowNotImplementedError("nested data in several arrays")
                yield rows.slice(start, size)

    found = [n for batch in parquet_rows._batches(Refusing(), 20, ["a"]) for n in batch["a"]]
    assert [n.as_py() for n in found] == list(range(50)) and sizes == [20, 1]
