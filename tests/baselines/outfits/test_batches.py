"""Batches of outfits: blanks, what is given, and negatives, against a slow loop."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from mufin.baselines.outfits.batches import batch_of, batches
from mufin.ragged import Lists
from tests.support.tiny_outfits import tiny

ITEMS, OUTFITS = tiny(12)


def blanks(batch):
    """(given, positive, negatives) of each blank, as rows of the items."""
    rows = batch.rows.numpy()
    for given, positive, wrong in zip(batch.given, batch.positive, batch.negatives):
        g, w = given.numpy(), wrong.numpy()
        yield set(rows[g[g >= 0]]), int(rows[positive]), rows[w[w >= 0]].tolist()


def test_each_item_of_an_outfit_is_the_blank_of_the_rest_once():
    batch = batch_of(ITEMS, OUTFITS, 3, np.random.default_rng(0))
    found = Counter((frozenset(given), positive) for given, positive, _ in blanks(batch))
    expected = Counter()
    for row in range(len(OUTFITS)):
        own = OUTFITS[row].tolist()
        expected.update((frozenset(own) - {item}, item) for item in own)
    assert found == expected


def test_negatives_have_the_type_of_the_positive_and_are_of_other_outfits():
    outfit = dict(zip(OUTFITS.values.tolist(), OUTFITS.rows().tolist()))
    counts = set()
    for _, positive, wrong in blanks(batch_of(ITEMS, OUTFITS, 3, np.random.default_rng(0))):
        assert all(ITEMS.types[w] == ITEMS.types[positive] for w in wrong)
        assert all(outfit[w] != outfit[positive] for w in wrong)
        assert len(set(wrong)) == len(wrong)
        counts.add(len(wrong))
    assert counts == {3}


def test_an_item_of_two_outfits_is_encoded_once_and_no_negative_of_either():
    first, second = OUTFITS[0].tolist(), OUTFITS[1].tolist()
    shared = Lists.of_rows([first, [first[0], *second], OUTFITS[2].tolist(), OUTFITS[3].tolist()])
    batch = batch_of(ITEMS, shared, 9, np.random.default_rng(0))
    assert batch.rows.tolist() == np.unique(shared.values).tolist()
    for given, positive, wrong in blanks(batch):
        assert not (given | {positive}) & set(wrong)


def test_a_blank_without_another_item_of_its_type_is_left_out():
    alone = Lists.of_rows([OUTFITS[0].tolist()])
    assert not list(batches(ITEMS, alone, 4, 2, np.random.default_rng(0)))


def test_a_pass_has_every_outfit_once_and_mirrors_about_half_of_the_pictures():
    seen, mirrored, pictures = Counter(), 0, 0
    for batch in batches(ITEMS, OUTFITS, 5, 2, np.random.default_rng(0)):
        seen.update(batch.rows.tolist())
        own = torch.from_numpy(ITEMS.pixels[batch.rows.numpy()])
        same = (batch.pixels == own).flatten(1).all(1)
        assert torch.equal(batch.pixels[~same], own[~same].flip(2))
        mirrored, pictures = mirrored + int((~same).sum()), pictures + len(same)
    assert seen == Counter(OUTFITS.values.tolist())
    assert 0.25 < mirrored / pictures < 0.75


def test_triplets_are_all_given_items_with_all_negatives():
    batch = batch_of(ITEMS, OUTFITS, 3, np.random.default_rng(0))
    expected = [
        (int(given), int(positive), int(negative))
        for row, positive, wrong in zip(batch.given, batch.positive, batch.negatives)
        for given in row[row >= 0]
        for negative in wrong[wrong >= 0]
    ]
    found = list(zip(*(part.tolist() for part in batch.triplets())))
    assert found == expected
    assert len(batch.triplets(1)[0]) == len(found) // 3
