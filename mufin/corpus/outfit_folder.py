"""Generated outfits in the layout of Polyvore Outfits (Vasileva et al., ECCV 2018).

`mufin.corpus.sample_outfits` draws what the outfits are. Here their items get titles and pictures,
questions get wrong answers of the right type, and all of it goes into files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mufin.artifacts.publication import publish
from mufin.corpus.sample import FILLERS, HOUSES, NOUNS
from mufin.corpus.sample_outfits import (
    ANSWERS,
    OCCASIONS,
    VALUES,
    Oracle,
    Wardrobe,
    invent_wardrobe,
)
from mufin.corpus.sample_pictures import COLOURS, KINDS, MOTIFS, draw_views
from mufin.errors import MufinError
from mufin.metrics import area_under_roc
from mufin.ragged import Lists

SHARES = {"train": 0.65, "valid": 0.1, "test": 0.25}  # of the outfits
SMALLEST = 50  # fewest outfits: 5 are then left for valid
REUSED = 0.3  # of the items of valid and test in the split `nondisjoint`: those of train
BRAND_TOLD = 0.85  # the titles without the brand tell the model, as in the sample
MODEL_TOLD = 0.4
FACTS = "generated.json"  # how the outfits were generated, and the best attainable figures
ORACLES = {"": {"image", "text"}, " of titles": {"text"}, " of pictures": {"image"}}


@dataclass(frozen=True, slots=True)
class Asked:
    """The outfits of one split, with what is asked about them."""

    outfits: np.ndarray  # (n,) numbers of the outfits
    items: Lists  # (n,) their items
    blank: np.ndarray  # (n,) the place of the item that a question leaves out
    answers: Lists  # (n,) items, the right one at `right`
    right: np.ndarray  # (n,)
    mixed: Lists  # (n,) items of the same types as those of the outfit, of other outfits

    @property
    def given(self) -> Lists:
        """(n,) the items of each question."""
        keep = np.ones(len(self.items.values), bool)
        keep[self.items.offsets[:-1] + self.blank] = False
        return self.items.only(keep)


def write_outfits(folder: Path, outfits: int, seed: int) -> Iterator[str]:
    """Writes so many outfits into a new folder; yields what was written, as lines.

    A function of its arguments alone. Raises MufinError for fewer than 50 outfits, and
    ArtifactError if the folder is there and was not made by this.
    """
    with publish(folder) as scratch:
        facts = generate(scratch, outfits, seed)
    yield f"{folder}: {outfits} outfits of {facts['items']} items with a title and a picture"
    found = facts["disjoint"]["best_attainable"]["FITB"]
    yield f"The best attainable accuracy on the test questions of disjoint is {found} %"


def generate(folder: Path, outfits: int, seed: int) -> dict:
    """`write_outfits` into a folder that is not there yet, file by file; returns its facts."""
    if outfits < SMALLEST:
        raise MufinError(f"{outfits} outfits are too few to divide; give at least {SMALLEST}")
    wardrobe = invent_wardrobe(outfits, np.random.default_rng([seed, 0]))
    own = _own_items(wardrobe)
    splits = {"disjoint": own, "nondisjoint": _shared_items(wardrobe, own, seed)}
    facts: dict = {"outfits": outfits, "items": len(wardrobe.type), "seed": seed}
    (folder / "images").mkdir(parents=True)
    _write_items(wardrobe, seed, folder)
    for number, (kind, items) in enumerate(splits.items()):
        (folder / kind).mkdir()
        for i, (name, (of_split, its_items)) in enumerate(items.items()):
            rng = np.random.default_rng([seed, 3, number, i])
            asked = _asked(wardrobe, of_split, its_items, rng)
            _write_split(asked, name, folder / kind)
        facts[kind] = {"best_attainable": best_attainable(wardrobe, asked)}  # of test, the last
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def best_attainable(wardrobe: Wardrobe, asked: Asked) -> dict[str, float]:
    """Percent of the questions that the oracle answers, and its AUC of telling outfits apart.

    With titles and pictures, and with either alone. Equal odds of several answers count as a guess
    among these. The figures are those of the outfits that were drawn, noise included.
    """
    out = {}
    for name, modalities in ORACLES.items():
        oracle = Oracle(wardrobe, frozenset(modalities))
        scores = oracle.fill(asked.given, asked.answers).padded()
        best = np.isclose(scores, scores.max(1, keepdims=True), rtol=1e-9, atol=0)
        hits = best[np.arange(len(best)), asked.right] / best.sum(1)
        out[f"FITB{name}"] = round(100 * float(hits.mean()), 2)
        odds = [oracle.compatibility(sets) for sets in (asked.items, asked.mixed)]
        out[f"AUC{name}"] = round(100 * area_under_roc(*odds)[0], 2)
    return out


# Splits


def _own_items(wardrobe: Wardrobe) -> dict[str, tuple[np.ndarray, Lists]]:
    """`disjoint`: the outfits of each split, and their items, which no other split has."""
    count, out, start = len(wardrobe.items), {}, 0
    for name, end in zip(SHARES, np.cumsum(list(SHARES.values()))):
        stop = round(float(end) * count)
        out[name] = np.arange(start, stop), wardrobe.items.between(start, stop)
        start = stop
    return out


def _shared_items(
    wardrobe: Wardrobe, own: dict[str, tuple[np.ndarray, Lists]], seed: int
) -> dict[str, tuple[np.ndarray, Lists]]:
    """`nondisjoint`: some items of valid and test are those of train that suit their outfit.

    Such an item is drawn from those of its type in train, by their odds given the outfit.
    """
    rng, out = np.random.default_rng([seed, 2]), {"train": own["train"]}
    evidence = Oracle(wardrobe, frozenset(("image", "text"))).evidence(own["train"][1].values)
    types = wardrobe.type[own["train"][1].values]
    hidden = np.ravel_multi_index(tuple(wardrobe.hidden.T), VALUES)
    for name in ("valid", "test"):
        outfits, items = own[name]
        values = items.values.copy()
        for place in np.flatnonzero(rng.random(len(values)) < REUSED):
            state = hidden[outfits[items.rows()[place]]]
            odds = evidence[:, state] * (types == wardrobe.type[values[place]])
            values[place] = own["train"][1].values[rng.choice(len(odds), p=odds / odds.sum())]
        out[name] = outfits, Lists(items.offsets, values)
    return out


def _asked(
    wardrobe: Wardrobe, outfits: np.ndarray, items: Lists, rng: np.random.Generator
) -> Asked:
    """One question per outfit, and a set of items of the same types that do not belong together.

    Wrong answers and the items of such a set are those of other outfits of the split. A question
    has fewer answers where the split has too few items of the type.
    """
    blank = rng.integers(items.lengths())
    every = np.unique(items.values)
    by_type = {kind: every[wardrobe.type[every] == kind] for kind in np.unique(wardrobe.type)}
    answers, right, mixed = [], [], []
    for row in range(len(items)):

        def others(item: int, count: int, own: np.ndarray = items[row]) -> list[int]:
            alike = np.setdiff1d(by_type[wardrobe.type[item]], own)
            if not len(alike):  # of few outfits: another type, rather than no item
                alike = np.setdiff1d(every, own)
            return rng.choice(alike, min(count, len(alike)), replace=False).tolist()

        wanted = int(items[row][blank[row]])
        wrong = others(wanted, ANSWERS - 1)
        right.append(rng.integers(len(wrong) + 1))
        answers.append(np.insert(wrong, right[-1], wanted))
        mixed.append([others(int(item), 1)[0] for item in items[row]])
    return Asked(
        outfits, items, blank, Lists.of_rows(answers), np.array(right), Lists.of_rows(mixed)
    )


# Files


def _item_id(item: int) -> str:
    return str(100_000_000 + item)


def _set_id(outfit: int) -> str:
    return str(200_000_000 + outfit)


def _write_items(wardrobe: Wardrobe, seed: int, folder: Path) -> None:
    """The metadata, the categories and the pictures of all items, and the titles of outfits."""
    rng, metadata = np.random.default_rng([seed, 1]), {}
    for item, kind in enumerate(wardrobe.type):
        name = KINDS[kind]
        metadata[_item_id(item)] = {
            "url_name": "",
            "title": _title(wardrobe, item, rng),
            "description": "",
            "categories": [],
            "related": [],
            "category_id": str(int(kind)),
            "semantic_category": name,
        }
        motif, colour = wardrobe.codes[item, :2]
        own = np.random.default_rng([seed, 4, item])
        [picture] = draw_views(kind, motif, colour, 1, own)
        (folder / f"images/{_item_id(item)}.jpg").write_bytes(picture)
    (folder / "polyvore_item_metadata.json").write_text(json.dumps(metadata))
    lines = [f"{kind},{KINDS[kind]},{KINDS[kind]}\n" for kind in np.unique(wardrobe.type)]
    (folder / "categories.csv").write_text("".join(lines))
    titles = {_set_id(n): {"url_name": "", "title": ""} for n in range(len(wardrobe.items))}
    (folder / "polyvore_outfit_titles.json").write_text(json.dumps(titles))


def _title(wardrobe: Wardrobe, item: int, rng: np.random.Generator) -> str:
    """A title as a shopkeeper writes it, '' if the item has none."""
    motif, colour, house, occasion = wardrobe.codes[item]
    told = wardrobe.told[item]
    if not told.any():
        return ""
    brands, models = HOUSES[house]
    brand_told = rng.random() < BRAND_TOLD
    model_told = not brand_told or rng.random() < MODEL_TOLD
    words = [_pick(brands, rng)] if brand_told else []
    words += [COLOURS[colour][0]] if told[1] else []
    words += [MOTIFS[motif]] if told[0] else []
    words += [_pick(OCCASIONS[occasion], rng)] if told[3] else []
    words.append(_pick(NOUNS[KINDS[wardrobe.type[item]]], rng))
    words += [f"for {_pick(models, rng)}"] if model_told else []
    words += [FILLERS[i] for i in rng.permutation(len(FILLERS))[: rng.integers(0, 3)]]
    return " ".join(words)


def _pick(values: tuple[str, ...], rng: np.random.Generator) -> str:
    return values[rng.integers(len(values))]


def _write_split(asked: Asked, name: str, folder: Path) -> None:
    """The outfits, the questions and the sets to judge of one split."""
    # The name that questions and sets give an item: where it is, in an outfit of this split
    place = {
        int(item): f"{_set_id(outfit)}_{index}"
        for outfit, items in zip(asked.outfits, _rows(asked.items))
        for index, item in enumerate(items, 1)
    }
    outfits, questions, lines = [], [], []
    for row, outfit in enumerate(asked.outfits):
        own = [f"{_set_id(outfit)}_{index}" for index in range(1, len(asked.items[row]) + 1)]
        items = [
            {"item_id": _item_id(item), "index": index}
            for index, item in enumerate(asked.items[row], 1)
        ]
        outfits.append({"set_id": _set_id(outfit), "items": items})
        blank = int(asked.blank[row])
        answers = [place[int(item)] for item in asked.answers[row]]
        answers[asked.right[row]] = own[blank]
        question = own[:blank] + own[blank + 1 :]
        questions.append({"question": question, "blank_position": blank + 1, "answers": answers})
        lines.append(" ".join(["1", *own]) + "\n")
        lines.append(" ".join(["0", *(place[int(item)] for item in asked.mixed[row])]) + "\n")
    (folder / f"{name}.json").write_text(json.dumps(outfits))
    (folder / f"fill_in_blank_{name}.json").write_text(json.dumps(questions))
    (folder / f"compatibility_{name}.txt").write_text("".join(lines))


def _rows(lists: Lists) -> Iterator[np.ndarray]:
    return (lists[row] for row in range(len(lists)))
