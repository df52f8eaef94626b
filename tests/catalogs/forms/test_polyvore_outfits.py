"""Outfits with a blank, from the released files of Polyvore Outfits."""

from __future__ import annotations

import json

import pytest

from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.forms.polyvore_outfits import Release, release_folder
from mufin.catalogs.notes import Notes
from mufin.errors import MufinError
from tests.support.outfits import release, whole_release


def products_of(read: Release, blank_type: bool = False):
    notes = Notes()
    return {p.uid: p for p in read.products(notes, BadRows(notes, 0.0), blank_type)}, notes


def test_a_datapoint_has_the_pictures_and_titles_of_the_given_items(tmp_path):
    found, notes = products_of(Release(whole_release(tmp_path / "r"), "disjoint"))
    assert [*found][:7] == list("1234567")
    one = found["11 without 2"]
    assert (one.title, one.texts) == ("red mug", [])  # item 3 has no title
    assert one.images == ["images/1.jpg", "images/3.jpg"]
    assert [uid for uid in found if "without" in uid and uid.startswith("11")] == [
        "11 without 1",
        "11 without 2",
        "11 without 3",
    ]
    assert notes.counts["items in no outfit"] == 1
    assert notes.counts["outfits of one item, which have no blank"] == 1


def test_the_type_of_the_blank_can_be_a_text(tmp_path):
    found, _ = products_of(Release(whole_release(tmp_path / "r"), "disjoint"), True)
    assert (found["11 without 2"].title, found["11 without 2"].texts) == ("tote", ["red mug"])
    assert found["1"].title == "red mug"  # items stay as they are


def test_the_right_answer_is_that_of_the_questions_own_outfit(tmp_path):
    [question] = Release(whole_release(tmp_path / "r"), "disjoint").questions("valid")
    assert question.answers == ["7", "4"] and question.right == 1
    assert (question.blank.uid, question.blank.position) == ("12 without 1", 0)
    assert question.blank.given == ["5"] and question.blank.item == "4"


def test_labels_are_of_train_and_all_other_items_are_unseen(tmp_path):
    labels, unseen = Release(whole_release(tmp_path / "r"), "disjoint").labels()
    assert labels == ["1", "2", "3"] and unseen == ["4", "5", "7", "6"]


def test_sets_to_judge_are_lists_of_items(tmp_path):
    read = Release(whole_release(tmp_path / "r"), "disjoint")
    assert list(read.compatibility("test")) == [(["6", "5", "7"], True), (["6", "5", "7"], False)]


def test_the_other_kind_of_split_is_in_its_own_folder(tmp_path):
    read = Release(release(tmp_path / "r", "nondisjoint"), "nondisjoint")
    assert list(read.items("train")) == [("11", ["1", "2", "3"])]
    with pytest.raises(MufinError, match=r"disjoint/train.json is missing; download.location must"):
        Release(tmp_path / "r", "disjoint").labels()


BROKEN = {
    "fill_in_blank_test.json": [
        ([{"question": ["13_1"], "answers": ["12_1"]}], "has 0 answers of its own outfit '13'"),
        ([{"question": ["13_1"], "answers": ["13_9"]}], "names '13_9', which is not in"),
        ([{"question": "13_1", "answers": ["13_3"]}], "question 1 is '.*', not {question"),
        ([{"question": [], "answers": ["13_3"]}], "question 1 is '.*', not {question"),
        ([3], "question 1 is '3', not {question"),
    ],
    "test.json": [
        ([{"set_id": "13"}], "outfit 1 is not {set_id, items"),
        ([7], "outfit 1 is not {set_id, items"),
        ([{"set_id": "13", "items": [{"item_id": "6"}]}], "outfit 1 is not {set_id, items"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [(name, *case) for name, cases in BROKEN.items() for case in cases],
)
def test_a_broken_file_is_one_sentence(tmp_path, name, content, said):
    folder = whole_release(tmp_path / "r")
    (folder / "disjoint" / name).write_text(json.dumps(content))
    with pytest.raises(MufinError, match=said):
        list(Release(folder, "disjoint").questions("test"))


@pytest.mark.parametrize("line", ["2 13_1 13_2", "1", "yes 13_1", "0 13_1 99_1"])
def test_a_broken_set_is_one_sentence(tmp_path, line):
    folder = whole_release(tmp_path / "r")
    (folder / "disjoint/compatibility_test.txt").write_text(line + "\n")
    with pytest.raises(MufinError, match=r"compatibility_test.txt line 1 (is|names) "):
        list(Release(folder, "disjoint").compatibility("test"))


def test_an_item_without_metadata_is_one_sentence(tmp_path):
    folder = whole_release(tmp_path / "r")
    path = folder / "polyvore_item_metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["5"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(MufinError, match="outfit '12' has the item '5', which is not in"):
        products_of(Release(folder, "disjoint"))


def test_the_location_must_be_one_folder(tmp_path):
    assert release_folder(str(tmp_path)) == tmp_path
    for wrong in (str(tmp_path / "none"), [str(tmp_path), str(tmp_path)]):
        with pytest.raises(MufinError, match="must be one folder, that of Polyvore Outfits"):
            release_folder(wrong)
