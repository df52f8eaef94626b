"""The parts of `mufin predict`, made by the machines of a cluster.

The model and the lines go there through the store; each part comes back as the file that this
machine would have written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.contents import NAME, contents_of, hash_of
from mufin.artifacts.publication import publish
from mufin.cluster.engine import connected
from mufin.cluster.settings import Cluster
from mufin.cluster.store import Files, Store
from mufin.commands.loading import load
from mufin.commands.predict_answers import Answering, Group, Skipped, groups
from mufin.commands.predict_lines import Line, Reader
from mufin.commands.predict_parts import Parts, write_part
from mufin.progress import progress

READ = ("data/curated", "data/precomputed", "models")  # folders that a recommender reads
LINES = pa.schema(
    [
        ("number", pa.int64()),
        ("id", pa.string()),
        ("uid", pa.string()),
        ("title", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("category", pa.list_(pa.string())),
        ("problem", pa.string()),
        ("pictures", pa.list_(pa.large_binary())),
    ]
)


def make_on(cluster: Cluster, parts: Parts, reader: Reader, home: Path, k: int, batch: int) -> None:
    """Writes the parts that are missing.

    Raises MufinError for a bad line, unless these are skipped, and if the cluster or its store
    fails.
    """
    missing = parts.missing()
    skipped = Skipped()
    with connected(cluster.address) as engine:
        run = cluster.store.within(f"runs/{parts.run[:16]}-{engine.device}")
        settings = {
            "store": cluster.store,
            "run": run,
            "home": send_home(home, cluster.store),
            "source": str(reader.source),
            "k": k,
            "skip": parts.skip,
        }
        items = list(_send_lines(run, reader, missing, batch))
        answers = engine.each(AnswersParts, settings, items)
        for answer in progress(
            answers, "predict", "batches", parts.count, parts.count - len(items)
        ):
            with publish(parts.path(answer["part"])) as scratch:
                run.get(answer["table"], scratch)
            skipped.tell(answer["refused"])
    run.remove()


class AnswersParts:
    """Answers parts on a machine of the cluster, with the recommender loaded once."""

    def __init__(self, store: Store, run: Store, home: str, source: str, k: int, skip: bool):
        self.run = run
        recommender = load(fetch_home(store, home))
        self.answering = Answering(recommender, Path(source), k, skip)

    def __call__(self, item: dict) -> dict:
        self.answering.refused = []
        with tempfile.TemporaryDirectory() as scratch:
            lines, made = Path(scratch, "lines.parquet"), Path(scratch, "part.parquet")
            self.run.get(item["lines"], lines)
            write_part(self.answering.table(read_lines(lines)), made)
            table = self.run.put(made)
        return {"part": item["part"], "table": table, "refused": self.answering.refused}


def _send_lines(run: Store, reader: Reader, missing: list[int], batch: int) -> Iterator[dict]:
    """An item for each part that is missing, whose lines and pictures are in the store."""
    wanted = set(missing)
    for number, lines in enumerate(reader.batches(batch, 0)):
        if number in wanted:
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch, "lines.parquet")
                write_lines(groups(reader, lines), path)
                yield {"part": number, "lines": run.put(path)}


def write_lines(groups: Iterator[Group], path: Path) -> None:
    """Lines and pictures as a Parquet file, a row group for each group."""
    with pq.ParquetWriter(path, LINES) as writer:
        for group in groups:
            writer.write_table(pa.Table.from_pylist([_row(*pair) for pair in group], LINES))


def read_lines(path: Path) -> Iterator[Group]:
    """The groups that `write_lines` wrote."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield [_line(row) for row in file.read_row_group(number).to_pylist()]


def _row(line: Line, pictures: tuple[bytes, ...]) -> dict:
    names = ("number", "id", "uid", "title", "texts", "category", "problem")
    return {name: getattr(line, name) for name in names} | {"pictures": pictures}


def _line(row: dict) -> tuple[Line, tuple[bytes, ...]]:
    pictures = tuple(row.pop("pictures"))
    lists = {name: tuple(row[name]) for name in ("texts", "category")}
    return Line(**row | lists), pictures


def send_home(home: Path, store: Store) -> str:
    """Sends what a recommender reads of `home`, unless it is there; its name in the store."""
    files: Files = {}
    for name in ("params.yaml", *READ):
        files |= _files(home, home / name)
    said = json.dumps(files, sort_keys=True).encode()
    name = f"models/{hashlib.sha256(said).hexdigest()[:32]}"
    if not store.has_folder(name):
        store.put_folder(home, name, files)
    return name


def _files(home: Path, path: Path) -> Files:
    """{path below `home`: size and SHA-256} of a file, or of all files of a folder."""
    if path.is_file():
        return {path.relative_to(home).as_posix(): (path.stat().st_size, hash_of(path))}
    if not (path / NAME).exists():
        parts = [_files(home, below) for below in sorted(path.iterdir())]
        return {name: part[name] for part in parts for name in part}
    known = contents_of(path).files  # large arrays are not hashed again
    files = {(path / name).relative_to(home).as_posix(): known[name] for name in known}
    return files | _files(home, path / NAME)


def fetch_home(store: Store, name: str) -> Path:
    """The folder of that name on this machine; one of its processes fetches it for all."""
    root = Path(tempfile.gettempdir(), "mufin-models")
    root.mkdir(exist_ok=True)
    target = root / name.rpartition("/")[2]
    with open(root / f"{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            made = root / f"{target.name}.new"
            shutil.rmtree(made, ignore_errors=True)  # of a process that was killed
            made.mkdir()
            store.get_folder(name, made)
            made.rename(target)
    return target
