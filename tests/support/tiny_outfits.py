"""Outfits of plain pictures, whose items share a colour: learnt in seconds."""

from __future__ import annotations

import numpy as np

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits.items import Items, title_words
from mufin.ragged import Lists

TYPES, COLOURS, SIDE = 4, 5, 16


def tiny(outfits: int, seed: int = 0) -> tuple[Items, Lists]:
    """Items, and outfits of three or four of them; each item is in one outfit."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 220, (COLOURS, 3))
    sets, types, pictures, titles = [], [], [], []
    for _ in range(outfits):
        colour = int(rng.integers(COLOURS))
        chosen = rng.permutation(TYPES)[: rng.integers(3, TYPES + 1)]
        sets.append(range(len(types), len(types) + len(chosen)))
        for kind in chosen.tolist():
            picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
            shade = (palette[colour] + rng.integers(-12, 13, 3)).clip(0, 254)
            picture[1 + kind : SIDE - 1, 2 : SIDE - 1 - kind] = shade
            pictures.append(picture)
            types.append(kind)
            titles.append(f"shade{colour} kind{kind} word{rng.integers(30)}")
    every = np.arange(len(types))
    words = title_words(titles, every)
    items = Items(np.stack(pictures), words, np.array(types, np.int64), TYPES, every)
    return items, Lists.of_rows(sets)


def asked(items: Items, outfits: Lists, seed: int = 0) -> Questions:
    """A question per outfit: its first item, and three of the same type from anywhere else."""
    rng = np.random.default_rng(seed)
    given, answers, right = [], [], []
    for row in range(len(outfits)):
        blank, *rest = outfits[row].tolist()
        others = np.flatnonzero((items.types == items.types[blank]) & (items.used != blank))
        wrong = rng.choice(others, 3, replace=False).tolist()
        place = int(rng.integers(4))
        given.append(rest)
        answers.append([*wrong[:place], blank, *wrong[place:]])
        right.append(place)
    n = len(given)
    return Questions(
        np.full(n, "valid"),
        np.zeros(n, np.int64),
        Lists.of_rows(given),
        np.zeros(n, np.int64),
        Lists.of_rows(answers),
        np.array(right),
    )
