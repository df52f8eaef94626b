"""Product catalogs in every form and at URLs, and the settings that make `download` read them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from mufin.artifacts.publication import publish
from mufin.catalogs.product import Product
from mufin.errors import MufinError
from pipeline import download
from tests.support.projects import ROOT
from tests.support.servers import Handler

PARAMS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
GOOD = b'{"ASIN": "a", "title": "table", "images": [], "also_buy": ["b"]}\n'
PRODUCTS = [
    Product(
        "A1",
        'A "red", round\ntable',
        ["img/a 1.jpg", "http://shop.example/a?x=1&y=2"],
        ["A2", "A3"],
        ["Home & Garden", "Tables"],
    ),
    Product("A2", "Stol på tre ☃", [], ["A1"], []),
    Product("A3", "", ["img/c.jpg"], [], ["Lamps"]),
    Product("A4", "  spaces stay  ", ["img/d.jpg"], ["A1", "A2", "nowhere"], ["Lamps"]),
]


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder to run in, with what an earlier download left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUFIN_SCRATCH", raising=False)
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    with publish(Path("data/raw")) as folder:
        folder.mkdir()
        (folder / "earlier.txt").write_text("as it was")
    return tmp_path


def settings(**changes) -> None:
    """Write the project's params.yaml with `<section>__<key>` changed, as JSON: it loads faster."""
    params = {
        name: dict(section) if isinstance(section, dict) else section
        for name, section in PARAMS.items()
    }
    for name, value in changes.items():
        section, key = name.split("__")
        params[section][key] = value
    Path("params.yaml").write_text(json.dumps(params))


def refused(message: str) -> None:
    """`download` ends in one sentence that matches, and what an earlier run left is as it was."""
    with pytest.raises(MufinError) as error:
        download.main()
    assert re.search(message, str(error.value)) and "\n" not in str(error.value), error.value
    untouched()


def untouched() -> None:
    """A download that failed left nothing."""
    names = [p.as_posix() for p in sorted(Path("data").rglob("*"))]
    assert names == ["data/raw", "data/raw/contents.json", "data/raw/earlier.txt"]
    assert Path("data/raw/earlier.txt").read_text() == "as it was"
    assert not Path("metrics").exists()


def as_file(path: Path, rows: list[dict]) -> Path:
    """Write rows in the form of the path's ending; lists in cells as JSON (.csv) or bars (.tsv)."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith(("sv")):
        tabs, text = name.endswith(".tsv"), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if tabs else ",")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    k: ("|".join(v) if tabs else json.dumps(v)) if isinstance(v, list) else v
                    for k, v in row.items()
                }
            )
        content = text.getvalue().encode()
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


class Shelf(Handler):
    """Answers with `server.files`, in part where asked; `torn` cuts the first answer of a path."""

    torn: dict[str, int] = {}

    def do_GET(self):
        self.server.asked[self.path] += 1
        body = self.server.files.get(self.path, self.server.files.get(self.path.partition("?")[0]))
        if body is None:
            return self.answer(404)
        start, end, size = 0, len(body), str(len(body))
        if (wanted := self.headers.get("Range")) and self.headers.get(
            "If-Range"
        ) == self.server.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            return self.answer(416, Content_Range=f"bytes */{size}")
        if self.server.asked[self.path] == 1 and self.path in self.torn:
            end = self.torn[self.path]
        kind = "text/html; charset=utf-8" if body.startswith(b"<") else "application/octet-stream"
        some = {"Content_Range": f"bytes {start}-{len(body) - 1}/{size}"} if start else {}
        self.close_connection = True
        self.answer(
            206 if start else 200,
            body[start:end],
            Content_Length=str(len(body) - start),
            Content_Type=kind,
            ETag=self.server.tag,
            **some,
        )
