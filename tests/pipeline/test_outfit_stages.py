"""Outfits through download and curate: generated ones, and the same from a folder of files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mufin.artifacts.curated import read_curated, read_labels, read_split
from mufin.artifacts.outfits import read_outfits
from mufin.artifacts.tables import read_table
from mufin.artifacts.texts import further_texts
from mufin.corpus.outfit_folder import generate
from mufin.errors import MufinError
from tests.support.outfits import whole_release
from tests.support.stages import inside, run_stages

GENERATED = {
    "download.source": "sample-outfits",
    "download.sample.outfits": 60,
    "download.sample.seed": 3,
    "download.outfits.split": "disjoint",
    "download.max_texts": 20,
}
RELEASE = {"download.source": "polyvore", "download.outfits.split": "disjoint"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outfits")
    with inside(folder, **GENERATED):
        run_stages(folder, last="curate")
    return folder


def test_a_datapoint_of_train_is_an_outfit_without_its_label(home):
    data, outfits = read_curated(home / "data/curated"), read_outfits(home / "data/curated")
    of = {tuple(sorted(items)) for items in map(outfits.sets.items.__getitem__, range(60))}
    train = data.train
    assert len(train) == len(outfits.sets.of("train").items.values)
    for row in range(len(train)):
        [label], given = train.labels[row], data.labels[train.excluded[row]]
        assert tuple(sorted([int(data.labels[label]), *given.tolist()])) in of


def test_the_bag_of_a_datapoint_has_all_pictures_and_titles_of_the_given_items(home):
    curated = home / "data/curated"
    table, texts = read_table(curated / "products.parquet", "products"), further_texts(curated)
    titles, images = table["title"].to_pylist(), table["images"].to_pylist()
    questions = read_outfits(curated).questions.of("test")
    for row, product in enumerate(questions.product.tolist()):
        given = questions.items[row].tolist()
        told = dict.fromkeys(titles[item] for item in given if titles[item])
        assert [titles[product], *texts[product].as_py()] == list(told)
        assert images[product] == [key for item in given for key in images[item]]


def test_all_labels_of_test_are_unseen_in_disjoint(home):
    curated = home / "data/curated"
    data, outfits = read_curated(curated), read_outfits(curated)
    unseen = read_labels(curated / "unseen/labels.parquet")
    test, wide = data.splits["test"], read_split(curated / "unseen/test.parquet")
    assert len(test) == len(wide) and not test.labels.lengths().any()
    every = np.concatenate([data.labels, unseen])
    assert not set(data.labels) & set(unseen)
    questions = outfits.questions.of("test")
    assert wide.product.tolist() == questions.product.tolist()
    for row in range(len(wide)):
        assert every[wide.labels[row]].tolist() == [questions.answers[row][questions.right[row]]]
        assert set(every[wide.excluded[row]]) == set(questions.items[row])


def test_source_json_has_the_best_attainable_figures(home):
    sample = json.loads((home / "data/raw/source.json").read_text())["sample"]
    assert sample["outfits"] == 60 and 25 < sample["best_attainable"]["FITB"] <= 100


def test_the_files_of_generated_outfits_give_the_same_data(home, tmp_path):
    facts = generate(tmp_path / "files", 60, 3)
    location = str(tmp_path / "files")
    for kind in ("disjoint", "nondisjoint"):
        folder = tmp_path / kind
        folder.mkdir()
        settings = GENERATED | RELEASE | {"download.location": location}
        with inside(folder, **settings | {"download.outfits.split": kind}):
            run_stages(folder, last="curate")
        source = json.loads((folder / "data/raw/source.json").read_text())
        assert source["sample"]["best_attainable"] == facts[kind]["best_attainable"]
        own = folder / "data/curated"
        for path in sorted((home / "data/curated").rglob("*.parquet")):
            same = (own / path.relative_to(home / "data/curated")).read_bytes()
            assert (same == path.read_bytes()) or kind == "nondisjoint"
    known = read_curated(own).splits["test"].labels.lengths()
    assert known.any() and not known.all()  # some items of test are in train


def test_a_release_is_read_and_the_type_of_the_blank_can_be_told(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    location = str(whole_release(tmp_path / "release"))
    settings = RELEASE | {"download.location": location, "download.outfits.blank_type": True}
    with inside(folder, **settings):
        run_stages(folder, last="curate")
    table = read_table(folder / "data/curated/products.parquet", "products")
    titles = dict(zip(table["uid"].to_pylist(), table["title"].to_pylist()))
    assert titles["11 without 2"] == "tote" and titles["2"] == "red tote"
    assert read_outfits(folder / "data/curated").questions.of("valid").right.tolist() == [1]


def test_outfits_cannot_be_subsampled(home, tmp_path):
    with inside(tmp_path, **GENERATED, **{"curate.max_products": 50}):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data/raw").symlink_to(home / "data/raw")
        with pytest.raises(MufinError, match="curate.max_products is 50, but of outfits"):
            run_stages(tmp_path, first="curate", last="curate")
