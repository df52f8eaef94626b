"""`mufin predict`: answers for a file of products, in parts that survive a kill."""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

from mufin.cluster.settings import cluster
from mufin.commands.console import say
from mufin.commands.loading import Asks, load, uids_of
from mufin.commands.predict_answers import Answering, Skipped, bad, groups
from mufin.commands.predict_lines import Reader, Survey
from mufin.commands.predict_on_cluster import make_on
from mufin.commands.predict_parts import Parts, is_predictions
from mufin.errors import MufinError
from mufin.outputs import checked_target
from mufin.params import Params, load_params
from mufin.progress import progress


def predict(
    source: Path, out: Path, *, home: Path, k: int, batch: int, skip: bool, force: bool
) -> None:
    target = checked_target(out, is_predictions, "a file of this command", force)
    settings = load_params(home / "params.yaml")
    reader = Reader(source, frozenset(uids_of(home)), settings.download.max_bytes)
    survey = reader.survey()
    if survey.bad and not skip:
        raise MufinError(f"{bad(source, survey.bad[0])}, or take --bad-lines skip")
    if not survey.count:
        raise MufinError(f"{source} has no lines; write one JSON object per product")
    recommender = load(home)
    run = _run(survey, recommender, settings, k, batch)
    with Parts(target, run, -(-survey.count // batch), skip) as parts:
        if parts.has_output():
            parts.remove()
            say(f"{out} has the answers to this file already, by this model")
            return
        if (machines := cluster()) is None:
            _make(parts, reader, Answering(recommender, source, k, skip), batch)
        else:
            make_on(machines, parts, reader, home, k, batch)
        rows, without = parts.join()
    note = f"; {without:,} bad lines have a row without answers" if without else ""
    say(f"{out} has {rows:,} rows{note}")


def _run(survey: Survey, recommender: Asks, settings: Params, k: int, batch: int) -> str:
    """What decides the answers, as 64 hex digits: input, pictures, model, settings, version."""
    said = (
        survey.digest,
        recommender.info()["id"],
        repr(settings),
        (k, batch),
        version("mufin-pipeline"),
    )
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _make(parts: Parts, reader: Reader, answering: Answering, batch: int) -> None:
    """Writes the parts that are missing."""
    done, skipped = parts.done(), Skipped()
    batches = reader.batches(batch, done)
    numbers = range(done, parts.count)
    if done:
        text = f"continues after {done:,} of {parts.count:,} parts, which are done"
        print(text, file=sys.stderr, flush=True)
    for number in progress(numbers, "predict", "batches", total=parts.count, start=done):
        parts.write(number, answering.table(groups(reader, next(batches))))
        skipped.tell(answering.refused)
        answering.refused = []
