"""Stories from an export to a recommender: a folder with files, commands as typed, the answers.

Each command is a process of its own, but for the stages and the answers for all test products,
which run in this one to save their start. docs/forms.md has the commands of the first story.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from mufin.artifacts.files import read_json
from tests.support import exports
from tests.support.raw import ids, label_ids
from tests.support.servers import Server, serving
from tests.support.stages import run_stages
from tests.support.stories import (
    LOCAL,
    answers,
    documented,
    edit,
    empty_folder,
    picture,
    precision,
    shelf,
    tiny,
    typed,
    workplace,
)

ITEMS = exports.shop(160)
ORDERS = exports.orders(ITEMS, 800)
LATE = {item.number for item in ITEMS if item.number % 8 == 7}  # new products of the third story


def together(baskets: list[list[str]]) -> dict[str, set[str]]:
    """{id: ids that were in a basket with it}; about eleven of 160 products, so 7 % by chance."""
    out = defaultdict(set)
    for basket in baskets:
        for uid in basket:
            out[uid] |= {*basket} - {uid}
    return out


def answers_are_right(related: dict[str, set[str]]) -> None:
    """More than half of the first answers for test products are related, as the metrics say too."""
    tested = [row["product"] for row in ids(Path(), "test")]
    best = answers(tested)
    right = sum(best[uid][0] in related[uid] for uid in tested)
    assert len(tested) > 40 and right / len(tested) > 0.5
    assert precision("mufin") > precision("popular") + 25


def test_shopify_products_and_orders(tmp_path):
    use, inspect, check, repro, recommend = documented(
        "docs/forms.md", "From a Shopify export to a recommender"
    )
    with serving(Server(shelf(ITEMS, missing=7))) as server, empty_folder(tmp_path):
        exports.shopify(tmp_path, ITEMS, server.url("")).rename("products_export.csv")
        exports.shopify_orders(tmp_path, ORDERS).rename("orders_export.csv")

        typed(use)
        tiny(**LOCAL)
        text = typed(inspect)
        assert "Form                shopify: Shopify's export of products" in text
        assert "download.interactions.location: orders_export.csv" in text
        assert "160 products, 160 have a title, 160 a picture" in typed(check)
        assert repro.startswith("dvc repro ")
        run_stages(tmp_path)
        line = json.loads(typed(recommend))
        assert line["title"] == "Mug series 0" and len(line["recommended"]) == 3

        facts = read_json(tmp_path / "metrics/download.json")
        assert facts["products"] == 160 and facts["failed"] == {"HTTP 404": ITEMS[7].pictures}
        assert facts["interaction_rows"] == sum(map(len, ORDERS))
        answers_are_right(together([[item.handle for item in order] for order in ORDERS]))


def write_excel(path: Path) -> None:
    """As Excel saves Unicode: UTF-16, `sep=;`, a list in a cell; numbers without leading zeros."""
    rows = []
    for item in ITEMS:
        names = [f"bilder/{item.number}-{n}.png" for n in range(1, item.pictures + 1)]
        for n, name in enumerate(names):
            (path.parent / name).write_bytes(picture(item, n, "PNG"))
        same = [other for other in ITEMS if other.set == item.set and other is not item]
        rows.append(
            {
                "Artikelnummer": item.number + 1,
                "Bezeichnung": f"{item.title} für die Küche",
                "Bilder": ";".join(names),
                "Passt zu": ";".join(f"{other.number + 1:05d}" for other in same),
                "Preis": "12,50",
            }
        )
    with open(path, "w", encoding="utf-16", newline="") as file:
        file.write("sep=;\r\n")
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def test_a_table_that_excel_saved(tmp_path):
    with workplace(tmp_path):
        (tmp_path / "bilder").mkdir()
        write_excel(tmp_path / "artikel.csv")

        text = typed("mufin inspect artikel.csv --write params.yaml")
        assert "cells separated by semicolons; UTF-16" in text
        assert "download.columns.related: Passt zu" in text
        assert "download.match_ids: [zeros]" in text.partition("params.yaml now has:")[2]
        assert "160 have a title, 160 a picture" in typed("mufin check")
        run_stages(tmp_path)

        pictures = sum(item.pictures for item in ITEMS)
        assert read_json(tmp_path / "metrics/download.json")["references"] == pictures
        assert not read_json(tmp_path / "metrics/curate.json")["dropped"]["dangling relations"]
        sets = [[str(n + 1) for n in range(8 * k, 8 * k + 8)] for k in range(20)]
        answers_are_right(together(sets))


def sku(item: exports.Item) -> str:
    return f"SKU-{item.number:04d}"


def write_clicks(path: Path) -> list[list[str]]:
    """Clicks of two years, a visit per day; late products are seen from day 450. The visits."""
    visits = []
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "user_id", "product_id", "event"])
        for day, order in enumerate(ORDERS):
            visit = [item for item in order if day >= 450 or item.number not in LATE]
            visits.append([sku(item) for item in visit])
            for minute, uid in enumerate(visits[-1]):
                time = exports.START + day * exports.DAY + 60 * minute
                writer.writerow([time, f"u{day % 300}", uid, "click"])
    return visits


def test_parquet_with_pictures_and_clicks_split_by_time(tmp_path):
    with workplace(tmp_path):
        columns = {
            "product_id": [sku(item) for item in ITEMS],
            "name": [item.title for item in ITEMS],
            "image": [{"bytes": picture(item), "path": f"{item.number}.jpg"} for item in ITEMS],
        }
        pq.write_table(pa.table(columns), "products.parquet")
        visits = write_clicks(tmp_path / "clicks.csv.gz")

        typed("mufin inspect products.parquet clicks.csv.gz --write params.yaml")
        edit(curate__split="time", curate__test=0.4, curate__interactions__window=1.0)
        assert "the first 1,000 interactions can be read" in typed("mufin check")
        run_stages(tmp_path)

        late = {sku(ITEMS[number]) for number in LATE}
        assert not late & label_ids(tmp_path)
        assert late & {row["product"] for row in ids(tmp_path, "test")}
        with open("metrics/known.csv", newline="") as file:
            cold = {r["method"]: r for r in csv.DictReader(file) if r["group"] == "cold products"}
        assert float(cold["mufin"]["P@1"]) > float(cold["popular"]["P@1"]) + 25
        answers_are_right(together(visits))


def test_a_merchant_feed_and_orders_as_json_lines(tmp_path):
    with serving(Server(shelf(ITEMS))) as server, workplace(tmp_path, **LOCAL):
        exports.merchant_xml(tmp_path, ITEMS, server.url(""))
        orders = [[item.sku(n % len(item.colours)) for item in o] for n, o in enumerate(ORDERS)]
        with open("orders.jsonl", "w") as file:
            for number, order in enumerate(orders):
                for uid in order:
                    print(json.dumps({"order": f"#{number}", "sku": uid}), file=file)

        text = typed("mufin import google-merchant feed.xml -o catalog.parquet")
        assert "There are no relations yet: set download.interactions" in text
        pasted = YAML(typ="safe").load(text.partition("sets in params.yaml:")[2])["download"]
        columns = {f"columns__{name}": value for name, value in pasted.pop("columns").items()}
        edit(**{f"download__{name}": value for name, value in (pasted | columns).items()})
        orders_file = {"location": "orders.jsonl", "basket": "order", "item": "sku"}
        edit(**{f"download__interactions__{name}": value for name, value in orders_file.items()})
        assert "orders.jsonl: the first" in typed("mufin check")
        run_stages(tmp_path)

        variants = sum(len(item.colours) for item in ITEMS)
        assert read_json(tmp_path / "metrics/download.json")["products"] == variants
        answers_are_right(together(orders))


def test_movielens_ratings_split_by_time(tmp_path):
    with workplace(tmp_path):
        people = exports.orders(ITEMS, 1500)
        exports.movielens(tmp_path / "ml-1m", ITEMS)
        exports.movielens_ratings(tmp_path / "ml-1m", people)

        text = typed("mufin inspect ml-1m --write params.yaml")
        assert "There are no pictures: remove image from encoder.modalities" in text
        edit(encoder__modalities=["text", "lexical"], curate__split="time")
        assert "'ml-1m/movies.dat': of its 160 products, 160 have a title" in typed("mufin check")
        run_stages(tmp_path)

        assert read_json(tmp_path / "metrics/download.json")["pictures"] == 0
        answers_are_right(together([[str(i.number + 1) for i in liked[:-1]] for liked in people]))
