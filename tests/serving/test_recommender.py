"""The recommender on a finished run: catalog products, new products, and the mix it uses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mufin.errors import ArtifactError, MufinError
from mufin.params import load_params
from mufin.ranking.mix import Mix
from mufin.ranking.mix_file import load_mix, save_mix
from mufin.serving import recommender
from mufin.serving.recommender import Recommender
from tests.support.stages import pictures_of


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch) -> None:
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")


def loaded(home: Path) -> Recommender:
    return Recommender(load_params(home / "params.yaml"), home)


@pytest.fixture(scope="module")
def served(finished) -> Recommender:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUFIN_DEVICE", "cpu")
        return loaded(finished)


def products_of(home: Path, name: str) -> list[int]:
    return pq.read_table(home / f"data/curated/{name}.parquet")["product"].to_pylist()


def with_mix(finished: Path, home: Path, mix: dict) -> Recommender:
    """The recommender of the same run with another models/mix.json."""
    home.mkdir()
    shutil.copy(finished / "params.yaml", home)
    (home / "data").symlink_to(finished / "data")
    (home / "models").mkdir()
    for name in ("finetune", "index"):
        (home / "models" / name).symlink_to(finished / "models" / name)
    save_mix(Mix(**mix), home / "models/mix.json", home / "models/index")
    return loaded(home)


def test_no_product_is_answered_with_itself(finished, served):
    labels = set(products_of(finished, "labels"))
    assert labels & set(range(len(served.uids)))  # there are products to leave out
    for uid, answers in zip(served.uids, served.recommend(served.uids, k=100)):
        got = [answer["uid"] for answer in answers]
        assert uid not in got and len(set(got)) == len(got)
        assert len(got) == min(100, len(labels) - (served.row_of[uid] in labels))


def test_answers_of_test_products_are_the_predictions(finished, served):
    """The stage evaluate and the recommender rank alike, by the mix in models/mix.json."""
    test, labels = products_of(finished, "test"), products_of(finished, "labels")
    predicted = pq.read_table(finished / "data/predictions/test.parquet").to_pylist()
    answers = served.recommend([served.uids[p] for p in test], k=100)
    for row, asked in zip(predicted, answers, strict=True):
        expected = [served.uids[labels[label]] for label in row["labels"]]
        scores = [answer["score"] for answer in asked]
        assert scores == pytest.approx(row["score"], abs=1e-4)
        assert [answer["uid"] for answer in asked] == expected
        titles = [served.titles[served.row_of[uid]] for uid in expected]
        assert [answer["title"] for answer in asked] == titles


@pytest.mark.parametrize(
    "mix, part",
    [
        ({"beta": 0.0}, "similarity"),
        ({"beta": 1.0}, "classifier"),
        ({"beta": 1.0, "ridge_weight": 1.0, "network_weight": 0.0}, "ridge"),
    ],
)
def test_the_mix_file_decides_the_order(finished, tmp_path, mix, part):
    assert Mix(**mix) != load_mix(finished / "models/mix.json", finished / "models/index")
    served = with_mix(finished, tmp_path / "home", mix)
    test, predictor = products_of(finished, "test")[:12], served.predictor
    wide, own = served.params.evaluate.shortlist, predictor.index.labels_of(np.array(test))
    titles = [served.titles[product] for product in test]
    candidates = predictor.candidates(predictor.embed(np.array(test)), wide, own, titles)
    for row, answers in enumerate(served.recommend([served.uids[p] for p in test], k=20)):
        order = np.lexsort((candidates.ids[row], -getattr(candidates, part)[row]))[:20]
        best = candidates.ids[row][order]
        expected = [served.uids[product] for product in predictor.index.products[best]]
        assert [answer["uid"] for answer in answers] == expected


def test_a_missing_mix_names_the_remedy(finished, tmp_path):
    with_mix(finished, tmp_path / "home", {"beta": 0.5})
    (tmp_path / "home/models/mix.json").unlink()
    with pytest.raises(ArtifactError, match="mix.json is missing; run `dvc repro`"):
        loaded(tmp_path / "home")


def test_many_products_are_answered_as_each_alone(served, monkeypatch):
    uids = served.uids[:15]
    together = served.recommend(uids, k=5)
    monkeypatch.setattr(recommender, "CHUNK", 4)
    assert served.recommend(uids, k=5) == together
    assert served.recommend([], k=5) == []


def test_an_unknown_product_is_named_with_the_nearest(served):
    uid = served.uids[3]
    with pytest.raises(MufinError, match=f"{uid}x is not .*catalog; did you mean {uid}"):
        served.recommend([served.uids[0], uid + "x"])


def test_a_new_product_is_answered_like_its_catalog_twin(finished, served):
    content = pictures_of(finished)
    products = pq.read_table(finished / "data/curated/products.parquet").to_pylist()
    asked = [p for p in products if p["title"] and p["images"]][:8]
    known = served.recommend([p["uid"] for p in asked], k=20)
    fresh = served.recommend_new(
        [p["title"] for p in asked], [[content[k] for k in p["images"]] for p in asked], k=21
    )
    for product, a, b in zip(asked, known, fresh):
        scores = {answer["uid"]: answer["score"] for answer in b}
        shared = [answer for answer in a if answer["uid"] in scores]
        assert len(shared) >= 18 and product["uid"] not in {answer["uid"] for answer in a}
        assert [scores[answer["uid"]] for answer in shared] == pytest.approx(
            [answer["score"] for answer in shared], abs=2e-3
        )


def test_a_new_product_is_answered_if_it_has_a_descriptor(served):
    nothing, unknown_words = served.recommend_new(["", "no such words"], [[], []], k=5)
    assert nothing == [] and len({answer["uid"] for answer in unknown_words}) == 5


def test_a_broken_picture_is_one_sentence(served):
    with pytest.raises(MufinError, match="a picture cannot be read .*not a picture") as error:
        served.recommend_new(["mug"], [[b"no picture"]])
    assert "\n" not in str(error.value)
