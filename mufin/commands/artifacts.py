"""`mufin verify`, `mufin seal` and `mufin showcase`: what a run has left."""

from __future__ import annotations

from pathlib import Path

from mufin.commands.console import check_folder, say, say_all
from mufin.errors import ArtifactError, MufinError
from mufin.outputs import checked_target


def verify(home: Path) -> None:
    from mufin.artifacts import verification

    check_folder(home, "the one that holds data/ and models/")
    say_all(verification.verify, home)


def seal(folder: Path) -> None:
    from mufin.artifacts import contents
    from mufin.artifacts.verification import PLACES

    check_folder(folder, "an artifact, such as models/finetune")
    own = folder / contents.NAME
    if not own.is_file() and folder.resolve().parent.name not in PLACES:
        raise MufinError(
            f"{folder} is not an artifact of the pipeline; name one, such as models/finetune"
        )
    try:
        made_from = contents.contents_of(folder).made_from
    except ArtifactError:  # it says nothing that could be kept
        made_from = {}
    own.unlink(missing_ok=True)  # it may be a link to DVC's cache
    contents.seal(folder, made_from)
    say(f"{folder} is accepted as it is: {len(contents.contents_of(folder).files)} files")


def showcase(uid: str | None, out: Path, home: Path, force: bool) -> None:
    from mufin.reporting.showcase import is_showcase, write_showcase

    check_folder(home, "the one that holds data/")
    target = checked_target(out, is_showcase, "a picture of this command", force)
    say(write_showcase(home, target, uid))
