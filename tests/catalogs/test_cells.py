"""Values of rows: ids, lists in cells, words for nothing, images in the file, numbers and times."""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mufin.catalogs.bad_rows import BadRow
from mufin.catalogs.cells import (
    NULLS,
    at,
    ids_of,
    number_of,
    texts_of,
    time_of,
    title_of,
    uid_of,
    whole_texts_of,
)
from mufin.catalogs.image_cells import images_of
from mufin.catalogs.notes import Notes

FILE = Path("a.csv")


def listed(read, value, notes=None, **more):
    return read(value, FILE, 3, "column", notes or Notes(), **more)


# Ids


@pytest.mark.parametrize(
    "value, uid",
    [
        (" A1 ", "A1"),
        (7, "7"),
        (1.0, "1"),
        ("1.0", "1"),
        ("007", "007"),
        ("1.00", "1.00"),
        ("v1.0", "v1.0"),
        (Decimal("12.00"), "12"),
        (b"A1", "A1"),
        ("8.9E12", "8.9E12"),  # an id may look like this; only E+ is how programs write numbers
        ("caf\u0065\u0301", "caf\u0065\u0301"),  # never composed: it would join what differs
    ],
)
def test_ids_are_texts_and_whole_numbers(value, uid):
    assert listed(uid_of, value) == uid
    assert listed(ids_of, [value, None]) == [uid]


@pytest.mark.parametrize("value", ["8.90124E+12", "1e+20", "-8,9E+3", 8.9e18])
def test_ids_that_a_spreadsheet_cut_name_the_cause(value):
    for read, cell in ((uid_of, value), (ids_of, [value])):
        with pytest.raises(BadRow, match=r"a.csv line 3 has the id .* spreadsheet program cut its"):
            listed(read, cell)


@pytest.mark.parametrize("value", [None, math.nan, "", " ", 1.5, True, [1], {"a": 1}, math.inf])
def test_what_is_no_id_is_refused(value):
    with pytest.raises(BadRow, match="an id must be a text or a whole number"):
        listed(uid_of, value)


def test_numbers_with_a_zero_fraction_are_counted():
    notes = Notes()
    assert listed(ids_of, "2.0|3.0|x", notes) == ["2", "3", "x"]
    assert notes.sentences() == ["numbers such as 1.0 in column, read as 1: 2, such as '2.0'"]


# Words for nothing


@pytest.mark.parametrize("word", sorted(NULLS))
def test_words_for_nothing_are_missing_and_counted(word):
    notes = Notes()
    assert listed(title_of, word, notes) == ""
    assert listed(ids_of, f"a|{word}", notes) == ["a"]
    assert listed(texts_of, [word, "a"], notes) == ["a"]
    assert listed(images_of, word, notes) == []
    with pytest.raises(BadRow):
        listed(uid_of, word, notes)
    assert notes.sentences() == [
        f"words for nothing in column, read as missing: 5, such as {word!r}"
    ]


@pytest.mark.parametrize("word", ["Na", "Nil", "-", "nothing", "Nan bread", "0"])
def test_names_that_look_like_nothing_are_kept(word):
    assert listed(title_of, word) == word and listed(texts_of, word) == [word]


# Lists in cells


@pytest.mark.parametrize(
    "cell, ids",
    [
        ("A1|A2", ["A1", "A2"]),
        ("A1, A2,,A3,", ["A1", "A2", "A3"]),
        ("A1;A2; A3", ["A1", "A2", "A3"]),
        ("A1\nA2", ["A1", "A2"]),
        ('["A1", "A2"]', ["A1", "A2"]),
        ("['A1', 'A2']", ["A1", "A2"]),
        ("['A1' 'A2'\n 'A3']", ["A1", "A2", "A3"]),  # numpy: Python would join these
        ("['it\\'s', \"a, b\"]", ["it's", "a, b"]),
        ("[1, 2.0, nan, None]", ["1", "2"]),
        ("[]", []),
        ("", []),
        ("A 1", ["A 1"]),
        (7, ["7"]),
        (["a,b", "c|d"], ["a,b", "c|d"]),  # the items of a list are never split
    ],
)
def test_ids_in_a_cell_are_separated_in_many_ways(cell, ids):
    assert listed(ids_of, cell) == ids


@pytest.mark.parametrize(
    "cell", ["[A1, A2]", "['A1'", "[b", "[['a'], ['b']]", "[os.name]", "[" * 9]
)
def test_a_broken_list_in_a_cell_is_a_bad_row(cell):
    for read in (ids_of, texts_of, images_of):
        with pytest.raises(BadRow, match="a.csv line 3 has .* in column"):
            listed(read, cell)


@given(items=st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1)))
@example(["'", '"', "\\", "[", "a, b", "nan bread"])
def test_a_python_list_gives_its_items(items):
    wanted = [item.strip() for item in items if item.strip() and item.strip() not in NULLS]
    assert listed(texts_of, repr(items)) == wanted
    assert listed(texts_of, json.dumps(items)) == wanted


@given(items=st.lists(st.sampled_from(["A1", "B-2", "it's", "c d"]), min_size=1, max_size=5))
def test_a_numpy_array_gives_its_items(items):
    assert listed(ids_of, str(np.array(items))) == items


@pytest.mark.parametrize(
    "cell, images",
    [
        ("https://h/a,b.jpg", ["https://h/a,b.jpg"]),
        ("https://h/a;v=1.jpg|//h/b", ["https://h/a;v=1.jpg", "https://h/b"]),
        ("https://h/a,b.jpg, http://h/c", ["https://h/a,b.jpg", "http://h/c"]),
        ("https://h/a.jpg;//h/b.jpg", ["https://h/a.jpg", "https://h/b.jpg"]),
        ("https://h/a.jpg http://h/b.jpg", ["https://h/a.jpg", "http://h/b.jpg"]),
        ("https://h/a.jpg\nhttps://h/b.jpg", ["https://h/a.jpg", "https://h/b.jpg"]),
        ("https://h/a?u=https://x/y", ["https://h/a?u=https://x/y"]),
        ("img/a.jpg, img/b.PNG;c.webp", ["img/a.jpg", "img/b.PNG", "c.webp"]),
        ("front, left.jpg", ["front, left.jpg"]),
        ("my image 1.jpg", ["my image 1.jpg"]),
        ("//h/a.jpg", ["https://h/a.jpg"]),
        (["//h/a.jpg", " a,b.jpg "], ["https://h/a.jpg", "a,b.jpg"]),
        ("['https://h/a.jpg', 'https://h/b.jpg']", ["https://h/a.jpg", "https://h/b.jpg"]),
    ],
)
def test_commas_separate_images_only_where_one_begins(cell, images):
    assert listed(images_of, cell) == images


@pytest.mark.parametrize(
    "cell, image",
    [
        (r"bilder\1.jpg", "bilder/1.jpg"),
        (r"größe\klein\1.jpg", "größe/klein/1.jpg"),
        (r"./a\b.jpg", r"./a\b.jpg"),
        (r"https://shop.example/a\b.jpg", r"https://shop.example/a\b.jpg"),
    ],
)
def test_paths_of_windows_have_slashes(cell, image):
    assert listed(images_of, cell) == listed(images_of, [cell]) == [image]


@pytest.mark.parametrize(
    "cell, names",
    [
        ("Home, Garden|Tables", ["Home, Garden", "Tables"]),
        ("Home & Garden > Tables > Round", ["Home & Garden", "Tables", "Round"]),
        ("Tables; round", ["Tables; round"]),
        ("> 3 years", ["> 3 years"]),
    ],
)
def test_commas_do_not_separate_categories(cell, names):
    assert listed(texts_of, cell) == names


# Nested columns


@pytest.mark.parametrize(
    "name, value",
    [
        ("data.title", "table"),
        ("images[].url", ["a", "b"]),
        ("images.url", ["a", "b"]),
        ("images[].sizes[].w", [1, 2, 3]),
        ("sizes.large", ["x", None]),
        ("a.b", "its own name"),
        ("text.a", 5),
        ("text_list[].a", [5]),
        ("tags[]", ["x"]),
        ("none.title", None),
        ("data.none", None),
        ("data.title.deep", None),
        ("images[].none", []),
    ],
)
def test_nested_columns_reach_into_objects_and_lists(name, value):
    row = {
        "data": {"title": "table"},
        "images": [
            {"url": "a", "sizes": [{"w": 1}, {"w": 2}]},
            None,
            {"url": None, "sizes": [{"w": 3}]},
            {"url": "b"},
            "text",
        ],
        "sizes": {"large": ["x", None]},
        "a": {"b": "nested"},
        "a.b": "its own name",
        "text": '{"a": 5}',
        "text_list": '[{"a": 5}]',
        "tags": ["x", None],
    }
    assert at(row, name) == value


# Images in the file


def test_images_as_bytes_and_data_urls_are_kept():
    kept: list[bytes] = []

    def keep(content: bytes) -> str:
        kept.append(content)
        return f"kept:{len(kept)}"

    b64 = base64.b64encode(b"//\xff\xfa|,").decode()
    url_safe = base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode().rstrip("=")
    cells = [
        (b"1", ["kept:1"]),
        ({"bytes": b"2", "path": "a.jpg"}, ["kept:2"]),
        ([{"bytes": b"3", "path": None}, {"bytes": None, "path": "b.jpg"}], ["kept:3", "b.jpg"]),
        ([b"4", None, b""], ["kept:4"]),
        (f"data:image/png;base64,{b64}", ["kept:5"]),
        (f"DATA:;base64,{url_safe}", ["kept:6"]),
        ([f"data:image/png;base64,{b64[:3]}\n{b64[3:]}", "c.jpg"], ["kept:7", "c.jpg"]),
        ("data:image/svg+xml,%3Csvg%2F%3E", ["kept:8"]),
        (f"data:image/png;base64,{b64},https://h/a.jpg", ["kept:9", "https://h/a.jpg"]),
    ]
    notes = Notes()
    for cell, references in cells:
        assert listed(images_of, cell, notes, keep=keep) == references, cell
    blob = b"//\xff\xfa|,"
    assert kept == [b"1", b"2", b"3", b"4", blob, b"\xff\xfe\xfd", blob, b"<svg/>", blob]
    assert notes.counts == {"images of no bytes": 1}


def test_broken_data_urls_are_counted_with_one_example():
    notes = Notes()
    cell = ["data:image/png;base64,&&&", "data:nothing", "a.jpg"]
    assert listed(images_of, cell, notes, keep=lambda content: "kept") == ["a.jpg"]
    assert notes.sentences() == ["broken data: URLs: 2, such as 'data:image/png;base64,&&&'"]


def test_objects_among_images_are_refused_with_a_remedy():
    for cell in ([{"url": "a"}], [["a"]], {"url": "a"}):
        with pytest.raises(BadRow, match="a.csv line 3 has"):
            listed(images_of, cell)
    with pytest.raises(BadRow, match=r"name the field, such as column\[\].url"):
        listed(images_of, [{"url": "a"}])


# Numbers and times


@pytest.mark.parametrize(
    "value, number", [(2, 2.0), ("2.5", 2.5), (" 1e3 ", 1000.0), (None, None), ("nan", None)]
)
def test_numbers_are_finite_or_missing(value, number):
    assert listed(number_of, value) == number


@pytest.mark.parametrize("value", ["x", "inf", math.inf, True, [1], "1,5"])
def test_what_is_no_number_is_a_bad_row(value):
    with pytest.raises(BadRow, match="must be a number"):
        listed(number_of, value)


NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        str(int(NOON)),
        NOON * 1e3,
        NOON * 1e6,
        int(NOON) * 10**9,
        "2026-11-28T12:00:00",
        "2026-11-28 12:00:00 UTC",
        "2026-11-28T13:00:00+01:00",
        "2026-11-28 13:00:00 +0100",
        "2026-11-28T12:00:00Z",
        datetime(2026, 11, 28, 12),
        datetime(2026, 11, 28, 13, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_times_are_seconds_since_1970(value):
    assert listed(time_of, value) == pytest.approx(NOON)


@pytest.mark.parametrize("value", ["2026-11-28", "20261128", 20261128, date(2026, 11, 28)])
def test_days_are_their_first_second(value):
    assert listed(time_of, value) == NOON - 12 * 3600


@pytest.mark.parametrize("value", ["28/11/2026", "x", [1], "1e40", math.inf, "2026-13-01"])
def test_what_is_no_time_is_a_bad_row(value):
    with pytest.raises(BadRow, match="seconds since 1970"):
        listed(time_of, value)


# Texts beside the title


@pytest.mark.parametrize(
    "value, texts",
    [
        (None, []),
        ("", []),
        (" \n", []),
        ("None", []),
        (math.nan, []),
        (" a | b > c\nd ", [" a | b > c\nd "]),
        (7, ["7"]),
        (2.5, ["2.5"]),
        (b"abc", ["abc"]),
        ([], []),
        (["a|b", "", None, "null", 1], ["a|b", "1"]),
        (("a", "b"), ["a", "b"]),
        ('["a", "b|c"]', ["a", "b|c"]),
        (" ['a' 'b']", ["a", "b"]),
        ("[]", []),
        ("[NEW] mug", ["[NEW] mug"]),
        ("[ab, cd", ["[ab, cd"]),
    ],
)
def test_a_text_is_whole_and_a_list_has_one_per_item(value, texts):
    assert listed(whole_texts_of, value) == texts


@pytest.mark.parametrize("value", [{"en": "a"}, [["a"]], ["a", {"en": "b"}], '[["a"]]'])
def test_objects_and_nested_lists_are_no_texts(value):
    with pytest.raises(BadRow, match="a.csv line 3 has .* inside column; it must be a list"):
        listed(whole_texts_of, value)
