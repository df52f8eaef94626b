"""Outfits, questions with a blank, and outfits to judge, of `data/curated` (MUFIN Sec. 4, Table 3).

Three tables, written only where the source has outfits (Polyvore Outfits, Vasileva et al., ECCV
2018). All items and answers in them are rows of `products.parquet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.contents import contents_of
from mufin.artifacts.tables import read_table, write_table
from mufin.errors import ArtifactError
from mufin.ragged import Lists

NAMES = ("outfits", "questions", "compatibility")  # the tables, `<name>.parquet` each


@dataclass(frozen=True, slots=True)
class OutfitSets:
    """N outfits, whole, as people put them together."""

    split: np.ndarray  # (N,) str: train, valid or test
    set: np.ndarray  # (N,) str, the id of the outfit
    items: Lists  # (N,) rows of products, int64, in the order of the outfit

    def __len__(self) -> int:
        return len(self.split)

    def of(self, split: str) -> OutfitSets:
        """The outfits of one split, in their order."""
        at = np.flatnonzero(self.split == split)
        return OutfitSets(self.split[at], self.set[at], self.items.take(at))


@dataclass(frozen=True, slots=True)
class Questions:
    """N questions: an outfit without one item, and answers of which one fills the blank."""

    split: np.ndarray  # (N,) str: train, valid or test
    product: np.ndarray  # (N,) int64, the datapoint: a product with the descriptors of `items`
    items: Lists  # (N,) rows of products, int64: the given items
    position: np.ndarray  # (N,) int64, the place of the blank in the outfit, from 0
    answers: Lists  # (N,) rows of products, int64
    right: np.ndarray  # (N,) int64, the position of the right answer in `answers`

    def __len__(self) -> int:
        return len(self.split)

    def of(self, split: str) -> Questions:
        """The questions of one split, in their order."""
        at = np.flatnonzero(self.split == split)
        return Questions(
            self.split[at],
            self.product[at],
            self.items.take(at),
            self.position[at],
            self.answers.take(at),
            self.right[at],
        )


@dataclass(frozen=True, slots=True)
class Compatibility:
    """N sets of items, each with what is to be told: whether they are an outfit."""

    split: np.ndarray  # (N,) str: train, valid or test
    items: Lists  # (N,) rows of products, int64
    compatible: np.ndarray  # (N,) bool; False: items that were drawn at random

    def __len__(self) -> int:
        return len(self.split)

    def of(self, split: str) -> Compatibility:
        """The sets of one split, in their order."""
        at = np.flatnonzero(self.split == split)
        return Compatibility(self.split[at], self.items.take(at), self.compatible[at])


@dataclass(frozen=True, slots=True)
class Outfits:
    """All three tables of `data/curated`."""

    sets: OutfitSets
    questions: Questions
    compatibility: Compatibility


def write_outfits(outfits: Outfits, folder: Path) -> None:
    """Publishes the three tables into `folder` for `read_outfits`."""
    sets, asked, judged = outfits.sets, outfits.questions, outfits.compatibility
    ints = pa.int32()
    columns = {
        "outfits": {"split": sets.split, "set": sets.set, "items": sets.items.to_arrow(ints)},
        "questions": {
            "split": asked.split,
            "product": asked.product.astype(np.int32),
            "items": asked.items.to_arrow(ints),
            "position": asked.position.astype(np.int32),
            "answers": asked.answers.to_arrow(ints),
            "right": asked.right.astype(np.int32),
        },
        "compatibility": {
            "split": judged.split,
            "items": judged.items.to_arrow(ints),
            "compatible": judged.compatible,
        },
    }
    for name in NAMES:
        write_table(columns[name], name, folder / f"{name}.parquet")


def has_outfits(folder: Path) -> bool:
    """Whether `folder`, that of `data/curated`, was written from a source with outfits."""
    first = f"{NAMES[0]}.parquet"
    return (folder / first).exists() or first in contents_of(folder).files


def read_outfits(folder: Path) -> Outfits | None:
    """The outfits of `data/curated`; None if the source has none.

    Raises ArtifactError if a table is missing though it was written, is not as it was written,
    names a product that there is not, or has a right answer that is not among its answers.
    """
    if not has_outfits(folder):
        return None
    paths = {name: folder / f"{name}.parquet" for name in NAMES}
    sets, asked, judged = (read_table(path, name) for name, path in paths.items())
    out = Outfits(
        OutfitSets(_texts(sets, "split"), _texts(sets, "set"), _lists(sets, "items")),
        Questions(
            _texts(asked, "split"),
            _ints(asked, "product"),
            _lists(asked, "items"),
            _ints(asked, "position"),
            _lists(asked, "answers"),
            _ints(asked, "right"),
        ),
        Compatibility(
            _texts(judged, "split"),
            _lists(judged, "items"),
            judged["compatible"].to_numpy().astype(bool),
        ),
    )
    products = pq.read_metadata(folder / "products.parquet").num_rows
    questions, right = out.questions, out.questions.right
    _check(paths["outfits"], out.sets.items.values, products)
    for values in (questions.product, questions.items.values, questions.answers.values):
        _check(paths["questions"], values, products)
    _check(paths["compatibility"], out.compatibility.items.values, products)
    if len(wrong := np.flatnonzero((right < 0) | (right >= questions.answers.lengths()))):
        raise _unfit(
            paths["questions"],
            f"its row {wrong[0] + 1} says that answer {right[wrong[0]]} is right, of "
            f"{questions.answers.lengths()[wrong[0]]} answers",
        )
    return out


def _check(path: Path, rows: np.ndarray, products: int) -> None:
    """Raises ArtifactError unless all of `rows` are rows of a table of so many products."""
    if len(wrong := rows[(rows < 0) | (rows >= products)]):
        raise _unfit(path, f"it names product {wrong[0]} of {products}")


def _unfit(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{path} does not fit products.parquet ({why}); delete it and run `dvc repro`"
    )


def _texts(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist(), dtype=np.str_)


def _ints(table: pa.Table, column: str) -> np.ndarray:
    return table[column].to_numpy().astype(np.int64)


def _lists(table: pa.Table, column: str) -> Lists:
    lists = Lists.of_column(table[column])
    return Lists(lists.offsets, lists.values.astype(np.int64))
