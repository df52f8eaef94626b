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
# The `reason` in a line without answers
NOTHING = "the product has no descriptor that encoder.modalities uses, or there is no other label"
LINE = 2**24  # bytes of the first line of a file of answers, at most
ALWAYS = 1000  # a number of answers that may be asked for, however few labels there are
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all else here
    help=__doc__,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mufin {version('mufin-pipeline')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say the version")
    ] = False,
) -> None:
    pass


def _profiles(begin: str) -> list[str]:
    """Names of profiles that begin with `begin`, for the shell's completion."""
    return sorted(p.stem for p in Path("params").glob("*.yaml") if p.stem.startswith(begin))


@app.command(short_help="Write the settings of a profile to params.yaml.")
def use(
    profile: Annotated[
        str,
        typer.Argument(help="name of a file in params/, without .yaml", autocompletion=_profiles),
    ],
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

    \b
    mufin use small-catalog
    """
    _guarded(_say_all, switching.use, profile, params, everything, force)


@app.command(short_help="Say what files hold, and write the settings that read them.")
def inspect(
    files: Annotated[
        list[str], typer.Argument(help="files, globs or a folder: products, orders, labels")
    ],
    write: Annotated[
        Path | None,
        typer.Option(help="a settings file: change its section download", readable=False),
    ] = None,
    form: Annotated[
        str | None, typer.Option(help="a value of download.source; without it, it is guessed")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="of text files, such as cp1252")] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="fetch the URLs of three pictures")
    ] = False,
) -> None:
    """Say what files of products and orders hold, what a run would drop, and how to read them.

    It guesses form, encoding and columns, and shows three products as they are read, the share of
    related ids that is found, possible splits, a profile, and an estimate of time and memory.

    \b
    mufin inspect products.csv orders.csv --write params.yaml
    """
    _guarded(_inspect, files, write, form, encoding, fetch)


@app.command("import", short_help="Write a catalog from the export of a shop or a data set.")
def import_(
    form: Annotated[str, typer.Argument(help="a value of download.source, such as shopify")],
    files: Annotated[list[str], typer.Argument(help="the files or the folder of the products")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the catalog, .parquet", readable=False)],
    interactions: Annotated[
        list[str] | None,
        typer.Option(help="a file of orders or ratings; may be given more than once"),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="of text files, such as cp1252")] = None,
    bad_rows: Annotated[float, typer.Option(help="share of rows that may be faulty")] = 0.0,
    force: Force = False,
) -> None:
    """Write a catalog from the export of a shop or a data set, and say what came in.

    Orders or ratings go to <name>.interactions.parquet beside it. The last lines are the settings
    that read the files.

    \b
    mufin import shopify products_export.csv --interactions orders_export.csv -o catalog.parquet
    """
    _guarded(_import, form, files, interactions or [], out, encoding, bad_rows, force)


@app.command(short_help="Check params.yaml, and look at the beginning of the catalog.")
def check(params: SettingsFile = Path("params.yaml")) -> None:
    """Check that params.yaml has all settings, with names that exist and values in range.

    Then look at the first products of its catalog: are the columns there, are related ids found?
    """
    _guarded(_check, params)


@app.command(short_help="Print recommendations, one line of JSON per product.")
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

    \b
    mufin recommend B000000000 --k 5
    mufin recommend --title "Mug, small" --image front.jpg
    mufin recommend --all --out related.jsonl
    """
    _guarded(_recommend, uid or [], every, title, image or [], k, out, force)


@app.command(short_help="Draw a test product and its answers (PNG).")
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


@app.command(short_help="Look for artifacts that are damaged or of other runs.")
def verify(home: Home = Path(".")) -> None:
    """Read all artifacts of the pipeline again: is each byte as written, and all of one run?"""
    _guarded(_verify, home)


@app.command(short_help="Accept an artifact that you changed on purpose.")
def seal(
    folder: Annotated[
        Path, typer.Argument(help="an artifact, such as models/finetune", readable=False)
    ],
) -> None:
    """Accept the files of an artifact as they are now, where you changed some on purpose."""
    _guarded(_seal, folder)


def _check(params: Path) -> None:
    settings = load_params(params)
    _say(f"{params} is valid")
    from mufin.inspection.check import check_catalog

    _say_all(check_catalog, settings)


def _inspect(
    files: list[str], write: Path | None, form: str | None, encoding: str | None, fetch: bool
) -> None:
    from mufin.inspection.inspecting import inspect

    for line in inspect(files, write, form, encoding=encoding, fetch=fetch):
        _say(line)


def _import(
    form: str,
    files: list[str],
    interactions: list[str],
    out: Path,
    encoding: str | None,
    bad_rows: float,
    force: bool,
) -> None:
    from mufin.catalogs.importing import import_catalog, interactions_file, is_import

    target = checked_target(out, is_import, "a catalog of this command", force)
    checked_target(interactions_file(target), is_import, "a file of this command", force)
    for line in import_catalog(
        form, files, interactions, target, encoding=encoding, bad_rows=bad_rows
    ):
        _say(line)


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
    line = dict(zip(ANSWER, (uid, title, best))) | ({} if best else {"reason": NOTHING})
    text = json.dumps(line, ensure_ascii=ascii)
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
    return isinstance(content, dict) and list(content) in (ANSWER, [*ANSWER, "reason"])


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
