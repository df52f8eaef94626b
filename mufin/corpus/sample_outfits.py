"""Generated outfits: what their items are, and how often the best method can fill the blank.

An outfit has a theme (a motif), a palette (a colour and the one paired with it), a house (the maker
of brands and model series) and an occasion. Each of its items takes them with a certain probability
and else a random value; a few items take none of them. A picture shows the motif and the colour, a
title tells the house and mostly the occasion. So titles and pictures each have half of what there
is to know. The types of the items complement one another: a top, a bag, something against the
weather, and accessories.

No item is in two outfits, and items are independent given their outfit. So the best answer to a
question can be computed: `Oracle`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.corpus.sample import HOUSES
from mufin.corpus.sample_pictures import COLOURS, KINDS, MOTIFS
from mufin.ragged import Lists

# An outfit has a type of each of the first three rows, and some of the last.
SLOTS = (
    ("t-shirt", "hoodie"),
    ("tote", "backpack"),
    ("cap", "umbrella"),
    ("socks", "wallet", "phone case", "sleeve", "notebook", "mug"),
)
ACCESSORIES = (1, 3)  # fewest and most types of the last row
OCCASIONS = (
    ("beach", "summer", "seaside"),
    ("office", "business", "formal"),
    ("party", "evening", "festive"),
    ("hiking", "trail", "outdoor"),
    ("school", "campus", "student"),
    ("winter", "snow", "cosy"),
)
# The attributes of an item in the order of `Wardrobe.codes`, and how many values each has
ATTRIBUTES = ("motif", "colour", "house", "occasion")
VALUES = (len(MOTIFS), len(COLOURS), len(HOUSES), len(OCCASIONS))
SHOWN = np.array([True, True, False, False])  # by a picture

# The probabilities that an item takes what its outfit has; else it has a random value.
SAME_MOTIF = 0.6
SAME_COLOUR = 0.45
PAIRED_COLOUR = 0.25  # the colour that is paired with the outfit's
SAME_HOUSE = 0.75
SAME_OCCASION = 0.75
STRANGE = 0.08  # items that take nothing of their outfit
# What a title tells, as fractions of the titles; the house is told always.
NO_TITLE = 0.03
OCCASION_TOLD = 0.8
MOTIF_TOLD = 0.05
COLOUR_TOLD = 0.1

ANSWERS = 4  # of a question, one of them right


@dataclass(frozen=True, slots=True)
class Wardrobe:
    """N outfits and their M items; each item is in one of them."""

    hidden: np.ndarray  # (N, 4) int64, what the outfits have, codes in the order of ATTRIBUTES
    items: Lists  # (N,) item numbers, all numbers from 0 to M - 1 in turn
    type: np.ndarray  # (M,) int64, position in KINDS
    codes: np.ndarray  # (M, 4) int64, the attributes of the items
    told: np.ndarray  # (M, 4) bool: whether the title tells the attribute


def invent_wardrobe(outfits: int, rng: np.random.Generator) -> Wardrobe:
    """`outfits` outfits with their items, drawn from `rng`."""
    hidden = np.stack([rng.integers(values, size=outfits) for values in VALUES], 1)
    types = [_types(rng) for _ in range(outfits)]
    items = Lists.of_rows(types)
    count = len(items.values)
    numbers = Lists(items.offsets, np.arange(count))
    own = hidden[items.rows()]
    strange = rng.random(count) < STRANGE
    codes = np.empty_like(own)
    for column, odds in enumerate(taken()):
        bounds = odds.cumsum(1)[own[:, column]]
        drawn = (rng.random(count)[:, None] >= bounds).sum(1).clip(max=VALUES[column] - 1)
        codes[:, column] = np.where(strange, rng.integers(VALUES[column], size=count), drawn)
    shares = np.array([MOTIF_TOLD, COLOUR_TOLD, 1.0, OCCASION_TOLD])
    told = (rng.random((count, 4)) < shares) & (rng.random(count) >= NO_TITLE)[:, None]
    return Wardrobe(hidden, numbers, items.values, codes, told)


def _types(rng: np.random.Generator) -> list[int]:
    """The types of the items of an outfit, as positions in KINDS."""
    *needed, others = SLOTS
    names = [row[rng.integers(len(row))] for row in needed]
    count = rng.integers(ACCESSORIES[0], ACCESSORIES[1] + 1)
    names += [others[i] for i in rng.permutation(len(others))[:count]]
    return [KINDS.index(names[i]) for i in rng.permutation(len(names))]


def taken() -> list[np.ndarray]:
    """Per attribute (V, V) float64: the odds of an item's value (column) by its outfit's (row)."""
    same = (SAME_MOTIF, SAME_COLOUR, SAME_HOUSE, SAME_OCCASION)
    out = []
    for column, (values, share) in enumerate(zip(VALUES, same)):
        odds = share * np.eye(values)
        if ATTRIBUTES[column] == "colour":
            odds += PAIRED_COLOUR * np.roll(np.eye(values), values // 2, axis=1)
        out.append(odds + (1 - odds.sum(1, keepdims=True)) / values)
    return out


class Oracle:
    """Knows how outfits are drawn, but not what they have: no method can answer better on average.

    By Bayes' rule. All values are equally frequent, so that the odds of an answer are those of its
    attributes given the outfit, over those without knowing of any outfit.
    """

    def __init__(self, wardrobe: Wardrobe, modalities: frozenset[str]):
        """`modalities` are what it may read: image, text or both."""
        self.wardrobe = wardrobe
        pictures, titles = "image" in modalities, "text" in modalities
        # (M, 4) bool: whether it knows the attribute of the item
        self.known = (wardrobe.told & titles) | (SHOWN & pictures)
        # Per attribute (V + 1, V): the odds of the item's value, the last if it is not known, by
        # the outfit's, over the odds of the value in all outfits
        self.odds = [np.vstack([odds.T * len(odds), np.ones(len(odds))]) for odds in taken()]

    def evidence(self, items: np.ndarray) -> np.ndarray:
        """(n, H) float64: the odds of items (n,) for each of the H hidden states of an outfit.

        Over the odds of the item in all outfits.
        """
        codes = np.where(self.known[items], self.wardrobe.codes[items], VALUES)
        motif, colour, house, occasion = (self.odds[i][codes[:, i]] for i in range(4))
        joint = np.einsum("na,nb,nc,nd->nabcd", motif, colour, house, occasion)
        return (1 - STRANGE) * joint.reshape(len(items), -1) + STRANGE

    def fill(self, given: Lists, answers: Lists) -> Lists:
        """Of each question the odds of its answers, given items that belong together."""
        scores = [
            self.evidence(answers[row]) @ self.evidence(given[row]).prod(0)
            for row in range(len(given))
        ]
        return Lists.of_rows(scores, float)

    def compatibility(self, sets: Lists) -> np.ndarray:
        """(N,) float64: the odds that the items of each set are one outfit."""
        return np.array([self.evidence(sets[row]).prod(0).mean() for row in range(len(sets))])
