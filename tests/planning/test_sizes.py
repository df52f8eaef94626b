"""Sizes of a run: given, found, known, or derived from the split."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mufin.errors import MufinError
from mufin.params import Params
from mufin.planning.found import sizes_in
from mufin.planning.network import network_of
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


def with_texts(most: int) -> Params:
    """A catalog of one's own with two columns of texts beside the title."""
    columns = replace(SAMPLE.download.columns, texts=["description", "bullets"])
    download = replace(
        SAMPLE.download, source="catalog", location="a.csv", columns=columns, max_texts=most
    )
    encoder = replace(SAMPLE.encoder, modalities=("text", "image"))
    return replace(SAMPLE, download=download, encoder=encoder)


def test_texts_per_product_follow_the_columns_and_max_texts():
    sizes = sizes_of(with_texts(8), {"products": 50.0}, {}, None)
    assert (sizes.texts, sizes.most_texts, sizes.all_texts) == (3, 8, 150)
    assert sizes.origins["texts"] == "download.columns.texts"
    assert sizes_of(with_texts(2), {"products": 50.0}, {}, None).texts == 2
    found = sizes_of(with_texts(8), {"products": 50.0}, {"texts": 4.5}, None)
    assert (found.texts, found.origins["texts"]) == (4.5, "data/")
    alone = sizes_of(SAMPLE, {"products": 50.0}, {}, None)
    assert (alone.texts, alone.most_texts) == (1, 1)


def test_each_text_takes_a_pass_of_the_encoder_and_a_row():
    params = with_texts(8)
    sizes = sizes_of(params, {"products": 50.0}, {}, None)
    one, four = (network_of(params, replace(sizes, texts=n)) for n in (1.0, 4.0))
    text = one.encoders["text"].trained.forward + 2 * one.projections["text"]
    assert four.product(2).forward - one.product(2).forward == pytest.approx(3 * text)
    assert four.rows(2) - one.rows(2) == 3
    assert four.input_bytes(2) - one.input_bytes(2) == 3 * one.encoders["text"].stored
    assert one.longest == four.longest == 8 + params.download.max_images


def test_nothing_known_asks_for_the_products():
    with pytest.raises(MufinError, match="give --products"):
        sizes_of(read_profile("paper"), {}, {}, None)
    assert sizes_of(read_profile("paper"), {"products": 50.0}, {}, None).products == 50


def test_an_unknown_data_set_names_the_known_ones():
    with pytest.raises(MufinError, match="a2q-4m, mm-amazontitles-300k"):
        sizes_of(PAPER, {}, {}, "wikipedia")


def test_a_folder_without_data_says_nothing(tmp_path):
    assert sizes_in(tmp_path) == {}
