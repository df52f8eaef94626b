"""Files of image vectors: each form of ids, what does not fit, and arrays of objects."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.catalogs.vector_files import GivenVectors, given_vectors
from mufin.errors import MufinError, sentence

VECTORS = np.arange(8, dtype=np.float32).reshape(4, 2)
SPLITS = {
    "train": pa.chunked_array([["A", "B", "C"]]),
    "test": pa.chunked_array([["D", "A"]]),
    "label": pa.chunked_array([["B", "D", "E"]]),
}


def objects(values: list) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def array(path: Path, values: np.ndarray = VECTORS) -> Path:
    np.save(path, values, allow_pickle=True)
    return path


def given(folder: Path, ids: str | Path, vectors: np.ndarray = VECTORS, notes=None) -> GivenVectors:
    """The vectors of vec.npy, with the products in the file `ids`."""
    path = array(folder / "vec.npy", vectors)
    return given_vectors(str(path), str(folder / ids), SPLITS, notes or Notes())


def rows_by_id(found: GivenVectors) -> dict[str, list[int]]:
    return {one: found.rows[i].tolist() for i, one in enumerate(found.ids) if one}


def put_in(found: GivenVectors, uids: list[str], most: int = 15) -> tuple[dict, dict]:
    """({uid: images}, notes) of products with these ids."""
    notes = Notes()
    products = found.put_in((Product(uid, images=["x.jpg"]) for uid in uids), most, notes)
    return {p.uid: p.images for p in products}, notes.counts


# Ids

ONE_EACH = {"A": [0, 2], "B": [1], "7": [3]}


@pytest.mark.parametrize(
    "name, write",
    [
        ("ids.txt", lambda path: path.write_text("A\nB\nA\n7\n")),
        ("no_ending", lambda path: path.write_bytes(b"\xef\xbb\xbfA \r\n B\r\nA\r\n7")),
        ("ids.txt.gz", lambda path: path.write_bytes(gzip.compress(b"A\nB\nA\n7\n"))),
        ("ids.json", lambda path: path.write_text('[\n "A", "B",\n "A", 7]')),
        ("map.json", lambda path: path.write_text('{"A": [0, 2], "B": 1, "7": [3], "C": -1}')),
        (
            "map.json.gz",
            lambda path: path.write_bytes(gzip.compress(json.dumps(ONE_EACH).encode())),
        ),
        ("ids.npy", lambda path: array(path, np.array(["A", "B", "A", "7"]))),
        ("ids.npy", lambda path: array(path, np.array([b"A", b"B", b"A", b"7"]))),
        ("ids.npy", lambda path: array(path, objects(["A", "B", "A", 7]))),
    ],
    ids="text crlf gz json map map.gz unicode bytes objects".split(),
)
def test_every_form_of_ids_gives_the_same_rows(tmp_path, name, write):
    write(tmp_path / name)
    found = rows_by_id(given(tmp_path, name))
    assert {one: rows for one, rows in found.items() if rows} == ONE_EACH


def test_whole_numbers_are_ids_as_texts(tmp_path):
    array(tmp_path / "ids.npy", np.array([5, -1, 12345678901, 5]))
    assert rows_by_id(given(tmp_path, "ids.npy")) == {"5": [0, 3], "-1": [1], "12345678901": [2]}


def test_products_get_their_first_vectors_and_misfits_are_counted(tmp_path):
    (tmp_path / "ids.json").write_text('{"A": [2, 0, 2, 1], "gone": 3, "other": []}')
    found = given(tmp_path, "ids.json")
    images, counts = put_in(found, ["A", "B"], most=2)
    assert images == {"A": ["vector#2", "vector#0"], "B": []}
    assert counts == {
        "products without an image vector": 1,
        "ids of image vectors that are no product": 2,
    }
    assert found.used.tolist() == [True, False, True, False]


def test_a_product_of_several_uids_has_the_vectors_of_all(tmp_path):
    (tmp_path / "ids.txt").write_text("A\nB\nC\nA\n")
    assert put_in(given(tmp_path, "ids.txt"), ["B, A", "C"])[0]["B, A"] == [
        "vector#1",
        "vector#0",
        "vector#3",
    ]


def test_rows_without_an_id_are_counted(tmp_path):
    (tmp_path / "ids.txt").write_text("A\n\n  \nB\n")
    notes = Notes()
    assert rows_by_id(given(tmp_path, "ids.txt", notes=notes)) == {"A": [0], "B": [3]}
    assert notes.counts == {"image vectors without an id": 2}


def test_ids_that_are_of_no_product_end_in_a_sentence(tmp_path):
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\n")
    message = "no id in download.image_vectors.ids is that .* such as 'a', .* such as 'B'"
    with pytest.raises(MufinError, match=message):
        put_in(given(tmp_path, "ids.txt"), ["A", "B"])


# Rows of a split


def test_lists_per_row_belong_to_the_split_in_the_files_name(tmp_path):
    for name, values in (("trn", VECTORS), ("tst", VECTORS[:2]), ("lbl", VECTORS[:1])):
        array(tmp_path / f"{name}_embs.npy", values)
    array(tmp_path / "labels_map.npy", objects([[0], -1, -1]))
    array(tmp_path / "test_map.npy", objects([[1, 0], -1]))
    array(tmp_path / "train_map.npy", objects([-1, [3], [0, 1, 2]]))
    found = given_vectors(
        str(tmp_path / "*_embs.npy"), str(tmp_path / "*_map.npy"), SPLITS, Notes()
    )
    # B is in train and label: the vectors of train count, as they are of the same images
    expected = {"A": [], "B": [3], "C": [0, 1, 2], "D": [5, 4], "E": []}
    assert rows_by_id(found) == expected
    assert [len(each) for each in found.arrays] == [4, 2, 1]


def test_a_list_per_row_without_a_name_goes_by_its_length(tmp_path):
    array(tmp_path / "map.npy", objects([[1], [2, 3]]))
    assert rows_by_id(given(tmp_path, "map.npy")) == {"D": [1], "A": [2, 3]}
    (tmp_path / "map.json").write_text("[[1], [2, 3]]")
    assert rows_by_id(given(tmp_path, "map.json")) == {"D": [1], "A": [2, 3]}


def test_several_files_go_by_their_order(tmp_path):
    for part in (0, 1):
        array(tmp_path / f"vec{part}.npy", VECTORS[part * 2 : part * 2 + 2])
        (tmp_path / f"ids{part}.txt").write_text("A\nB\n")
    found = given_vectors(str(tmp_path / "vec?.npy"), str(tmp_path / "ids?.txt"), {}, Notes())
    assert rows_by_id(found) == {"A": [0, 2], "B": [1, 3]}


def test_files_of_splits_by_id_give_each_product_its_images_once(tmp_path):
    for name in ("train", "label"):
        array(tmp_path / f"{name}.npy", VECTORS[:2])
    (tmp_path / "train.txt").write_text("A\nA\n")
    (tmp_path / "label.txt").write_text("A\nB\n")
    found = given_vectors(str(tmp_path / "*.npy"), str(tmp_path / "*.txt"), {}, Notes())
    assert rows_by_id(found) == {"A": [0, 1], "B": [3]}


# What is stored


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", ">f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_used_rows_are_stored_and_faulty_ones_named(tmp_path, kind, order):
    values = np.asarray(np.arange(12).reshape(6, 2), kind, order=order)
    values[2, 0], values[3], values[4, 1] = np.nan, 0, np.inf
    (tmp_path / "ids.txt").write_text("A\nnobody\nB\nB\nB\nC\n")
    notes, found = Notes(), given(tmp_path, "ids.txt", values)
    put_in(found, ["A", "B", "C"])
    (tmp_path / "raw").mkdir()
    counts = found.store(tmp_path / "raw", notes)
    reason = "numbers that are not finite"
    assert counts == {
        "pictures": 3,
        "references": 5,
        "failed": {reason: 2},
        "failed_examples": {reason: "row 2"},
    }
    assert notes.facts() == {
        "image vectors of zeros alone": {"count": 1, "example": "'row 3'"},
    }
    stored = np.load(tmp_path / "raw/image_vectors-00000.npy")
    assert stored.tolist() == [[0, 1], [0, 0], [10, 11]]
    assert stored.dtype == (np.float16 if np.dtype(kind).itemsize == 2 else np.float32)
    assert pl.read_parquet(tmp_path / "raw/image_log.parquet").rows() == [
        ("vector#0", "vector#0", ""),
        ("vector#2", "", reason),
        ("vector#3", "vector#1", ""),
        ("vector#4", "", reason),
        ("vector#5", "vector#2", ""),
    ]


# What is refused


def headed(path: Path, kind: str, shape: str, content: bytes) -> Path:
    """A .npy file with this header and content."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    size = len(header).to_bytes(2, "little")
    path.write_bytes(b"\x93NUMPY\x01\x00" + size + header.encode() + content)
    return path


def unfit(tmp_path: Path, ids: Path | str, vectors: Path | str, message: str) -> None:
    with pytest.raises(MufinError, match=message) as error:
        given_vectors(str(vectors), str(ids), SPLITS, Notes())
    assert len(str(error.value)) == len(sentence(str(error.value))) or len(str(tmp_path)) > 60


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("ids.txt", b"A\nB\n", r"ids.txt has 2 ids, but .*vec.npy has 4 rows; give the ids of"),
        ("ids.txt", b"\xff\xfe\xff", r"ids.txt line 1 is not"),
        ("ids.txt", b"x" * 5000, r"ids.txt line 1 has more than 4096 characters; write one id"),
        ("ids.json", b'["A", "B", "C"]', r"ids.json has 3 ids, but"),
        ("ids.json", b'["A", true, "B", "C"]', r"ids.json has True among the ids"),
        ("ids.json", b'["A", 1.5, "B", "C"]', r"ids.json has 1.5 among the ids"),
        ("ids.json", b'{"A": 4}', r"ids.json names row 4 of .*vec.npy, which has 4 rows"),
        ("ids.json", b'{"A": [0, -2]}', r"names row -2 of"),
        ("ids.json", b'{"A": [0.0]}', r"names row 0.0 of"),
        ("ids.json", b'{"A": true}', r"names row True of"),
        ("ids.json", b'{"A": {"row": 1}}', r"names row {'row': 1} of"),
        ("ids.json", b'{"A": ', r"ids.json is not JSON \(.*it must be a list of ids, or an object"),
        ("ids.json", b'"A"', r"ids.json holds 'A'; it must be a list of ids"),
        ("ids.json", b"[[1], [2], [3], [0]]", r"has rows of vectors for 4 products, but not their"),
        ("train.json", b"[[1], [2]]", r"has 2 entries, but train has 3 rows"),
        ("ids.json", b"[" * 100_000, r"ids.json line 1 is not JSON"),
        ("ids.json", b'{"a":' * 100_000, r"ids.json is not JSON"),
        ("ids.npy", b"\x93NUMPY", r"ids.npy cannot be read as an array of NumPy"),
        ("ids.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': 3}    \n", r"ids.npy cannot be read as"),
    ],
)
def test_ids_that_do_not_fit_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    unfit(tmp_path, tmp_path / name, array(tmp_path / "vec.npy"), message)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.zeros(4), r"ids.npy is an array \(4,\) of float64; it must have one id per row"),
        (np.zeros((4, 1), int), r"ids.npy is an array \(4, 1\) of int64"),
    ],
)
def test_arrays_that_hold_no_ids_are_named(tmp_path, values, message):
    ids = array(tmp_path / "ids.npy", values)
    unfit(tmp_path, ids, array(tmp_path / "vec.npy"), message)


@pytest.mark.parametrize(
    "content, message",
    [
        (np.zeros((4, 2), int), r"vec.npy is an array \(4, 2\) of int64; it must be \(n, width\)"),
        (np.zeros(4), r"vec.npy is an array \(4,\) of float64"),
        (np.zeros((0, 2)), r"vec.npy is an array \(0, 2\)"),
        (np.zeros((4, 0)), r"vec.npy is an array \(4, 0\)"),
        (np.zeros((4, 2, 1)), r"vec.npy is an array \(4, 2, 1\)"),
        (np.zeros((4, 2), complex), r"of complex128"),
        (objects([[1], 2, 3, 4]), r"vec.npy cannot be read as an array of NumPy"),
        (b"", r"vec.npy cannot be read as an array of NumPy"),
        (b"PK\x03\x04", r"vec.npy cannot be read as an array of NumPy .*numpy.save as an array"),
        ("cut", r"vec.npy cannot be read as an array of NumPy"),
        ("huge", r"vec.npy cannot be read as an array of NumPy"),
    ],
)
def test_vectors_that_cannot_be_used_are_named(tmp_path, content, message):
    path = array(tmp_path / "vec.npy")
    if isinstance(content, np.ndarray):
        array(path, content)
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif content == "huge":
        headed(path, "<f4", f"({2**60}, 2)", bytes(8))
    else:
        path.write_bytes(content)
    (tmp_path / "ids.txt").write_text("A\nB\nC\nD\n")
    unfit(tmp_path, tmp_path / "ids.txt", path, message)


@pytest.mark.parametrize("which", ["location", "ids"])
def test_files_that_are_not_there_are_named(tmp_path, which):
    names = {"location": array(tmp_path / "vec.npy"), "ids": tmp_path / "ids.txt"}
    names["ids"].write_text("A\nB\nC\nD\n")
    for gone in ("gone*.npy", ".", "~nobody/x", "\0", "x" * 5000):
        found = names | {which: tmp_path / gone if gone != "\0" else "\0"}
        unfit(tmp_path, found["ids"], found["location"], rf"image_vectors.{which} is '.*no file")


def test_files_that_are_not_pairs_are_named(tmp_path):
    for name in ("a.npy", "b.npy"):
        array(tmp_path / name)
    (tmp_path / "ids.txt").write_text("A\nB\nC\nD\n")
    message = r"location names 2 files and download.image_vectors.ids 1"
    unfit(tmp_path, tmp_path / "ids.txt", tmp_path / "?.npy", message)
    (tmp_path / "ids2.txt").write_text("A\nB\nC\nD\n")
    array(tmp_path / "b.npy", np.zeros((4, 3)))
    message = "b.npy has vectors of 3 numbers, the file before it of 2"
    unfit(tmp_path, tmp_path / "ids*.txt", tmp_path / "?.npy", message)


# Arrays of objects


class Command:
    """A pickle of it runs a command when it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        import os

        return os.system, (f"touch '{self.mark}'",)


def pickled(path: Path, content: bytes) -> Path:
    """A .npy file of objects with this pickle."""
    return headed(path, "|O", "(2,)", content)


def test_an_array_of_objects_runs_no_code(tmp_path):
    mark = tmp_path / "mark"
    evil = objects([[1], Command(mark)])
    unfit(
        tmp_path, array(tmp_path / "map.npy", evil), array(tmp_path / "vec.npy"), r"map.npy is an"
    )
    pickled(tmp_path / "map.npy", pickle.dumps(Command(mark)))
    unfit(tmp_path, tmp_path / "map.npy", tmp_path / "vec.npy", r"map.npy is an array of objects")
    assert not mark.exists()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04]\x94.",  # a list in place of an array
        b"\x80\x04N.",
        RECONSTRUCT + b".",  # the class itself
        RECONSTRUCT + b"}b.",
        b"cnumpy\ndtype\n}(X\x04\x00\x00\x00codeK\x01ub.",
        b"cnumpy.core.multiarray\nscalar\n}b.",
        b"cnumpy\nndarray\n}b.",
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"cnumpy\nload\n(X\x01\x00\x00\x001tR.",
        b"\x80\x04\x8c\x05numpy\x8c\x13core.multiarray.dtype\x93.",
        b"r\xff\xff\xff\x7f.",  # a far place in the memo
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of 8 EB
        b"B\xff\xff\xff\xff.",  # 4 GB of bytes
        b"P1\n.",  # a persistent id
        b"\x82\x01.",  # an extension
        b"c__main__\nx\n.",
        (RECONSTRUCT + b"(tR(K\x01(K\x01tcnumpy\ndtype\n(X\x03\x00\x00\x00O8xtRK\x00C\x01atb."),
    ],
)
def test_a_hostile_array_of_objects_ends_in_a_sentence(tmp_path, content):
    path = pickled(tmp_path / "map.npy", content)
    unfit(tmp_path, path, array(tmp_path / "vec.npy"), r"map.npy is an array of objects that are")


@pytest.mark.parametrize(
    "values",
    [[[1], {"a": 1}], [[1], [[2]]], [[1], [1.5]], [[True], [2]], [[1], np.array(["x", "y"])]],
)
def test_other_objects_than_rows_are_named(tmp_path, values):
    path = array(tmp_path / "map.npy", objects(values))
    unfit(tmp_path, path, array(tmp_path / "vec.npy"), r"map.npy is an array of objects that are")


@pytest.mark.parametrize("protocol", [3, 4])
def test_numbers_and_arrays_of_numpy_are_rows_too(tmp_path, protocol):
    values = objects([np.array([1, 0], np.int32), [np.int64(2), np.uint8(3)]])
    pickled(tmp_path / "map.npy", pickle.dumps(values, protocol))
    assert rows_by_id(given(tmp_path, "map.npy")) == {"D": [1, 0], "A": [2, 3]}
