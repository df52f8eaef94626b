"""Interactions from files: by column and by row alike, what is dropped, and what stops."""

import bz2
import csv
import datetime
import gzip
import json
import lzma
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mufin.artifacts.tables import SCHEMAS
from mufin.catalogs import interaction_columns
from mufin.catalogs import interactions as module
from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.interactions import Columns, basket_numbers, interactions, write_interactions
from mufin.catalogs.notes import Notes
from mufin.errors import MufinError

ALL = Columns("user", "item", "time", "weight")
NOON = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC).timestamp()
DAY = NOON - 12 * 3600


def read(*paths, columns=ALL, allowed=0.0, encoding=None):
    """({item, basket, time, weight: list}, notes) of files."""
    notes = Notes()
    bad = BadRows(notes, allowed)
    batches = list(interactions(paths, columns, notes, bad=bad, encoding=encoding))
    bad.check()
    assert all(batch.schema == SCHEMAS["interactions"] for batch in batches)
    table = pa.Table.from_batches(batches, SCHEMAS["interactions"])
    return table.to_pydict(), notes


def by_row(monkeypatch, *paths, **options):
    """The same, without the reading by column."""

    def refuse(*_):
        raise interaction_columns.Irregular
        yield

    with monkeypatch.context() as patch:
        patch.setattr(module, "column_batches", refuse)
        return read(*paths, **options)


def by_column(monkeypatch, *paths, **options):
    """The same; fails if a row is read by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "rows_of_part", None)
        return read(*paths, **options)


def csv_file(path, rows, header="user,item,time,weight"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8", newline="")
    return path


def numbers(*baskets):
    return basket_numbers(pa.array(baskets, pa.string())).tolist()


# Forms

ROWS = [("u1", "a", 10, 1.5), ("u1", "b", 20, 2.0), ("u2", "a", 30, 1.0)]
WANTED = {
    "item": ["a", "b", "a"],
    "basket": numbers("u1", "u1", "u2"),
    "time": [10.0, 20.0, 30.0],
    "weight": [1.5, 2.0, 1.0],
}
CSV = "user,item,time,weight\n" + "".join(f"{u},{i},{t},{w}\n" for u, i, t, w in ROWS)
LINES = "".join(json.dumps(dict(zip(CSV.split("\n")[0].split(","), row))) + "\n" for row in ROWS)


def parquet(path):
    names = ("user", "item", "time", "weight")
    pq.write_table(pa.table(dict(zip(names, map(list, zip(*ROWS))))), path)


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("name, text", [("r.csv", CSV), ("r.jsonl", LINES)])
def test_packed_texts_are_read_by_column(tmp_path, monkeypatch, name, text, packed):
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[packed]
    path = tmp_path / f"{name}{packed}"
    path.write_bytes(pack(text.encode()))
    assert by_column(monkeypatch, path)[0] == WANTED
    assert by_row(monkeypatch, path)[0] == WANTED


@pytest.mark.parametrize(
    "text",
    [
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        CSV.replace(",", "|"),
        "sep=;\n" + CSV.replace(",", ";"),
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace("\n", "\n\n"),
        CSV.removesuffix("\n"),
        CSV.replace("user,item", ' user ,"item"').replace("u1", '"u1"').replace("u2", " u2 "),
        "note," + CSV.replace("\nu", '\n"a ""quoted""\nline, too",u'),
    ],
)
def test_dialects_of_csv_are_read_by_column(tmp_path, monkeypatch, text):
    path = tmp_path / "r.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert by_column(monkeypatch, path)[0] == WANTED
    assert by_row(monkeypatch, path)[0] == WANTED


def test_parquet_is_read_by_column(tmp_path, monkeypatch):
    parquet(tmp_path / "r.parquet")
    assert by_column(monkeypatch, tmp_path / "r.parquet")[0] == WANTED
    assert by_row(monkeypatch, tmp_path / "r.parquet")[0] == WANTED


def test_other_forms_are_read_by_row(tmp_path):
    rows = [json.loads(line) for line in LINES.splitlines()]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "b.json").write_text(json.dumps({"data": rows}))
    (tmp_path / "c.csv").write_bytes(CSV.encode("utf-16"))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("r.csv", CSV)
    (tmp_path / "e.csv").write_bytes(CSV.replace("u1", "\u00fc").encode("latin-1"))
    for name in ("a.json", "b.json", "c.csv", "d.zip"):
        assert read(tmp_path / name)[0] == WANTED
    wanted = WANTED | {"basket": numbers("\u00fc", "\u00fc", "u2")}
    assert read(tmp_path / "e.csv", encoding="latin-1")[0] == wanted


def test_nested_columns_are_read(tmp_path):
    rows = [{"who": {"id": u}, "item": i} for u, i, *_ in ROWS]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = read(tmp_path / "r.jsonl", columns=Columns("who.id", "item"))
    assert found["basket"] == WANTED["basket"] and found["time"] == [None] * 3


def test_files_of_several_forms_have_the_same_baskets(tmp_path):
    csv_file(tmp_path / "a.csv", ["7,a,,1"])
    (tmp_path / "b.jsonl").write_text('{"user": 7, "item": "b", "time": null, "weight": 1}\n')
    pq.write_table(
        pa.table({"user": [7.0], "item": ["c"], "time": [1], "weight": [1]}), tmp_path / "c.parquet"
    )
    found, _ = read(tmp_path / "a.csv", tmp_path / "b.jsonl", tmp_path / "c.parquet")
    assert found["item"] == ["a", "b", "c"] and found["basket"] == numbers("7", "7", "7")


def test_baskets_and_products_may_be_one_column(tmp_path, monkeypatch):
    csv_file(tmp_path / "r.csv", ["1,a,,1"])
    found, _ = by_column(monkeypatch, tmp_path / "r.csv", columns=Columns("item", "item"))
    assert found["basket"] == numbers("a") and found["item"] == ["a"]


# Several products in a row

LINES_OF_ORDERS = Columns("user", "items[].sku", "time", "items[].n")
ORDERS = [
    {"user": "u1", "time": 10, "items": [{"sku": "a", "n": 1.5}, {"sku": "b", "n": 2}]},
    {"user": "u2", "time": 30, "items": [{"sku": "a", "n": 1}]},
]


def json_file(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("dots", ["items[].sku", "items.sku"])
def test_the_products_of_an_order_are_its_rows(tmp_path, dots):
    columns = Columns("user", dots, "time", dots.replace("sku", "n"))
    of_json = json_file(tmp_path / "a.jsonl", ORDERS)
    (tmp_path / "b.json").write_text(json.dumps({"orders": ORDERS}))
    pq.write_table(pa.Table.from_pylist(ORDERS), tmp_path / "c.parquet")
    for path in (of_json, tmp_path / "b.json", tmp_path / "c.parquet"):
        assert read(path, columns=columns)[0] == WANTED | {"time": [10.0, 10.0, 30.0]}


def test_objects_in_texts_are_read(tmp_path):
    rows = [{**order, "items": json.dumps(order["items"])} for order in ORDERS]
    path = tmp_path / "a.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert read(path, columns=LINES_OF_ORDERS)[0] == WANTED | {"time": [10.0, 10.0, 30.0]}


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_lists_of_one_row_pair_up(tmp_path, name):
    rows = [
        {"user": "u1", "item": ["a", "b"], "time": [10, 20], "weight": [1.5, 2]},
        {"user": "u2", "item": ["a"], "time": [30], "weight": [1]},
    ]
    path = json_file(tmp_path / name, rows)
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert read(path)[0] == WANTED
    rows = [row | {"time": 5, "weight": 2} for row in rows]
    path = json_file(tmp_path / "b.jsonl", rows)
    found, _ = read(path)
    assert found["item"] == ["a", "b", "a"] and found["time"] == [5.0] * 3
    assert found["weight"] == [2.0] * 3


def test_lists_of_different_lengths_are_a_bad_row(tmp_path):
    rows = [{"user": "u", "item": ["a", "b"], "time": 1, "weight": w} for w in ([1], [1, 2])]
    path = json_file(tmp_path / "a.jsonl", rows)
    with pytest.raises(MufinError, match="line 1 has 2 products in item, but 1 values in weight"):
        read(path)
    found, notes = read(path, allowed=0.5)
    assert found["item"] == ["a", "b"] and notes.counts == {"bad rows, dropped": 1}


def test_lines_without_a_product_or_a_weight_keep_the_others_apart(tmp_path):
    rows = [
        {"user": "u1", "time": 1, "items": [{"sku": None, "n": 1}, {"sku": "b", "n": 7}, "x"]},
        {"user": "u2", "time": 1, "items": [{"sku": "c"}, {"sku": "d", "n": 3}, None]},
        {"user": "u3", "time": 1, "items": []},
        {"user": "u4", "time": 1, "items": None},
        {"user": "u5", "time": 1},
        {"user": "u6", "time": 1, "items": {"sku": "e", "n": 2}},
    ]
    found, notes = read(json_file(tmp_path / "a.jsonl", rows), columns=LINES_OF_ORDERS)
    assert found["item"] == ["b", "d", "e"] and found["weight"] == [7.0, 3.0, 2.0]
    assert found["basket"] == numbers("u1", "u2", "u6")
    assert notes.counts == {
        "interactions without a product, dropped": 5,
        "interactions with a weight that is not above 0, dropped": 1,
    }


def test_a_list_late_in_a_file_of_single_products(tmp_path, monkeypatch):
    monkeypatch.setattr(interaction_columns, "BLOCK", 1000)
    rows = [{"user": k // 5, "item": f"p{k % 17}"} for k in range(3000)]
    rows[2500]["item"] = ["a", "b"]
    path, columns = json_file(tmp_path / "r.jsonl", rows), Columns("user", "item")
    found, _ = read(path, columns=columns)
    assert found == by_row(monkeypatch, path, columns=columns)[0]
    assert found["item"][2499:2503] == ["p0", "a", "b", "p2"]


# Values


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("1700000000", 1.7e9),
        ("1700000000.25", 1.7e9 + 0.25),
        ("-86400", -86400),
        ("1700000000123", 1700000000.123),
        ("1700000000123456", 1700000000.123456),
        ("2026-11-28", DAY),
        ("20261128", DAY),
        ("2026/11/28", DAY),
        ("2026/11/28 12:00", NOON),
        ("2026-11-28 12:00:00", NOON),
        ("2026-11-28T12:00:00Z", NOON),
        ("2026-11-28T13:00:00+01:00", NOON),
        ("2026-11-28 13:00:00 +0100", NOON),
        ("2026-11-28 12:00:00 UTC", NOON),
        ("2026-11-28T12:00:00.5", NOON + 0.5),
        ("", None),
        ("NaT", None),
    ],
)
def test_times(tmp_path, monkeypatch, text, seconds):
    path = csv_file(tmp_path / "r.csv", [f"u,a,{text},1"])
    assert by_row(monkeypatch, path)[0]["time"] == [seconds]
    assert by_column(monkeypatch, path)[0]["time"] == [seconds]


@pytest.mark.parametrize("kind", ["s", "ms", "us"])
@pytest.mark.parametrize("zone", [None, "UTC", "+02:00"])
def test_timestamps_of_parquet(tmp_path, monkeypatch, kind, zone):
    times = pa.array([int(NOON)], pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp(kind, zone))
    table = pa.table({"user": ["u"], "item": ["a"], "time": times, "weight": [1]})
    pq.write_table(table, tmp_path / "r.parquet")
    assert by_column(monkeypatch, tmp_path / "r.parquet")[0]["time"] == [NOON]
    assert by_row(monkeypatch, tmp_path / "r.parquet")[0]["time"] == [NOON]


def test_rows_without_basket_or_product_are_counted(tmp_path, monkeypatch):
    path = csv_file(tmp_path / "r.csv", [",a,1,1", "nan,a,1,1", "u, ,1,1", "u,b,1,1", "NULL,,1,1"])
    for way in (read, lambda p: by_row(monkeypatch, p)):
        found, notes = way(path)
        assert found["item"] == ["b"]
        assert notes.counts == {
            "interactions without a product, dropped": 2,
            "interactions without a basket, dropped": 2,
        }
        assert "line 2" in notes.examples["interactions without a basket, dropped"]


def test_refunds_are_counted(tmp_path, monkeypatch):
    weights = ["-1", "0", "nan", "", "1e-60", "2", "1e39"]
    path = csv_file(tmp_path / "r.csv", [f"u,a,1,{weight}" for weight in weights])
    for way in (read, lambda p: by_row(monkeypatch, p)):
        found, notes = way(path)
        assert found["weight"] == [2.0, float(np.finfo(np.float32).max)]
        assert notes.counts == {"interactions with a weight that is not above 0, dropped": 5}


@pytest.mark.parametrize("name", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "values, words",
    [
        ({"time": "yesterday"}, "time must be"),
        ({"time": "2026-02-30"}, "time must be"),
        ({"weight": "many"}, "must be a number"),
        ({"item": "8.90124E+12"}, "cut its digits"),
    ],
)
def test_bad_rows_stop_or_are_counted(tmp_path, monkeypatch, name, values, words):
    rows = [{"user": "u", "item": "a", "time": "1", "weight": "1"} for _ in range(4)]
    rows[2] |= values
    path = tmp_path / f"r.{name}"
    if name == "csv":
        csv_file(path, [",".join(row.values()) for row in rows])
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = "line 4" if name == "csv" else "line 3"
    with pytest.raises(MufinError, match=f"(?s){line}.*{words}"):
        read(path)
    with pytest.raises(MufinError, match="1 of 4 rows are bad"):
        read(path, allowed=0.1)
    for way in (by_column, by_row):
        found, notes = way(monkeypatch, path, allowed=0.5)
        assert len(found["item"]) == 3 and notes.counts == {"bad rows, dropped": 1}


def test_a_bad_value_in_two_columns_is_one_bad_row(tmp_path):
    path = csv_file(tmp_path / "r.csv", ["u,a,never,many", "u,b,1,1"])
    assert read(path, allowed=0.9)[1].counts == {"bad rows, dropped": 1}


def test_baskets_do_not_depend_on_the_batch():
    ids = [f"order {k}" for k in range(5000)]
    whole = numbers(*ids)
    assert len(set(whole)) == 5000 and min(whole) >= 0
    assert whole == numbers(*ids[:2500]) + numbers(*ids[2500:])
    assert numbers("order 1") == [7745005490983902153]


# What stops


def test_a_missing_column_names_the_likely_one(tmp_path):
    path = csv_file(tmp_path / "r.csv", ["1,a,1"], header="customer_id,item,Time")
    with pytest.raises(MufinError, match="no column 'user'.*basket to customer_id"):
        read(path, columns=Columns("user", "item"))
    with pytest.raises(MufinError, match="no column 'time'.*time to Time"):
        read(path, columns=Columns("customer_id", "item", "time"))


@pytest.mark.parametrize("text", ["", "user,item,time,weight\n", "\n\n"])
@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.txt"])
def test_files_without_rows_are_counted(tmp_path, name, text):
    if name == "r.jsonl" and text.strip():
        return
    (tmp_path / name).write_text(text)
    found, notes = read(tmp_path / name)
    assert not found["item"] and notes.counts == {"files of interactions without rows": 1}


def test_nothing_to_use_stops(tmp_path):
    notes, out = Notes(), tmp_path / "out.parquet"
    for row, words in (("u,a,1,-1", "weight above 0"), ("u,a,1,x", "1 of 1 rows are bad")):
        path, bad = csv_file(tmp_path / "r.csv", [row]), BadRows(notes, 0.5)
        with pytest.raises(MufinError, match=words):
            write_interactions(interactions([path], ALL, notes, bad=bad), out, bad)


@pytest.mark.parametrize(
    "name, content",
    [
        ("r.parquet", b"PAR1 is not enough"),
        ("r.csv.gz", gzip.compress(CSV.encode() * 999)[:-20]),
        ("r.csv", CSV.encode() + b"\xff,a,1,1\n"),
        ("r.csv", CSV.encode() + b'"u,a,1,1\n'),
        ("r.csv", CSV.encode() + b"u,a\0,1,1\n"),
        ("r.jsonl", LINES.encode() + b'{"user": "u", "item'),
    ],
)
def test_broken_files_stop(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MufinError, match="r\\."):
        read(tmp_path / name)


# By column and by row


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_an_irregular_row_late_in_a_file(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(interaction_columns, "BLOCK", 1000)
    lines = [f"u{k // 5},p{k % 17},{k},1" for k in range(2000)]
    lines[1500] = ",".join(["x"] * rows)
    path = csv_file(tmp_path / "r.csv", lines)
    by_itself = by_row(monkeypatch, path, allowed=0.5)
    assert read(path, allowed=0.5)[0] == by_itself[0]
    with pytest.raises(MufinError, match="line 1502"):
        read(path)


def test_a_type_that_changes_late_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(interaction_columns, "BLOCK", 1000)
    rows = [{"user": k // 5, "item": f"p{k % 17}"} for k in range(3000)]
    rows[2500]["item"] = 7
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = Columns("user", "item")
    assert read(path, columns=columns)[0] == by_row(monkeypatch, path, columns=columns)[0]


VALUES = st.one_of(
    st.sampled_from(
        ["", " ", "nan", "None", "1", "1.0", "007", "a", "20260131", "2026-01-31", "-1"]
    ),
    st.sampled_from(["1e3", "+5", "1e400", "inf", "2026-1-1", "20260231", "\u0661", "12.0", "NaT"]),
    st.sampled_from(
        ["2026-01-31T10:00:00+0100", "2026/01/31", "99999999999", "99999999999999", "x.0"]
    ),
    st.text(st.sampled_from(' "\t;,|a1.\x1c\xa0\u00e9'), max_size=4),
    st.from_regex(r"\A-?[0-9]{1,20}(\.[0-9]{1,3})?\Z"),
)


def outcome(way, *args, **options):
    try:
        found, notes = way(*args, **options)
    except MufinError as error:
        return "error", str(error)[:20]
    return found, dict(sorted(notes.counts.items()))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), min_size=1, max_size=5))
def test_csv_by_column_equals_by_row(tmp_path, monkeypatch, rows):
    path = csv_file(tmp_path / "r.csv", [",".join(row) for row in rows])
    options = {"allowed": 0.99}
    assert outcome(read, path, **options) == outcome(by_row, monkeypatch, path, **options)


JSON_VALUES = st.one_of(
    VALUES,
    st.integers(-5, 5),
    st.sampled_from([20260131, 20261331, 10**11, 10**14, 2**53 + 1, 10**17, 2**62]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([None, 1.0, 0.5, True, [], ["a", 1.0], {"a": 1}, "\ud83d"]),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.fixed_dictionaries(dict.fromkeys(("user", "item", "time", "weight"), JSON_VALUES)),
        min_size=1,
        max_size=4,
    )
)
def test_json_by_column_equals_by_row(tmp_path, monkeypatch, rows):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"allowed": 0.99}
    assert outcome(read, path, **options) == outcome(by_row, monkeypatch, path, **options)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(
        [
            pa.int64(),
            pa.int8(),
            pa.uint64(),
            pa.float32(),
            pa.float64(),
            pa.bool_(),
            pa.large_string(),
        ]
    ),
    other=st.sampled_from([pa.date32(), pa.timestamp("us"), pa.decimal128(22, 1), pa.binary()]),
    numbers=st.lists(st.one_of(st.none(), st.integers(0, 100)), min_size=1, max_size=4),
)
def test_parquet_by_column_equals_by_row(tmp_path, monkeypatch, kind, other, numbers):
    whole = pa.array(numbers, pa.int64())
    plain = whole.cast(kind)
    if pa.types.is_binary(other):
        odd = whole.cast(pa.string()).cast(other)
    elif pa.types.is_date(other):
        odd = whole.cast(pa.int32()).cast(other)
    else:
        odd = whole.cast(other, safe=False)
    table = pa.table({"user": plain, "item": odd, "time": odd, "weight": plain})
    path = tmp_path / "r.parquet"
    pq.write_table(table, path)
    for columns in (ALL, Columns("user", "user", "time"), Columns("user", "user", "user")):
        options = {"allowed": 0.99, "columns": columns}
        assert outcome(read, path, **options) == outcome(by_row, monkeypatch, path, **options)


def test_dictionaries_of_parquet(tmp_path, monkeypatch):
    texts = pa.array(["a", None, "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"user": texts, "item": texts}), tmp_path / "r.parquet")
    found, _ = by_column(monkeypatch, tmp_path / "r.parquet", columns=Columns("user", "item"))
    assert found["item"] == ["a", "b", "a"]


def test_no_time_column_gives_no_times(tmp_path):
    path = csv_file(tmp_path / "r.csv", ["u,a,1,1"])
    found, _ = read(path, columns=Columns("user", "item"))
    assert found["time"] == [None] and found["weight"] == [1.0]
