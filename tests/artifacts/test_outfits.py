"""Outfits, questions and sets to judge as arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mufin.artifacts.outfits import (
    Compatibility,
    Outfits,
    OutfitSets,
    Questions,
    read_outfits,
    write_outfits,
)
from mufin.artifacts.tables import write_table
from mufin.errors import ArtifactError
from mufin.ragged import Lists
from tests.support.artifacts import sealed

SETS = OutfitSets(
    np.array(["train", "test"]), np.array(["o1", "o2"]), Lists.of_rows([[0, 1], [2, 3, 4]])
)
QUESTIONS = Questions(
    np.array(["valid", "test"]),
    np.array([5, 6]),
    Lists.of_rows([[0], [2, 4]]),
    np.array([1, 1]),
    Lists.of_rows([[1, 0], [4, 3, 2]]),
    np.array([0, 1]),
)
JUDGED = Compatibility(
    np.array(["test", "test"]), Lists.of_rows([[2, 3, 4], [0, 3]]), np.array([True, False])
)


def written(folder, questions=QUESTIONS, products=7):
    uids = [f"p{number}" for number in range(products)]
    nothing = [[] for _ in uids]
    columns = {"uid": uids, "title": uids, "images": nothing, "category": nothing}
    write_table(columns, "products", folder / "products.parquet")
    write_outfits(Outfits(SETS, questions, JUDGED), folder)
    return sealed(folder)


def test_outfits_come_back_as_they_were_written(tmp_path):
    found = read_outfits(written(tmp_path))
    assert found.sets.of("test").set.tolist() == ["o2"]
    assert found.sets.of("test").items[0].tolist() == [2, 3, 4]
    asked = found.questions.of("test")
    assert asked.product.tolist() == [6] and asked.items[0].tolist() == [2, 4]
    assert asked.answers[0][asked.right[0]] == 3 and asked.position.tolist() == [1]
    assert found.compatibility.compatible.tolist() == [True, False]
    assert len(found.compatibility.of("train")) == 0


def test_a_folder_without_outfits_has_none(tmp_path):
    columns = {"uid": ["a"], "title": ["a"], "images": [[]], "category": [[]]}
    write_table(columns, "products", tmp_path / "products.parquet")
    assert read_outfits(sealed(tmp_path)) is None


def test_products_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="names product 6 of 6"):
        read_outfits(written(tmp_path, products=6))


def test_a_right_answer_must_be_one_of_the_answers(tmp_path):
    wrong = replace(QUESTIONS, right=np.array([0, 3]))
    with pytest.raises(ArtifactError, match="row 2 says that answer 3 is right, of 3 answers"):
        read_outfits(written(tmp_path, wrong))
