"""One rival at one seed, in a process of its own: a crash costs its row, not the comparison.

python -m pipeline.rival bonsai 0        into data/compare/bonsai@0
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from compare.rows import PLAIN
from mufin import runtime
from mufin.artifacts.files import publish, write_json
from mufin.artifacts.tables import write_ranking
from mufin.baselines.loading import task_of
from mufin.errors import MufinError

FUNCTIONS = {  # rival: (module of pipeline/baselines/, function), imported by name so that dvc reruns what changed alone
    "siamesexml": ("siamesexml", "siamesexml"),
    "eclare": ("eclare", "eclare"),
    "attentionxml": ("attentionxml", "attentionxml"),
    "bonsai": ("bonsai", "bonsai"),
    "mach": ("mach", "mach"),
    "xt": ("xt", "xt"),
    "ridge": ("frozen_ridge", "ridge"),
    "frozen_datapoints": ("frozen_neighbours", "frozen_datapoints"),
    "tfidf_datapoints": ("tfidf", "tfidf_datapoints"),
    "tfidf_labels": ("tfidf", "tfidf_labels"),
    "popular": ("popular", "most_popular"),
}
DESCRIPTORS = ("ridge", "frozen_datapoints")  # these read what the frozen encoders give


def main(
    name: str,
    seed: int,
    curated: Path = Path("data/curated"),
    precomputed: Path = Path("data/precomputed"),
    out: Path = Path("data/compare"),
):
    """Train a rival on train, publish its predictions on test; where it fails, the reason stands in its place."""
    if name not in FUNCTIONS:
        raise MufinError(f"{name} is not a rival; there are {', '.join(FUNCTIONS)}")
    task_of(
        curated, None, runtime.device(), runtime.precision()
    )  # what no rival can mend fails here, loudly
    scratch = out / f"{name}@{seed}"
    with publish(scratch) as folder:
        folder.mkdir(parents=True)
        child = multiprocessing.get_context("spawn").Process(
            target=_predict,
            args=(name, seed, curated, precomputed if name in DESCRIPTORS else None, folder),
        )
        child.start()
        child.join()
        if child.exitcode and (reason := _reason(folder, child.exitcode)):
            again = f"after mending it, `dvc repro -f -s compare/dvc.yaml:{_stage(name, seed)}`"
            print(f"{name}, seed {seed}, failed: {reason}; {again}", file=sys.stderr, flush=True)
            for file in folder.iterdir():
                file.unlink()
            write_json({"row": name, "seed": seed, "failed": reason}, folder / "facts.json")


def _stage(name: str, seed: int) -> str:
    return f"first_try@{name}" if name in PLAIN else f"rival@{name}-{seed}"


def _reason(folder: Path, exitcode: int) -> str:
    """What the child said, or how it was ended."""
    said = folder / "failed.txt"
    if said.exists():
        return said.read_text()
    return (
        f"it crashed ({signal.Signals(-exitcode).name})"
        if exitcode < 0
        else f"it ended with exit code {exitcode}"
    )


def _predict(name: str, seed: int, curated: Path, precomputed: Path | None, folder: Path) -> None:
    """In the child: train, predict, write; what goes wrong is left in `failed.txt`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries in other languages log to it
    try:
        import torch

        torch.set_num_threads(runtime.workers())
        torch.manual_seed(seed)
        task = task_of(curated, precomputed, runtime.device(), runtime.precision())
        module, function = FUNCTIONS[name]
        start = time.perf_counter()
        predict = getattr(importlib.import_module(f"pipeline.baselines.{module}"), function)(
            task, seed
        )
        trained = time.perf_counter()
        labels, scores = predict("test")
        done = time.perf_counter()
        write_ranking(labels, scores, folder / "test.parquet")
        write_json(
            {
                "row": name,
                "seed": seed,
                "seconds": {"train": round(trained - start, 2)},
                "milliseconds_a_datapoint": round(1000 * (done - trained) / max(len(labels), 1), 3),
            },
            folder / "facts.json",
        )
    except Exception as error:
        (folder / "failed.txt").write_text(
            str(error) if isinstance(error, MufinError) else f"{type(error).__name__}: {error}"
        )
        raise


if __name__ == "__main__":
    runtime.run(main)
