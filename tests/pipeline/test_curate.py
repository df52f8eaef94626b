"""Curate on raw tables written by hand: behaviour, time, weights, labels, ids that nearly match."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import read_json
from mufin.catalogs.product import Product
from mufin.corpus.splits import NAMES
from mufin.errors import MufinError
from pipeline import curate
from tests.support.raw import ids, label_ids, written
from tests.support.stages import inside

DAY = 86400.0


def catalog(count: int = 12, **more) -> list[Product]:
    return [Product(f"p{i}", f"title {i}", **more) for i in range(count)]


def baskets(count: int, products: int = 12, size: int = 3, seed: int = 0) -> list[tuple]:
    """Rows of random baskets, one per day."""
    rng = np.random.default_rng(seed)
    return [
        (f"p{item}", basket, basket * DAY + place)
        for basket in range(count)
        for place, item in enumerate(rng.choice(products, size, replace=False))
    ]


def curated(home: Path, **changes) -> dict:
    """The metrics of curate, run in `home`."""
    with inside(home, **{"curate.interactions.min_support": 1} | changes):
        curate.main(home)
    return read_json(home / "metrics/curate.json")


def refused(home: Path, message: str, **changes) -> str:
    with pytest.raises(MufinError, match=message) as error:
        curated(home, **changes)
    assert not (home / "data/curated").exists()
    assert len(str(error.value)) <= 300 and "\n" not in str(error.value)
    return str(error.value)


# Relations from behaviour


def test_relations_are_those_of_the_same_baskets(tmp_path):
    rows = [("p0", 7, None), ("p1", 7, None), ("p2", 9, None), ("p1", 9, None), ("p3", 1, None)]
    written(tmp_path, catalog(5), [*rows, *((f"p{i}", 5, None) for i in (0, 1))])
    curated(tmp_path, **{"curate.test": 0.0, "curate.valid": 0.0})
    train = {row["product"]: row["labels"] for row in ids(tmp_path, "train")}
    assert train == {"p0": {"p1"}, "p1": {"p0", "p2"}, "p2": {"p1"}}
    data = read_curated(tmp_path / "data/curated")
    # cosine: p0 and p1 2 / sqrt(2 * 3), p1 and p2 1 / sqrt(3); the strongest of each product is 1
    assert data.train.weights == pytest.approx([1, 1, 1 / np.sqrt(3) / (2 / np.sqrt(6)), 1])


def test_other_ids_of_a_product_name_it_in_orders_and_related_ids(tmp_path):
    products = [
        Product("p0", "a", other_ids=["s0", "red"]),
        Product("p1", "b", other_ids=["p0", "red"], related=["s0"]),
        Product("p2", "c", other_ids=["s2", " "], related=["red"]),
    ]
    written(tmp_path, products, [("s2", 1, None), ("p1", 1, None)])
    metrics = curated(tmp_path, **{"curate.test": 0.0, "curate.valid": 0.0})
    train = {row["product"]: row["labels"] for row in ids(tmp_path, "train")}
    assert train == {"p1": {"p0", "p2"}, "p2": {"p0", "p1"}}
    assert "examples" not in metrics


def test_interactions_of_unknown_products_are_counted_and_shown(tmp_path, capsys):
    rows = [*baskets(30), ("gone", 3, None), ("P 1", 3, None), ("p12", 3, None)]
    products = [*catalog(), Product("p12", "")]  # p12 has no descriptor
    written(tmp_path, products, rows)
    metrics = curated(tmp_path)
    assert metrics["dropped"]["interactions of unknown products"] == 2
    assert metrics["dropped"]["interactions of dropped products"] == 1
    said = capsys.readouterr().err
    assert "interactions of unknown products: 2, such as 'gone', 'P 1'\n" in said
    assert "'P 1' is not 'p1': download.match_ids: [case, blanks] would join them\n" in said


def test_relations_of_columns_and_of_behaviour_are_united(tmp_path):
    products = [Product("p0", "a", related=["p1", "p2"]), *catalog(4)[1:]]
    written(tmp_path, products, [("p0", 1, None), ("p1", 1, None), ("p3", 2, None)])
    curated(tmp_path, **{"curate.test": 0.0, "curate.valid": 0.0})
    data = read_curated(tmp_path / "data/curated")
    assert {r["product"]: r["labels"] for r in ids(tmp_path, "train")} == {
        "p0": {"p1", "p2"},
        "p1": {"p0"},
    }
    assert data.train.weights.tolist() == [2, 1, 1]  # p0 and p1: 1 by the column, 1 by the basket


def test_baskets_that_relate_nothing_name_the_settings(tmp_path):
    written(tmp_path, catalog(), [("x1", 1, 1.0), ("x2", 1, 2.0)])
    said = refused(tmp_path, "relate no two products")
    assert "2, such as 'x1', 'x2', are of unknown products" in said
    assert "download.interactions.item" in said


# Weights


def test_a_pair_in_several_columns_has_the_sum_of_their_weights(tmp_path):
    products = [
        Product("p0", "a", related=["p1", "p2", "p1"], weights=[1.0, 1.0, 0.5]),
        Product("p1", "b", related=["p0", "p0"]),  # no weights: once is enough
        Product("p2", "c", related=["p0", "p1"], weights=[0.25, 2.0]),
    ]
    written(tmp_path, products)
    metrics = curated(tmp_path, **{"curate.test": 0.0, "curate.valid": 0.0})
    train = read_curated(tmp_path / "data/curated").train
    assert train.labels.values.tolist() == [1, 2, 0, 0, 1]
    assert train.weights.tolist() == [1.5, 1.0, 1.0, 0.25, 2.0]
    assert metrics["dropped"]["repeated relations"] == 0
    assert all(
        len(table.column_names) == 3
        for table in map(pq.read_table, sorted((tmp_path / "data/curated").glob("t*[tn].parquet")))
    )


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_equal_weights_leave_no_file_and_the_same_bytes(tmp_path, weight):
    homes = [tmp_path / "plain", tmp_path / "weighted"]
    for home, weights in zip(homes, ([], [weight] * 3)):
        products = [
            Product(f"p{i}", "t", related=[f"p{(i + d) % 12}" for d in (1, 2, 5)], weights=weights)
            for i in range(12)
        ]
        curated(written(home, products))
    one, other = (
        {p.name: p.read_bytes() for p in sorted((h / "data/curated").glob("*.parquet"))}
        for h in homes
    )
    assert one == other and "train_weights.parquet" not in one


def test_weights_that_do_not_fit_are_refused(tmp_path):
    written(tmp_path, [Product("p0", "a", related=["p1"], weights=[1.0, 2.0]), *catalog()[1:]])
    refused(tmp_path, "row 1 has 2 weights of 1 related ids; run download again")


# By time


def by_time(home: Path, rows: list[tuple], products: list[Product] | None = None, **more) -> dict:
    return curated(written(home, products or catalog(), rows), **{"curate.split": "time"} | more)


def bytes_for_training(home: Path) -> dict[str, bytes]:
    folder = home / "data/curated"
    return {n: (folder / n).read_bytes() for n in ("labels.parquet", "train.parquet")} | {
        p.name: p.read_bytes() for p in folder.glob("train_weights.parquet")
    }


SHARES = {"curate.test": 0.25, "curate.valid": 0.2}
CHANGES = {
    "another product": lambda row: ("p11", *row[1:]),
    "an unknown product": lambda row: ("nobody", *row[1:]),
    "another basket": lambda row: (row[0], 0, *row[2:]),
    "a larger weight": lambda row: (*row[:3], 1000.0),
    "a later time": lambda row: (*row[:2], row[2] + 1e9, *row[3:]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_comes_after_the_cut_changes_nothing_that_trains(tmp_path, change):
    rows = baskets(40)
    by_time(tmp_path / "before", rows, **SHARES)
    assert bytes_for_training(tmp_path / "before").keys() >= {"train_weights.parquet"}
    first = 40 * 0.75 * 0.8 * DAY  # of valid: all baskets are of one size
    others = [
        CHANGES[change](row) if row[2] >= first and row[2] % DAY == 0 else row for row in rows
    ]
    assert others != rows
    by_time(tmp_path / "after", others, **SHARES)
    assert bytes_for_training(tmp_path / "before") == bytes_for_training(tmp_path / "after")
    tests = [(home / "data/curated/test.parquet").read_bytes() for home in tmp_path.iterdir()]
    assert tests[0] != tests[1] or change in ("a larger weight", "a later time")


def test_a_change_before_the_cut_does_change_training(tmp_path):
    rows = baskets(40)
    by_time(tmp_path / "before", rows, **SHARES)
    by_time(tmp_path / "after", [("p11", *row[1:]) if row[2] < 3 * DAY else row for row in rows])
    assert bytes_for_training(tmp_path / "before") != bytes_for_training(tmp_path / "after")


def test_a_product_that_comes_later_takes_no_part_in_training(tmp_path):
    late = [(f"p{i}", 100 + day, (30 + day) * DAY) for day in range(12) for i in (0, 1, 12)]
    metrics = by_time(
        tmp_path, [*baskets(30), *late], catalog(14), **{"curate.test": 0.3, "curate.valid": 0.1}
    )
    assert "p12" not in label_ids(tmp_path) | {r["product"] for r in ids(tmp_path, "train")}
    assert label_ids(tmp_path, "unseen") == {"p12"} and metrics["unseen_labels"] == 1
    test = {row["product"]: row["labels"] for row in ids(tmp_path, "test")}
    assert test["p12"] == {"p0", "p1"}  # cold: it is asked about, and is no answer
    assert "p12" not in test["p0"]
    wider = {row["product"]: row["labels"] for row in ids(tmp_path, "unseen/test")}
    assert wider["p0"] == test["p0"] | {"p12"}


def test_the_truth_of_a_period_is_that_of_its_rows_alone(tmp_path):
    days = [("p0", "p1"), ("p0", "p1"), ("p0", "p2"), ("p0", "p1"), ("p2", "p1")]
    rows = [(item, day, day * DAY) for day, pair in enumerate(days) for item in pair]
    by_time(tmp_path, rows, **{"curate.test": 0.4, "curate.valid": 0.0})
    of = {part: {r["product"]: r["labels"] for r in ids(tmp_path, part)} for part in NAMES}
    assert of["train"] == {"p0": {"p1", "p2"}, "p1": {"p0"}, "p2": {"p0"}}
    assert of["test"] == {"p0": {"p1"}, "p1": {"p0", "p2"}, "p2": {"p1"}}
    assert of["valid"] == {}


def test_rows_of_one_instant_are_on_one_side(tmp_path):
    rows = [(item, basket, 5.0) for basket in range(4) for item in ("p0", "p1")]
    rows += [(item, 9, 6.0) for item in ("p2", "p1")]
    rows += [(item, 10, 4.0) for item in ("p2", "p0")]
    by_time(tmp_path, rows, **{"curate.test": 0.5, "curate.valid": 0.0})
    assert {r["product"]: r["labels"] for r in ids(tmp_path, "train")} == {
        "p0": {"p2"},
        "p2": {"p0"},
    }
    assert {r["product"] for r in ids(tmp_path, "test")} == {"p1"}


def test_rows_without_a_time_are_in_no_period(tmp_path):
    rows = [("p5", 1, None), ("p6", 1, None), *baskets(20, products=4)]
    shares = {"curate.test": 0.0, "curate.valid": 0.0}
    metrics = by_time(tmp_path, rows, **shares | {"curate.interactions.direction": "after"})
    assert metrics["train"] == 4 and metrics["dropped"]["interactions without a time"] == 2


def test_a_period_without_relations_names_the_support(tmp_path):
    rows = [*baskets(20, size=2, products=4), ("p1", 99, 99 * DAY), ("p2", 98, 98 * DAY)]
    written(tmp_path, catalog(), rows)
    changes = {"curate.split": "time", "curate.test": 0.04, "curate.valid": 0.0}
    refused(tmp_path, "no test datapoint .* lower curate.interactions.min_support", **changes)


def test_a_subsample_by_time_is_chosen_by_train_alone(tmp_path):
    rows = baskets(60, 40)
    more = {"curate.max_products": 15} | SHARES
    by_time(tmp_path / "before", rows, catalog(40), **more)
    others = [("p39", *row[1:]) if row[2] > 40 * DAY and row[1] % 2 else row for row in rows]
    by_time(tmp_path / "after", others, catalog(40), **more)
    assert bytes_for_training(tmp_path / "before") == bytes_for_training(tmp_path / "after")
    kept = [pq.read_table(h / "data/curated/products.parquet") for h in tmp_path.iterdir()]
    assert kept[0] == kept[1] and len(kept[0]) == 15


def test_related_ids_have_no_time_and_are_counted(tmp_path):
    products = [Product(f"p{i}", "t", related=["p0", "p1"]) for i in range(12)]
    rows = [*baskets(40), ("p3", 1, None)]
    metrics = by_time(tmp_path, rows, products)
    assert metrics["dropped"]["related ids, which have no time"] == 24
    assert metrics["dropped"]["interactions without a time"] == 1
    assert "repeated relations" not in metrics["dropped"]


def test_a_time_split_without_times_says_which_setting(tmp_path):
    time = {"curate.split": "time"}
    written(tmp_path, catalog(related=["p0", "p1"]))
    refused(tmp_path, "no interactions; set download.interactions", **time)
    written(tmp_path, catalog(), [(*row[:2], None) for row in baskets(9)])
    refused(tmp_path, "set download.interactions.time", **time)
    written(tmp_path, catalog(), [(*row[:2], 5.0) for row in baskets(9)])
    refused(tmp_path, "all 27 interactions have the same time", **time)
    written(tmp_path, catalog(), baskets(9, size=1))
    refused(tmp_path, "the train period give no relation", **time)


# Labels that are no products


QUERIES = [(f"q{i}", f"query {i}") for i in range(8)]


def asked(count: int = 40, prefix: str = "") -> list[Product]:
    rng = np.random.default_rng(1)
    return [
        Product(f"a{i}", f"ad {i}", related=[f"{prefix}{q}" for q in rng.choice(6, 2, False)])
        for i in range(count)
    ]


@pytest.mark.parametrize("split", ["cold", "warm"])
def test_only_products_are_held_out_where_labels_are_texts(tmp_path, split, capsys):
    written(tmp_path, asked(prefix="q"), labels=[*QUERIES, ("q1", "again"), ("q9", "<b></b>")])
    metrics = curated(tmp_path, **{"curate.split": split})
    uids = pq.read_table(tmp_path / "data/curated/products.parquet").to_pylist()
    assert [r["uid"] for r in uids[:40]] == [f"a{i}" for i in range(40)]
    assert {r["uid"] for r in uids[40:]} == {f"q{i}" for i in range(6)}
    assert all(r["title"].startswith("query") and not r["images"] for r in uids[40:])
    assert label_ids(tmp_path) == {f"q{i}" for i in range(6)} and not metrics["unseen_labels"]
    asked_about = [r["product"] for part in NAMES for r in ids(tmp_path, part)]
    assert sorted(asked_about) == sorted(f"a{i}" for i in range(40))
    assert metrics["products"] == 40 and metrics["split"] == "cold"
    assert metrics["dropped"]["labels with the id of another"] == 1
    assert metrics["dropped"]["labels without a text"] == 1
    assert metrics["dropped"]["labels that no product is related to"] == 2
    assert ("warm is the same as cold" in capsys.readouterr().err) == (split == "warm")


def test_a_label_with_the_id_of_a_product_needs_a_prefix(tmp_path):
    labels = [(f"{i}", f"query {i}") for i in range(6)]
    products = [Product(f"{i}", f"ad {i}", related=[f"{i % 6}"]) for i in range(20)]
    written(tmp_path, products, labels=labels)
    refused(tmp_path, "the label '0' has the id of a product; set download.labels.prefix")
    written(tmp_path, products, labels=[("q:" + uid, t) for uid, t in labels], label_prefix="q:")
    curated(tmp_path)
    assert label_ids(tmp_path) == {f"q:{i}" for i in range(6)}
    assert all(r["labels"] == {f"q:{int(r['product']) % 6}"} for r in ids(tmp_path, "train"))


def test_related_ids_of_products_are_no_labels(tmp_path, capsys):
    products = [
        Product(p.uid, p.title, related=[*p.related, "a1", "Q1"]) for p in asked(prefix="q")
    ]
    written(tmp_path, products, labels=QUERIES)
    metrics = curated(tmp_path)
    assert metrics["dropped"]["dangling relations"] == 80
    assert metrics["dropped"]["related ids that nearly match one"] == 40
    said = capsys.readouterr().err
    assert "related ids not in labels: 80, such as 'a1', 'Q1'\n" in said
    assert "'Q1' is not 'q1': download.match_ids: [case] would join them\n" in said


def test_a_subsample_draws_products_and_keeps_labels(tmp_path):
    written(tmp_path, asked(prefix="q"), labels=QUERIES)
    metrics = curated(tmp_path, **{"curate.max_products": 20})
    assert metrics["products"] == 20 and metrics["labels"] > 3
    assert metrics["dropped"]["products outside the subsample"] == 20


def test_products_without_a_label_name_both_settings(tmp_path):
    written(tmp_path, asked(prefix="z"), labels=QUERIES)
    said = refused(tmp_path, "no product is related to a label")
    assert "such as 'z" in said and "download.labels.id" in said


# Ids that nearly match


def test_ids_that_nearly_match_are_shown_and_not_joined(tmp_path, capsys):
    products = [Product(str(i), "t", related=["00003", *"56789"]) for i in range(12)]
    metrics = curated(written(tmp_path, products))
    assert metrics["dropped"]["dangling relations"] == 12
    assert metrics["dropped"]["related ids that nearly match one"] == 12
    said = capsys.readouterr().err
    assert "related ids not in the catalog: 12, such as '00003'\n" in said
    assert "'00003' is not '3': download.match_ids: [zeros] would join them\n" in said
    assert "3" not in label_ids(tmp_path)


def test_match_ids_joins_them(tmp_path):
    products = [Product(f"A{i}", "t", related=[f"a{(i + 1) % 12}"]) for i in range(12)]
    products[0].other_ids = ["SKU"]
    rows = [("a 3", 1, None), ("sku", 1, None)]
    written(tmp_path, products, rows, match_ids=["case", "blanks"])
    metrics = curated(tmp_path, **{"curate.test": 0.0, "curate.valid": 0.0})
    train = {row["product"]: row["labels"] for row in ids(tmp_path, "train")}
    assert train["A0"] == {"A1", "A3"} and train["A3"] == {"A0", "A4"} and len(train) == 12
    assert not metrics["dropped"]["dangling relations"] and "examples" not in metrics


def test_match_ids_never_makes_two_products_one(tmp_path):
    products = [Product("b", "t"), Product("01", "t", related=["b"]), Product("1", "t")]
    written(tmp_path, [*products, products[0]], match_ids=["zeros"])
    said = refused(tmp_path, "the ids '01' and '1' are of two products")
    assert "take zeros out of it" in said
    written(tmp_path, [*products, products[0]])
    assert curated(tmp_path, **{"curate.test": 0.0, "curate.valid": 0.0})["products"] == 3


# Mutual pairs


def test_mutual_pairs_name_the_splits_that_take_them(tmp_path):
    products = [Product(f"p{i}", "t", related=[f"p{i ^ 1}"]) for i in range(40)]
    said = refused(written(tmp_path, products), "all relations are mutual pairs")
    assert re.search(r"set curate.split to warm .*, or to time", said)
    products[0].related.append("p7")  # now not all are
    refused(written(tmp_path, products), "change these, or provide more products")


def test_curate_lists_what_it_dropped_as_before(tmp_path):
    products = [
        Product(f"p{i}", "t", related=[f"p{(i + d) % 40}" for d in (1, 2)]) for i in range(40)
    ]
    metrics = curated(written(tmp_path, products))
    assert set(metrics["dropped"]) == {
        "titles that were markup alone",
        "image references without a picture or repeated",
        "rows with the id of another",
        "products with neither title nor picture",
        "dangling relations",
        "relations of or to dropped products",
        "self relations",
        "repeated relations",
        *(f"{part} products without a label" for part in NAMES),
    }
