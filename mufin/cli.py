"""Choose and check the settings of the pipeline, and ask the trained pipeline for answers."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mufin import switching
from mufin.artifacts.publication import publish
from mufin.errors import ArtifactError, MufinError, escaped, sentence, shown
from mufin.outputs import checked_target
from mufin.params import load_params
from mufin.settings_file import regular_bytes

if TYPE_CHECKING:
    from mufin.serving.recommender import Recommender

# readable=False: typer does not look at the files; the commands do, and say it in a sentence
SettingsFile = Annotated[
    Path, typer.Option(help="the settings file of the pipeline", readable=False)
]
Home = Annotated[
    Path, typer.Option(help="the folder that holds data/, as `dvc repro` made it", readable=False)
]
Force = Annotated[
    bool, typer.Option("--force", help="write over a file that this command did not make")
]
ANSWER = ["uid", "title", "recommended"]  # the names in a line of answers
LINE = 2**24  # bytes of the first line of a file of answers, at most
ALWAYS = 1000  # a number of answers that may be asked for, however few labels there are
app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)


@app.command()
def use(
    profile: Annotated[str, typer.Argument(help="name of a file in params/, without .yaml")],
    params: SettingsFile = Path("params.yaml"),
    everything: Annotated[
        bool, typer.Option("--all", help="also the profile's own download section and encoders")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="replace a file that does not look like settings")
    ] = False,
) -> None:
    """Write all settings of a profile to params.yaml and say which ones changed.

    What you set in the section download stays, and so do encoders that you named. Settings that
    would be lost are copied to params.yaml.bak, .bak2 and so on. In a checkout it also writes
    compare/variants.yaml, what `make compare` runs for that profile.
    """
    _guarded(_say_all, switching.use, profile, params, everything, force)


@app.command()
def check(params: SettingsFile = Path("params.yaml")) -> None:
    """Check that params.yaml has all settings, with names that exist and values in range."""
    _guarded(_check, params)


@app.command()
def recommend(
    uid: Annotated[list[str] | None, typer.Argument(help="ids of products of the catalog")] = None,
    every: Annotated[bool, typer.Option("--all", help="every product of the catalog")] = False,
    title: Annotated[str, typer.Option(help="title of a product that is not in the catalog")] = "",
    image: Annotated[
        list[Path] | None,
        typer.Option(help="a picture file; may be given more than once", readable=False),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="recommended products per product")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="file for the answers; else standard output", readable=False)
    ] = None,
    force: Force = False,
) -> None:
    """Print recommendations for products: one line of JSON per product, after `dvc repro`.

    A line has uid, title and recommended: uids with titles and scores, the best first.
    """
    _guarded(_recommend, uid or [], every, title, image or [], k, out, force)


@app.command()
def showcase(
    uid: Annotated[
        str | None, typer.Option(help="id of a test product; without it one is chosen")
    ] = None,
    out: Annotated[Path, typer.Option(help="the picture file", readable=False)] = Path(
        "docs/answers.png"
    ),
    home: Home = Path("."),
    force: Force = False,
) -> None:
    """Draw a test product and its first five answers as a picture (PNG)."""
    _guarded(_showcase, uid, out, home, force)


@app.command()
def verify(home: Home = Path(".")) -> None:
    """Read all artifacts of the pipeline again: is each byte as written, and all of one run?"""
    _guarded(_verify, home)


@app.command()
def seal(
    folder: Annotated[
        Path, typer.Argument(help="an artifact, such as models/finetune", readable=False)
    ],
) -> None:
    """Accept the files of an artifact as they are now, where you changed some on purpose."""
    _guarded(_seal, folder)


def _check(params: Path) -> None:
    load_params(params)
    _say(f"{params} is valid")


def _recommend(
    uids: list[str],
    every: bool,
    title: str,
    images: list[Path],
    k: int,
    out: Path | None,
    force: bool,
) -> None:
    if not (uids or every or title or images):
        raise MufinError("no product is given; give product ids, or --all, --title or --image")
    if not _encodes(title):
        raise MufinError(f"--title is {shown(title)}, which is not UTF-8; write it in UTF-8")
    target = out and checked_target(out, _is_answers, "a file of answers", force)
    params = load_params()
    pictures = [_picture(path, params.download.max_bytes) for path in images]
    from mufin.serving.recommender import Recommender  # torch takes seconds to import

    served = Recommender(params)
    most = max(len(served.predictor.index), ALWAYS)
    if k > most:
        raise MufinError(
            f"--k is {shown(k)}; it must be at most {most:,}, there are no more labels"
        )
    ascii = target is None and not _prints_utf8()
    lines = _answers(served, served.uids if every else uids, title, pictures, k, ascii)
    if target is None:
        for line in lines:
            typer.echo(line)
        return
    with publish(target) as scratch, open(scratch, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _answers(
    served: Recommender, uids: list[str], title: str, pictures: list[bytes], k: int, ascii: bool
) -> Iterator[str]:
    """A line of JSON per product: those of the catalog, then the one given by title and images."""
    for uid, best in zip(uids, served.recommend(uids, k)):
        yield _line(uid, served.titles[served.row_of[uid]], best, ascii)
    if title or pictures:
        yield _line(None, title, served.recommend_new([title], [pictures], k)[0], ascii)


def _line(uid: str | None, title: str, best: list[dict], ascii: bool) -> str:
    """JSON on one line; a terminal that prints it obeys no control character of a title."""
    text = json.dumps(dict(zip(ANSWER, (uid, title, best))), ensure_ascii=ascii)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _prints_utf8() -> bool:
    return (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"


def _is_answers(path: Path) -> bool:
    """Whether the file was written by `mufin recommend --out`."""
    with open(path, "rb") as file:
        first = file.readline(LINE)
    try:
        content = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and list(content) == ANSWER


def _picture(path: Path, most: int) -> bytes:
    """The bytes of a picture file; raises MufinError where it is none, or larger than `most`."""
    try:
        return regular_bytes(path, most)
    except FileNotFoundError:
        raise MufinError(f"{path} does not exist; give the path of a picture file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        raise MufinError(f"{path} cannot be read: {reason}; give another picture file") from None


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _showcase(uid: str | None, out: Path, home: Path, force: bool) -> None:
    from mufin.reporting.showcase import is_showcase, write_showcase

    _check_folder(home, "the one that holds data/")
    target = checked_target(out, is_showcase, "a picture of this command", force)
    _say(write_showcase(home, target, uid))


def _verify(home: Path) -> None:
    from mufin.artifacts.verification import verify

    _check_folder(home, "the one that holds data/ and models/")
    _say_all(verify, home)


def _check_folder(folder: Path, which: str) -> None:
    if not os.path.isdir(folder):
        raise MufinError(f"{folder} is not a folder; name {which}")


def _seal(folder: Path) -> None:
    from mufin.artifacts.contents import NAME, contents_of, seal
    from mufin.artifacts.verification import PLACES

    _check_folder(folder, "an artifact, such as models/finetune")
    if not (folder / NAME).is_file() and folder.resolve().parent.name not in PLACES:
        raise MufinError(
            f"{folder} is not an artifact of the pipeline; name one, such as models/finetune"
        )
    try:
        made_from = contents_of(folder).made_from
    except ArtifactError:  # it says nothing that could be kept
        made_from = {}
    (folder / NAME).unlink(missing_ok=True)  # it may be a link to DVC's cache
    seal(folder, made_from)
    _say(f"{folder} is accepted as it is: {len(contents_of(folder).files)} files")


def _say_all(lines: Callable[..., Iterator[str]], *args: object) -> None:
    for line in lines(*args):
        _say(line)


def _say(text: str) -> None:
    """Prints lines whose names and values may have control characters."""
    for line in text.split("\n"):
        typer.echo(escaped(line))


def _guarded(function: Callable, *args: object) -> object:
    """The function's result; an error that a person can correct becomes one sentence and exit 1."""
    try:
        return function(*args)
    except Exception as error:
        from mufin import runtime

        text = str(error) if isinstance(error, MufinError) else runtime.refused(error)
        if text is None:
            raise
        typer.echo(f"error: {sentence(text)}", err=True)
        raise typer.Exit(1) from None


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot write all characters
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
