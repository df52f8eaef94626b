"""Builds and loads the search for nearest labels, exact or HNSW, behind one `search` method."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from mufin import process_group
from mufin.errors import ArtifactError, shown
from mufin.ragged import Lists
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.graph_file import check_graph
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
    if is_exact(rows, kind, device):
        return ExactNeighbours(rows, device)
    return HnswNeighbours(rows, m, ef_construction, ef, seed, threads)


def is_exact(rows: LabelRows, kind: str, device: torch.device) -> bool:
    """Whether a search of `kind` exact, hnsw or auto over `rows` is exact."""
    auto_exact = device.type == "cuda" or len(rows.label) <= AUTO_EXACT
    return kind == "exact" or (kind == "auto" and auto_exact)


def shared_search(
    search: ExactNeighbours | HnswNeighbours,
    queries: np.ndarray,
    k: int,
    device: torch.device,
    excluded: Lists | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`search.search(queries, k, excluded)`; all processes of the stage must call it.

    Each of them answers its share of the queries, and all get all answers. The queries that are
    compared at once are the same as in one process, on a GPU with as much free memory, and so are
    the bytes. `device` is that of this process.
    """

    def answers(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        mine = None if excluded is None else excluded.take(np.arange(len(queries))[rows])
        return search.search(queries[rows], k, mine)

    labels, similarity = process_group.in_shares(len(queries), answers, device, search.at_once(k))
    return labels, similarity


def searched_once(
    rows: LabelRows,
    asked: list[tuple[np.ndarray, Lists]],
    k: int,
    *,
    device: torch.device,
    seed: int = 0,
    threads: int = 1,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The answers of a search `auto` over `rows` to each of `asked`: queries and excluded labels.

    All processes of the stage must call it, and get all answers. They share an exact search; HNSW
    is built and searched by the first, as a graph of several threads differs between processes.
    """
    exact, first, out = is_exact(rows, "auto", device), process_group.rank() == 0, []
    if exact or first:
        search = build_neighbours(rows, device=device, seed=seed, threads=threads)
    for queries, excluded in asked:
        if exact:
            out.append(shared_search(search, queries, k, device, excluded))
            continue
        found = np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
        if first:
            found = search.search(queries, k, excluded)
        labels, similarity = (process_group.gather(part, device) for part in found)
        out.append((labels, similarity))
    return out


def load_neighbours(
    folder: Path, rows: LabelRows, device: torch.device
) -> ExactNeighbours | HnswNeighbours:
    """The search that was saved in `folder`, over the same `rows`; exact if nothing was saved.

    Raises ArtifactError if the graph is broken or belongs to other rows.
    """
    graph, facts = folder / "hnsw.bin", folder / "hnsw.json"
    if not graph.exists() and not facts.exists():
        return ExactNeighbours(rows, device)
    ef, digest = _facts_of(graph, facts, rows)
    with ThreadPoolExecutor(1) as other:  # a hash and the checks take seconds each
        hashed = other.submit(file_hash, graph)
        try:
            check_graph(graph, rows)
        except ArtifactError:
            _check_hash(hashed.result(), digest, graph, rows)
            raise
        _check_hash(hashed.result(), digest, graph, rows)
    return HnswNeighbours(rows, 0, 0, ef, graph=graph)


def _facts_of(graph: Path, facts: Path, rows: LabelRows) -> tuple[int, str]:
    """`ef` and the hash of a saved graph, whose shape is that which `facts` says."""
    try:
        said = json.loads(facts.read_text())
        ef, shape, digest = said["ef"], said["shape"], said["sha256"]
        if type(ef) is not int or not 1 <= ef < 2**63:
            raise ValueError(f"ef is {shown(ef)}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"{facts} cannot be read ({shown(str(error))}); run `dvc repro index` again"
        ) from None
    if not graph.is_file() or shape != list(rows.rows.shape):
        raise _other(graph, rows)
    return ef, digest


def _check_hash(found: str, digest: str, graph: Path, rows: LabelRows) -> None:
    if found != digest:
        raise _other(graph, rows)


def _other(graph: Path, rows: LabelRows) -> ArtifactError:
    return ArtifactError(
        f"{graph} is broken, or does not belong to the index in its folder (rows of shape "
        f"{rows.rows.shape}); run `dvc repro index` again"
    )
