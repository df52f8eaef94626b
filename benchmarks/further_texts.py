"""What further texts of products, such as descriptions, add to titles, on splits of a catalog.

python -m benchmarks.further_texts CATALOG.jsonl WORK --images local-dir:MOBILENET --texts MINILM \
    --out benchmarks/results/further-texts.json

Each split is a cold one of another `curate.seed`. The settings are those of the profile
small-catalog with one network and the mix chosen on valid; `--set members=3` changes one. The rows
that read further texts differ in how a bag is summed, and one of them is chosen per split on valid.
Figures are those of test. WORK keeps what is made: a run that was killed goes on there.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.timing import machine
from compare.per_datapoint import values
from compare.splits import METRICS, SHARED, Values, clustered
from compare.table import mean_and_spread
from compare.variant import changed
from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import read_json, write_json
from mufin.artifacts.tables import read_ranking, read_table
from mufin.code import ROOT
from mufin.evaluation.evaluator import Evaluator
from mufin.params import load_params
from mufin.profiles import text_of_profile

STAGES = "curate precompute pretrain retrieve transfer finetune index evaluate".split()
ALONE, CHOSEN = "title alone", "title and further texts, chosen on valid"
# With one text per product, the sum of a bag and the sum of means per modality are the same.
ROWS: dict[str, dict[str, object]] = {
    ALONE: {"download.columns.texts": []},
    "title and further texts, bags summed": {},
    "title and further texts, means per modality summed": {"attention.pool": "means"},
}
CHOICE = ("P@1", "P@5", "R@10")  # whose sum on valid is compared


def main(
    catalog: Path,
    work: Path,
    images: Annotated[str, typer.Option(help="encoder.image.name")],
    texts: Annotated[str, typer.Option(help="encoder.text.name")],
    column: Annotated[list[str], typer.Option(help="a column of texts; repeatable")] = [  # noqa: B006
        "description"
    ],
    splits: str = "0,1,2,3,4",
    also: Annotated[list[str], typer.Option("--set", help="section.name=value")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Run what is missing in `work`, print the table, and write it as JSON."""
    work = work.resolve()
    os.environ.setdefault("MUFIN_SCRATCH", str(work / "scratch"))
    settings = {
        "download.location": str(catalog.resolve()),
        "download.columns.texts": column,
        "encoder.image.name": images,
        "encoder.text.name": texts,
        "members": 1,
        "evaluate.mix": "chosen",
    } | dict(_setting(text) for text in also)
    seeds = [int(seed) for seed in splits.split(",")]
    found = [_split(work, settings, seed) for seed in seeds]
    table = compared(found)
    print("\n".join(markdown(table)))
    if out is not None:
        write_json({"splits": seeds, "machine": machine()} | table, out)


def _setting(text: str) -> tuple[str, object]:
    from ruamel.yaml import YAML

    name, _, value = text.partition("=")
    return name, YAML(typ="safe").load(value)


def _write(home: Path, settings: dict[str, object]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "params.yaml"
    path.write_text(text_of_profile("small-catalog", ROOT / "params"), encoding="utf-8")
    path.write_text(changed(path, settings), encoding="utf-8")


def _stage(name: str, home: Path) -> None:
    module = importlib.import_module(f"pipeline.{name}")
    (module.evaluate if name == "evaluate" else module.main)(home)


def _split(work: Path, settings: dict[str, object], seed: int) -> tuple[np.ndarray, dict]:
    """The ids of a split's test datapoints, and of each row its values and its sum on valid."""
    rows, shared = {}, {}
    for place, (row, change) in enumerate(ROWS.items()):
        home = work / f"{seed}-{place}"
        _write(home, settings | change | {"curate.seed": seed})
        key = "raw" if "download.columns.texts" not in change else "raw-titles"
        links = {"data/raw": _downloaded(work / key, settings | change)}
        if first := shared.get(key):  # rows with the same texts share two stages
            links |= {out: first / out for out in SHARED.values()}
        for out, source in links.items():
            (home / out).parent.mkdir(exist_ok=True)
            if not (home / out).exists():
                (home / out).symlink_to(source)
        for stage in STAGES:
            if SHARED.get(stage) not in links and not _done(home, stage):
                _stage(stage, home)
        shared.setdefault(key, home)
        rows[row] = _figures(home)
    ids = read_table(home / "data/curated/products.parquet", "products", ["uid"])["uid"].to_numpy()
    return ids[read_curated(home / "data/curated").splits["test"].product], rows


def _downloaded(home: Path, settings: dict[str, object]) -> Path:
    """`data/raw` of these settings, made once."""
    if not (home / "data/raw").exists():
        _write(home, settings)
        _stage("download", home)
    return home / "data/raw"


def _done(home: Path, stage: str) -> bool:
    return (home / f"metrics/runtime/{stage}.json").exists()


def _figures(home: Path) -> tuple[Values, float]:
    """{metric: (n,) of each test datapoint} in percent, and the sum on valid."""
    params, data = load_params(home / "params.yaml").evaluate, read_curated(home / "data/curated")
    evaluator = Evaluator.of(data, (params.propensity.a, params.propensity.b), params.tail)
    found = values(read_ranking(home / "data/predictions/test.parquet"), evaluator)
    valid = read_json(home / "metrics/evaluate.json")["valid"]
    return {m: found[m] for m in METRICS}, sum(valid[m] for m in CHOICE)


def compared(found: list[tuple[np.ndarray, dict[str, tuple[Values, float]]]]) -> dict:
    """Of each row and metric the mean and spread over splits; of rows with further texts, the lead.

    A lead over the title alone is a mean over the test datapoints of all splits, with its standard
    error (a product is one cluster) and the number of splits that the row wins.
    """
    products = np.concatenate([ids for ids, _ in found])
    by_split = [{row: of_test for row, (of_test, _) in rows.items()} for _, rows in found]
    choices = [_chosen(rows) for _, rows in found]
    for rows, choice in zip(by_split, choices):
        rows[CHOSEN] = rows[choice]
    out: dict = {"rows": {}, "leads": {}, "chosen": choices}
    for row in by_split[0]:
        out["rows"][row] = {
            m: mean_and_spread([float(rows[row][m].mean()) for rows in by_split]) for m in METRICS
        }
        if row != ALONE:
            out["leads"][row] = {m: _lead(by_split, row, m, products) for m in METRICS}
    return out


def _chosen(rows: dict[str, tuple[Values, float]]) -> str:
    return max((row for row in rows if row != ALONE), key=lambda row: rows[row][1])


def _lead(by_split: list[dict[str, Values]], row: str, metric: str, products: np.ndarray) -> list:
    gains = [rows[row][metric] - rows[ALONE][metric] for rows in by_split]
    lead, error = clustered(np.concatenate(gains), products)
    return [round(lead, 4), round(error, 4), sum(bool(gain.mean() > 0) for gain in gains)]


def markdown(table: dict) -> list[str]:
    """The table as Markdown: means and spreads in percent, then leads over the title alone."""
    heads = [*METRICS, *(f"lead {m}" for m in METRICS)]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for row, figures in table["rows"].items():
        cells = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in figures.values()]
        leads = table["leads"].get(row, {}).values()
        cells += [f"{lead:+.2f} ± {error:.2f}, {won}" for lead, error, won in leads]
        lines.append(f"| {row} | " + " | ".join(cells) + " |" + " |" * (len(heads) - len(cells)))
    return lines


if __name__ == "__main__":
    from mufin import runtime

    runtime.run(main)
