"""A generated data set in the Extreme Classification Repository's JSON layout, with image vectors.

Only the vectors tell which labels are right: all titles are of the same words.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

GROUPS, WIDTH = 12, 24
ROWS = {"trn": 20, "tst": 5, "lbl": 4}  # per group
TITLES = ["a thing", "one more thing", "a good thing", "thing"]


def uid(short: str, row: int) -> str:
    """The last label of each group is also its first train product."""
    if short == "trn" and row % ROWS["trn"] == 0:
        return uid("lbl", row // ROWS["trn"] * ROWS["lbl"] + ROWS["lbl"] - 1)
    return f"{short}{row:05d}"


def release(home: Path, filters: bool = True) -> Path:
    """trn, tst and lbl.json.gz, and the filter pairs of products that are their own label."""
    home.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for short, each in ROWS.items():
        rows = []
        for row in range(GROUPS * each):
            group = row // each
            first = group * ROWS["lbl"]
            more = {} if short == "lbl" else {"target_ind": list(range(first, first + ROWS["lbl"]))}
            if more:
                more["target_rel"] = [1.0] * ROWS["lbl"]
            title = TITLES[rng.integers(len(TITLES))]
            rows.append({"uid": uid(short, row), "title": title, "content": ""} | more)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (home / f"{short}.json.gz").write_bytes(gzip.compress(text.encode()))
    if filters:
        own = [
            f"{group * ROWS['trn']} {group * ROWS['lbl'] + ROWS['lbl'] - 1}\n"
            for group in range(GROUPS)
        ]
        (home / "filter_labels_train.txt").write_text("".join(own))
        (home / "filter_labels_test.txt").write_text("")
    return home


def vectors() -> dict[str, np.ndarray]:
    """{trn, tst, lbl: (rows, WIDTH) float16}: a centre per group, with noise."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(GROUPS, WIDTH))
    return {
        short: (np.repeat(centres, each, 0) + 0.3 * rng.normal(size=(GROUPS * each, WIDTH))).astype(
            np.float16
        )
        for short, each in ROWS.items()
    }


def write_by_id(home: Path) -> tuple[str, str]:
    """One array and a text file of ids; returns the two settings of download.image_vectors."""
    found: dict[str, np.ndarray] = {}
    for short, rows in vectors().items():
        for row, vector in enumerate(rows):
            found.setdefault(uid(short, row), vector)
    np.save(home / "images.npy", np.stack(list(found.values())))
    (home / "ids.txt").write_text("".join(f"{one}\n" for one in found))
    return str(home / "images.npy"), str(home / "ids.txt")


def write_by_row(home: Path, broken: tuple[int, ...] = (3,)) -> tuple[str, str]:
    """Files as ViXML publishes them: per split an array, and an array of lists of its rows.

    Each product has two images, but for the rows `broken` of each split, which have none.
    """
    for short, rows in vectors().items():
        long = {"trn": "train", "tst": "test", "lbl": "labels"}[short]
        places, kept = np.empty(len(rows), dtype=object), []
        for row, vector in enumerate(rows):
            if row in broken:
                places[row] = -1
                continue
            places[row] = [len(kept), len(kept) + 1]
            kept += [vector, vector + np.float16(0.01)]
        np.save(home / f"{short}_embs_imgs_3_{WIDTH}.npy", np.stack(kept).astype(np.float32))
        np.save(home / f"{long}_imgs_384_3_map.npy", places, allow_pickle=True)
    return str(home / "*_embs_imgs_*.npy"), str(home / "*_map.npy")
