"""Columns for filters through download and curate, in the folder of a project."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufin.artifacts.attributes import NAME, read_attributes
from mufin.artifacts.files import read_json
from mufin.artifacts.tables import SCHEMAS
from mufin.corpus.sample_shop import NAMES, shop_values
from mufin.errors import MufinError
from mufin.params import load_params
from tests.support.stages import inside, run_stages

CATALOG = {"download.source": "catalog", "download.location": "a.jsonl", "curate.test": 0.0}


def own(home: Path, rows: list[dict], names: list[str]) -> pa.Table:
    """The attributes of a catalog of one's own, after both stages."""
    (home / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = CATALOG | {"download.columns.attributes": names, "curate.valid": 0.0}
    with inside(home, **settings):
        run_stages(home, "download", "curate")
    return read_attributes(home / "data/curated")


def shop(count: int, **more) -> list[dict]:
    near = [[f"p{(i + step) % count}" for step in range(1, 5)] for i in range(count)]
    return [
        {"ASIN": f"p{i}", "title": f"thing {i}", "images": [], "also_buy": near[i], "category": []}
        | {name: value(i) for name, value in more.items()}
        for i in range(count)
    ]


def test_attributes_come_through_both_stages(tmp_path):
    rows = shop(9, price=lambda i: f"{i}.50 EUR", stock=lambda i: i % 2 == 0, tags=lambda i: ["a"])
    rows[3]["title"] = ""  # dropped
    rows[4] |= {"price": None, "tags": ["a", "b"]}
    rows.append(rows[0] | {"price": "99 EUR"})  # the first row of an id counts
    table = own(tmp_path, rows, ["price", "stock", "tags"])
    assert [str(kind) for kind in table.schema.types[:3]] == ["string", "double", "bool"]
    assert table["uid"].to_pylist() == ["p0", "p1", "p2", "p4", "p5", "p6", "p7", "p8"]
    assert table["price"].to_pylist() == [0.5, 1.5, 2.5, None, 5.5, 6.5, 7.5, 8.5]
    assert table["stock"].to_pylist() == [True, False, True, True, False, True, False, True]
    assert table["tags"].to_pylist() == [["a"]] * 3 + [["a", "b"]] + [["a"]] * 4
    facts = read_json(tmp_path / "metrics/download.json")
    assert facts["attributes"] == {"price": "number", "stock": "flag", "tags": "texts"}
    said = facts["notes"]["amounts in price, read as numbers without their currency"]
    assert said == {"count": 9, "example": "'0.50 EUR'"}


def test_without_the_setting_there_is_no_raw_file(tmp_path):
    table = own(tmp_path, shop(5, price=float), [])
    assert table.column_names == ["uid"] and not (tmp_path / "data/raw" / NAME).exists()
    products = pq.read_schema(tmp_path / "data/curated/products.parquet")
    assert products.equals(SCHEMAS["products"])


def test_an_unknown_column_ends_the_stage(tmp_path):
    with pytest.raises(
        MufinError, match="no column 'prices' .*download.columns.attributes to pric"
    ):
        own(tmp_path, shop(5, price=float), ["prices"])
    assert not (tmp_path / "data/raw").exists()


def test_the_sample_has_price_stock_and_colour(tmp_path):
    with inside(tmp_path):
        run_stages(tmp_path, "download", "curate")
    table = read_attributes(tmp_path / "data/curated")
    assert table.column_names == ["uid", *NAMES]
    uids = pq.read_table(tmp_path / "data/curated/products.parquet")["uid"].to_pylist()
    assert table["uid"].to_pylist() == uids
    rows = [tuple(row[name] for name in NAMES) for row in table.to_pylist()]
    settings = load_params(tmp_path / "params.yaml").download.sample
    assert rows == shop_values(uids, settings.products, settings.seed)
    assert "attributes" not in read_json(tmp_path / "data/raw/source.json")
