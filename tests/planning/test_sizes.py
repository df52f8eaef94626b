"""Sizes of a run: given, found, known, or derived from the split."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mufin.errors import MufinError
from mufin.planning.found import sizes_in
from mufin.planning.sizes import sizes_of
from mufin.profiles import read_profile

PAPER, SAMPLE = read_profile("mm-amazontitles-300k"), read_profile("sample")


def test_given_comes_before_found_and_found_before_known():
    sizes = sizes_of(PAPER, {"labels": 7.0}, {"labels": 8.0, "test": 9.0}, None)
    assert (sizes.labels, sizes.test, sizes.products) == (7, 9, 847_317)
    origins = [sizes.origins[name] for name in ("labels", "test", "products")]
    assert origins == ["given", "data/", "mm-amazontitles-300k: MUFIN Table 1"]


def test_valid_is_taken_out_of_a_published_train_split():
    sizes = sizes_of(PAPER, {}, {}, None)
    assert sizes.train + sizes.valid == 586_781
    assert sizes.valid == round(0.1 * 586_781)


def test_a_named_data_set_leaves_out_what_data_holds():
    sizes = sizes_of(PAPER, {}, {"labels": 8.0}, "a2q-4m")
    assert sizes.labels == 4_528_191
    assert sizes.references == sizes.images  # its labels have no pictures


def test_splits_follow_the_settings():
    sizes = sizes_of(SAMPLE, {}, {}, None)
    assert (sizes.test, sizes.valid, sizes.train) == (900, 210, 1890)
    assert (sizes.labels, sizes.unseen) == (1890, 1110)
    warm = replace(SAMPLE, curate=replace(SAMPLE.curate, split="warm"))
    sizes = sizes_of(warm, {}, {}, None)
    assert (sizes.labels, sizes.unseen) == (3000, 0)


def test_nothing_known_asks_for_the_products():
    with pytest.raises(MufinError, match="give --products"):
        sizes_of(read_profile("paper"), {}, {}, None)
    assert sizes_of(read_profile("paper"), {"products": 50.0}, {}, None).products == 50


def test_an_unknown_data_set_names_the_known_ones():
    with pytest.raises(MufinError, match="a2q-4m, mm-amazontitles-300k"):
        sizes_of(PAPER, {}, {}, "wikipedia")


def test_a_folder_without_data_says_nothing(tmp_path):
    assert sizes_in(tmp_path) == {}
