"""Trains and scores folds of train, on which `evaluate.mix: cross_validated` chooses the mix.

One process:  python -m pipeline.folds
Several GPUs: MUFIN_PROCESSES=<n> python -m pipeline.folds

With another `evaluate.mix` it does nothing and publishes empty tables. Else some train datapoints
are left out, and Modules I to IV and the index run on the rest as in the stages of these names,
with one member; then the left-out datapoints are scored. Each train datapoint is left out once, so
all of them get scores by networks that have never seen their relations. In cold splits the
left-out products are no labels either, as those of test (`mufin.corpus.folds`).

The folds share `data/precomputed`. So the vocabulary, the scale of frozen descriptors and a
self-supervised start have seen the titles and pictures of the left-out products, as those of train;
never their relations. `finetune.select: valid` becomes `last` in a fold: its valid is empty, and to
select an epoch by the left-out datapoints would spoil their scores.

Finished folds stay in the scratch folder until all are done, so a killed run goes on with the next.
Each of several processes trains whole folds by itself, so the bytes are those of one process.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from mufin import code, environment, processes, runtime
from mufin.artifacts.contents import check_made_from, contents_of
from mufin.artifacts.curated import Curated, read_curated, write_curated
from mufin.artifacts.files import artifact_json
from mufin.artifacts.out_of_fold import OutOfFold, read_out_of_fold, write_out_of_fold
from mufin.artifacts.publication import publish, publish_links
from mufin.artifacts.tables import read_table
from mufin.corpus.folds import draw_folds, fold_of
from mufin.errors import MufinError
from mufin.params import Params, load_params

STAGES = {  # what runs in a fold, and what it leaves there
    "pretrain": ["models/pretrain"],
    "retrieve": ["data/embeddings", "data/shortlists"],
    "transfer": ["models/transfer"],
    "finetune": ["models/finetune"],
    "index": ["models/index"],
}


def main(home: runtime.Home = Path(".")) -> None:
    """Train and score the folds of train, if evaluate.mix is cross_validated."""
    params, made_from = load_params(home / "params.yaml"), {}
    chosen = params.evaluate.mix == "cross_validated"
    if chosen and (count := environment.processes()) > 1:
        return processes.launch(count, runtime.workers())  # each of them comes here again
    with runtime.measured("folds", home) as report:
        folds: list[OutOfFold] = []
        work = None
        if chosen:
            made_from["data/curated"] = contents_of(home / "data/curated").id
            work = _scratch(params, home)
            report.costs["seconds_per_fold"] = _run(params, home, work)
            if environment.rank() > 0:
                return  # the first process writes
            folds = _finished(work)
        report.items = sum(map(len, folds))
        write_out_of_fold(folds, home / "data/folds", made_from)
        if work is not None:
            runtime.discard(work)


def _scratch(params: Params, home: Path) -> Path:
    """The folder of the folds, which only a run of the same settings, inputs and code shares."""
    check_made_from(home / "data/precomputed", "data/curated", home / "data/curated")
    scripts = [code.ROOT / f"pipeline/{name}.py" for name in STAGES]
    marks = [runtime.fingerprint(script.stem, [], script) for script in scripts]
    inputs = [contents_of(home / name).id for name in ("data/curated", "data/precomputed")]
    p, e = _of_fold(params), params.evaluate
    settings = (
        (p.seed, p.encoder, p.attention, p.pretrain, p.retrieve, p.transfer, p.finetune, p.index),
        (p.curate.seed, e.folds, e.candidates, e.shortlist),
    )
    mark = runtime.fingerprint((settings, inputs, marks), [], Path(__file__))
    return runtime.scratch("folds", mark).resolve()


def _of_fold(params: Params) -> Params:
    """The settings in a fold: one member, and no choice of an epoch."""
    return replace(params, members=1, finetune=replace(params.finetune, select="last"))


def _run(params: Params, home: Path, work: Path) -> list[float]:
    """Trains and scores all folds that are not done; returns the seconds of each.

    Each process takes every n-th fold of n processes, and waits for the others at the end. Raises
    MufinError if the first process does not see the scores of another one.
    """
    data = read_curated(home / "data/curated")
    kind = artifact_json(home / "data/curated/split.json")["split"]
    number = draw_folds(data.train.product, params.evaluate.folds, params.curate.seed)
    # Per fold: seconds, and whether a process has its scores
    seconds, scored = found = np.zeros((2, int(number.max(initial=-1)) + 1))
    rank, world = environment.rank(), environment.world_size()
    with environment.apart():
        for fold in range(rank, len(seconds), world):
            if (work / f"scores-{fold}").is_dir():
                scored[fold] = 1
                continue
            start = time.monotonic()
            part, labels, datapoints = fold_of(data, number == fold, kind)
            if not len(part.train) or not len(datapoints):
                print(f"fold {fold + 1} is left out: no relation remains in it", file=sys.stderr)
                continue
            print(f"fold {fold + 1}: {len(part.train)} datapoints train, {len(datapoints)} do not")
            _train(params, home, part, kind, work / f"fold-{fold}")
            scores = _scored(params, work / f"fold-{fold}", labels, datapoints, len(data.labels))
            write_out_of_fold([scores], work / f"scores-{fold}")
            shutil.rmtree(work / f"fold-{fold}")
            seconds[fold], scored[fold] = time.monotonic() - start, 1
    if world > 1:
        seconds, scored = _of_all(found)
        if rank == 0:
            _check_seen(scored, work)
    return [round(taken, 2) for taken in seconds.tolist() if taken]


def _of_all(found: np.ndarray) -> np.ndarray:
    """The sums of what all processes have `found`, when all of them are done."""
    from mufin import devices, process_group  # here: see `_scored`

    device = devices.device()
    process_group.start(device)
    total = process_group.total(found, device)
    process_group.leave()
    return total


def _check_seen(scored: np.ndarray, work: Path) -> None:
    """Raises MufinError if scores that a process has are not in the folder of the first one."""
    for fold in np.flatnonzero(scored):
        if not (work / f"scores-{fold}").is_dir():
            raise MufinError(
                f"another machine has the scores of fold {fold + 1}, which are not in {work}; set "
                "MUFIN_SCRATCH to a folder that all machines share"
            )


def _finished(work: Path) -> list[OutOfFold]:
    """The scores of the folds, in their order."""
    folders = sorted(work.glob("scores-*"), key=lambda path: int(path.name.split("-")[1]))
    return [scores for folder in folders for scores in read_out_of_fold(folder)]


def _train(params: Params, home: Path, part: Curated, kind: str, fold: Path) -> None:
    """Runs the stages in the folder `fold`; those that a killed run finished are done."""
    fold.mkdir(exist_ok=True)
    # JSON is YAML
    (fold / "params.yaml").write_text(json.dumps(asdict(_of_fold(params)), indent=1))
    if not (fold / "data/curated").is_dir():
        products = (home / "data/curated/products.parquet").resolve()
        with publish(fold / "data/curated") as folder:
            write_curated(part, kind, products, folder)
    made_from = {"data/curated": contents_of(fold / "data/curated").id}
    publish_links(home / "data/precomputed", fold / "data/precomputed", made_from)
    for name, outs in STAGES.items():
        if not all((fold / out).is_dir() for out in outs):
            importlib.import_module(f"pipeline.{name}").main(fold)


def _scored(
    params: Params, fold: Path, labels: np.ndarray, datapoints: np.ndarray, num_labels: int
) -> OutOfFold:
    """The scores of the left-out datapoints by the networks in the folder `fold`."""
    # here: they take seconds to import, which other mixes need not wait for
    from mufin import devices
    from mufin.ranking.out_of_fold import scored_out_of_fold
    from mufin.ranking.trained import load_predictor

    predictor = load_predictor(
        fold, params.encoder.modalities, devices.device(), devices.precision()
    )
    products = read_table(fold / "data/curated/products.parquet", "products", ["title"])
    return scored_out_of_fold(
        predictor,
        read_curated(fold / "data/curated").splits["test"],
        np.array(products["title"].to_pylist(), dtype=object),
        labels,
        datapoints,
        num_labels,
        params.evaluate.shortlist,
        params.evaluate.candidates == "all",
    )


if __name__ == "__main__":
    runtime.run(main)
