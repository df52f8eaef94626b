"""The study on several splits of the catalog: each row's mean, and MUFIN's lead over it.

python -m compare.splits 0 1 2 3 4                         these values of curate.seed
python -m compare.splits 0 1 --rows bonsai --rows ridge    MUFIN and these rows of variants.yaml
python -m compare.splits 0 1 --of mufin_without_ridge      the leads of this row instead of MUFIN's

One split of a small catalog says little: its test datapoints are few, and labels differ from split
to split. Each split has a home of its own, compare/splits/<curate.seed>/, where the stages and the
rows run as in the project, with the `seed` of params.yaml. A killed run goes on with the row that
is missing. Rows that are there are not run again: delete compare/splits/ after changes of the code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from compare.per_datapoint import values
from compare.rows import results, title
from compare.run import write_study
from compare.study import BASE, FOLDER, Study, read_study
from compare.table import mean_and_spread
from compare.variant import changed
from mufin import code, runtime
from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import write_json
from mufin.artifacts.tables import read_ranking, read_table
from mufin.errors import MufinError
from mufin.evaluation.evaluator import Evaluator
from mufin.params import load_params

PLACE = "compare/splits"
TABLE = "metrics/splits.json"
METRICS = ("P@1", "P@5", "R@10", "R@100")
# what all rows of a split read
SHARED = {"curate": "data/curated", "precompute": "data/precomputed"}
Values = dict[str, np.ndarray]  # metric: (n,) of each test datapoint, in percent


def main(
    splits: list[int],
    rows: Annotated[list[str] | None, typer.Option(help="default: all")] = None,
    home: runtime.Home = Path("."),
    of: Annotated[str, typer.Option(help="the row whose leads are told")] = "mufin",
) -> None:
    """Run what is missing, and print the table; metrics/splits.json has its figures."""
    if len(set(splits)) < len(splits) or min(splits) < 0:
        raise MufinError(f"the splits are {splits}; they must be different numbers, 0 or more")
    seed = load_params(home / "params.yaml").seed
    study = replace(chosen(read_study(home / "compare/variants.yaml"), rows), seeds=[seed])
    by_split = []
    for split in splits:
        place = prepared(home, split, study)
        run_missing(place, seed, study)
        by_split.append(of_split(place, study))
    report = compared(study, by_split, of) | {"splits": splits, "seed": seed}
    write_json(report, home / TABLE)
    print("\n".join(markdown(report)))


def chosen(study: Study, rows: list[str] | None) -> Study:
    """`study` with `rows` alone, and MUFIN, without which there is nothing to compare.

    Ceilings are left out. Raises MufinError on a name that is no row of the study.
    """
    names = [*study.variants, *study.baselines, *study.reference]
    if wrong := [name for name in rows or [] if name not in names]:
        raise MufinError(f"{wrong[0]} is no row of the study; there are {', '.join(names)}")
    keep = {"mufin", *(rows or names)}
    return Study(
        study.seeds,
        {name: value for name, value in study.variants.items() if name in keep},
        {name: value for name, value in study.baselines.items() if name in keep},
        {name: value for name, value in study.reference.items() if name in keep},
    )


def prepared(home: Path, split: int, study: Study) -> Path:
    """The home of a split, with its settings. Raises MufinError if it has those of another run."""
    if not (home / "data/raw").exists():
        raise MufinError("data/raw is missing; `dvc repro download` makes it")
    place = home / PLACE / str(split)
    text = changed(home / "params.yaml", {"curate.seed": split})
    settings = place / "params.yaml"
    if settings.exists() and settings.read_text() != text:
        raise MufinError(f"{place} has rows of other settings; delete it, or {home / PLACE}")
    (place / "data").mkdir(parents=True, exist_ok=True)
    (place / "compare").mkdir(exist_ok=True)
    if not (place / "data/raw").exists():
        (place / "data/raw").symlink_to((home / "data/raw").resolve())
    settings.write_text(text)
    shutil.copy(home / "dvc.yaml", place / "dvc.yaml")  # `compare.variant` reads the stages from it
    write_study(study, place / "compare/study.yaml")
    return place


def run_missing(place: Path, seed: int, study: Study) -> None:
    """The stages and the rows of a split that are not there, each in a process of its own."""
    for stage, out in SHARED.items():
        if not (place / out).is_dir():
            _run(place, f"pipeline.{stage}")
    for kind, names in (
        ("variant", [BASE, *study.variants]),
        ("baseline", [*study.baselines, *study.reference]),
    ):
        for name in names:
            if not (place / FOLDER / f"{name}@{seed}").is_dir():
                _run(place, f"compare.{kind}", name, str(seed))


def _run(place: Path, module: str, *words: str) -> None:
    print(f"split {place.name}: {' '.join([module, *words])}", file=sys.stderr, flush=True)
    path = os.pathsep.join(filter(None, [str(code.ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", module, *words, "--home", str(place)]
    if status := subprocess.run(command, env=os.environ | {"PYTHONPATH": path}).returncode:
        raise SystemExit(status)


def of_split(place: Path, study: Study) -> tuple[np.ndarray, dict[str, Values]]:
    """The ids of a split's test datapoints (n,), and the values of each row that ran."""
    params, data = load_params(place / "params.yaml").evaluate, read_curated(place / "data/curated")
    constants = (params.propensity.a, params.propensity.b)
    evaluator = Evaluator.of(data, constants, params.tail)
    rows: dict[str, Values] = {}
    for result in results(place / FOLDER, study):
        if "failed" not in result.facts:
            figures = values(read_ranking(result.predictions), evaluator)
            rows[result.row] = {m: figures[m] for m in METRICS}
    ids = read_table(place / "data/curated/products.parquet", "products", ["uid"])["uid"].to_numpy()
    return ids[data.splits["test"].product], rows


def compared(
    study: Study, by_split: list[tuple[np.ndarray, dict[str, Values]]], of: str = "mufin"
) -> dict:
    """The table: of each row that ran on every split, its means and the lead of row `of` over it.

    Means are over splits, with their standard deviation. A lead is a mean over the test datapoints
    of all splits, with its standard error and the number of splits in which it is positive. Raises
    MufinError if `of` is not among these rows.
    """
    products = np.concatenate([p for p, _ in by_split])
    names = [n for n in by_split[0][1] if all(n in rows for _, rows in by_split)]
    if of not in names:
        raise MufinError(f"--of {of} is no row of these runs; there are {', '.join(names)}")
    out = []
    for name in names:
        row: dict = {"row": name, "title": title(study, name)[1], "metrics": {}, "lead": {}}
        for m in METRICS:
            row["metrics"][m] = mean_and_spread([float(r[name][m].mean()) for _, r in by_split])
            if name == of:
                continue
            gains = [rows[of][m] - rows[name][m] for _, rows in by_split]
            lead, error = clustered(np.concatenate(gains), products)
            won = sum(bool(gain.mean() > 0) for gain in gains)
            row["lead"][m] = [round(lead, 4), round(error, 4), won]
        out.append(row)
    counts = {"datapoints": len(products), "products": len(np.unique(products))}
    return counts | {"leads_of": title(study, of)[1], "rows": out}


def clustered(gains: np.ndarray, products: np.ndarray) -> tuple[float, float]:
    """The mean of `gains` (n,), and its standard error with the gains of a product as one cluster.

    A product can be in the test of several splits, so its gains are not independent. The variance
    is C / (C - 1) times the sum over C products of (the sum of their deviations)^2, over n^2.
    """
    mean = float(gains.mean())
    _, number = np.unique(products, return_inverse=True)
    sums = np.bincount(number, gains - mean)
    count = len(sums)
    if count < 2:
        return mean, float("inf")
    return mean, float(np.sqrt(count / (count - 1) * (sums**2).sum())) / len(gains)


def markdown(report: dict) -> list[str]:
    """The table as Markdown."""
    several = len(report["splits"]) > 1
    lines = [
        f"Test of curate.seed {', '.join(map(str, report['splits']))}, seed {report['seed']}: "
        f"{report['datapoints']} datapoints, {report['products']} products. First, in percent, the "
        f"mean{' ± standard deviation over splits' if several else ''}; then the lead of "
        f"{report['leads_of']} over the row ± its standard error (a product is one cluster), and "
        "the splits that it wins.",
        "",
        "| | " + " | ".join(METRICS) + " | " + " | ".join(f"lead {m}" for m in METRICS) + " |",
        "|---|" + "---|" * (2 * len(METRICS)),
    ]
    for row in report["rows"]:
        means = [
            f"{mean:.2f}" + (f" ± {spread:.2f}" if several else "")
            for mean, spread in row["metrics"].values()
        ]
        leads = [f"{lead:+.2f} ± {error:.2f}, {won}" for lead, error, won in row["lead"].values()]
        cells = means + (leads or [""] * len(METRICS))
        lines.append(f"| {row['title']} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    runtime.run(main)
