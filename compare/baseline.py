"""Runs one baseline at one seed, in a process of its own: a crash costs its row, not the study.

python -m compare.baseline bonsai 0     compare/results/bonsai@0
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from compare.study import FOLDER, Study, baselines, read_study, tell_time
from mufin import runtime
from mufin.artifacts.files import write_json
from mufin.artifacts.publication import publish
from mufin.errors import MufinError


def main(name: str, seed: int, home: runtime.Home = Path(".")):
    """Train a baseline, publish its predictions on test, or the reason why there are none."""
    if name not in baselines():
        raise MufinError(f"{name} is not a baseline; there are {', '.join(baselines())}")
    study = read_study(home / "compare/study.yaml")
    with publish(home / FOLDER / f"{name}@{seed}") as folder:
        folder.mkdir(parents=True)
        child = multiprocessing.get_context("spawn").Process(
            target=_predict, args=(name, seed, home, folder)
        )
        child.start()
        child.join()
        if child.exitcode == _BROKEN:
            raise MufinError((folder / "failed.txt").read_text())
        if child.exitcode:
            reason = _reason(folder, child.exitcode)
            again = f"(cd compare && dvc repro -f -s {_stage(study, name, seed)})"
            said = f"{name}, seed {seed}, failed: {reason}; to run it again: {again}"
            print(said, file=sys.stderr, flush=True)
            for file in folder.iterdir():
                file.unlink()
            write_json({"row": name, "seed": seed, "failed": reason}, folder / "facts.json")
    tell_time(name, seed)


_BROKEN = 3  # the child's exit code where no baseline could run


def _stage(study: Study, name: str, seed: int) -> str:
    """The name of the stage in compare/dvc.yaml."""
    for stage, names in (("reference", study.reference), ("ceiling", study.ceilings)):
        if name in names:
            return f"{stage}@{name}"
    return f"baseline@{name}-{seed}"


def _reason(folder: Path, exitcode: int) -> str:
    """The error of the child, or the signal or exit code that it ended with."""
    said = folder / "failed.txt"
    if said.exists():
        return said.read_text()
    if exitcode < 0:
        return f"it crashed ({signal.Signals(-exitcode).name})"
    return f"it ended with exit code {exitcode}"


def _predict(name: str, seed: int, home: Path, folder: Path) -> None:
    """In the child: train, predict, write; an error is left in `failed.txt`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too, and ends this
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries in other languages log to it
    import torch

    from mufin import devices
    from mufin.artifacts.tables import write_ranking
    from mufin.baselines.shared.loading import task_of
    from mufin.baselines.shared.tuning import Tuned

    torch.manual_seed(seed)
    try:
        device, precision = devices.device(), devices.precision()
        task = task_of(home / "data/curated", home / "data/precomputed", device, precision)
    except Exception as error:
        (folder / "failed.txt").write_text(_said(error))
        raise SystemExit(_BROKEN) from None
    try:
        start = time.perf_counter()
        predict = importlib.import_module(f"mufin.baselines.{name}").baseline(task, seed)
        trained = time.perf_counter()
        labels, scores = predict("test")
        done = time.perf_counter()
        write_ranking(labels, scores, folder / "test.parquet")
        milliseconds = 1000 * (done - trained) / max(len(labels), 1)
        facts = {
            "row": name,
            "seed": seed,
            "seconds": {"train": round(trained - start, 2), "predict": round(done - trained, 2)},
            "milliseconds_per_datapoint": round(milliseconds, 3),
        }
        if isinstance(predict, Tuned):
            facts["settings"] = predict.choice
        write_json(facts, folder / "facts.json")
    except Exception as error:
        (folder / "failed.txt").write_text(_said(error))
        if runtime.refused(error):  # a full disk is not this row's fault
            raise SystemExit(_BROKEN) from None
        raise


def _said(error: Exception) -> str:
    """An error in one sentence."""
    if isinstance(error, MufinError):
        return str(error)
    return runtime.refused(error) or f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    runtime.run(main)
