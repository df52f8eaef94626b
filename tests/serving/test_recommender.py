"""The recommender on a finished run: catalog products, new products, baskets and restrictions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mufin.errors import ArtifactError
from mufin.nn.embedding import search_vectors
from mufin.ragged import Lists
from mufin.ranking.mix import Mix
from mufin.ranking.mix_file import load_mix, save_mix
from mufin.serving import recommender
from mufin.serving.query import NewProduct, Query, QueryError
from mufin.serving.recommender import Recommender
from tests.support.stages import pictures_of


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch) -> None:
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")


@pytest.fixture(scope="module")
def served(finished) -> Recommender:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUFIN_DEVICE", "cpu")
        return Recommender.load(finished)


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
    return Recommender.load(home)


def uids_of(answers) -> list[str]:
    return [answer.uid for answer in answers]


def every(served: Recommender, **question):
    """The answers to a question about each product of the catalog."""
    return served.recommend_batch([Query(uids=(u,), **question) for u in served.model.uids])


def test_no_product_is_answered_with_itself(finished, served):
    labels = set(products_of(finished, "labels"))
    assert labels & set(range(len(served.model.uids)))  # there are products to leave out
    for row, answers in enumerate(every(served, k=100)):
        got = uids_of(answers)
        assert served.model.uids[row] not in got and len(set(got)) == len(got)
        assert len(got) == min(100, len(labels) - (row in labels))


def test_answers_of_test_products_are_the_predictions(finished, served):
    """The stage evaluate and the recommender rank alike, by the mix in models/mix.json."""
    test, labels = products_of(finished, "test"), products_of(finished, "labels")
    predicted = pq.read_table(finished / "data/predictions/test.parquet").to_pylist()
    uids = served.model.uids
    answers = served.recommend_batch([Query(uids=(uids[p],), k=100) for p in test])
    for row, asked in zip(predicted, answers, strict=True):
        assert [a.score for a in asked] == pytest.approx(row["score"], abs=1e-5)
        assert uids_of(asked) == [uids[labels[label]] for label in row["labels"]]
        assert [a.title for a in asked] == [served.product(a.uid).title for a in asked]


def test_the_parts_of_a_score_sum_to_it(served):
    mix = {"beta": 0.4, "frequency_weight": 0.1, "ridge_weight": 0.3, "vote_weight": 0.2}
    uid = served.model.uids[3]
    for answers in (
        served.recommend(uid, k=30, mix=mix),
        served.recommend(served.model.uids[:3], avoid=[uid], k=30, mix=mix),
    ):
        for answer in answers:
            assert sum(answer.parts.values()) == pytest.approx(answer.score, abs=1e-5)
            wanted = {"classifier", "similarity", "frequency", "ridge", "votes"}
            assert wanted <= answer.parts.keys()


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
    test, predictor = products_of(finished, "test")[:12], served.model.predictor
    own = predictor.index.labels_of(np.array(test))
    titles = [served.model.title(product) for product in test]
    wide = served.model.params.evaluate.shortlist
    candidates = predictor.candidates(predictor.embed(np.array(test)), wide, own, titles)
    queries = [Query(uids=(served.model.uids[p],), k=20) for p in test]
    for row, answers in enumerate(served.recommend_batch(queries)):
        values = dict(zip(candidates.ids[row].tolist(), getattr(candidates, part)[row].tolist()))
        values.pop(-1, None)
        assert [answer.score for answer in answers] == pytest.approx(
            sorted(values.values(), reverse=True)[:20], abs=1e-5
        )
        for answer in answers:
            assert answer.score == pytest.approx(values[served.catalog.label(answer.uid)], abs=1e-5)


def test_a_mix_in_the_question_replaces_that_of_the_file(finished, tmp_path, served):
    mix = {"beta": 0.2, "vote_weight": 0.5, "ridge_weight": 0.0, "frequency_weight": 0.0}
    other = with_mix(finished, tmp_path / "home", mix)
    for uid in served.model.uids[:10]:
        assert uids_of(served.recommend(uid, mix=mix)) == uids_of(other.recommend(uid))


def test_a_missing_mix_names_the_remedy(finished, tmp_path):
    with_mix(finished, tmp_path / "home", {"beta": 0.5})
    (tmp_path / "home/models/mix.json").unlink()
    with pytest.raises(ArtifactError, match="mix.json is missing; run `dvc repro`"):
        Recommender.load(tmp_path / "home")


def test_many_products_are_answered_as_each_alone(served, monkeypatch):
    queries = [Query(uids=(uid,), k=5) for uid in served.model.uids[:15]]
    together = served.recommend_batch(queries)
    monkeypatch.setattr(recommender, "TOGETHER", 4)
    again = served.recommend_batch(queries)
    alone = [served.recommend_batch([query])[0] for query in queries]
    for a, b, c in zip(together, again, alone):
        assert uids_of(a) == uids_of(b) == uids_of(c)
        assert [x.score for x in a] == pytest.approx([x.score for x in c], abs=1e-5)
    assert served.recommend_batch([]) == []


def test_mixed_questions_are_answered_as_each_alone(served):
    uids = served.model.uids
    queries = [
        Query(uids=(uids[0],), k=3),
        Query(uids=tuple(uids[1:4]), k=4),
        Query(new=NewProduct("red mug"), k=5),
        Query(uids=(uids[5],), avoid=(uids[6],), k=5),
        Query(uids=(uids[0],), k=7, candidates=tuple(uids[:60])),
        Query(uids=(uids[8],), modalities=("text",), k=2),
        Query(uids=(uids[2],), fold=True, k=6),
        Query(new=NewProduct(), k=2),
    ]
    for query, answers in zip(queries, served.recommend_batch(queries)):
        alone = served.recommend_batch([query])[0]
        assert uids_of(answers) == uids_of(alone) and len(answers) == query.k


def test_one_bad_question_spoils_no_other(served):
    uid = served.model.uids[0]
    good, bad = Query(uids=(uid,), k=3), Query(uids=("no such",), k=3)
    results = served.answers([good, bad, good])
    assert isinstance(results[1], QueryError) and results[1].field == "uids"
    assert uids_of(results[0]) == uids_of(results[2]) == uids_of(served.recommend(uid, k=3))


def test_an_unknown_product_is_named_with_the_nearest(served):
    uid = served.model.uids[3]
    with pytest.raises(QueryError, match=f"{uid}x is not .*catalog; did you mean {uid}"):
        served.recommend([served.model.uids[0], uid + "x"])


def test_a_new_product_is_answered_like_its_catalog_twin(finished, served):
    content = pictures_of(finished)
    products = pq.read_table(finished / "data/curated/products.parquet").to_pylist()
    for p in [p for p in products if p["title"] and p["images"]][:8]:
        known = served.recommend(p["uid"], k=20)
        fresh = served.recommend(title=p["title"], images=[content[k] for k in p["images"]], k=21)
        scores = {answer.uid: answer.score for answer in fresh}
        shared = [answer for answer in known if answer.uid in scores]
        assert len(shared) >= 18 and p["uid"] not in uids_of(known)
        assert [scores[answer.uid] for answer in shared] == pytest.approx(
            [answer.score for answer in shared], abs=2e-3
        )


def test_a_broken_picture_is_one_sentence(served):
    with pytest.raises(QueryError, match="a picture cannot be read .*not a picture") as error:
        served.recommend(title="mug", images=[b"no picture"])
    assert "\n" not in str(error.value) and error.value.field == "images"


# Baskets and products to avoid


def by_uid(answers) -> dict[str, float]:
    return {answer.uid: answer.score for answer in answers}


def test_a_basket_scores_by_the_mean_of_its_products(served):
    one, two = served.model.uids[4], served.model.uids[9]
    a, b = (by_uid(served.recommend(uid, k=10_000)) for uid in (one, two))
    basket = served.recommend([one, two], k=10_000)
    assert {one, two}.isdisjoint(uids_of(basket))
    for answer in basket:
        assert answer.score == pytest.approx((a[answer.uid] + b[answer.uid]) / 2, abs=1e-5)
    assert [x.score for x in basket] == sorted([x.score for x in basket], reverse=True)


def test_a_basket_may_hold_a_new_product(served):
    uid = served.model.uids[4]
    a, b = served.recommend(uid, k=10_000), served.recommend(title="red mug", k=10_000)
    known, new = by_uid(a), by_uid(b)
    for answer in served.recommend(uid, title="red mug", k=50):
        assert answer.score == pytest.approx((known[answer.uid] + new[answer.uid]) / 2, abs=1e-5)


def test_products_to_avoid_take_half_of_their_score(served):
    uid, other = served.model.uids[4], served.model.uids[9]
    mix = {"frequency_weight": 0.1}  # popularity is not held against an answer
    a = by_uid(served.recommend(uid, k=10_000, mix=mix))
    b = by_uid(served.recommend(other, k=10_000, mix=mix | {"frequency_weight": 0.0}))
    avoiding = served.recommend(uid, avoid=[other], k=10_000, mix=mix)
    assert other not in uids_of(avoiding)
    for answer in avoiding:
        assert answer.score == pytest.approx(a[answer.uid] - b[answer.uid] / 2, abs=1e-5)
        assert answer.parts["avoid"] == pytest.approx(-b[answer.uid] / 2, abs=1e-5)


def test_a_basket_is_ranked_among_the_shortlists_of_its_products(served):
    assert served.info()["candidates"] == 100 < served.info()["labels"]
    one, two = served.model.uids[4], served.model.uids[9]
    own = np.array([served.catalog.label(uid) for uid in (one, two)])
    rows, predictor = np.array([4, 9]), served.model.predictor
    excluded = Lists.of_rows([own[own != np.array(None)].astype(int)] * 2)
    ids, _ = predictor.retrieve(predictor.embed(rows), 100, excluded)
    expected = {served.catalog.uid(int(label)) for label in np.unique(ids[ids >= 0])}
    small = served.recommend([one, two], k=90)
    assert len(small) == 90 and {answer.uid for answer in small} <= expected


# Modalities


def test_a_modality_can_be_switched_off(finished, served):
    uid = served.model.uids[7]
    everything = served.recommend(uid, k=20)
    text = served.recommend(uid, modalities=["text"], k=20)
    assert by_uid(everything) != by_uid(text)
    assert uids_of(served.recommend(uid, modalities=["text", "image", "lexical"], k=20)) == uids_of(
        everything
    )
    predictor, row = served.model.predictor, served.model.row_of[uid]
    x = search_vectors(predictor.embed(np.array([row]), {0}))
    for answer in served.recommend(uid, modalities=["text"], mix={"beta": 0.0}, k=5):
        label = np.array([served.catalog.label(answer.uid)])
        expected = served.catalog.labels.similarity(x, label)[0, 0]
        assert answer.parts["similarity"] == pytest.approx(expected, abs=1e-5)


# Fallback


def test_a_product_without_descriptors_gets_popular_ones_of_its_category(finished, served):
    model = served.model
    labels = products_of(finished, "labels")
    category = model.category(labels[0])
    answers = served.recommend(category=category, k=10)
    assert len(answers) == 10 and all(answer.fallback for answer in answers)
    frequency = dict(zip((model.uids[p] for p in labels), model.predictor.index.frequency))
    inside = [a for a in answers if served.product(a.uid).category[:1] == category[:1]]
    assert inside and inside == answers[: len(inside)]
    counts = [frequency[a.uid] for a in inside if served.product(a.uid).category == category]
    assert counts == sorted(counts, reverse=True)
    ranked = served.recommend(title="red mug", k=3)
    assert not any(answer.fallback for answer in ranked)


def test_without_a_category_the_most_popular_of_all_come(served):
    best = served.recommend(title="", category=["no such category"], k=5)
    frequency = np.sort(served.model.predictor.index.frequency)[::-1][:5]
    got = [
        served.model.predictor.index.frequency[served.catalog.label(answer.uid)] for answer in best
    ]
    assert got == frequency.tolist()


# Reasons


def test_reasons_are_the_strongest_pairs_of_descriptors(served):
    from mufin.reporting.adaptation import attention_weights

    uid = next(u for u in served.model.uids if served.product(u).pictures)
    answers = served.recommend(uid, k=5, reasons=True)
    predictor = served.model.predictor
    x = predictor.embed(np.array([served.model.row_of[uid]]))
    for answer in answers:
        label = served.catalog.label(answer.uid)
        weights = np.mean(
            [
                attention_weights(network, x[m], 0, predictor.index.labels[m], label)
                for m, network in enumerate(predictor.networks)
            ],
            axis=0,
        )
        strongest = np.sort(weights.ravel())[::-1][: len(answer.why)]
        assert [r.weight for r in answer.why] == pytest.approx(strongest, abs=2e-4)
        assert {r.by for r in answer.why} == {"attention"}
        for reason in answer.why:
            assert (reason.query.uid, reason.answer.uid) == (uid, answer.uid)
            if reason.answer.kind == "picture":
                assert reason.answer.number < len(served.product(answer.uid).pictures)
    assert not any(answer.why for answer in served.recommend(uid, k=5))


# What cannot be asked


@pytest.mark.parametrize(
    "question, field",
    [
        ({}, "uids"),
        ({"uids": ["A"]}, "uids"),
        ({"title": "x", "k": 0}, "k"),
        ({"title": "x", "k": True}, "k"),
        ({"title": "x", "avoid": ["A"]}, "avoid"),
        ({"title": "x", "candidates": ["A"]}, "candidates"),
        ({"title": "x", "modalities": ["sound"]}, "modalities"),
        ({"title": "x", "modalities": []}, "modalities"),
        ({"title": "x", "mix": {"alpha": 1.0}}, "mix"),
        ({"title": "x", "mix": {"beta": 1.5}}, "mix"),
        ({"title": "x", "mix": {"beta": float("nan")}}, "mix"),
        ({"title": "x", "where": {"shade": "red"}}, "where"),
        ({"title": "x", "images": ["/no/such/file.jpg"]}, "images"),
    ],
)
def test_a_bad_question_names_its_field(served, question, field):
    with pytest.raises(QueryError) as error:
        served.recommend(**question)
    assert error.value.field == field and "\n" not in str(error.value)


def test_products_are_found_by_title_and_uid(served):
    uid = served.model.uids[5]
    assert [p.uid for p in served.find(uid.lower(), 5)] == [uid]
    uid, word = next((p.uid, p.title.split()[0]) for p in served.find("", 50) if p.title)
    found = served.find(word.upper(), 1000)
    assert uid in {p.uid for p in found}
    assert all(word.lower() in (p.title + p.uid).lower() for p in found)
    assert served.find("(", 3) is not None and len(served.find("", 3)) == 3
