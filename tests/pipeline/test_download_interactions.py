"""Stage download: interactions of named columns and of forms, beside the products."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mufin.artifacts.tables import SCHEMAS
from mufin.errors import MufinError
from pipeline import download
from tests.support.projects import ROOT, changed

CATALOG = "".join(
    json.dumps({"id": f"p{k}", "title": f"product {k}", "images": [], "related": []}) + "\n"
    for k in range(4)
)
ORDERS = "order,sku,at,pieces\n1,p0,2026-11-01,1\n1,p1,2026-11-01,2\n2,p1,2026-11-02,-1\n,p2,,1\n"


def run(folder: Path, orders="orders.csv", **settings) -> Path:
    """Run the stage on the catalog and the orders; the folder that it wrote."""
    named = {"basket": "order", "item": "sku", "time": "at", "weight": "pieces"} | settings
    (folder / "catalog.jsonl").write_text(CATALOG)
    dotted = {
        "download.source": "catalog",
        "download.location": str(folder / "catalog.jsonl"),
        "download.columns.id": "id",
        "download.columns.related": [],
        "download.interactions.location": str(folder / orders),
    } | {name if "." in name else f"download.interactions.{name}": v for name, v in named.items()}
    (folder / "params.yaml").write_text(changed(ROOT / "params.yaml", dotted))
    download.main(folder)
    return folder / "data/raw"


def test_orders_are_written_beside_the_products(tmp_path, capsys):
    (tmp_path / "orders.csv").write_text(ORDERS)
    raw = run(tmp_path)
    table = pq.read_table(raw / "interactions.parquet")
    assert table.schema.equals(SCHEMAS["interactions"])
    assert table["item"].to_pylist() == ["p0", "p1"]
    assert len(set(table["basket"].to_pylist())) == 1 and table["weight"].to_pylist() == [1, 2]
    source = json.loads((raw / "source.json").read_text())
    assert source["interactions"] is True and source["interaction_rows"] == 2
    said = capsys.readouterr().err
    assert "interactions without a basket, dropped: 1, such as" in said
    assert "interactions with a weight that is not above 0, dropped: 1, such as" in said


def test_a_folder_pattern_names_many_files(tmp_path):
    for part in "ab":
        (tmp_path / f"orders-{part}.csv").write_text(ORDERS)
    raw = run(tmp_path, "orders-*.csv")
    assert pq.read_metadata(raw / "interactions.parquet").num_rows == 4


def test_no_interactions_write_no_file(tmp_path):
    with pytest.raises(MufinError, match="no product of .* has related ids"):
        run(tmp_path, location=None)


def test_missing_orders_name_their_setting(tmp_path):
    with pytest.raises(MufinError, match="download.interactions.location names .*orders.csv"):
        run(tmp_path)


def test_a_misnamed_column_stops_before_pictures_are_fetched(tmp_path, monkeypatch):
    (tmp_path / "orders.csv").write_text(ORDERS)
    monkeypatch.setattr(download, "fetch_pictures", None)
    with pytest.raises(MufinError, match="no column 'skus'.*interactions.item to sku"):
        run(tmp_path, item="skus")


def test_bad_times_stop_or_are_dropped(tmp_path):
    (tmp_path / "orders.csv").write_text(ORDERS.replace("2026-11-02", "soon"))
    with pytest.raises(MufinError, match="orders.csv line 4 .*'soon' in at.*download.bad_rows"):
        run(tmp_path)
    raw = run(tmp_path, **{"download.bad_rows": 0.3})
    assert pq.read_metadata(raw / "interactions.parquet").num_rows == 2


MOVIES = "movieId,title,genres\n1,Heat,Crime\n2,Ronin,Action\n"
RATINGS = "userId,movieId,rating,timestamp\n7,1,5.0,1000000000\n7,2,4.5,1000000100\n8,1,1.0,5\n"


def movielens(folder, **settings):
    (folder / "movies.csv").write_text(MOVIES)
    (folder / "ratings.csv").write_text(RATINGS)
    form = {"download.source": "movielens", "download.location": str(folder)}
    none = dict.fromkeys(("basket", "item", "time", "weight"))
    return run(folder, ".", **(none | form | settings))


def test_a_form_reads_its_own_interactions(tmp_path):
    table = pq.read_table(movielens(tmp_path) / "interactions.parquet")
    assert table["item"].to_pylist()[:2] == ["1", "2"]
    assert table["time"].to_pylist()[:2] == [1e9, 1e9 + 100]


def test_columns_may_be_named_for_a_form(tmp_path):
    named = {"basket": "userId", "item": "movieId", "location": str(tmp_path / "ratings.csv")}
    table = pq.read_table(movielens(tmp_path, **named) / "interactions.parquet")
    assert table["item"].to_pylist() == ["1", "2", "1"] and table["time"].null_count == 3


def test_a_form_without_interactions_needs_columns(tmp_path):
    with pytest.raises(MufinError, match="basket is null; .*woocommerce.*no interactions"):
        movielens(tmp_path, **{"download.source": "woocommerce"})
    with pytest.raises(MufinError, match="interactions.item is null; .*none of the columns"):
        movielens(tmp_path, basket="userId")
    with pytest.raises(MufinError, match="interactions.basket is null"):
        movielens(tmp_path, time="timestamp")
