"""The rows of the search as an index of FAISS, whose ids are the row numbers of rows.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mufin.errors import MufinError, shown
from mufin.retrieval.exact import LabelRows
from mufin.runtime import workers

if TYPE_CHECKING:
    import faiss

FLAT, HNSW = "flat", "hnsw"
LINKS, BUILD, LOOK = 32, 200, 128  # of HNSW: links per row, candidates in adding and in searching
CHUNK = 2**24  # numbers that are added at once
PROBES, NEAREST = 32, 10  # queries that check the file, and the rows that they ask for
EXACT, FOUND = 1e-4, 0.9  # difference of a similarity, and share of the nearest rows, in the check


def write_faiss(rows: LabelRows, kind: str, path: Path) -> str:
    """Writes an IndexFlatIP (`flat`) or IndexHNSWFlat (`hnsw`) of the rows, and reads it back.

    Returns what the check found. Raises MufinError if the file does not find the nearest rows.
    """
    import faiss

    faiss.omp_set_num_threads(workers())
    dim = rows.rows.shape[1]
    index: faiss.Index = faiss.IndexFlatIP(dim)
    if kind == HNSW:
        index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, LOOK
    step = max(1, CHUNK // dim)
    for start in range(0, len(rows.rows), step):
        index.add(np.ascontiguousarray(rows.rows[start : start + step], np.float32))
    try:
        faiss.write_index(index, str(path))
        del index
        read = faiss.read_index(str(path))
    except RuntimeError as error:  # FAISS knows no other
        text = shown(str(error).strip().splitlines()[-1])
        raise MufinError(
            f"{path.name} cannot be written ({text}); free space on the disk"
        ) from None
    return _checked(read, rows, kind)


def _checked(index: faiss.Index, rows: LabelRows, kind: str) -> str:
    """Asks for the rows nearest to a few of them, and compares with all inner products."""
    count = len(rows.rows)
    probes = rows.rows[np.linspace(0, count - 1, min(PROBES, count)).astype(np.int64)]
    probes, k = np.ascontiguousarray(probes, np.float32), min(NEAREST, count)
    similarity, ids = index.search(probes, k)
    best = _nearest(rows, probes, k)
    if index.ntotal != count or not (ids < count).all():
        raise MufinError(f"rows.faiss holds {index.ntotal} rows and not {count}; export again")
    if kind == FLAT:
        worst = float(np.abs(similarity - best).max(initial=0))
        if not worst <= EXACT:
            raise MufinError(
                f"similarities in rows.faiss differ by up to {worst:.1e} from those of the index; "
                "leave FAISS out with --kinds onnx"
            )
        return f"similarities differ by at most {worst:.1e}"
    found = float((similarity >= best[:, -1:] - EXACT).mean())
    if not found >= FOUND:
        raise MufinError(
            f"the HNSW of FAISS finds only {found:.0%} of the {k} nearest rows; use --faiss flat"
        )
    return f"finds {found:.1%} of the {k} nearest rows"


def _nearest(rows: LabelRows, probes: np.ndarray, k: int) -> np.ndarray:
    """(n, k) the largest inner products of each probe with the rows, best first."""
    best = np.full((len(probes), 0), -np.inf, np.float32)
    step = max(1, CHUNK // rows.rows.shape[1])
    for start in range(0, len(rows.rows), step):
        best = np.concatenate([best, probes @ rows.rows[start : start + step].T], 1)
        best = -np.sort(-best, axis=1)[:, :k]
    return best
