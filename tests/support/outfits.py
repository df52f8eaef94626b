"""Polyvore Outfits by hand: seven items, three outfits, a question and sets to judge per split."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image

TITLES = {"1": "red mug", "2": "red tote", "3": "", "4": "blue mug", "5": "blue tote", "6": "cap"}
TYPES = {"1": "mug", "2": "tote", "3": "cap", "4": "mug", "5": "tote", "6": "cap", "7": "mug"}
OUTFITS = {"train": {"11": ["1", "2", "3"]}, "valid": {"12": ["4", "5"], "14": ["7"]}}
OUTFITS["test"] = {"13": ["6", "5", "7"]}
BLANKS = {  # given, answers
    "train": (["11_1", "11_3"], ["11_2"]),
    "valid": (["12_2"], ["14_1", "12_1"]),
    "test": (["13_1", "13_2"], ["13_3", "13_9"]),
}


def release(folder: Path, kind: str = "disjoint") -> Path:
    """The files of the release below `folder`; the test question names no item with 13_9."""
    (folder / "images").mkdir(parents=True)
    (folder / kind).mkdir()
    metadata = {}
    for number, (item, name) in enumerate(TYPES.items()):
        metadata[item] = {"title": TITLES.get(item, ""), "semantic_category": name}
        content = io.BytesIO()
        Image.new("RGB", (8, 8), (30 * number, 99, 5)).save(content, "JPEG")
        (folder / f"images/{item}.jpg").write_bytes(content.getvalue())
    metadata["8"] = {"title": "in no outfit", "semantic_category": "cap"}
    (folder / "polyvore_item_metadata.json").write_text(json.dumps(metadata))
    for split, outfits in OUTFITS.items():
        rows = [
            {"set_id": n, "items": [{"item_id": i, "index": k} for k, i in enumerate(items, 1)]}
            for n, items in outfits.items()
        ]
        (folder / f"{kind}/{split}.json").write_text(json.dumps(rows))
        given, answers = BLANKS[split]
        question = {"question": given, "blank_position": 1, "answers": answers}
        (folder / f"{kind}/fill_in_blank_{split}.json").write_text(json.dumps([question]))
        own = " ".join(f"{n}_{k}" for n, i in outfits.items() for k in range(1, len(i) + 1))
        (folder / f"{kind}/compatibility_{split}.txt").write_text(f"1 {own}\n0 {own}\n")
    return folder


def whole_release(folder: Path) -> Path:
    """The same, whose test question names items that there are."""
    release(folder)
    question = {"question": ["13_1", "13_2"], "blank_position": 3, "answers": ["13_3"]}
    (folder / "disjoint/fill_in_blank_test.json").write_text(json.dumps([question]))
    return folder
