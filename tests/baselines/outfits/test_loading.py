"""Items, outfits and questions as a project folder holds them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mufin.artifacts.outfits import Compatibility, Outfits, OutfitSets, Questions, write_outfits
from mufin.artifacts.tables import write_table
from mufin.baselines.outfits.items import title_words
from mufin.baselines.outfits.loading import outfit_task
from mufin.corpus.image_store import ImageWriter
from mufin.errors import MufinError
from mufin.ragged import Lists
from tests.support.artifacts import sealed

REDS = (200, 40, 90)


def picture(red: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (12, 12), (red, 0, 0)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def project(tmp_path):
    """Five products: three items with pictures, one without, and a datapoint of no type."""
    curated, store = tmp_path / "data/curated", tmp_path / "data/raw/images"
    curated.mkdir(parents=True)
    writer = ImageWriter(store)
    keys = [writer.add(picture(red)) for red in REDS]
    broken = writer.add(b"no picture")
    writer.close()
    columns = {
        "uid": [f"p{i}" for i in range(6)],
        "title": ["red mug", "red cap", "blue mug", "", "red mug red cap", "tall cap"],
        "images": [[keys[0]], [keys[1], keys[0]], [keys[2]], [], keys, [broken]],
        "category": [["mug"], ["cap"], ["mug"], ["cap"], [], ["cap"]],
    }
    write_table(columns, "products", curated / "products.parquet")
    sets = OutfitSets(
        np.array(["train", "test"]), np.array(["1", "2"]), Lists.of_rows([[0, 1], [2, 3]])
    )
    zeros = np.zeros(1, np.int64)
    questions = Questions(
        np.array(["test"]),
        np.array([4]),
        Lists.of_rows([[2]]),
        zeros,
        Lists.of_rows([[3, 5]]),
        zeros,
    )
    judged = Compatibility(np.array(["test"]), Lists.of_rows([[2, 3]]), np.array([True]))
    write_outfits(Outfits(sets, questions, judged), curated)
    sealed(curated)
    return tmp_path


def test_an_item_has_its_first_picture_on_white_and_its_type(project):
    task = outfit_task(project, side=8)
    items = task.items
    assert items.used.tolist() == [0, 1, 2, 3, 5]  # the datapoint is no item
    assert [int(p[4, 4, 0]) for p in items.pixels[:3]] == list(REDS)
    assert (items.pixels[3] == 255).all() and (items.pixels[5] == 255).all()
    assert items.pixels.shape == (6, 8, 8, 3)
    assert items.types[0] == items.types[2] != items.types[1] == items.types[3] == items.types[5]
    assert items.num_types == 3
    assert task.outfits.questions.right.tolist() == [0]


def test_words_are_those_of_titles_of_train(project):
    words = outfit_task(project, side=8).items.words
    assert words.shape == (6, 3)  # red, mug, cap
    lengths = np.sqrt(np.asarray(words.multiply(words).sum(1)).ravel())
    np.testing.assert_allclose(lengths, [1, 1, 1, 0, 1, 1], rtol=1e-5)


def test_titles_without_words_have_one_empty_column():
    assert title_words(["", "!"], np.array([0, 1])).toarray().tolist() == [[0], [0]]


def test_data_without_outfits_say_so(project):
    for name in ("outfits", "questions", "compatibility"):
        (project / f"data/curated/{name}.parquet").unlink()
    sealed(project / "data/curated")
    with pytest.raises(MufinError, match="has no outfits.*download.source"):
        outfit_task(project, side=8)
