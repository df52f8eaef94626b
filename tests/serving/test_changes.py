"""Products that are added, changed and removed while a recommender runs."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from mufin.nn.embedding import search_vectors
from mufin.serving.live_product import LiveProduct
from mufin.serving.query import NewProduct, Query, QueryError
from mufin.serving.recommender import Recommender
from tests.support.stages import pictures_of

ALL = 10_000


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch) -> None:
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")


@pytest.fixture
def served(finished) -> Recommender:
    return Recommender.load(finished)


def picture(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(out, "png")
    return out.getvalue()


def live(uid: str, title: str, *pictures: bytes, **attributes) -> LiveProduct:
    return LiveProduct(uid, title, ("New",), attributes, pictures)


def uids_of(answers) -> list[str]:
    return [answer.uid for answer in answers]


def label_uids(served: Recommender) -> list[str]:
    return [served.catalog.uid(label) for label in range(served.catalog.labels.base)]


def test_an_added_product_is_an_answer_at_once(served):
    twin = served.recommend(served.model.uids[4], k=1)[0]
    assert not any(a.uid == "new" for a in served.recommend(served.model.uids[4], k=ALL))
    served.upsert([live("new", twin.title)])
    answers = served.recommend(served.model.uids[4], k=ALL)
    assert "new" in uids_of(answers)
    product = served.product("new")
    assert product.live and product.answerable and product.title == twin.title
    assert served.recommend("new", k=3) and "new" not in uids_of(served.recommend("new", k=ALL))


def test_an_added_product_has_the_scores_of_alpha_one(finished, served):
    """Catalog products that are no labels, scored as `unseen` in the metrics is: alpha = 1."""
    model, content = served.model, pictures_of(finished)
    table = pq.read_table(finished / "data/curated/products.parquet").to_pylist()
    others = [row for row in range(len(table)) if model.label_of_row[row] < 0][:6]
    served.upsert(
        [
            LiveProduct(
                f"copy {row}",
                table[row]["title"],
                (),
                {},
                tuple(content[k] for k in table[row]["images"]),
            )
            for row in others
        ]
    )
    asked, predictor = model.uids[4], model.predictor
    x = predictor.embed(np.array([4]))
    z = predictor.embed(np.array(others))
    answers = {a.uid: a for a in served.recommend(asked, k=ALL, mix={"beta": 0.5})}
    for place, row in enumerate(others):
        similarity = 0.0
        rows = [e.rows[e.offsets[place] : e.offsets[place + 1]] for e in z]
        joint = np.hstack([r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows])
        similarity = float((joint / np.sqrt(len(z)) @ search_vectors(x)[0]).max())
        total = 0.0
        for m, network in enumerate(predictor.networks):
            device = torch.device("cpu")
            adapted = network.adapted(
                x[m].bags(np.array([0]), device), z[m].bags(np.array([place]), device)
            )
            w = network.unseen_classifier(torch.from_numpy(z[m].vectors[place : place + 1]))
            total += float((adapted * w).sum().detach()) / len(predictor.networks)
        parts = answers[f"copy {row}"].parts
        assert parts["similarity"] == pytest.approx(similarity / 2, abs=2e-3)
        assert parts["classifier"] == pytest.approx(total / 2, abs=2e-3)


def test_a_removed_product_is_gone_and_comes_back(served):
    asked = served.model.uids[4]
    before = served.recommend(asked, k=ALL)
    victim = before[0].uid
    served.delete([victim, "no such product"])
    after = served.recommend(asked, k=ALL)
    assert uids_of(after) == uids_of(before)[1:]
    assert served.product(victim) is None and victim not in {p.uid for p in served.find(victim, 5)}
    with pytest.raises(QueryError, match="not a product"):
        served.recommend(victim)
    served.upsert([live(victim, before[0].title)])
    assert victim in uids_of(served.recommend(asked, k=ALL))


def test_a_changed_label_keeps_its_training(finished, served):
    """The same title and pictures again: the scores are those of the index."""
    content, asked = pictures_of(finished), served.model.uids[4]
    before = served.recommend(asked, k=ALL)
    uid = before[3].uid
    product = served.product(uid)
    served.upsert([live(uid, "something else entirely")])
    changed = served.recommend(asked, k=ALL)
    assert {a.uid: a.score for a in changed}[uid] != pytest.approx(before[3].score, abs=1e-3)
    served.upsert([live(uid, product.title, *(content[k] for k in product.pictures))])
    again = {a.uid: a.score for a in served.recommend(asked, k=ALL)}
    assert again == pytest.approx({a.uid: a.score for a in before}, abs=3e-3)


def test_a_price_changes_without_encoding(served, monkeypatch):
    uid = label_uids(served)[2]
    product = served.product(uid)

    def fail(*_):
        raise AssertionError("encoded")

    pictures = tuple(served.picture(key) for key in product.pictures)
    monkeypatch.setattr(served.catalog.datapoints, "embed_new", fail)
    served.upsert([LiveProduct(uid, product.title, product.category, {"cost": 3.5}, pictures)])
    asked = next(u for u in served.model.uids if u != uid)
    assert uids_of(served.recommend(asked, where={"cost": {"lte": 4}})) == [uid]
    assert served.product(uid).attributes == {"cost": 3.5}


def test_conditions_hold_exactly_whenever_enough_qualify(served):
    served.upsert(
        [live(f"n{i}", f"thing {i}", cost=float(i), fresh=i % 2 == 0) for i in range(30)]
    )
    asked = served.model.uids[4]
    got = served.recommend(asked, k=8, where={"cost": {"gte": 10}, "fresh": True})
    assert len(got) == 8
    assert all(served.product(u).attributes["cost"] >= 10 for u in uids_of(got))
    some = [f"n{i}" for i in range(5)] + label_uids(served)[:5]
    got = served.recommend(asked, k=ALL, candidates=some, exclude=["n1"])
    assert set(uids_of(got)) == set(some) - {"n1", asked}
    assert served.recommend(asked, where={"cost": 5, "fresh": True}) == []


def test_a_restricted_question_is_the_whole_one_filtered(served):
    served.upsert([live(f"n{i}", f"thing {i}") for i in range(10)])
    asked = served.model.uids[4]
    whole = served.recommend(asked, k=ALL)
    chosen = uids_of(whole)[::3]
    found = served.recommend(asked, k=ALL, candidates=chosen)
    assert uids_of(found) == chosen
    scores = {a.uid: a.score for a in whole}
    assert [a.score for a in found] == pytest.approx([scores[u] for u in chosen], abs=1e-5)


def test_a_product_without_descriptors_is_no_answer(served):
    served.upsert([live("empty", "")])
    assert served.product("empty").answerable is False
    answers = served.recommend("empty", k=4)
    assert len(answers) == 4 and all(answer.fallback for answer in answers)
    assert "empty" not in uids_of(served.recommend(served.model.uids[4], k=ALL))
    served.upsert([live("empty", "red mug")])
    assert served.product("empty").answerable


def test_a_product_that_lost_its_descriptors_is_not_asked_about_as_before(served):
    uid = label_uids(served)[3]
    assert not any(answer.fallback for answer in served.recommend(uid, k=3))
    served.upsert([live(uid, "")])
    assert all(answer.fallback for answer in served.recommend(uid, k=3))
    assert uid not in uids_of(served.recommend(served.model.uids[4], k=ALL))


def test_a_broken_picture_changes_nothing(served):
    with pytest.raises(QueryError, match="cannot be read"):
        served.upsert([live("a", "mug"), live("b", "mug", b"no picture")])
    assert served.product("a") is None and len(served.catalog) == len(served.model.uids)


def test_pictures_of_live_products_are_kept_until_unused(served):
    red, blue = picture("red"), picture("blue")
    served.upsert([live("a", "mug", red, blue), live("b", "cup", red)])
    key_red, key_blue = served.product("a").pictures
    assert served.picture(key_red) == red and served.picture(key_blue) == blue
    served.upsert([live("a", "mug", red)])
    assert served.picture(key_blue) is None
    served.delete(["a"])
    assert served.picture(key_red) == red
    served.delete(["b"])
    assert served.picture(key_red) is None and not served.catalog.contents


def test_a_live_product_may_be_asked_about_by_one_modality(served):
    served.upsert([live("a", "red mug", picture("red"))])
    text = served.recommend("a", modalities=["text"], k=5)
    new = served.recommend_batch(
        [Query(new=NewProduct("red mug"), modalities=("text",), k=6, exclude=("a",))]
    )[0]
    assert [a.score for a in text] == pytest.approx([a.score for a in new[:5]], abs=1e-5)


def test_variants_of_live_products_are_folded(served):
    asked = served.model.uids[4]
    assert served.recommend(asked, fold=True)  # the groups are made before the products come
    served.upsert(
        [live(f"v{i}", f"Quibble lamp {c}") for i, c in enumerate(["red", "blue", "tan"])]
    )
    whole = served.recommend(asked, k=ALL)
    folded = served.recommend(asked, k=ALL, fold=True)
    first = next(a.uid for a in whole if a.uid.startswith("v"))
    assert [u for u in uids_of(folded) if u.startswith("v")] == [first]
    assert not [u for u in uids_of(served.recommend("v0", k=ALL, fold=True)) if u.startswith("v")]
    ten = served.recommend(asked, k=10, fold=True)
    assert uids_of(ten) == uids_of(folded)[:10]


def test_reasons_name_descriptors_of_added_products(served):
    served.upsert([live("a", "red mug", picture("red"))])
    asked = served.model.uids[4]
    answer = served.recommend(asked, candidates=["a"], reasons=True)[0]
    kinds = {reason.answer.kind for reason in answer.why}
    assert answer.uid == "a" and kinds <= {"title", "words", "picture"} and answer.why


def test_random_changes_end_where_a_fresh_start_ends(finished, served):
    """Any order of changes gives the answers of applying the final state alone."""
    rng, state, gone = np.random.default_rng(0), {}, set()
    base = label_uids(served)[:6]
    for _ in range(60):
        uid = str(rng.choice([*base, "x", "y", "z"]))
        if rng.random() < 0.4:
            served.delete([uid])
            state.pop(uid, None)
            gone.add(uid)
        else:
            product = live(uid, f"thing {rng.integers(5)}", cost=float(rng.integers(5)))
            served.upsert([product])
            state[uid] = product
            gone.discard(uid)
        if rng.random() < 0.2:
            served.catalog.labels.compact()
    fresh = Recommender.load(finished)
    fresh.delete([uid for uid in gone])
    fresh.upsert(list(state.values()))
    asked = next(u for u in served.model.uids if u not in base)
    a, b = ({x.uid: x.score for x in r.recommend(asked, k=ALL)} for r in (served, fresh))
    assert a == pytest.approx(b, abs=1e-5)
    a, b = (
        set(uids_of(r.recommend(asked, k=ALL, where={"cost": {"gte": 2}})))
        for r in (served, fresh)
    )
    assert a == b == {uid for uid, p in state.items() if p.attributes["cost"] >= 2}
