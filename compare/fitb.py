"""Table 3 of the paper: filling the blank of outfits, by MUFIN (alpha = 1) and its rivals.

python -m compare.fitb                          on generated outfits, seeds 0, 1 and 2
python -m compare.fitb --seeds 0                one seed
python -m compare.fitb --rows mufin             this row alone; several --rows for several

If params.yaml names outfits (download.outfits.split), its settings are used and only `seed`
differs; else those of the profile outfits, and each seed has generated outfits of its own. Each
seed has a home, compare/fitb/<seed>/. A killed run goes on with the row that is missing. Rows that
are there are not run again: delete compare/fitb/ after changes of code or settings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from compare.run import write_study
from compare.study import BASE, FOLDER, read_study
from compare.table import mean_and_spread
from compare.variant import changed
from mufin import code, profiles, runtime
from mufin.artifacts.files import read_json, write_json
from mufin.baselines.outfits.table import ROWS as RIVALS
from mufin.errors import MufinError
from mufin.params import load_params

PLACE = "compare/fitb"
TABLE = "metrics/outfits.json"
SHARED = {"download": "data/raw", "curate": "data/curated", "precompute": "data/precomputed"}
VARIANTS = profiles.FOLDER / "variants/outfits.yaml"  # the settings of the rows of MUFIN
MUFIN: dict[str, tuple[str, float | None]] = {  # row: title, the paper's accuracy (Table 3) or None
    "mufin": ("MUFIN (alpha = 1)", 64.17),
    "resnet18": ("MUFIN (ResNet-18, alpha = 1)", 61.63),
    "text_only": ("MUFIN, titles alone", None),
    "image_only": ("MUFIN, pictures alone", None),
}
FIGURES = ("accuracy", "AUC")
BEST = {
    "": "*best attainable*",
    " of titles": "*of titles alone*",
    " of pictures": "*of pictures alone*",
}


def main(
    seeds: Annotated[list[int] | None, typer.Option(help="default: 0 1 2")] = None,
    rows: Annotated[list[str] | None, typer.Option(help="default: all")] = None,
    home: runtime.Home = Path("."),
) -> None:
    """Run what is missing, and print the table; metrics/outfits.json has its figures."""
    seeds, names = seeds or [0, 1, 2], _chosen(rows)
    for seed in seeds:
        place = prepared(home, seed)
        run_missing(place, seed, names)
    report = gathered(home, seeds, names)
    write_json(report, home / TABLE)
    print("\n".join(markdown(report)))


def _chosen(rows: list[str] | None) -> list[str]:
    """The rows to run, in the order of the table; raises MufinError for a name that is none."""
    every = [*MUFIN, *RIVALS]
    if wrong := [name for name in rows or [] if name not in every]:
        raise MufinError(f"--rows {wrong[0]} is no row; there are {', '.join(every)}")
    return [name for name in every if name in (rows or every)]


def prepared(home: Path, seed: int) -> Path:
    """The home of a seed with its settings; raises MufinError if it has those of another run."""
    place = home / PLACE / str(seed)
    (place / "compare").mkdir(parents=True, exist_ok=True)
    settings, wanted = place / "params.yaml", place / "wanted.yaml"
    wanted.write_text(settings_of(home, seed, place))
    if settings.exists() and load_params(settings) != load_params(wanted):
        raise MufinError(f"{place} has rows of other settings; delete it, or {home / PLACE}")
    wanted.replace(settings)
    shutil.copy(home / "dvc.yaml", place / "dvc.yaml")  # `compare.variant` reads the stages from it
    write_study(replace(read_study(VARIANTS), seeds=[seed]), place / "compare/study.yaml")
    return place


def settings_of(home: Path, seed: int, place: Path) -> str:
    """params.yaml of a seed: the user's where it names outfits, else that of the profile."""
    mine = home / "params.yaml"
    if mine.exists() and load_params(mine).download.outfits.split:
        return changed(mine, {"seed": seed} | _generated(mine, seed))
    path = place / "profile.yaml"
    path.write_text(profiles.text_of_profile("outfits"))
    return changed(path, {"seed": seed} | _generated(path, seed))


def _generated(settings: Path, seed: int) -> dict[str, object]:
    """The seed of generated outfits."""
    generated = load_params(settings).download.source == "sample-outfits"
    return {"download.sample.seed": seed} if generated else {}


def run_missing(place: Path, seed: int, names: list[str]) -> None:
    """The stages and rows of a seed that are not there, each in a process of its own."""
    for stage, out in SHARED.items():
        if not (place / out).is_dir():
            _run(place, f"pipeline.{stage}")
    own = [name for name in names if name in MUFIN]
    for name in [BASE, *own] if own else []:
        if not (place / FOLDER / f"{name}@{seed}").is_dir():
            _run(place, "compare.variant", name, str(seed))
    for name in names:
        if name in RIVALS and not rival_file(place, name, seed).is_file():
            _run(place, "compare.outfit_rival", name, str(seed))


def rival_file(place: Path, name: str, seed: int) -> Path:
    """Where `compare.outfit_rival` leaves the figures of a rival."""
    return place / FOLDER / f"rivals/{name}@{seed}.json"


def _run(place: Path, module: str, *words: str) -> None:
    print(f"seed {place.name}: {' '.join([module, *words])}", file=sys.stderr, flush=True)
    path = os.pathsep.join(filter(None, [str(code.ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", module, *words, "--home", str(place)]
    if status := subprocess.run(command, env=os.environ | {"PYTHONPATH": path}).returncode:
        raise SystemExit(status)


def gathered(home: Path, seeds: list[int], names: list[str]) -> dict:
    """The table: of each row the figures of each seed on test, their means and spread.

    A row that failed at a seed has the reason in place of figures.
    """
    out = []
    for name in names:
        title, paper = MUFIN.get(name, (name, None))
        row: dict = {"row": name, "title": title, "paper": paper}
        if name in RIVALS:
            row |= {"paper": RIVALS[name].paper, "note": RIVALS[name].note}
        figures = [_figures(home / PLACE / str(seed), name, seed) for seed in seeds]
        row |= {"by_seed": figures}
        if not any("failed" in f for f in figures):
            row["metrics"] = {m: mean_and_spread([f[m] for f in figures]) for m in FIGURES}
        out.append(row)
    sources = [read_json(home / PLACE / str(seed) / "data/raw/source.json") for seed in seeds]
    best = [source.get("sample", {}).get("best_attainable", {}) for source in sources]
    return {"seeds": seeds, "best_attainable": best if all(best) else [], "rows": out}


def _figures(place: Path, name: str, seed: int) -> dict:
    if name in RIVALS:
        return read_json(rival_file(place, name, seed))
    folder = place / FOLDER / f"{name}@{seed}"
    facts = read_json(folder / "facts.json")
    if "failed" in facts:
        return {"failed": facts["failed"]}
    return read_json(folder / "fitb.json")["test"]


def markdown(report: dict) -> list[str]:
    """The table as Markdown, with the figures of the paper, which are of other data."""
    seeds = report["seeds"]
    over = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}"
    lines = [
        f"Test questions of seed {seeds[0]}, in percent." if len(seeds) == 1 else f"Test, {over}.",
        "The last column is the paper's Table 3: Polyvore-Disjoint, pretrained encoders.",
        "",
        "| | FITB accuracy | compatibility AUC | the paper's accuracy |",
        "|---|---|---|---|",
    ]
    for row in report["rows"]:
        cells = [_cell(row["metrics"][m], seeds) for m in FIGURES] if "metrics" in row else []
        cells = cells or [next(f["failed"] for f in row["by_seed"] if "failed" in f), ""]
        paper = "" if row["paper"] is None else f"{row['paper']:.2f}"
        lines.append(f"| {row['title']} | " + " | ".join([*cells, paper]) + " |")
    for end, title in BEST.items() if report["best_attainable"] else ():
        cells = [
            _cell(mean_and_spread([b[f"{name}{end}"] for b in report["best_attainable"]]), seeds)
            for name in ("FITB", "AUC")
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " | |")
    lines.append("| *chance* | 25.00 | 50.00 | 25.00 |")
    notes = [f"{row['title']}: {row['note']}" for row in report["rows"] if row.get("note")]
    return [*lines, *([""] if notes else []), *notes]


def _cell(figures: list[float], seeds: list[int]) -> str:
    mean, spread = figures
    return f"{mean:.2f}" + (f" ± {spread:.2f}" if len(seeds) > 1 else "")


if __name__ == "__main__":
    runtime.run(main)
