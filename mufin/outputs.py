"""Files that a user tells a command to write: what may be written over, and backups."""

from __future__ import annotations

import filecmp
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from mufin.artifacts.publication import publish
from mufin.errors import MufinError


def checked_target(
    target: Path, made: Callable[[Path], bool], what: str, force: bool = False
) -> Path:
    """The file that `target` names, links followed, once it is clear that it may be written.

    Nothing is written yet. Raises MufinError if a folder, a pipe or a device is there, if no file
    can be made there, or if there is a file of which `made` says that the command did not write it
    (`what` says what it is not). `force` allows the last; an empty file holds nothing to lose.
    """
    try:
        status = os.stat(target)
    except FileNotFoundError:
        status = None
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        raise MufinError(f"{target} cannot be written: {reason}; name another file") from None
    if status and not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise MufinError(f"{target} is {kind} and stays as it is; name another file")
    path = Path(os.path.realpath(target)) if os.path.islink(target) else target
    _check_folder(path)
    if status and status.st_size and not force and not _made(path, made):
        raise MufinError(
            f"{target} is there and is not {what}; name another file, or --force replaces it"
        )
    return path


def checked_folder(
    target: Path, made: Callable[[Path], bool], what: str, force: bool = False
) -> Path:
    """The folder `target`, once it is clear that `publish` may write it; nothing is written yet.

    Raises MufinError if a file or a link is there, if nothing can be created beside it, or if there
    is a folder of which `made` says that the command did not write it (`what` says what it is not).
    `force` allows the last; an empty folder holds nothing to lose.
    """
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        status = None
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        raise MufinError(f"{target} cannot be written: {reason}; name another folder") from None
    if status and not stat.S_ISDIR(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "not a folder"
        raise MufinError(f"{target} is {kind} and stays as it is; name another folder")
    _check_folder(target.absolute())
    if status and not force and not _made(target, lambda path: _empty(path) or made(path)):
        raise MufinError(
            f"{target} is there and is not {what}; name another folder, or --force moves it aside"
        )
    return target


def _empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def move_aside(path: Path) -> Path:
    """Renames `path` to .bak, .bak2, ..., the first that is free, and returns that."""
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        if not os.path.lexists(backup):
            os.rename(path, backup)
            return backup
    raise AssertionError("there are endlessly many numbers")


def _made(path: Path, made: Callable[[Path], bool]) -> bool:
    try:
        return made(path)
    except OSError:  # it may not be read
        return False


def _check_folder(path: Path) -> None:
    """Raises MufinError if `publish` could not write there, which takes a folder beside `path`."""
    above = next(p for p in path.parents if os.path.lexists(p))
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.mufin-", dir=above):
            pass
    except OSError as error:
        raise MufinError(
            f"{path} cannot be written, because nothing can be created in {above}: "
            f"{error.strerror}; name another file"
        ) from None


def back_up(path: Path) -> Path:
    """A copy of `path` beside it: .bak, .bak2, ...; an earlier backup stays as it is."""
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        if not os.path.lexists(backup):
            with publish(backup) as scratch:
                shutil.copyfile(path, scratch)
            return backup
        if backup.is_file() and filecmp.cmp(path, backup, shallow=False):
            return backup
    raise AssertionError("there are endlessly many numbers")
