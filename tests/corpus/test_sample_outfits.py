"""Generated outfits: the shares that are told, and the oracle against simulation."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from mufin.corpus import sample_outfits
from mufin.corpus.outfit_folder import Asked, best_attainable, generate
from mufin.corpus.sample_outfits import STRANGE, VALUES, Oracle, invent_wardrobe, taken
from mufin.corpus.sample_pictures import KINDS
from mufin.errors import MufinError
from mufin.ragged import Lists

BOTH = frozenset(("image", "text"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("generated") / "outfits"
    return home, generate(home, 60, 3)


def test_odds_of_values_sum_to_1_in_both_directions():
    for odds in taken():
        assert odds.sum(0) == pytest.approx(1) and odds.sum(1) == pytest.approx(1)
        assert (odds > 0).all()


def test_an_outfit_has_a_type_of_each_of_the_first_slots():
    wardrobe = invent_wardrobe(40, np.random.default_rng(0))
    for row in range(40):
        names = [KINDS[kind] for kind in wardrobe.type[wardrobe.items[row]]]
        assert len(set(names)) == len(names) and 4 <= len(names) <= 6
        assert all(len(set(slot) & set(names)) == 1 for slot in sample_outfits.SLOTS[:3])


def test_items_take_what_their_outfit_has_as_often_as_said():
    wardrobe = invent_wardrobe(4000, np.random.default_rng(1))
    own = wardrobe.hidden[wardrobe.items.rows()]
    for column, odds in enumerate(taken()):
        share = (wardrobe.codes[:, column] == own[:, column]).mean()
        expected = (1 - STRANGE) * odds[0, 0] + STRANGE / VALUES[column]
        assert share == pytest.approx(expected, abs=0.02)


def test_the_oracle_is_bayes_rule_over_all_hidden_states():
    """The odds of an answer are P(answer | given) / P(answer), both by a loop over the states."""
    wardrobe = invent_wardrobe(6, np.random.default_rng(2))
    oracle, odds = Oracle(wardrobe, BOTH), taken()
    given, answer = wardrobe.items[0][:2].tolist(), int(wardrobe.items[1][0])

    def likelihood(item, state):
        known = [i for i in range(4) if i < 2 or wardrobe.told[item, i]]
        own = np.prod([odds[i][state[i], wardrobe.codes[item, i]] for i in known])
        return (1 - STRANGE) * own + STRANGE / np.prod([VALUES[i] for i in known])

    states = list(itertools.product(*map(range, VALUES)))
    of = {item: np.array([likelihood(item, s) for s in states]) for item in (*given, answer)}
    posterior = of[given[0]] * of[given[1]]
    posterior /= posterior.sum()
    expected = posterior @ of[answer] / of[answer].mean()
    asked = Lists.of_rows([given]), Lists.of_rows([[answer, given[0]]])
    together = [(of[i] / of[i].mean()) for i in given]
    scale = (together[0] * together[1]).sum()
    assert oracle.fill(*asked)[0][0] == pytest.approx(expected * scale)
    every = oracle.compatibility(Lists.of_rows([given]))[0]
    assert every == pytest.approx(np.mean(together[0] * together[1]))


def test_the_share_that_is_best_attainable_is_that_of_a_simulation():
    """The mean odds of the best answer, as a share of all, is the accuracy in the long run."""
    rng = np.random.default_rng(4)
    wardrobe = invent_wardrobe(900, rng)
    first = wardrobe.items.offsets[:-1]
    given = Lists.of_rows([wardrobe.items[row][1:] for row in range(900)])
    wrong = first[(np.arange(900)[:, None] + rng.integers(1, 900, (900, 3))) % 900]
    right = rng.integers(4, size=900)
    answers = np.stack([np.insert(w, at, item) for w, at, item in zip(wrong, right, first)])
    lists = Lists.of_rows(answers)
    scores = Oracle(wardrobe, BOTH).fill(given, lists).padded()
    promised = (scores.max(1) / scores.sum(1)).mean()
    mixed = wardrobe.items.take(np.arange(900))
    asked = Asked(np.arange(900), wardrobe.items, np.zeros(900, int), lists, right, mixed)
    found = best_attainable(wardrobe, asked)
    assert found["FITB"] / 100 == pytest.approx(promised, abs=0.04)
    assert found["AUC"] == 50  # the same sets on both sides
    assert 30 < found["FITB of titles"] < found["FITB"] - 5
    assert 30 < found["FITB of pictures"] < found["FITB"] - 5


def test_wrong_answers_are_of_the_right_type_and_of_other_outfits(folder):
    home, _ = folder
    metadata = json.loads((home / "polyvore_item_metadata.json").read_text())
    for kind in ("disjoint", "nondisjoint"):
        outfits = json.loads((home / f"{kind}/test.json").read_text())
        item = {f"{o['set_id']}_{i['index']}": i["item_id"] for o in outfits for i in o["items"]}
        for question in json.loads((home / f"{kind}/fill_in_blank_test.json").read_text()):
            answers = question["answers"]
            assert len({item[name] for name in answers}) == len(answers) <= 4
            assert len({metadata[item[name]]["semantic_category"] for name in answers}) == 1
            own = question["question"][0].partition("_")[0]
            assert sum(name.startswith(f"{own}_") for name in answers) == 1


def test_items_are_shared_between_splits_only_in_nondisjoint(folder):
    home, _ = folder
    items = {
        kind: [
            {i["item_id"] for o in json.loads(path.read_text()) for i in o["items"]}
            for path in (home / kind / "train.json", home / kind / "test.json")
        ]
        for kind in ("disjoint", "nondisjoint")
    }
    assert not items["disjoint"][0] & items["disjoint"][1]
    assert items["nondisjoint"][0] & items["nondisjoint"][1]


def test_the_same_seed_gives_the_same_files(folder, tmp_path):
    home, facts = folder
    assert generate(tmp_path / "again", 60, 3) == facts
    for path in sorted(home.rglob("*.*")):
        assert (tmp_path / "again" / path.relative_to(home)).read_bytes() == path.read_bytes()


def test_too_few_outfits_are_refused(tmp_path):
    with pytest.raises(MufinError, match="49 outfits are too few to divide; give at least 50"):
        generate(tmp_path / "few", 49, 0)
