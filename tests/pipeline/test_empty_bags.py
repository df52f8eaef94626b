"""Nothing without a descriptor is a datapoint, a label or an answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mufin.artifacts.curated import read_labels, read_split
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_ranking
from mufin.cli import app
from mufin.serving.recommender import Recommender
from tests.support.projects import ROOT, changed
from tests.support.servers import jpeg
from tests.support.stages import QUICK, inside, run_stages, stage

BROKEN = jpeg(side=200)[:500]  # a picture whose pixels are missing


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    """A catalog of pictures alone, each related to the next; those of 2 and 5 cannot be decoded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    rows = []
    for number in range(12):
        broken = number in (2, 5)
        Path(f"{number}.jpg").write_bytes(BROKEN + bytes([number]) if broken else jpeg(number))
        rows.append(
            {
                "ASIN": f"p{number}",
                "title": "",
                "images": [f"{number}.jpg"],
                "also_buy": [f"p{(number + 1) % 12}", f"p{(number + 3) % 12}"],
                "category": [],
            }
        )
    rows[2]["images"] += ["5.jpg"]
    rows[7]["images"] = ["5.jpg", "2.jpg", "7.jpg"]  # the third one is good
    Path("catalog.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"download.source": "catalog", "download.location": "catalog.jsonl"}
    Path("params.yaml").write_text(changed(ROOT / "params.yaml", settings))
    return tmp_path


def curated(home: Path) -> tuple[set[str], dict]:
    for name in ("download", "curate"):
        stage(name).main(home)
    uids = pq.read_table(home / "data/curated/products.parquet")["uid"].to_pylist()
    return set(uids), json.loads((home / "metrics/curate.json").read_text())


def test_pictures_that_cannot_be_decoded_make_no_product(shop, capsys):
    uids, facts = curated(shop)
    assert uids == {f"p{number}" for number in range(12)} - {"p2", "p5"}
    reason = "rows without a title whose pictures cannot be decoded"
    assert facts["dropped"][reason] == 2
    assert facts["dropped"]["products with neither title nor picture"] == 2
    assert facts["examples"][reason] == "'p2'" and facts["products_without_image"] == 0
    assert f"{reason}: 2, such as 'p2'" in capsys.readouterr().err


def test_a_title_keeps_a_product_whose_pictures_are_broken(shop):
    text = Path("catalog.jsonl").read_text()
    Path("catalog.jsonl").write_text(text.replace('"p5", "title": ""', '"p5", "title": "five"'))
    uids, facts = curated(shop)
    assert "p5" in uids and "p2" not in uids


def test_of_two_rows_the_one_that_can_be_decoded_is_taken(shop):
    again = {"ASIN": "p2", "title": "", "images": ["3.jpg"], "also_buy": [], "category": []}
    with open("catalog.jsonl", "a") as file:
        file.write(json.dumps(again) + "\n")
    uids, _ = curated(shop)
    assert "p2" in uids and "p5" not in uids


# With pictures alone, products that have only a title have no descriptor.


@pytest.fixture(scope="module")
def pictures_alone(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("pictures")
    with inside(home, **QUICK | {"encoder.modalities": ["image"]}):
        run_stages(home)
    return home


@pytest.fixture(scope="module")
def empty(pictures_alone) -> np.ndarray:
    """(P,) bool: products without a picture that was decoded."""
    rows = Precomputed(pictures_alone / "data/precomputed").image_rows()
    return np.diff(rows.offsets) == 0


def test_no_prediction_is_of_or_for_an_empty_bag(pictures_alone, empty):
    curated = pictures_alone / "data/curated"
    test, labels = read_split(curated / "test.parquet"), read_labels(curated / "labels.parquet")
    asked = empty[test.product]
    assert asked.any() and not asked.all() and empty[labels].any()
    predicted = read_ranking(pictures_alone / "data/predictions/test.parquet")
    assert ((predicted >= 0).any(1) == ~asked).all()
    assert not empty[labels[predicted[predicted >= 0]]].any()
    choices = json.loads((pictures_alone / "metrics/choices.json").read_text())
    assert choices["datapoints_without_descriptor"]["test"] == asked.sum()


def test_no_answer_is_of_or_for_an_empty_bag(pictures_alone, empty):
    with inside(pictures_alone, **QUICK | {"encoder.modalities": ["image"]}):
        served = Recommender.load(pictures_alone)
        row_of = served.model.row_of
        for uid, row in row_of.items():
            answers = served.recommend(uid, k=1000)
            assert answers and all(answer.fallback == empty[row] for answer in answers)
            assert not any(empty[row_of[answer.uid]] for answer in answers)
        assert all(answer.fallback for answer in served.recommend(title="a mug", k=5))
        new = served.recommend(images=[jpeg(3)], k=5)
        assert len(new) == 5 and not new[0].fallback


def test_the_command_says_that_answers_are_by_popularity(pictures_alone, empty):
    with inside(pictures_alone, **QUICK | {"encoder.modalities": ["image"]}):
        uids = pq.read_table("data/curated/products.parquet")["uid"].to_pylist()
        without = uids[int(np.flatnonzero(empty)[0])]
        done = CliRunner().invoke(app, ["recommend", without])
    answer = json.loads(done.stdout)
    assert answer["recommended"] and answer["fallback"] is True
