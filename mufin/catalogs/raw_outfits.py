"""`data/raw/outfits/` and `data/raw/released/` of outfits with a blank, by the ids of products."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from mufin.artifacts.tables import write_table
from mufin.catalogs.forms.polyvore_outfits import SPLITS, Release
from mufin.ragged import Lists

STRINGS = pa.list_(pa.string())


def write_outfits(release: Release, folder: Path) -> dict[str, int]:
    """Write the outfits, questions and sets to judge of all splits; how many there are."""
    outfits = [(split, *outfit) for split in SPLITS for outfit in release.items(split)]
    asked = [(split, q) for split in SPLITS for q in release.questions(split)]
    judged = [(split, *one) for split in SPLITS for one in release.compatibility(split)]
    write_table(
        {
            "split": [split for split, _, _ in outfits],
            "set": [name for _, name, _ in outfits],
            "items": pa.array([items for _, _, items in outfits], STRINGS),
        },
        "raw_outfits",
        folder / "outfits.parquet",
    )
    write_table(
        {
            "split": [split for split, _ in asked],
            "uid": [q.blank.uid for _, q in asked],
            "items": pa.array([q.blank.given for _, q in asked], STRINGS),
            "position": np.array([q.blank.position for _, q in asked], np.int32),
            "answers": pa.array([q.answers for _, q in asked], STRINGS),
            "right": np.array([q.right for _, q in asked], np.int32),
        },
        "raw_questions",
        folder / "questions.parquet",
    )
    write_table(
        {
            "split": [split for split, _, _ in judged],
            "items": pa.array([items for _, items, _ in judged], STRINGS),
            "compatible": np.array([said for _, _, said in judged], bool),
        },
        "raw_compatibility",
        folder / "compatibility.parquet",
    )
    return {"outfits": len(outfits), "questions": len(asked), "sets_to_judge": len(judged)}


def write_released(release: Release, folder: Path) -> dict[str, int]:
    """Write the datapoints of each split with their labels; how many labels there are.

    The filter pairs of a datapoint are the items that it has: these are no answers.
    """
    labels, unseen = release.labels()
    number = {uid: i for i, uid in enumerate([*labels, *unseen])}
    write_table({"uid": labels}, "released_labels", folder / "labels.parquet")
    write_table({"uid": unseen}, "released_labels", folder / "unseen.parquet")
    counts: Counter[str] = Counter(labels=len(labels), unseen_labels=len(unseen))
    for split in SPLITS:
        blanks = list(release.blanks(split))
        known = [sorted({number[i] for i in b.given if i in number}) for b in blanks]
        columns = {
            "uid": [blank.uid for blank in blanks],
            "labels": Lists.of_rows([[number[b.item]] for b in blanks]).to_arrow(pa.int32()),
            "excluded": Lists.of_rows(known).to_arrow(pa.int32()),
        }
        write_table(columns, "released_split", folder / f"{split}.parquet")
        counts[split] = len(blanks)
    return dict(counts)
