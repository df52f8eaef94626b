"""Choose and check the settings of the pipeline, and ask the trained pipeline for answers."""

from __future__ import annotations

import difflib
import glob
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mufin import profiles
from mufin.artifacts.files import publish
from mufin.errors import MufinError
from mufin.params import Params, ParamsError, load_params

if TYPE_CHECKING:
    from mufin.serving.recommender import Recommender

SettingsFile = Annotated[Path, typer.Option(help="the settings file of the pipeline")]
app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)


@app.command()
def use(
    profile: Annotated[str, typer.Argument(help="name of a file in params/, without .yaml")],
    params: SettingsFile = Path("params.yaml"),
) -> None:
    """Write all settings of a profile to params.yaml and say which ones changed.

    In a checkout it also writes compare/variants.yaml, what `make compare` runs for that profile.
    """
    _guarded(_use, profile, params)


@app.command()
def check(params: SettingsFile = Path("params.yaml")) -> None:
    """Check that params.yaml has all settings, with names that exist and values in range."""
    _guarded(load_params, params)
    typer.echo(f"{params} is valid")


@app.command()
def recommend(
    uid: Annotated[list[str] | None, typer.Argument(help="ids of products of the catalog")] = None,
    every: Annotated[bool, typer.Option("--all", help="every product of the catalog")] = False,
    title: Annotated[str, typer.Option(help="title of a product that is not in the catalog")] = "",
    image: Annotated[
        list[Path] | None, typer.Option(help="a picture file of it; may be given more than once")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="recommended products per product")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="file for the answers, instead of standard output")
    ] = None,
) -> None:
    """Print recommendations for products: one line of JSON per product, after `dvc repro`.

    A line has uid, title and recommended: uids with titles and scores, the best first.
    """
    _guarded(_recommend, uid or [], every, title, image or [], k, out)


@app.command()
def showcase(
    uid: Annotated[
        str | None, typer.Option(help="id of a test product; without it one is chosen")
    ] = None,
    out: Annotated[Path, typer.Option(help="the picture file")] = Path("docs/answers.png"),
    home: Annotated[
        Path, typer.Option(help="the folder that holds data/, as `dvc repro` made it")
    ] = Path("."),
) -> None:
    """Draw a test product and its first five answers as a picture (PNG)."""
    _guarded(_showcase, uid, out, home)


def _use(profile: str, params: Path) -> None:
    names = profiles.profile_names()
    if not names:
        raise MufinError(
            f"{profiles.FOLDER} has no profiles; use a checkout of the project (pip install -e .)"
        )
    if profile not in names:
        near = difflib.get_close_matches(profile, names, 1, 0.4)
        known = f"there are {', '.join(names)}"
        raise MufinError(
            f"{profile} is not a profile; {f'did you mean {near[0]}?' if near else known}"
        )
    before, after = _settings(params), profiles.read_profile(profile)
    _write(params, profiles.text_of_profile(profile))
    typer.echo(f"{params} now has the settings of {profile}{_changes(before, after)}")
    _use_variants(profile, params.parent / "compare/variants.yaml")
    if missing := _missing_catalog(after, params.parent):
        typer.echo(f"There is no file {missing} yet: set download.location to your catalog first")
    typer.echo("`dvc repro` runs the stages that a changed setting affects")


def _use_variants(profile: str, target: Path) -> None:
    """Write the variants of a profile, where there is a comparison and the profile has some."""
    source = profiles.FOLDER / f"variants/{profile}.yaml"
    if not (target.parent.is_dir() and source.is_file()):
        return
    text = source.read_text(encoding="utf-8")
    changed = not target.is_file() or target.read_text(encoding="utf-8") != text
    _write(target, text)
    typer.echo(
        f"{target} {'is now' if changed else 'is, as before,'} params/variants/{source.name}"
    )


def _settings(params: Path) -> dict[str, object] | None:
    """What the file holds; None where it is not there or not valid."""
    try:
        return profiles.settings_of(load_params(params))
    except ParamsError:
        return None


def _changes(before: dict[str, object] | None, after: Params) -> str:
    """The settings that changed, one per line, as the end of a sentence about the file."""
    if before is None:
        return ""
    now = profiles.settings_of(after)
    changed = [name for name in now if now[name] != before[name]]
    if not changed:
        return ", as before"
    width = max(map(len, changed))
    lines = (
        f"  {name.ljust(width)}  {profiles.scalar(before[name])} -> {profiles.scalar(now[name])}"
        for name in changed
    )
    return "\n".join([f"; {len(changed)} of {len(now)} have changed:", *lines])


def _missing_catalog(settings: Params, folder: Path) -> str | None:
    """The path of a catalog that is not there yet; None where there is nothing to look for."""
    location = settings.download.location
    if not isinstance(location, str) or "://" in location:
        return None
    return None if glob.glob(str(folder / Path(location).expanduser())) else location


def _write(target: Path, text: str) -> None:
    with publish(target) as scratch:
        scratch.write_text(text, encoding="utf-8")


def _recommend(
    uids: list[str], every: bool, title: str, images: list[Path], k: int, out: Path | None
) -> None:
    if not (uids or every or title or images):
        raise MufinError("no product is given; give product ids, or --all, --title or --image")
    from mufin.serving.recommender import Recommender  # torch takes seconds to import

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
    """A line of JSON per product: those of the catalog, then the one given by title and images."""
    for uid, best in zip(uids, served.recommend(uids, k)):
        yield json.dumps(
            {"uid": uid, "title": served.titles[served.row_of[uid]], "recommended": best},
            ensure_ascii=False,
        )
    if title or images:
        if missing := [p for p in images if not p.is_file()]:
            raise MufinError(f"{missing[0]} does not exist; give the path of a picture file")
        best = served.recommend_new([title], [[p.read_bytes() for p in images]], k)[0]
        yield json.dumps({"uid": None, "title": title, "recommended": best}, ensure_ascii=False)


def _showcase(uid: str | None, out: Path, home: Path) -> None:
    from mufin.reporting.showcase import write_showcase

    typer.echo(write_showcase(home, out, uid))


def _guarded(function, *args):
    """The function's result; an error that a person can correct becomes one sentence and exit 1."""
    try:
        return function(*args)
    except Exception as error:
        from mufin import runtime

        sentence = str(error) if isinstance(error, MufinError) else runtime.refused(error)
        if sentence is None:
            raise
        typer.echo(f"error: {sentence}", err=True)
        raise typer.Exit(1) from None


def main() -> None:
    app()


if __name__ == "__main__":
    main()
