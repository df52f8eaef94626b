"""All ten stages: labels that are texts for products with pictures, and orders split by time."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mufin.artifacts.files import read_json
from mufin.errors import MufinError
from mufin.serving.query import NewProduct, Query
from mufin.serving.recommender import Recommender
from pipeline import download, precompute
from tests.support.raw import ids, label_ids
from tests.support.stages import beside, inside, run_stages

TOPICS = 20
WORDS = [f"{a}{b}" for a in ("lam", "tor", "vel", "mip", "sor") for b in ("a", "eru", "ix", "ondo")]
OTHER = [f"{a}{b}" for a in ("ga", "hu", "be") for b in ("rn", "st", "lk")]
LEARNS = {
    "encoder.text.max_tokens": 8,
    "pretrain.epochs": 12,
    "pretrain.batch_size": 64,
    "pretrain.loss": "softmax",
    "finetune.epochs": 12,
    "finetune.batch_size": 64,
    "finetune.loss": "softmax",
    "finetune.candidates": "all",
    "evaluate.candidates": "all",
}


def title(rng: np.random.Generator, topic: int) -> str:
    """A word of the topic among words that say nothing."""
    return " ".join(rng.permutation([WORDS[topic], *rng.choice(OTHER, 2)]))


def picture(rng: np.random.Generator, topic: int) -> bytes:
    """A square in the colour of the topic, with noise."""
    colour = np.random.default_rng(topic).integers(0, 256, 3)
    pixels = np.clip(colour + rng.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def methods(home: Path) -> dict[str, dict[str, float]]:
    """{method: metrics on test}"""
    with open(home / "metrics/methods.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return {r["method"]: {n: float(v) for n, v in r.items() if "@" in n} for r in rows}


@pytest.fixture(scope="module")
def ads(tmp_path_factory) -> Path:
    """Ads with titles and pictures, of which some lack one, to 40 queries of text alone (A2Q)."""
    home, rng = tmp_path_factory.mktemp("ads"), np.random.default_rng(0)
    (home / "img").mkdir()
    with open(home / "ads.jsonl", "w") as file:
        for number in range(300):
            topic, lacks = number % TOPICS, number % 7
            names = [f"img/{number}.png"] if lacks != 1 else []
            for name in names:
                (home / name).write_bytes(picture(rng, topic))
            row = {
                "id": number,
                "title": title(rng, topic) if lacks != 2 else "",
                "images": names,
                "clicked": [2 * topic, 2 * topic + 1],
            }
            file.write(json.dumps(row) + "\n")
    with open(home / "queries.tsv", "w") as file:
        file.write("query_id\tquery\n")
        for number in range(2 * TOPICS):
            file.write(f"{number}\t{('cheap', 'best')[number % 2]} {WORDS[number // 2]}\n")
    changes = {
        "download.source": "catalog",
        "download.location": str(home / "ads.jsonl"),
        "download.columns.id": "id",
        "download.columns.related": "clicked",
        "download.labels.location": str(home / "queries.tsv"),
        "download.labels.id": "query_id",
        "download.labels.text": "query",
        "download.labels.prefix": "query:",
    }
    with inside(home, **LEARNS | changes):
        run_stages(home)
    return home


def test_queries_of_text_alone_are_learnt_from_ads_with_pictures(ads):
    products = pq.read_table(ads / "data/curated/products.parquet").to_pylist()
    assert [len(p["images"]) for p in products[300:]] == [0] * 40
    assert label_ids(ads) == {f"query:{i}" for i in range(40)}
    metrics = read_json(ads / "metrics/curate.json")
    assert metrics["products"] == 300 and metrics["products_without_title"] == 43
    assert metrics["unseen_labels"] == 0 and not metrics["dropped"]["dangling relations"]
    figures = methods(ads)
    assert figures["mufin"]["P@1"] > 3 * figures["popular"]["P@1"] + 30
    assert "train_pairs" not in figures  # no test datapoint is one of train


def test_the_recommender_answers_with_queries(ads, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    served = Recommender.load(ads)
    right = 0
    for row in ids(ads, "test"):
        answers = served.recommend(row["product"], k=2)
        assert all(a.title.split()[0] in ("cheap", "best") for a in answers)
        right += answers[0].uid in row["labels"]
    assert right / len(ids(ads, "test")) == pytest.approx(methods(ads)["mufin"]["P@1"] / 100)
    rng = np.random.default_rng(7)
    new = [NewProduct(title(rng, n), (picture(rng, n),)) for n in range(TOPICS)]
    answers = served.recommend_batch([Query(new=product, k=1) for product in new])
    assert {answer.uid for (answer,) in answers} <= label_ids(ads)
    named = [answer.title.split()[1] for (answer,) in answers]
    assert sum(map(str.__eq__, named, WORDS)) >= TOPICS / 4  # by chance: 1


def test_labels_without_what_the_encoders_read_are_refused(ads, tmp_path):
    beside(ads, str(tmp_path))
    with inside(tmp_path, **{"encoder.modalities": ["image"]}):
        with pytest.raises(MufinError, match="no label has a picture.* add text to it"):
            precompute.main(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "download.labels.location names .*nowhere.csv"),
        ("id,text\n", "download.labels.location .* holds no label"),
        ("id,query\n1,a\n", r"no column 'text' \(download.labels.text\)"),
    ],
)
def test_files_of_labels_that_cannot_be_used_are_named(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text('{"asin": "a", "title": "t", "also_buy": ["1"]}\n')
    labels = tmp_path / "nowhere.csv"
    if text is not None:
        labels.write_text(text)
    changes = {
        "download.source": "catalog",
        "download.location": str(tmp_path / "a.jsonl"),
        "download.columns.id": "asin",
        "download.labels.location": str(labels),
        "download.max_images": 0,
    }
    with inside(tmp_path, **changes):
        with pytest.raises(MufinError, match=message):
            download.main(tmp_path)


DAY = 86400
LAUNCHED = 60  # the day on which the products of the last quarter are first sold


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Orders of 100 days from products of one topic each; a quarter of the products come later."""
    home, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(1)
    count = 12 * TOPICS
    with open(home / "products.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "name"])
        writer.writerows((f"{n:05d}", title(rng, n % TOPICS)) for n in range(count))
    with open(home / "orders.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["order", "sku", "date"])
        for order in range(1500):
            day, topic = int(rng.integers(100)), int(rng.integers(TOPICS))
            sold = np.arange(topic, count if day >= LAUNCHED else count * 3 // 4, TOPICS)
            for n in rng.choice(sold, 3, replace=False):
                writer.writerow([order, f"{n:05d}", 1.6e9 + day * DAY])
    changes = {
        "download.source": "catalog",
        "download.location": str(home / "products.csv"),
        "download.columns.id": "sku",
        "download.columns.title": "name",
        "download.columns.related": [],
        "download.interactions.location": str(home / "orders.csv"),
        "download.interactions.basket": "order",
        "download.interactions.item": "sku",
        "download.interactions.time": "date",
        "curate.split": "time",
        "curate.test": 0.4,
        "curate.interactions.min_support": 2,
        "encoder.modalities": ["text", "lexical"],
        "evaluate.mix": "chosen",
        "evaluate.betas": [0.5, 1.0],
        "evaluate.pair_weights": [0.5],
        "download.max_images": 0,
    }
    with inside(home, **LEARNS | changes):
        run_stages(home)
    return home


def test_relations_from_orders_are_learnt_from_the_past(shop):
    late = {f"{n:05d}" for n in range(9 * TOPICS, 12 * TOPICS)}
    train = {row["product"] for row in ids(shop, "train")}
    assert not late & (train | label_ids(shop)) and len(train) > 100
    assert late & label_ids(shop, "unseen") and late & {r["product"] for r in ids(shop, "test")}
    assert (shop / "data/curated/train_weights.parquet").is_file()
    figures = methods(shop)
    assert figures["mufin"]["P@1"] > figures["popular"]["P@1"] + 20
    assert set(figures["train_pairs"]) == set(figures["mufin"])
    summary = read_json(shop / "metrics/evaluate.json")
    assert sum(len(part) for part in summary.values() if isinstance(part, dict)) == 9


def test_known_and_cold_products_and_new_and_repeated_pairs_are_told_apart(shop):
    of: dict[str, dict[str, list[float]]] = defaultdict(dict)
    with open(shop / "metrics/known.csv", newline="") as file:
        for row in csv.DictReader(file):
            of[row["method"]][row["group"]] = [int(row["datapoints"]), float(row["P@1"])]
    groups = ["known products", "cold products", "new pairs", "repeated pairs"]
    assert all(list(rows) == groups for rows in of.values())
    sizes = [of["mufin"][group][0] for group in groups]
    assert sizes[0] + sizes[1] == len(ids(shop, "test")) and min(sizes) > 20
    # A list of old pairs knows nothing of cold products; the network does.
    assert of["train_pairs"]["cold products"] == of["popular"]["cold products"]
    assert of["mufin"]["cold products"][1] > of["popular"]["cold products"][1] + 20


def test_the_recommender_counts_pairs_of_train_as_the_predictions_do(shop, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    served = Recommender.load(shop)
    assert served.model.mix.pair_weight == 0.5
    labels = pq.read_table(shop / "data/curated/labels.parquet")["product"].to_pylist()
    predicted = pq.read_table(shop / "data/predictions/test.parquet").to_pylist()
    asked = [row["product"] for row in ids(shop, "test")]
    every = served.recommend_batch([Query(uids=(uid,), k=20) for uid in asked])
    uids = served.model.uids
    for row, answers in zip(predicted, every, strict=True):
        assert [answer.score for answer in answers] == pytest.approx(row["score"][:20], abs=1e-4)
        assert {a.uid for a in answers[:5]} == {uids[labels[n]] for n in row["labels"][:5]}
    figures = methods(shop)
    assert figures["mufin_without_pairs"] != figures["mufin_chosen"]
