"""Builds and loads the search for nearest labels, exact or HNSW, behind one `search` method."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mufin.errors import MufinError
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.hnsw import HnswNeighbours, file_hash

AUTO_EXACT = 200_000  # rows up to which `auto` is exact on a CPU


def build_neighbours(
    rows: LabelRows,
    kind: str = "auto",
    *,
    device: torch.device,
    m: int = 16,
    ef_construction: int = 200,
    ef: int = 800,
    seed: int = 0,
    threads: int = 1,
) -> ExactNeighbours | HnswNeighbours:
    """A search of `kind` exact, hnsw or auto: exact on a GPU and for up to 200,000 rows.

    `m`, `ef_construction`, `ef`, `seed` and `threads` are those of hnswlib. With one thread the
    same rows give the same bytes.
    """
    auto_exact = device.type == "cuda" or len(rows.label) <= AUTO_EXACT
    if kind == "exact" or (kind == "auto" and auto_exact):
        return ExactNeighbours(rows, device)
    return HnswNeighbours(rows, m, ef_construction, ef, seed, threads)


def load_neighbours(
    folder: Path, rows: LabelRows, device: torch.device
) -> ExactNeighbours | HnswNeighbours:
    """The search that was saved in `folder`, over the same `rows`; exact if nothing was saved.

    Raises MufinError if the graph is broken or belongs to other rows.
    """
    if not (folder / "hnsw.bin").exists():
        return ExactNeighbours(rows, device)
    try:
        facts = json.loads((folder / "hnsw.json").read_text())
        ef, saved = facts["ef"], (facts["shape"], facts["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MufinError(
            f"{folder / 'hnsw.json'} cannot be read ({error!r}); run `dvc repro index` again"
        ) from None
    if saved != (list(rows.rows.shape), file_hash(folder / "hnsw.bin")):
        raise MufinError(
            f"{folder / 'hnsw.bin'} is broken, or does not belong to the index in its folder (rows "
            f"of shape {rows.rows.shape}); run `dvc repro index` again"
        )
    return HnswNeighbours(rows, 0, 0, ef, graph=folder / "hnsw.bin")
