"""Runs the study: the ten stages, then every row at every seed, the table and the report.

python -m compare.run                               the seeds of compare/variants.yaml
python -m compare.run --seeds 0 1 2                 these seeds: the table has means and spread
python -m compare.run --variants mine.yaml          another file of that form

It prints an estimate of the time first, and after each row the time that it took. A row runs again
only where its settings, its data or its code changed. After a kill, the same command runs the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from compare.study import BASE, FOLDER, Study, check, read_study
from compare.variant import planned, settings_of
from mufin.artifacts.files import read_json
from mufin.artifacts.publication import publish
from mufin.errors import MufinError

# The time of a baseline over that of Modules I and IV, on the sample with one thread
FACTORS = {
    "siamesexml": 0.3,
    "eclare": 1.1,
    "attentionxml": 1.8,
    "bonsai": 0.1,
    "mach": 0.9,
    "xt": 0.1,
    "ridge": 0.1,
    "frozen_datapoints": 0.0,
    "frozen_labels": 0.0,
    "tfidf_datapoints": 0.0,
    "tfidf_labels": 0.0,
    "popular": 0.0,
    "ceiling": 0.3,
    "ceiling_titles": 0.3,
    "ceiling_pictures": 0.3,
}
OTHER = 1.0  # the same for a baseline that is not among them
START = 10.0  # seconds until a process has imported what it needs and read its data
TRAINING = ("pretrain", "finetune")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the variants file")
    parser.add_argument("--variants", type=Path, default=Path("compare/variants.yaml"))
    args = parser.parse_args()
    try:
        study = read_study(args.variants)
        if args.seeds:
            study = replace(study, seeds=args.seeds)
            check(study, args.variants)
        run(study, Path("."))
    except MufinError as error:
        raise SystemExit(f"error: {error}") from None


def run(study: Study, home: Path) -> None:
    """Reproduce what is missing. The last dvc takes the place of this process."""
    if not (home / "dvc.yaml").exists():
        raise MufinError("dvc.yaml is missing; run this in the main folder of the project")
    write_study(study, home / "compare/study.yaml")
    if code := subprocess.run(_dvc("repro"), cwd=home, env=_environment()).returncode:
        raise SystemExit(code)
    print(announced(study, _pending(home), home), flush=True)
    os.chdir(home / "compare")
    os.execve(sys.executable, _dvc("repro"), _environment())


def write_study(study: Study, path: Path) -> None:
    """The file that compare/dvc.yaml and the rows read."""
    from ruamel.yaml import YAML

    with publish(path) as scratch, open(scratch, "w") as file:
        file.write("# Written by `make compare`: the variants file and the seeds of this run.\n")
        YAML(typ="safe", pure=True).dump(asdict(study), file)


def _dvc(*words: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *words]


def _environment() -> dict[str, str]:
    """This environment, with the folder of this interpreter first in PATH: dvc runs `python`."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}


def _pending(home: Path) -> list[str]:
    """The stages of rows in compare/dvc.yaml that are not up to date."""
    words, folder = _dvc("status", "--json"), home / "compare"
    done = subprocess.run(words, cwd=folder, env=_environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return [name for name in json.loads(done.stdout) if "@" in name]


def announced(study: Study, pending: list[str], home: Path) -> str:
    """What will run, and how long it may take."""
    parts = (study.variants, study.baselines, study.reference, study.ceilings)
    rows = sum(map(len, parts))
    seeds = f"seed{'s' * (len(study.seeds) > 1)} {', '.join(map(str, study.seeds))}"
    if not pending:
        return f"{rows} rows, {seeds}: all are up to date"
    total = sum(seconds(study, stage, home) for stage in pending)
    return (
        f"{rows} rows, {seeds}: {len(pending)} runs, about {duration(total)} "
        "(an estimate from earlier runs and from metrics/runtime)"
    )


def seconds(study: Study, stage: str, home: Path) -> float:
    """The seconds that a stage of compare/dvc.yaml took in an earlier run, or else may take."""
    kind, _, item = stage.partition("@")
    undrawn = kind in ("reference", "ceiling")
    name, _, seed = (item, "", "0") if undrawn else item.rpartition("-")
    if kind == BASE:
        name, seed = BASE, item
    for facts in sorted((home / FOLDER).glob(f"{name}@*/facts.json")):
        if spent := read_json(facts).get("seconds"):
            return START + sum(spent.values())
    if kind in (BASE, "variant"):
        stages = planned(home, name, int(seed), settings_of(study, name))
        return START + sum(_spent(stage.name, home) for stage in stages)
    return START + FACTORS.get(name, OTHER) * sum(_spent(stage, home) for stage in TRAINING)


def _spent(stage: str, home: Path) -> float:
    """The seconds of a stage in the last `dvc repro`; 0 where they are not known."""
    path = home / f"metrics/runtime/{stage}.json"
    return read_json(path)["seconds"] if path.exists() else 0.0


def duration(total: float) -> str:
    """In words: `40 seconds`, `12 minutes`, `3 h 20 min`."""
    if total < 90:
        return f"{total:.0f} seconds"
    minutes = round(total / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


if __name__ == "__main__":
    main()
