"""The parts of a `mufin predict` that runs, in a folder beside its output, and how they are joined.

The folder is `<output>.parts/`. A part is published by a rename, so it is whole or not there. The
same run after a kill finds its parts; another run removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.files import write_json
from mufin.artifacts.publication import publish
from mufin.errors import MufinError

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("score", pa.list_(pa.float32())),
        ("fallback", pa.bool_()),
    ]
)
RUN = b"mufin predict"  # in the metadata of the output: the run that made it
ROWS = 65_536  # of a row group, at least, but for the last one
LOCK, NAME = "running", "run.json"


def run_of(path: Path) -> str:
    """The run that made a Parquet file; '' where it was made otherwise, or is not there."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return ""
    return metadata.get(RUN, b"").decode("ascii", "replace")


def without_answers(path: Path) -> int | None:
    """The rows of an output or of a part that bad lines have; None if it cannot be read."""
    try:
        return pq.read_table(path, columns=["fallback"])["fallback"].null_count
    except (OSError, pa.ArrowException):
        return None


def write_part(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def is_predictions(path: Path) -> bool:
    """Whether the file was written by `mufin predict`."""
    return run_of(path) != ""


class Parts:
    """The parts of the run `run`, `count` in all, of the output `target`; locked for this process.

    Without `skip`, what holds rows of bad lines is made again, so that they are found again.
    Raises MufinError if another process runs in the folder, or if it holds other files.
    """

    def __init__(self, target: Path, run: str, count: int, skip: bool):
        self.target, self.run, self.count, self.skip = target, run, count, skip
        self.folder = target.with_name(f"{target.name}.parts")

    def __enter__(self) -> Self:
        if os.path.lexists(self.folder):
            self._check_ours()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take()
            if self._said() != self.run:
                self._clear()
                write_json({"written_by": RUN.decode(), "run": self.run}, self.folder / NAME)
        except BaseException:
            os.close(self.lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.lock)

    def done(self) -> int:
        """How many parts are there, from the first one on without a gap."""
        missing = (n for n in range(self.count) if not self._good(self.path(n)))
        return next(missing, self.count)

    def missing(self) -> list[int]:
        """The numbers of all parts that are not there."""
        return [n for n in range(self.count) if not self._good(self.path(n))]

    def has_output(self) -> bool:
        """Whether the output is there, made by this run."""
        return run_of(self.target) == self.run and self._good(self.target)

    def _good(self, path: Path) -> bool:
        bad = without_answers(path)
        return bad == 0 or bad is not None and self.skip

    def write(self, number: int, table: pa.Table) -> None:
        with publish(self.path(number)) as scratch:
            write_part(table, scratch)

    def join(self) -> tuple[int, int]:
        """Publishes the output and removes the parts; (rows, those without answers)."""
        rows = without = 0
        waiting: list[pa.Table] = []
        schema = SCHEMA.with_metadata({RUN: self.run.encode()})
        with (
            publish(self.target) as scratch,
            pq.ParquetWriter(scratch, schema, compression="zstd") as writer,
        ):
            for number in range(self.count):
                waiting.append(self._read(number))
                without += waiting[-1]["labels"].null_count
                rows += len(waiting[-1])
                if sum(map(len, waiting)) >= ROWS or number + 1 == self.count:
                    table = pa.concat_tables(waiting).combine_chunks()
                    writer.write_table(table.replace_schema_metadata(schema.metadata))
                    waiting = []
        self.remove()
        return rows, without

    def remove(self) -> None:
        self._clear()  # first, so that no parts are left without `run.json`
        shutil.rmtree(self.folder)

    def _read(self, number: int) -> pa.Table:
        path = self.path(number)
        try:
            return pq.read_table(path, schema=SCHEMA)
        except (OSError, pa.ArrowException):
            raise MufinError(
                f"{path} is damaged; delete {self.folder} and run the same command again"
            ) from None

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:08d}.parquet"

    def _check_ours(self) -> None:
        """Raises MufinError if something is there that this command did not make."""
        with contextlib.suppress(OSError):
            others = [
                n for n in os.listdir(self.folder) if n != LOCK and f".{NAME}.mufin-" not in n
            ]
            if not others or self._said():
                return
        raise MufinError(
            f"{self.folder} is there and was not made by this command; move it away, or name "
            "another output"
        )

    def _take(self) -> None:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MufinError(
                f"another process is writing {self.target}; wait for it, or name another output"
            ) from None
        except OSError:  # a network file system without locks
            pass

    def _said(self) -> str:
        """The run to which the parts in the folder belong; '' where that is not said."""
        try:
            said = json.loads((self.folder / NAME).read_text())
            return said["run"] if said["written_by"] == RUN.decode() else ""
        except (OSError, ValueError, LookupError, TypeError):
            return ""

    def _clear(self) -> None:
        """Removes all parts, and what a kill left of one; `run.json` says whose they are."""
        for path in self.folder.glob("part-*.parquet"):
            path.unlink()
        for path in self.folder.glob(".*.mufin-*"):
            shutil.rmtree(path)
