"""What titles and pictures of the sample tell, read from the titles alone."""

from __future__ import annotations

import numpy as np
import pytest

from mufin.corpus import sample
from mufin.corpus.sample import BRANDS, FILLERS, HOUSES, NOUNS, invent_world
from mufin.corpus.sample_attributes import VALUES, WORDS, attributes_of
from mufin.errors import MufinError

PRODUCTS, SEED = 80, 3


def told(titles: list[str], seed: int = SEED) -> dict[str, np.ndarray]:
    uids = [f"B{number:09d}" for number in range(len(titles))]
    return attributes_of(uids, titles, np.ones(len(titles), bool), PRODUCTS, seed).told


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_titles_tell_what_the_generator_put_into_them(share, monkeypatch):
    for name in ("COLOUR_TOLD", "MOTIF_TOLD", "SIZE_TOLD"):
        monkeypatch.setattr(sample, name, share)
    rows, _, _ = sample.sample_catalog(PRODUCTS, SEED)
    titles = [row["title"] for row in rows[:PRODUCTS]]
    named = np.array([title != "" for title in titles])
    found = told(titles)
    assert 0 < named.sum() < PRODUCTS
    for name in WORDS:
        assert np.array_equal(found[name], named & (share == 1.0)), name
    assert np.array_equal(found["kind"], named) and np.array_equal(found["house"], named)


def test_no_other_word_tells_an_attribute():
    models = [f"{brand} for {model}" for _, group in HOUSES for brand, model in zip(BRANDS, group)]
    others = [*BRANDS, *models, *FILLERS, *(noun for nouns in NOUNS.values() for noun in nouns)]
    others += ["&quot;gift card&quot;", "Brandless"]
    for seed in range(20):  # so that each text meets many values
        for start in range(0, len(others), PRODUCTS):
            found = told(others[start : start + PRODUCTS], seed)
            assert not any(found[name].any() for name in WORDS)


def test_a_picture_shows_kind_motif_and_colour():
    pictured = np.array([True, False])
    found = attributes_of(["B000000001", "B000000000"], ["", "a"], pictured, PRODUCTS, SEED)
    world = invent_world(PRODUCTS, SEED)
    for name in VALUES:
        seen = name in ("kind", "motif", "colour")
        assert found.shown[name].tolist() == [seen, False]
        assert found.codes[name].tolist() == getattr(world, name)[[1, 0]].tolist()
    assert found.take(np.array([1])).told["kind"].tolist() == [True]


@pytest.mark.parametrize("uid", ["B000000080", "X000000001", "B1", "B00000000١", ""])
def test_a_product_of_another_catalog_is_refused(uid):
    with pytest.raises(MufinError, match="is no product of a sample of 80"):
        attributes_of([uid], ["a"], np.ones(1, bool), PRODUCTS, SEED)
