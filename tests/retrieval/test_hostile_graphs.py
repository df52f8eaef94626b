"""Graph files of a hostile author, with the hash that hnsw.json asks for: refused or harmless.

hnswlib crashes on such files, so they are loaded in a process of their own:
python -m tests.retrieval.test_hostile_graphs <folder> <first> <last> loads mutations by number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mufin.errors import ArtifactError, MufinError
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.graph_file import HEAD, check_graph
from mufin.retrieval.hnsw import HnswNeighbours, file_hash
from mufin.retrieval.neighbours import load_neighbours

ROWS, DIM, M, LABELS = 400, 8, 4, 90
MUTATIONS = 400
ROW_WORDS = 1 + 2 * M + DIM + 2
ROWS_AT = HEAD.itemsize // 4  # in words
UPPER_AT = ROWS_AT + ROWS * (ROW_WORDS + 1)
NUMBERS = [0, 1, 2, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]


def rows_of(count: int = ROWS) -> LabelRows:
    rng = np.random.default_rng(0)
    return LabelRows(rng.normal(size=(count, DIM)).astype("f"), np.arange(count) % LABELS, LABELS)


def graph_of(folder: Path) -> bytes:
    HnswNeighbours(rows_of(), M, 40, 40).save(folder)
    return (folder / "hnsw.bin").read_bytes()


# The mutations: (words of the file, generator) -> bytes


def noise(words: np.ndarray, rng: np.random.Generator) -> bytes:
    """A few bytes anywhere."""
    content = words.view(np.uint8)
    content[rng.integers(0, len(content), rng.integers(1, 65))] ^= rng.integers(1, 256, dtype="u1")
    return content.tobytes()


def other_size(words: np.ndarray, rng: np.random.Generator) -> bytes:
    content = words.tobytes()
    cut = content[: rng.integers(0, len(content))]
    return cut if rng.random() < 0.5 else content + rng.bytes(rng.integers(1, 5000))


def number_of_head(words: np.ndarray, rng: np.random.Generator) -> bytes:
    """One or two numbers of the head are large, small or wrong by one."""
    head = words[:ROWS_AT].view(HEAD)
    for name in rng.choice(HEAD.names, rng.integers(1, 3), replace=False):
        kind = HEAD[name]
        if kind.kind == "f":
            head[name] = rng.choice([0.0, -1.0, np.nan, np.inf, 1e300])
            continue
        old = int(head[name][0])
        value = int(rng.choice(np.array([*NUMBERS, old + 1, max(old - 1, 0)], object)))
        head[name] = np.array([value % 2 ** (8 * kind.itemsize)], "u8").astype(f"u{kind.itemsize}")
    return words.tobytes()


def lowest(words: np.ndarray) -> np.ndarray:
    """(rows, words per row) of the lowest layer."""
    return words[ROWS_AT : ROWS_AT + ROWS * ROW_WORDS].reshape(ROWS, ROW_WORDS)


def link_to_no_row(words: np.ndarray, rng: np.random.Generator) -> bytes:
    row = lowest(words)[rng.integers(ROWS)]
    row[0] = 2 * M
    row[1 + rng.integers(2 * M)] = rng.choice([ROWS, ROWS + 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1])
    return words.tobytes()


def number_of_links(words: np.ndarray, rng: np.random.Generator) -> bytes:
    lowest(words)[rng.integers(0, ROWS, 5), 0] = rng.choice([2 * M + 1, 1000, 2**16 - 1, 2**32 - 1])
    return words.tobytes()


def mark_of_a_removed_row(words: np.ndarray, rng: np.random.Generator) -> bytes:
    lowest(words)[rng.integers(ROWS), 0] |= rng.choice([2**16, 2**17, 2**31])
    return words.tobytes()


def id_of_a_row(words: np.ndarray, rng: np.random.Generator) -> bytes:
    values = [0, ROWS - 1, ROWS, 2**31, 2**32 - 1]
    lowest(words)[rng.integers(ROWS), rng.choice([-2, -1])] = rng.choice(values)
    return words.tobytes()


def vector(words: np.ndarray, rng: np.random.Generator) -> bytes:
    values = np.array([np.nan, np.inf, -np.inf, 1e38, 0.5], "f").view("u4")
    lowest(words)[rng.integers(ROWS), 1 + 2 * M + rng.integers(DIM)] = rng.choice(values)
    return words.tobytes()


def word_of_upper_layers(words: np.ndarray, rng: np.random.Generator) -> bytes:
    """A length, a number of links or a link."""
    upper = words[UPPER_AT:]
    values = [0, 1, M, M + 1, 4 * (M + 1), 8 * (M + 1), ROWS - 1, ROWS, 2**16, 2**31, 2**32 - 1]
    for _ in range(rng.integers(1, 4)):
        upper[rng.choice(np.flatnonzero(upper))] = rng.choice(values)
    return words.tobytes()


def link_to_a_lower_layer(words: np.ndarray, rng: np.random.Generator) -> bytes:
    """In the first layer above the lowest, to a row that is not in it."""
    upper, at = words[UPPER_AT:], 0
    lists, low = [], []
    for row in range(ROWS):
        (lists if upper[at] else low).append(at + 1 if upper[at] else row)
        at += 1 + upper[at] // 4
    place = rng.choice(lists)
    upper[place], upper[place + 1] = M, rng.choice(low)
    return words.tobytes()


def higher_row(words: np.ndarray, rng: np.random.Generator) -> bytes:
    """The search begins elsewhere, or in a layer that does not exist."""
    head = words[:ROWS_AT].view(HEAD)
    head["entry"] = rng.integers(ROWS)
    head["top"] += rng.integers(-1, 2)
    return words.tobytes()


KINDS: list[Callable[[np.ndarray, np.random.Generator], bytes]] = [
    noise,
    other_size,
    number_of_head,
    link_to_no_row,
    number_of_links,
    mark_of_a_removed_row,
    id_of_a_row,
    vector,
    word_of_upper_layers,
    link_to_a_lower_layer,
    higher_row,
]


def mutation(number: int, whole: bytes) -> tuple[str, bytes]:
    kind = KINDS[number % len(KINDS)]
    words = np.frombuffer(whole, "<u4").copy()
    return kind.__name__, kind(words, np.random.default_rng(number))


# The process that loads them


def written(folder: Path, content: bytes) -> None:
    """The graph, and its facts as if it were the right one."""
    (folder / "hnsw.bin").write_bytes(content)
    facts = {"ef": 40, "shape": [ROWS, DIM], "sha256": file_hash(folder / "hnsw.bin")}
    (folder / "hnsw.json").write_text(json.dumps(facts))


def used(folder: Path) -> str:
    """'refused', or 'used' after a search, additions, removals and a search."""
    rows = rows_of()
    try:
        neighbours = load_neighbours(folder, rows, torch.device("cpu"))
    except ArtifactError as error:
        text = str(error).replace(str(folder), "")
        assert text.endswith("run `dvc repro index` again") and len(text) < 250, text
        return "refused"
    queries = np.random.default_rng(1).normal(size=(30, DIM)).astype("f")
    for _ in range(2):
        labels, similarity = neighbours.search(queries, 10)
        assert (labels < LABELS + 60).all() and not np.isnan(similarity).any()
        neighbours.add(LabelRows(queries, np.arange(30) + LABELS, LABELS + 60))
        neighbours.remove(np.arange(0, LABELS, 7))
    neighbours.save(folder / "again")
    return "used"


def main(folder: Path, first: int, last: int) -> None:
    whole = (folder / "whole.bin").read_bytes()
    for number in range(first, last):
        name, content = mutation(number, whole)
        print(number, name, end=" ", flush=True)
        written(folder, content)
        print("same" if content == whole else used(folder), flush=True)


def test_hostile_graphs_are_refused_or_harmless(tmp_path):
    (tmp_path / "whole.bin").write_bytes(graph_of(tmp_path))
    command = [sys.executable, "-m", "tests.retrieval.test_hostile_graphs"]
    done = subprocess.run(
        [*command, str(tmp_path), "0", str(MUTATIONS)], capture_output=True, text=True, timeout=300
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-2000:])
    assert len(lines) == MUTATIONS and {outcome for *_, outcome in lines} <= {
        "refused",
        "used",
        "same",
    }
    harmless = ("noise", "word_of_upper_layers", "higher_row", "number_of_head")
    for number, name, outcome in lines:
        assert outcome in ("refused", "same") or name in harmless, (number, name, outcome)
    assert sum(outcome == "refused" for *_, outcome in lines) > 0.8 * MUTATIONS


# The graphs that are right


@pytest.mark.parametrize("count", [0, 1, 2, 3, 400])
@pytest.mark.parametrize("change", ["built", "added", "removed", "loaded"])
def test_graphs_of_the_pipeline_pass(count, change, tmp_path):
    rows = rows_of(count)
    neighbours = HnswNeighbours(rows, M, 40, 40, threads=2)
    if change == "added":
        neighbours.add(LabelRows(rows_of(30).rows * 2, np.arange(30), LABELS))
    elif change == "removed":
        neighbours.remove(np.arange(0, LABELS, 3))
    neighbours.save(tmp_path)
    if change == "loaded":
        load_neighbours(tmp_path, rows, torch.device("cpu")).save(tmp_path)
    check_graph(tmp_path / "hnsw.bin", neighbours.source)


def test_upper_lists_in_blocks_are_checked_at_once(monkeypatch, tmp_path):
    whole = graph_of(tmp_path)
    monkeypatch.setattr("mufin.retrieval.graph_file.BLOCK", 60)
    check_graph(tmp_path / "hnsw.bin", rows_of())
    for number in range(len(KINDS), 12 * len(KINDS)):
        _, content = mutation(number, whole)
        (tmp_path / "hnsw.bin").write_bytes(content)
        outcomes = []
        for block in (60, 2**24):
            monkeypatch.setattr("mufin.retrieval.graph_file.BLOCK", block)
            try:
                check_graph(tmp_path / "hnsw.bin", rows_of())
                outcomes.append("used")
            except MufinError:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1], number


def test_a_graph_of_the_same_shape_over_other_rows_is_refused(tmp_path):
    graph_of(tmp_path)
    other = rows_of()
    rounded = other.rows * np.float32(1 + 2e-7)  # as another machine normalises
    check_graph(tmp_path / "hnsw.bin", LabelRows(rounded, other.label, LABELS))
    with pytest.raises(ArtifactError, match="its vectors are others"):
        check_graph(tmp_path / "hnsw.bin", LabelRows(other.rows[::-1], other.label, LABELS))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
