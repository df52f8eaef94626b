"""Which products are variants of one another: the same title up to size and colour, or picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from PIL.ImageColor import colormap

WORD = re.compile(r"[^\W_]+")
SIZES = frozenset(
    "xxs xs s m l xl xxl xxxl small medium large mini regular big size sizes one set pack pcs pc "
    "piece pieces count ct pair pairs inch inches in ft foot feet cm mm m kg g mg lb lbs oz ml cl "
    "litre liter litres liters gb tb mb w v mah x".split()
)
COLOURS = frozenset(colormap) | frozenset(
    "multi multicolor multicolour multicolored multicoloured clear transparent natural dark light "
    "bright pastel cream rose burgundy charcoal mint nude off anthracite taupe mustard".split()
)
NUMBER = re.compile(r"\d+([.,]\d+)?(cm|mm|m|in|inch|ft|kg|g|mg|lb|lbs|oz|ml|cl|l|gb|tb|mb|w|v|x)?")
PLACEHOLDER = 20  # a picture of more titles than this is one for products without a picture


def plain_title(title: str) -> str:
    """The words of a title but for sizes, numbers and colours; all words if only such are left."""
    words = WORD.findall(title.casefold())
    kept = [w for w in words if w not in SIZES and w not in COLOURS and not NUMBER.fullmatch(w)]
    return " ".join(kept or words)


class Variants:
    """The group of each label: labels of one group are variants of one product.

    Two labels are variants if their plain titles are the same, or their first pictures. A picture
    that more than 20 different titles have is that of no product.
    """

    def __init__(self, titles: Iterable[str], pictures: Iterable[str]):
        """`pictures`: the key of the first picture of each label, '' for none."""
        self.parent: list[int] = []
        self.by_title: dict[str, int] = {}
        self.by_picture: dict[str, int] = {}
        firsts = list(pictures)
        plain = [plain_title(title) for title in titles]
        titles_of: dict[str, set[str]] = {}
        for key, title in zip(firsts, plain):
            titles_of.setdefault(key, set()).add(title)
        self.shared = {key for key, names in titles_of.items() if len(names) > PLACEHOLDER}
        for title, key in zip(plain, firsts):
            self._add(title, key)

    def group(self, label: int) -> int:
        """The number of a label's group."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def groups(self, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n,) int64: the group of each label."""
        return np.array([self.group(int(label)) for label in labels], np.int64)

    def of_product(self, title: str, picture: str) -> set[int]:
        """The groups of which a product that is no label is a variant."""
        found = {self.by_title.get(plain_title(title)), self.by_picture.get(picture)}
        return {self.group(label) for label in found if label is not None}

    def set(self, label: int, title: str, picture: str) -> None:
        """Puts a label that was added, with the next number, or changed into its group.

        A changed label also stays in the group that it had.
        """
        if label == len(self.parent):
            self._add(plain_title(title), picture)
        else:
            self._join(label, plain_title(title), picture)

    def _add(self, title: str, picture: str) -> None:
        self.parent.append(len(self.parent))
        self._join(len(self.parent) - 1, title, picture)

    def _join(self, label: int, title: str, picture: str) -> None:
        if title:
            self._unite(label, self.by_title.setdefault(title, label))
        if picture and picture not in self.shared:
            self._unite(label, self.by_picture.setdefault(picture, label))

    def _unite(self, one: int, other: int) -> None:
        a, b = self.group(one), self.group(other)
        self.parent[max(a, b)] = min(a, b)
