"""`mufin use`, `mufin recommend`: what a person types between two runs of `dvc repro`."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from pipeline import runtime
from pipeline.artifacts import publish, read_json, read_table
from pipeline.errors import MufinError
from pipeline.inputs import open_store
from pipeline.model_files import load_members
from pipeline.params import load_params
from pipeline.ranking import Mix, rank
from pipeline.recommender import classifier_scores, embed_members, joint_vectors, label_sides
from pipeline.served import load_index

PROFILES = Path(__file__).resolve().parents[1] / "params"
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def use(profile: str, params: Path = Path("params.yaml")):
    """Put a profile of params/ in the place of params.yaml."""
    names = sorted(p.stem for p in PROFILES.glob("*.yaml"))
    if profile not in names:
        near = difflib.get_close_matches(profile, names, 1, 0.4)
        _fail(f"{profile} is not a profile; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"))
    with publish(params) as scratch:
        scratch.write_bytes((PROFILES / f"{profile}.yaml").read_bytes())
    _guarded(load_params, params)
    typer.echo(f"{params} is now {profile}; `dvc repro` runs what that changes")


@app.command()
def check(params: Path = Path("params.yaml")):
    """Say whether every setting is known and in range."""
    _guarded(load_params, params)
    typer.echo(f"{params} is valid")


@app.command()
def recommend(
    uid: Annotated[list[str], typer.Argument(help="ids of products of the catalog")],
    k: Annotated[int, typer.Option(help="labels a product")] = 10,
    curated: Path = Path("data/curated"),
    precomputed: Path = Path("data/precomputed"),
    model: Path = Path("models/finetune"),
    index: Path = Path("models/index"),
    metrics: Path = Path("metrics/evaluate.json"),
):
    """The best labels of products of the catalog, one JSON line each: uid, title, and the ranked uids with scores."""
    _guarded(_recommend, uid, k, curated, precomputed, model, index, metrics)


def _recommend(uids: list[str], k: int, curated: Path, precomputed: Path, model: Path, index: Path, metrics: Path) -> None:
    params, device = load_params(), runtime.device()
    products = read_table(curated / "products.parquet", "products")
    names, titles = products["uid"].to_pylist(), products["title"].to_pylist()
    row_of = {name: row for row, name in enumerate(names)}
    if unknown := [u for u in uids if u not in row_of]:
        near = difflib.get_close_matches(unknown[0], names, 1)
        raise MufinError(f"{unknown[0]} is not a product of {curated}" + (f"; did you mean {near[0]}?" if near else ""))
    rows = np.array([row_of[u] for u in uids])
    served, members = load_index(index, device), load_members(model, precomputed)
    datapoints = embed_members(members, open_store(precomputed, params), rows, device, runtime.precision())
    wide = len(served.products) if params.evaluate.candidates == "all" else max(params.evaluate.shortlist, k)
    found, similarity = served.neighbours.search(joint_vectors(datapoints), min(wide, len(served.products)))
    found = np.where(served.products[np.maximum(found, 0)] == rows[:, None], -1, found)      # not the product itself
    scores = classifier_scores(label_sides(members, served.labels, device), datapoints, found, device)
    mix = _mix(params, metrics)
    term, ridge = (mix.frequency_weight * np.log1p(served.frequency)).astype(np.float32), None
    if served.ridge is not None and mix.ridge_weight:
        by_title = served.ridge.scores([titles[r] for r in rows])
        ridge = mix.ridge_weight * np.take_along_axis(by_title, np.maximum(found, 0), 1)
    labels, scores = rank(found, scores, similarity, mix.beta, None, term, width=k, ridge_term=ridge)
    for row, uid in enumerate(uids):
        best = [{"uid": names[served.products[label]], "title": titles[served.products[label]], "score": round(float(s), 4)}
                for label, s in zip(labels[row], scores[row]) if label >= 0]
        typer.echo(json.dumps({"uid": uid, "title": titles[rows[row]], "recommended": best}, ensure_ascii=False))


def _mix(params, metrics: Path) -> Mix:
    """The mix that `evaluate.mix` asks for."""
    if params.evaluate.mix == "fixed":
        return Mix(params.evaluate.beta)
    chosen = read_json(metrics)["chosen"]
    return Mix(chosen["beta"], chosen["frequency_weight"], chosen["ridge_weight"])


def _guarded(function, *args):
    try:
        return function(*args)
    except MufinError as error:
        _fail(str(error))


def _fail(sentence: str) -> None:
    typer.echo(f"error: {sentence}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    torch.set_num_threads(runtime.workers())
    app()
