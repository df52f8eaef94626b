"""A catalog of products with several texts each, through all stages and into answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import TEXT
from mufin.corpus.tokens import load_tokenizer
from mufin.serving.query import NewProduct
from mufin.serving.recommender import Recommender
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
