"""`mufin use`, `mufin check`, `mufin recommend`: what a person types between two runs of `dvc repro`."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Iterator

import torch
import typer

from mufin import runtime
from mufin.artifacts.files import publish
from mufin.errors import MufinError
from mufin.params import load_params
from mufin.serving.recommender import Recommender

PROFILES = Path(__file__).resolve().parents[1] / "params"
app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)


@app.command()
def use(profile: str, params: Path = Path("params.yaml")):
    """Put a profile of params/ in the place of params.yaml, and its variants in that of compare/variants.yaml."""
    names = sorted(p.stem for p in PROFILES.glob("*.yaml"))
    if not names:
        _fail(f"{PROFILES} has no profiles; use a checkout of the project (pip install -e .)")
    if profile not in names:
        near = difflib.get_close_matches(profile, names, 1, 0.4)
        _fail(
            f"{profile} is not a profile; "
            + (f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}")
        )
    targets = {params: PROFILES / f"{profile}.yaml"}
    if (compare := params.parent / "compare").is_dir():
        targets[compare / "variants.yaml"] = PROFILES / f"variants/{profile}.yaml"
    for target, source in targets.items():
        with publish(target) as scratch:
            scratch.write_bytes(source.read_bytes())
    _guarded(load_params, params)
    typer.echo(f"{params} is now {profile}; `dvc repro` runs what that changes")


@app.command()
def check(params: Path = Path("params.yaml")):
    """Say whether every setting is known and in range."""
    _guarded(load_params, params)
    typer.echo(f"{params} is valid")


@app.command()
def recommend(
    uid: Annotated[list[str] | None, typer.Argument(help="ids of products of the catalog")] = None,
    every: Annotated[bool, typer.Option("--all", help="every product of the catalog")] = False,
    title: Annotated[str, typer.Option(help="of a product that the catalog has not")] = "",
    image: Annotated[
        list[Path] | None, typer.Option(help="its pictures; may be given more than once")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="labels a product")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="a file for the answers; default: standard output")
    ] = None,
):
    """The best labels of products, one JSON line each: uid, title, and the ranked uids with scores."""
    _guarded(_recommend, uid or [], every, title, image or [], k, out)


def _recommend(
    uids: list[str], every: bool, title: str, images: list[Path], k: int, out: Path | None
) -> None:
    if not (uids or every or title or images):
        raise MufinError(
            "nothing is asked for; name products by uid, or give --all, --title or --image"
        )
    served = Recommender(load_params())
    lines = _answers(served, served.uids if every else uids, title, images, k)
    if out is None:
        for line in lines:
            typer.echo(line)
        return
    with publish(out) as scratch, open(scratch, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _answers(
    served: Recommender, uids: list[str], title: str, images: list[Path], k: int
) -> Iterator[str]:
    """A JSON line for each product asked for: those of the catalog, then the one given by title and pictures."""
    for uid, best in zip(uids, served.recommend(uids, k)):
        yield json.dumps(
            {"uid": uid, "title": served.titles[served.row_of[uid]], "recommended": best},
            ensure_ascii=False,
        )
    if title or images:
        if missing := [p for p in images if not p.is_file()]:
            raise MufinError(f"{missing[0]} is not there; give a picture file")
        best = served.recommend_new([title], [[p.read_bytes() for p in images]], k)[0]
        yield json.dumps({"uid": None, "title": title, "recommended": best}, ensure_ascii=False)


def _guarded(function, *args):
    try:
        return function(*args)
    except Exception as error:
        sentence = str(error) if isinstance(error, MufinError) else runtime.refused(error)
        if sentence is None:
            raise
        _fail(sentence)


def _fail(sentence: str) -> None:
    typer.echo(f"error: {sentence}", err=True)
    raise typer.Exit(1)


def main() -> None:
    torch.set_num_threads(runtime.workers())
    app()


if __name__ == "__main__":
    main()
