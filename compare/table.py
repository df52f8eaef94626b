"""The table of all variants and baselines: one evaluator, means over seeds, spread, standard
errors.

python -m compare.table
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compare.per_datapoint import values
from compare.rows import CEILINGS, Result, results, title
from compare.study import FOLDER, Study, read_study
from mufin import runtime
from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import read_json, write_csv, write_json
from mufin.artifacts.tables import read_ranking
from mufin.evaluation.breakdowns import leader, standard_error
from mufin.evaluation.evaluator import TABLE, Evaluator
from mufin.params import load_params

METRICS = TABLE
TIME = "milliseconds"  # per datapoint, at prediction
BOLD = (
    "Bold: the row leads every other row, ceilings aside, by more than the standard error of their "
    "paired difference over datapoints; of milliseconds, the fewest."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, over its seeds."""

    facts: dict  # as in metrics/compare.json
    values: dict[str, np.ndarray]  # metric -> (n,), see `per_datapoint`; the mean over seeds


def main(home: runtime.Home = Path(".")):
    """Evaluate all rows at all seeds on test; write and print the table."""
    study, data = read_study(home / "compare/study.yaml"), read_curated(home / "data/curated")
    settings = load_params(home / "params.yaml").evaluate
    propensity = (settings.propensity.a, settings.propensity.b)
    evaluator = Evaluator.of(data, propensity, settings.tail)
    by_row: dict[str, list[Result]] = {}
    for result in results(home / FOLDER, study):
        by_row.setdefault(result.row, []).append(result)
    rows = [_row(study, found, evaluator) for found in by_row.values()]
    facts = [row.facts for row in rows]
    report = {
        "split": read_json(home / "data/curated/split.json")["split"],
        "labels": len(data.labels),
        "datapoints": {name: len(split) for name, split in data.splits.items()},
        "seeds": study.seeds,
        "rows": facts,
        "bold": bold(rows),
        "notes": [BOLD, *notes(facts)],
    }
    write_json(report, home / "metrics/compare.json")
    _write_table(facts, home / "metrics/compare.csv")
    print("\n".join([*_markdown(report), "", *report["notes"]]))


def _row(study: Study, found: list[Result], evaluator: Evaluator) -> Row:
    """A row of the table: mean and spread over the seeds that ran, and why others failed."""
    ran = [r for r in found if "failed" not in r.facts]
    predictions = [read_ranking(r.predictions) for r in ran]
    figures = [evaluator.metrics(labels, "test") for labels in predictions]
    over_seeds = {m: [f[m] for f in figures] for m in METRICS}
    over_seeds[TIME] = [r.facts["milliseconds_per_datapoint"] for r in ran]
    parts = [values(labels, evaluator) for labels in predictions]
    means = {m: np.mean([part[m] for part in parts], 0) for m in METRICS} if ran else {}
    group, shown = title(study, found[0].row)
    failed = [f"seed {r.seed}: {r.facts['failed']}" for r in found if "failed" in r.facts]
    facts = {
        "row": found[0].row,
        "title": shown,
        "group": group,
        "seeds": [r.seed for r in ran],
        "metrics": {m: mean_and_spread(v) for m, v in over_seeds.items()} if ran else {},
        "standard_errors": {m: _error(v) for m, v in means.items()},
        "failed": "; ".join(failed) or None,
    }
    return Row(facts, means)


def _error(value: np.ndarray) -> float | None:
    """The standard error of the mean of `value` (n,); None for fewer than two datapoints."""
    return round(float(standard_error(value)), 4) if len(value) > 1 else None


def mean_and_spread(figures: list[float]) -> list[float]:
    """The mean and the standard deviation of a sample; the latter is 0 for one figure."""
    spread = statistics.stdev(figures) if len(figures) > 1 else 0.0
    return [round(statistics.mean(figures), 4), round(spread, 4)]


def bold(rows: list[Row]) -> dict[str, str | None]:
    """{metric: the row that leads, or None where no lead exceeds the standard error}.

    Ceilings are no methods, so they take no part.
    """
    ran = [row for row in rows if row.values and row.facts["group"] != CEILINGS]
    if len(ran) < 2:
        return {m: None for m in (*METRICS, TIME)}
    best = {m: leader(np.stack([row.values[m] for row in ran])) for m in METRICS}
    milliseconds = [row.facts["metrics"][TIME][0] for row in ran]
    best[TIME] = milliseconds.index(min(milliseconds))
    return {m: None if i is None else ran[i].facts["row"] for m, i in best.items()}


def notes(rows: list[dict]) -> list[str]:
    """What is to be read from several rows together.

    Whether scoring rare and popular labels differently keeps P@1 and gains tail R@10, and which
    variants are to be compared with another row than MUFIN.
    """
    by_name, out = {row["row"]: row for row in rows if row["metrics"]}, []
    own = "mufin_fixed" if "mufin_fixed" in by_name else "mufin"  # the paper's score alone
    if {own, "mufin_rare_and_popular"} <= set(by_name):
        other, paper = (by_name[n]["metrics"] for n in ("mufin_rare_and_popular", own))
        gain = {m: other[m][0] - paper[m][0] for m in ("P@1", "tail R@10")}
        kept = "no loss" if gain["P@1"] >= 0 else "LOST"
        won = "won" if gain["tail R@10"] > 0 else "NOT WON"
        out.append(
            "Rare and popular labels scored differently, against MUFIN by the paper's score: "
            f"P@1 {gain['P@1']:+.2f} ({kept}), tail R@10 {gain['tail R@10']:+.2f} ({won})"
        )
    if "soft_triplet" in by_name:
        out.append(
            "MUFIN-no +ve and MUFIN-no +ve, -ve train by soft triplets: they are to be compared "
            "with the row by soft triplets."
        )
    return out


def _write_table(rows: list[dict], path: Path) -> None:
    header = [name for m in METRICS for name in (m, f"{m} spread", f"{m} standard error")]
    lines = []
    for row in rows:
        if row["metrics"]:
            figures = [(*row["metrics"][m], row["standard_errors"][m]) for m in METRICS]
            lines.append((row["row"], len(row["seeds"]), *(f for three in figures for f in three)))
    write_csv(("row", "seeds", *header), lines, path)


def _markdown(report: dict) -> list[str]:
    columns, group = (*METRICS, TIME), None
    several = len(report["seeds"]) > 1
    form = "mean ± standard deviation over seeds" if several else "figures"
    lines = [
        f"Test, {report['split']} split, {report['datapoints']['test']} datapoints, "
        f"{report['labels']} labels, seed{'s' * several} {', '.join(map(str, report['seeds']))}: "
        f"{form} (standard error over datapoints), in percent; milliseconds per datapoint "
        "(MUFIN's rows: retrieval and scores, with known descriptors)",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row in report["rows"]:
        if row["group"] != group:
            group = row["group"]
            lines.append(f"| *{group}* |" + " |" * len(columns))
        if row["metrics"]:
            cells = [_cell(row, m, report["bold"][m] == row["row"]) for m in columns]
            lines.append(f"| {row['title']} | " + " | ".join(cells) + " |")
        if row["failed"]:
            lines.append(f"| {row['title']}, failed: {row['failed']} |" + " |" * len(columns))
    return lines


def _cell(row: dict, metric: str, leads: bool) -> str:
    mean, spread = row["metrics"][metric]
    text = f"{mean:.2f}" + (f" ± {spread:.2f}" if len(row["seeds"]) > 1 else "")
    text = f"**{text}**" if leads else text
    error = row["standard_errors"].get(metric)
    return text if error is None else f"{text} ({error:.2f})"


if __name__ == "__main__":
    runtime.run(main)
