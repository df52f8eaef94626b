"""The attributes of the built-in sample's products, and which of them titles and pictures tell."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from mufin.corpus.sample import HOUSES, NOUNS, SIZES, invent_world
from mufin.corpus.sample_pictures import COLOURS, KINDS, MOTIFS
from mufin.errors import MufinError

VALUES = {  # attribute of `World`: how many values it has
    "kind": len(KINDS),
    "motif": len(MOTIFS),
    "house": len(HOUSES),
    "colour": len(COLOURS),
    "size": len(SIZES),
}
ALWAYS_TOLD = ("kind", "house")  # by every title: a noun, and a brand or a model
SHOWN = ("kind", "motif", "colour")  # by every picture
# The words for each value of the attributes that only some titles tell
WORDS = {
    "motif": tuple((motif,) for motif in MOTIFS),
    "colour": tuple((name,) for name, _ in COLOURS),
    "size": SIZES,
}
# The models "Orbit Mini" and "Pike XL" tell no size, and the noun "flower pot" tells no motif.
MODELS = tuple(model for _, models in HOUSES for model in models)
OTHER = tuple(
    phrase.lower() for phrase in (*MODELS, *(n for words in NOUNS.values() for n in words))
)


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of n products: every dict has the keys of `VALUES`."""

    codes: dict[str, np.ndarray]  # (n,) int64 in [0, VALUES[attribute])
    told: dict[str, np.ndarray]  # (n,) bool: the title tells it
    shown: dict[str, np.ndarray]  # (n,) bool: a picture shows it

    def take(self, rows: np.ndarray) -> Attributes:
        """Those of the products `rows`, in that order."""
        codes, told, shown = (
            {name: values[rows] for name, values in part.items()}
            for part in (self.codes, self.told, self.shown)
        )
        return Attributes(codes, told, shown)


def attributes_of(
    uids: list[str], titles: list[str], pictured: np.ndarray, products: int, seed: int
) -> Attributes:
    """The attributes of the products `uids` of the sample that has `products` and `seed`.

    `titles` and `pictured` (n,) bool, whether there is a picture, are of the same products after
    curation: a title of '' tells nothing, and neither does a picture that could not be read. Raises
    MufinError for a uid that this sample does not have.
    """
    number = np.array([_number(uid, products) for uid in uids], np.int64)
    world = invent_world(products, seed)
    codes = {name: getattr(world, name)[number] for name in VALUES}
    return Attributes(
        codes,
        {name: _told(name, codes[name], titles) for name in VALUES},
        {name: pictured & (name in SHOWN) for name in VALUES},
    )


def _number(uid: str, products: int) -> int:
    """The product number in a uid such as B000000012."""
    if not re.fullmatch(r"B[0-9]{9}", uid) or int(uid[1:]) >= products:
        raise MufinError(
            f"{uid} is no product of a sample of {products}, so data/curated is not of this "
            "sample; run `dvc repro`"
        )
    return int(uid[1:])


def _told(name: str, codes: np.ndarray, titles: list[str]) -> np.ndarray:
    """(n,) bool: whether each title has a word for the product's value of the attribute."""
    if name in ALWAYS_TOLD:
        return np.array([title != "" for title in titles], bool)
    words = WORDS[name]
    told = [_has_any(_plain(title), words[code]) for title, code in zip(titles, codes)]
    return np.array(told, bool)


def _plain(title: str) -> str:
    """The words of a title, without models and nouns, in lower case, each between blanks."""
    words = re.findall(r"[\w-]+", title.lower())
    text = f" {' '.join(words)} "
    for phrase in OTHER:
        text = text.replace(f" {phrase} ", " | ")
    return text


def _has_any(text: str, phrases: tuple[str, ...]) -> bool:
    return any(f" {phrase.lower()} " in text for phrase in phrases)
