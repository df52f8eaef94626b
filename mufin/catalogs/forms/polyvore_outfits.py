"""Polyvore Outfits as a task: an outfit with a blank, and the item that fills it (MUFIN Table 3).

The released layout of Vasileva et al. (ECCV 2018). Outfits are in `<kind>/<split>.json`, with kind
disjoint or nondisjoint; `fill_in_blank_<split>.json` and `compatibility_<split>.txt` name items by
`<set id>_<index>`. A datapoint is an outfit without one item; its label is that item.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.forms import polyvore
from mufin.catalogs.json_text import json_items
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.catalogs.text_files import text_file
from mufin.errors import MufinError, shown

SPLITS = ("train", "valid", "test")
ALONE = "outfits of one item, which have no blank"
UNUSED = "items in no outfit"


@dataclass(frozen=True, slots=True)
class Blank:
    """An outfit without one item: a datapoint."""

    outfit: str  # set id
    position: int  # of the item that is left out, from 0
    given: list[str]  # ids of the other items, in their order
    item: str  # id of the item that is left out

    @property
    def uid(self) -> str:
        """The id of the product that stands for it."""
        return f"{self.outfit} without {self.position + 1}"


@dataclass(frozen=True, slots=True)
class Question:
    """A blank with answers."""

    blank: Blank
    answers: list[str]  # item ids
    right: int  # position in `answers`


class Release:
    """The outfits of one kind of split, with questions and sets to judge."""

    def __init__(self, folder: Path, kind: str, encoding: str | None = None):
        """`folder` has the metadata; `kind` is disjoint or nondisjoint."""
        self.folder, self.of, self.encoding = folder, folder / kind, encoding

    @cached_property
    def outfits(self) -> dict[str, dict[str, dict[str, str]]]:
        """{split: {set id: {index: item id}}}, in the order of the files."""
        return {split: dict(self._outfits(self.of / f"{split}.json")) for split in SPLITS}

    def items(self, split: str) -> Iterator[tuple[str, list[str]]]:
        """(set id, item ids) of each outfit of a split."""
        for outfit, items in self.outfits[split].items():
            yield outfit, list(items.values())

    def blanks(self, split: str) -> Iterator[Blank]:
        """The datapoints of a split: of train each outfit without each item, else the questions'.

        So valid and test have the questions of the release as datapoints, each once.
        """
        if split != "train":
            yield from {q.blank.uid: q.blank for q in self.questions(split)}.values()
            return
        for outfit, items in self.items(split):
            for position in range(len(items) if len(items) > 1 else 0):
                given = items[:position] + items[position + 1 :]
                yield Blank(outfit, position, given, items[position])

    def questions(self, split: str) -> Iterator[Question]:
        """The questions of a split. The right answer is the one of the question's own outfit."""
        path = self.of / f"fill_in_blank_{split}.json"
        for number, row in enumerate(json_items(_there(path), self.encoding), 1):
            where = f"{path} question {number}"
            names, answers = _lists(row, ("question", "answers"), where)
            outfit = names[0].rpartition("_")[0]
            own = [name.rpartition("_")[0] == outfit for name in answers]
            if sum(own) != 1:
                raise MufinError(
                    f"{where} has {sum(own)} answers of its own outfit {shown(outfit)}, where "
                    "exactly one is right; fetch the file again"
                )
            right = own.index(True)
            given = [self.item(name, split, where) for name in names]
            items = [self.item(name, split, where) for name in answers]
            index = answers[right].rpartition("_")[2]
            position = list(self.outfits[split][outfit]).index(index)
            yield Question(Blank(outfit, position, given, items[right]), items, right)

    def compatibility(self, split: str) -> Iterator[tuple[list[str], bool]]:
        """(item ids, whether they are an outfit) of each set to judge."""
        path = self.of / f"compatibility_{split}.txt"
        with text_file(_there(path), self.encoding) as lines:
            for number, line in enumerate(lines, 1):
                said, *names = line.split() or [""]
                if not said and not names:
                    continue
                where = f"{path} line {number}"
                if said not in ("0", "1") or not names:
                    raise MufinError(
                        f"{where} is {shown(line.strip())}, not 0 or 1 and then items; fetch the "
                        "file again"
                    )
                yield [self.item(name, split, where) for name in names], said == "1"

    def item(self, name: str, split: str, where: str) -> str:
        """The id of the item `<set id>_<index>` of a split; raises MufinError if there is none."""
        outfit, _, index = name.rpartition("_")
        item = self.outfits[split].get(outfit, {}).get(index)
        if item is None:
            raise MufinError(
                f"{where} names {shown(name)}, which is not in {self.of / split}.json; the files "
                "are from different releases: fetch them again"
            )
        return item

    def labels(self) -> tuple[list[str], list[str]]:
        """Ids of the items of train's blanks, and of the other items of valid and test."""
        seen = dict.fromkeys(blank.item for blank in self.blanks("train"))
        others = dict.fromkeys(
            item
            for split in SPLITS[1:]
            for _, items in self.items(split)
            for item in items
            if item not in seen
        )
        return list(seen), list(others)

    def products(self, notes: Notes, bad: BadRows, blank_type: bool) -> Iterator[Product]:
        """The items of the outfits, then a product per datapoint.

        This has the pictures and titles of the given items, in their order. With `blank_type` the
        type of the item that is left out comes first among its texts. Raises MufinError if an
        outfit has an item without metadata.
        """
        wanted = {i for split in SPLITS for _, items in self.items(split) for i in items}
        known: dict[str, Product] = {}
        for item in polyvore.products(
            [_there(self.folder / polyvore.METADATA)], notes, encoding=self.encoding, bad=bad
        ):
            if item.uid not in wanted:
                notes.add(UNUSED, item.uid)
                continue
            known[item.uid] = item
            yield item
        for split in SPLITS:
            for outfit, items in self.items(split):
                if lost := next((item for item in items if item not in known), None):
                    raise MufinError(
                        f"{self.of / split}.json outfit {shown(outfit)} has the item "
                        f"{shown(lost)}, which is not in {polyvore.METADATA}; the files are from "
                        "different releases: fetch them again"
                    )
                if len(items) < 2:
                    notes.add(ALONE, outfit)
            for blank in self.blanks(split):
                yield _datapoint(blank, known, blank_type)

    def _outfits(self, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
        for number, outfit in enumerate(json_items(_there(path), self.encoding), 1):
            try:
                items = {str(i["index"]): str(i["item_id"]) for i in outfit["items"]}  # type: ignore[index]
                yield str(outfit["set_id"]), items  # type: ignore[index]
            except (KeyError, TypeError):
                raise MufinError(
                    f"{path} outfit {number} is not {{set_id, items: [{{item_id, index}}]}}; fetch "
                    "the file again"
                ) from None


def _datapoint(blank: Blank, known: dict[str, Product], blank_type: bool) -> Product:
    given, category = [known[item] for item in blank.given], known[blank.item].category
    texts = category[:1] if blank_type else []
    texts = texts + [item.title for item in given if item.title]
    images = [image for item in given for image in item.images]
    title = texts[0] if texts else ""
    return Product(blank.uid, title, images, category=category, texts=texts[1:])


def _lists(row: object, names: tuple[str, ...], where: str) -> list[list[str]]:
    """The lists of texts of an object; raises MufinError if it is not of that form."""
    out = [row.get(name) for name in names] if isinstance(row, dict) else [None]
    for value in out:
        if not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
            raise MufinError(
                f"{where} is {shown(json.dumps(row))}, not {{question: [set id_index], "
                "blank_position, answers: [set id_index]}}; fetch the file again"
            )
    return out  # type: ignore[return-value]


def release_folder(location: str | list[str]) -> Path:
    """The folder of the release that `download.location` names; raises MufinError if it is none."""
    names = [location] if isinstance(location, str) else location
    folder = Path(names[0]).expanduser() if len(names) == 1 else Path()
    if len(names) != 1 or not folder.is_dir():
        raise MufinError(
            f"download.location is {shown(location)}; with download.outfits.split it must be one "
            f"folder, that of Polyvore Outfits with {polyvore.METADATA}"
        )
    return folder


def _there(path: Path) -> Path:
    if not path.is_file():
        raise MufinError(
            f"{path} is missing; download.location must be the folder of Polyvore Outfits, which "
            f"has {polyvore.METADATA} and the folders disjoint, nondisjoint and images"
        )
    return path
