"""A study beside a small run of the pipeline: predictions of three rows, and a row that failed."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa

from compare.rows import BASELINES, place
from compare.study import FOLDER
from compare.table import METRICS as OF_QUALITY
from compare.table import TIME
from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import write_json
from mufin.artifacts.tables import read_table, write_ranking, write_table
from tests.support.artifacts import relinked, sealed

METRICS = (*OF_QUALITY, TIME)
ROWS = (("mufin", "MUFIN", [0, 1]), ("text_only", "Modality", [0]), ("bonsai", BASELINES, [0]))
HOSTILE = (
    '<script>alert("x")</script><img src=http://evil.example/a.png onerror=alert(1)> & "co" \u202e'
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def rename_products(
    home: Path, title: Callable[[str], str], category: Callable[[list[str]], list[str]]
) -> None:
    """Give the curated products other titles and categories."""
    path = home / "data/curated/products.parquet"
    products = read_table(path, "products").to_pydict()
    products["title"] = pa.array([title(t) for t in products["title"]], pa.string())
    products["category"] = [category(path) for path in products["category"]]
    write_table(products, "products", path)
    relinked(home)


def write_study(home: Path) -> None:
    """Predictions and metrics/compare.json: MUFIN at two seeds, right in every other row."""
    data, rng = read_curated(home / "data/curated"), np.random.default_rng(5)
    test = data.splits["test"]
    for name, _, seeds in ROWS:
        for seed in seeds:
            found = np.stack([rng.permutation(len(data.labels))[:20] for _ in range(len(test))])
            for row in range(0, len(test), 2 if name == "mufin" else 5):
                truth = test.labels[row][:3]
                others = [label for label in found[row] if label not in truth]
                found[row] = np.concatenate([truth, others])[:20]
            scores = np.zeros(found.shape, np.float32)
            path = place(home / FOLDER, name, seed)
            write_ranking(found, scores, path)
            sealed(path.parent)
    rows = [_row(*row, rng) for row in ROWS]
    failed = {"row": "xt", "title": "XT", "group": BASELINES, "seeds": [], "metrics": {}}
    failed |= {"standard_errors": {}, "failed": "seed 0: <napkinxc> crashed; try another"}
    bold = {metric: "mufin" for metric in METRICS} | {"P@5": None, "R@10": "bonsai"}
    write_json({"rows": [*rows, failed], "bold": bold}, home / "metrics/compare.json")


def _row(name: str, group: str, seeds: list[int], rng: np.random.Generator) -> dict:
    figures = {m: [round(rng.uniform(*ends), 4) for ends in ((0, 90), (0, 2))] for m in METRICS}
    errors = {m: round(rng.uniform(0, 2), 4) for m in METRICS if m != TIME}
    row = {"row": name, "title": name + HOSTILE, "group": group, "seeds": seeds, "failed": None}
    return row | {"metrics": figures, "standard_errors": errors}


class Page(HTMLParser):
    """Balanced tags, references, attributes, and the text of the tables' rows."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.rows: list[list[str]] = []
        self.head: dict[str, str] = {}  # dt: dd
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        names = ("src", "href", "xlink:href", "srcset", "action")
        self.references += [value or "" for name, value in attrs if name in names]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "dt":
            self.head[data] = ""
        if self.open and self.open[-1] == "dd":
            self.head[list(self.head)[-1]] = data
