"""A catalog of products with several texts each, through all stages and into answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import TEXT
from mufin.corpus.tokens import load_tokenizer
from mufin.params import load_params
from mufin.planning.data_stages import precomputed_files
from mufin.planning.found import sizes_in
from mufin.planning.network import network_of
from mufin.planning.run import Run
from mufin.planning.sizes import sizes_of
from mufin.serving.answers import Answer, Descriptor
from mufin.serving.export import export
from mufin.serving.live_product import LiveProduct
from mufin.serving.query import NewProduct, Query
from mufin.serving.recommender import Recommender
from mufin.serving.service import Service, StoreKeeper
from mufin.serving.store import ProductStore
from tests.planning.test_files import SMALL_MACHINE
from tests.serving.test_export import outside
from tests.support.stages import QUICK, inside, run_stages

THINGS = ("mug", "lamp", "table", "kettle", "chair", "rug")
COLOURS = ("red", "blue", "green", "white", "black")
COUNT = 60
CHANGES = QUICK | {
    "download.source": "catalog",
    "download.location": "catalog.jsonl",
    "download.columns.texts": ["description", "bullets"],
    "encoder.modalities": ["text", "lexical"],
    "encoder.image.self_supervised_epochs": 0,
    "encoder.text.max_tokens": 12,
    "pretrain.epochs": 1,
    "finetune.epochs": 1,
    "attention.a_s": "attention",
}


def row_of(number: int) -> dict:
    thing, colour = THINGS[number % 6], COLOURS[number % 5]
    return {
        "ASIN": f"p{number}",
        "title": f"{colour} {thing} {number % 7}" if number % 9 else "",
        "images": [],
        "also_buy": [f"p{(number + step) % COUNT}" for step in (6, 12, 30)],
        "category": [],
        "description": f"<b>a {thing} that is {colour}</b> and has a very long story " * 2,
        "bullets": [f"made of steel {number % 4}", "", f"made of steel {number % 4}"][: number % 4],
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several texts")
    lines = [json.dumps(row_of(number)) + "\n" for number in range(COUNT)]
    (folder / "catalog.jsonl").write_text("".join(lines))
    with inside(folder, **CHANGES):
        run_stages(folder)
    return folder


def texts_by_hand(number: int) -> list[str]:
    row = row_of(number)
    story = row["description"].replace("<b>", " ").replace("</b>", " ")
    texts = [row["title"], " ".join(story.split()), *row["bullets"]]
    return [text for text in dict.fromkeys(texts) if text]


def test_each_text_is_tokenised_for_itself(home):
    folder = home / "data/precomputed"
    tokenizer = load_tokenizer(str(folder / "encoders/text"))
    store = DescriptorStore(folder, ["text", "lexical"])
    batch = store.batch(np.arange(COUNT))
    for number in range(COUNT):
        mine = (batch.text_bag == number).nonzero().flatten()
        mine = mine[batch.text_row[mine].argsort()]
        texts = texts_by_hand(number)
        assert batch.text_row[mine].tolist() == list(range(len(texts)))
        assert (batch.modality[number] == TEXT).sum() == len(texts)
        for place, text in zip(mine.tolist(), texts, strict=True):
            ids = tokenizer(text, truncation=True, max_length=12)["input_ids"]
            assert batch.text[place, : len(ids)].tolist() == ids
            assert int(batch.text_lengths[place]) == len(ids)
    assert Precomputed(folder).has_ragged_tokens()


def test_terms_are_of_all_texts(home):
    stored = Precomputed(home / "data/precomputed")
    terms, rows = stored.lexical_terms(), stored.lexical_rows()
    found = {terms[t] for t in rows[0]}  # a product without a title
    assert {"mug", "story", "red"} <= found


def test_a_new_product_is_embedded_as_the_one_of_the_catalog(home):
    with inside(home, **CHANGES):
        recommender = Recommender.load(home)
    datapoints = recommender.catalog.datapoints
    numbers = [0, 1, 2, 3, 20]
    new = [
        NewProduct(row["title"], texts=(row["description"], *row["bullets"]))
        for row in map(row_of, numbers)
    ]
    ours = datapoints.embed_new(new)
    theirs = datapoints.predictor.embed(np.array(numbers))
    for place in range(len(numbers)):
        for a, b in zip(ours[place], theirs):
            rows = slice(b.offsets[place], b.offsets[place + 1])
            assert np.array_equal(a.modality, b.modality[rows])
            assert np.allclose(a.rows, b.rows[rows], atol=1e-4)
            assert np.allclose(a.vectors[0], b.vectors[place], atol=1e-4)


def test_reasons_name_the_texts(home):
    with inside(home, **CHANGES):
        recommender = Recommender.load(home)
    answers = recommender.recommend("p0", k=5, reasons=True)  # without a title
    named = {(d.kind, d.number) for a in answers for r in a.why for d in (r.query, r.answer)}
    assert {kind for kind, _ in named} <= {"title", "text", "words"}
    assert ("text", 0) in named
    assert not any(r.query.kind == "title" for a in answers for r in a.why)
    without = recommender.recommend(title="red mug", texts=["a mug"], k=3)
    assert len(without) == 3


def live_of(number: int, uid: str) -> LiveProduct:
    row = row_of(number)
    return LiveProduct(uid, row["title"], texts=(row["description"], *row["bullets"]))


def test_a_live_product_is_embedded_with_its_texts(home):
    with inside(home, **CHANGES):
        recommender = Recommender.load(home)
    recommender.upsert([live_of(3, "copy"), LiveProduct("bare", row_of(3)["title"])])
    catalog, trained = recommender.catalog, recommender.catalog.datapoints.predictor
    x = trained.embed(np.array([3]))[0]
    own = catalog.labels.own[catalog.label("copy")].embedded[0]
    assert np.allclose(own.vectors[0], x.vectors[0], atol=1e-4)
    bare = catalog.labels.own[catalog.label("bare")].embedded[0]
    assert not np.allclose(bare.vectors[0], x.vectors[0], atol=1e-2)
    assert catalog.texts("copy") == tuple(texts_by_hand(3)[1:]) == catalog.texts("p3")
    assert recommender.product("copy").texts == live_of(3, "copy").texts
    assert list(recommender.product("p3").texts) == texts_by_hand(3)[1:]


def test_a_change_of_the_texts_alone_is_embedded_again(home):
    with inside(home, **CHANGES):
        recommender = Recommender.load(home)
    catalog = recommender.catalog
    uid = next(uid for uid in map(catalog.uid, range(9)) if catalog.texts(uid))
    title, texts, label = catalog.title(uid), catalog.texts(uid), catalog.label(uid)
    recommender.upsert([LiveProduct(uid, title, texts=texts)])
    assert label not in catalog.labels.own and catalog.asked(uid, "uids").row >= 0
    recommender.upsert([LiveProduct(uid, title, texts=("of wood",))])
    asked = catalog.asked(uid, "uids")
    assert asked.row < 0 and asked.new.texts == ("of wood",)
    rows = catalog.labels.own[label].embedded[0].modality
    assert np.count_nonzero(rows == TEXT) == 1 + bool(title)


def test_a_restart_answers_with_the_texts_of_the_store(home, tmp_path):
    with inside(home, **CHANGES), ProductStore(tmp_path / "store.sqlite") as store:
        first = Service(Recommender.load(home), store)
        StoreKeeper(store).commit([live_of(4, "copy")], [])
        first.upsert([live_of(4, "copy")])
        store.forget_models([])  # so that the second one embeds it
        second = Service(Recommender.load(home), store)
        second.restore()
    asked = [Query(uids=("copy",), k=5, reasons=True)]
    (before,), (after,) = first.answers(asked), second.answers(asked)
    assert [(a.uid, a.why) for a in before] == [(a.uid, a.why) for a in after]
    assert second.product("copy").texts == live_of(4, "copy").texts


def test_reasons_quote_the_texts(home):
    with inside(home, **CHANGES):
        recommender = Recommender.load(home)
    texts = ("", "<i>a mug</i> with " + "a very long story of its life " * 9, "a mug")
    answers = recommender.recommend(title="mug", texts=texts, k=20, reasons=True)
    said = {d.number: d.text for a in answers for r in a.why for d in [r.query] if d.kind == "text"}
    expected = {0: "a mug with a very long story of its life a very long ...", 1: "a mug"}
    assert said and said.items() <= expected.items()
    for answer in answers:
        for found in texts_named(answer):
            full = recommender.catalog.texts(answer.uid)[found.number]
            assert full.startswith(found.text.removesuffix(" ..."))


def texts_named(answer: Answer) -> list[Descriptor]:
    """The texts of the answer that its reasons name."""
    return [reason.answer for reason in answer.why if reason.answer.kind == "text"]


def test_an_export_embeds_and_ranks_products_with_their_texts(home, tmp_path):
    """By the code of docs/export.md, which does not know this library."""
    with inside(home, **CHANGES):
        list(export(home, tmp_path / "exported"))
        served = Recommender.load(home)
    page, catalog = outside(tmp_path / "exported"), served.catalog
    assert page.query["text"]["max_texts"] == 8
    for number in (0, 3, 5):  # the first one has no title
        title = row_of(number)["title"]
        texts = [text for text in texts_by_hand(number) if text != title]
        x, _ = page.embedded(title, [], page.said["score"], texts)
        ours = catalog.datapoints.predictor.embed(np.array([number]))
        wanted = np.concatenate([e.vectors[0] for e in ours]) / np.sqrt(len(ours))
        assert np.allclose(x, wanted, atol=1e-5)
    mix = {"ridge_weight": 0.0, "vote_weight": 0.0, "pair_weight": 0.0}
    asked = served.recommend_batch([Query(uids=("p3",), k=5, mix=mix)])[0]
    title, *texts = texts_by_hand(3)
    found = page.ranked(title, [], 12, 100, texts)
    by_uid = {page.labels["uid"][label].as_py(): score for label, score in found}
    assert all(by_uid[a.uid] == pytest.approx(a.score, abs=1e-4) for a in asked)
    rows = pq.read_table(tmp_path / "exported/rows.parquet").to_pylist()
    labels = pq.read_table(tmp_path / "exported/labels.parquet").to_pylist()
    for label in labels:
        texts = texts_by_hand(int(label["uid"][1:]))
        assert [text for text in (label["title"], *label["texts"]) if text] == texts
        mine = [r for r in rows if r["label"] == label["label"] and r["kind"] in ("title", "text")]
        titled = bool(label["title"])
        kinds = [("title", 0)] * titled + [("text", n) for n in range(len(texts) - titled)]
        assert [(row["kind"], row["number"]) for row in mine] == kinds


def test_the_plan_counts_the_texts_of_the_data(home):
    with inside(home, **CHANGES):
        params = load_params(home / "params.yaml")
    sizes = sizes_of(params, {}, sizes_in(home), None)
    expected = [len(texts_by_hand(number)) for number in range(COUNT)]
    assert sizes.texts == pytest.approx(np.mean(expected)) and sizes.most_texts == 8
    run = Run(params, sizes, network_of(params, sizes), SMALL_MACHINE)
    folder = home / "data/precomputed"
    names = ("ragged_tokens.npy", "token_lengths.npy", "text_offsets.npy")
    found = sum((folder / name).stat().st_size - 128 for name in names)  # without their heads
    assert precomputed_files(run)["tokens"] == pytest.approx(found, rel=0.05)
    rows = pq.read_table(home / "data/curated/labels.parquet").num_rows * run.network.rows(0)
    stored = Recommender.load(home).model.predictor.index.labels[0]
    assert rows == pytest.approx(len(stored.rows), rel=0.1)


def test_a_new_product_has_at_most_max_texts(home):
    limited = CHANGES | {"download.max_texts": 2}
    with inside(home, **limited):
        recommender = Recommender.load(home)
    [one] = recommender.catalog.datapoints.embed_new([NewProduct("mug", texts=("", "a", "b"))])
    assert len(one[0].rows) == 3  # title, the first text, words
