"""The table of all variants and rivals, judged by the same code, over seeds with their spread.

python -m pipeline.compare
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

from compare.rows import Result, Wanted, read_wanted, results, title
from mufin import runtime
from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import publish, write_json
from mufin.artifacts.tables import read_ranking, read_table
from mufin.evaluation.evaluator import Judge
from mufin.params import load_params

METRICS = ("P@1", "P@5", "nDCG@5", "R@10", "R@100", "PSP@5", "AUC@100", "tail R@10")
LEAST = ("milliseconds",)  # the lowest is the best


def main(
    curated: Path = Path("data/curated"),
    folder: Path = Path("data/compare"),
    variants: Path = Path("compare/variants.yaml"),
    metrics: Path = Path("metrics/compare.json"),
    table: Path = Path("metrics/compare.csv"),
):
    """Judge every row at every seed on test; write and print the table, the best of each column in bold."""
    wanted, data = read_wanted(variants), read_curated(curated)
    judge = Judge(
        load_params(), data, read_table(curated / "products.parquet", "products"), curated
    )
    rows = [_row(name, found, judge) for name, found in _by_row(results(folder, wanted)).items()]
    report = judge.facts() | {"seeds": wanted.seeds, "rows": rows, "notes": notes(rows)}
    write_json(report, metrics)
    with publish(table) as scratch, open(scratch, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seeds", *(name for m in METRICS for name in (m, f"{m} spread"))])
        writer.writerows(
            [
                row["row"],
                len(row["seeds"]),
                *(round(v, 4) for m in METRICS for v in row["metrics"][m]),
            ]
            for row in rows
            if row["metrics"]
        )
    print("\n".join([*_told(report, wanted), "", *report["notes"]]))


def notes(rows: list[dict]) -> list[str]:
    """What a reader should not have to work out: whether the score for rare and popular labels holds what it promises,
    no loss of P@1 and a gain of tail R@10; and which variants are to be compared with another row than MUFIN."""
    by_name, out = {row["row"]: row for row in rows if row["metrics"]}, []
    own = (
        "mufin_fixed" if "mufin_fixed" in by_name else "mufin"
    )  # the paper's score, with nothing beside it
    if {own, "mufin_rare_and_popular"} <= set(by_name):
        gains = {
            m: by_name["mufin_rare_and_popular"]["metrics"][m][0] - by_name[own]["metrics"][m][0]
            for m in ("P@1", "tail R@10")
        }
        kept, won = gains["P@1"] >= 0, gains["tail R@10"] > 0
        out.append(
            "Rare and popular labels scored differently, against MUFIN by the paper's score: P@1 "
            f"{gains['P@1']:+.2f} ({'no loss' if kept else 'LOST'}), tail R@10 {gains['tail R@10']:+.2f} "
            f"({'won' if won else 'NOT WON'})"
        )
    if "triplet" in by_name:
        out.append(
            "MUFIN-no +ve and MUFIN-no +ve, -ve are to be compared with the row by triplets."
        )
    return out


def _by_row(found: list[Result]) -> dict[str, list[Result]]:
    out: dict[str, list[Result]] = {}
    for result in found:
        out.setdefault(result.row, []).append(result)
    return out


def _row(name: str, found: list[Result], judge: Judge) -> dict:
    """One row of the table: each metric's mean over seeds and its standard deviation (0 for one seed); why seeds failed."""
    ran = [r for r in found if "failed" not in r.facts]
    figures = [judge.metrics(read_ranking(r.predictions), "test") for r in ran]
    values = {m: [f[m] for f in figures] for m in METRICS}
    values["milliseconds"] = [r.facts["milliseconds_a_datapoint"] for r in ran]
    group, shown = title(name)
    return {
        "row": name,
        "title": shown,
        "group": group,
        "seeds": [r.seed for r in ran],
        "metrics": {m: _mean_and_spread(v) for m, v in values.items()} if ran else {},
        "failed": "; ".join(
            f"seed {r.seed}: {r.facts['failed']}" for r in found if "failed" in r.facts
        )
        or None,
    }


def _mean_and_spread(values: list[float]) -> list[float]:
    return [
        round(statistics.mean(values), 4),
        round(statistics.stdev(values), 4) if len(values) > 1 else 0.0,
    ]


def best(rows: list[dict]) -> dict[str, float]:
    """The best mean of each column."""
    ran = [row["metrics"] for row in rows if row["metrics"]]
    return (
        {m: (min if m in LEAST else max)(r[m][0] for r in ran) for m in (*METRICS, *LEAST)}
        if ran
        else {}
    )


def _told(report: dict, wanted: Wanted) -> list[str]:
    """The table as Markdown."""
    top, columns, group = best(report["rows"]), (*METRICS, *LEAST), None
    lines = [
        f"Test, {report['split']} split, {report['datapoints']['test']} datapoints, {report['labels']} labels, seeds "
        f"{', '.join(map(str, wanted.seeds))}: mean ± standard deviation, in percent; milliseconds a datapoint (MUFIN's "
        "rows: of retrieval and scores, the descriptors known)",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row in report["rows"]:
        if row["group"] != group:
            group = row["group"]
            lines.append(f"| *{group}* |" + " |" * len(columns))
        cells = (
            [_cell(row, m, top) for m in columns]
            if row["metrics"]
            else [f"failed: {row['failed']}"]
        )
        lines.append(
            f"| {row['title']} | " + " | ".join(cells) + " |" * (len(columns) - len(cells) + 1)
        )
        if row["metrics"] and row["failed"]:
            lines.append(f"| (failed: {row['failed']}) |" + " |" * len(columns))
    return lines


def _cell(row: dict, metric: str, top: dict[str, float]) -> str:
    mean, spread = row["metrics"][metric]
    text = f"{mean:.2f}" + (f" ± {spread:.2f}" if len(row["seeds"]) > 1 else "")
    return f"**{text}**" if mean == top[metric] else text


if __name__ == "__main__":
    runtime.run(main)
