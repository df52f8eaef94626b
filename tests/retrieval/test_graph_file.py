"""What `HnswNeighbours` relies on: the layout of hnswlib's files and one of its error texts."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mufin.retrieval.exact import LabelRows
from mufin.retrieval.graph_file import size_by_head
from mufin.retrieval.hnsw import HnswNeighbours, _check_whole

ROWS, DIM = 300, 8


@pytest.fixture
def neighbours() -> HnswNeighbours:
    rows = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    return HnswNeighbours(LabelRows(rows, np.arange(ROWS), ROWS), m=8, ef_construction=40, ef=40)


def test_a_graph_file_cut_anywhere_is_an_error(neighbours, tmp_path):
    neighbours.save(tmp_path)
    whole = (tmp_path / "hnsw.bin").read_bytes()
    assert size_by_head(tmp_path / "hnsw.bin") == len(whole)
    for size in [*range(0, len(whole), 997), *range(len(whole) - 50, len(whole))]:
        (tmp_path / "hnsw.bin").write_bytes(whole[:size])
        with pytest.raises(OSError, match=f"requested and {size} written"):
            _check_whole(tmp_path / "hnsw.bin", size_by_head(tmp_path / "hnsw.bin"))


def test_undefined_bytes_of_a_graph_file_are_zeros(neighbours, tmp_path):
    neighbours.graph.save_index(str(tmp_path / "theirs"))
    neighbours.save(tmp_path)
    theirs, ours = ((tmp_path / name).read_bytes() for name in ("theirs", "hnsw.bin"))
    per_row = struct.unpack("<4Q", ours[:32])[3]
    start, end = 96 + ROWS * per_row, 96 + ROWS * (per_row + 4)
    assert ours[start:end] == bytes(4 * ROWS)
    assert (ours[:start], ours[end:]) == (theirs[:start], theirs[end:])
    # the rows lie before the zeros: the link count and 16 links, the vector, the id
    vectors = np.frombuffer(ours[96:start], np.uint8).reshape(ROWS, per_row)[:, 68 : 68 + 4 * DIM]
    assert (vectors.copy().view(np.float32) == neighbours.source.rows).all()


def test_a_graph_short_of_reachable_rows_gives_none(neighbours):
    """With the words of the installed hnswlib, which differ between its releases."""
    for row in range(1, ROWS):
        neighbours.graph.mark_deleted(row)
    assert neighbours._fetch(neighbours.source.rows[:3], 2) is None
    assert neighbours._fetch(neighbours.source.rows[:3], 1)[0].tolist() == [[0], [0], [0]]
