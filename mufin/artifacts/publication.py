"""Atomic publication of files and folders: whole or not at all, also when the power fails."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mufin.artifacts.contents import NAME, checked, contents_of, foreign, seal
from mufin.errors import ArtifactError

WRITING = "while writing "  # the note that `publish` adds to an error; libraries name no file
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)


@contextlib.contextmanager
def publish(
    target: Path,
    made_from: Mapping[str, str] | None = None,
    known: Mapping[str, tuple[int, str]] | None = None,
) -> Iterator[Path]:
    """Yields a temporary path beside `target` that replaces `target` on success only.

    The caller creates a file or a folder at that path. A folder gets a `contents.json`, in which
    `made_from` (name of an input -> its id) is written down; files with a `known` size and SHA-256
    are not hashed for it. All bytes are on the disk before the rename, and the rename is on the
    disk when this returns. Temporary folders that killed processes left beside `target` are
    removed.

    An error in the block is raised again, with a note that names `target`. Raises FileNotFoundError
    if nothing was created. Raises ArtifactError if `target` is a folder that the pipeline did not
    write, or a folder where a file was created, or the reverse: nothing of that kind is replaced.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    if target.is_dir():
        _check_ours(target)
    scratch, lock = _temporary(target)
    try:
        yield scratch / target.name
        _replace(scratch / target.name, target, made_from, known or {})
    except Exception as error:
        error.add_note(f"{WRITING}{target}")
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def publish_links(source: Path, target: Path, made_from: Mapping[str, str]) -> None:
    """Publishes at `target` the artifact in `source` by links to its files, made from others.

    Its files are those of `source`, whose hashes are taken over; `made_from` replaces entries of
    the same name. So an artifact that does not depend on what differs can serve several runs.
    """
    source = Path(source).resolve()
    contents = checked(source)
    with publish(target, contents.made_from | dict(made_from), contents.files) as folder:
        for name in contents.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(source / name)


def _replace(
    made: Path,
    target: Path,
    made_from: Mapping[str, str] | None,
    known: Mapping[str, tuple[int, str]],
) -> None:
    """Puts `made` in the place of `target`, whose last state is in the folder of `made` then."""
    folder = made.is_dir()
    made.lstat()  # raises if nothing was made
    _check_kind(folder, target)
    if folder:
        seal(made, made_from, known)
    _sync_all(made)
    if folder:
        _rename_folder(made, target)
    else:
        os.replace(made, target)
    sync(target.parent)


def _rename_folder(made: Path, target: Path) -> None:
    """Renames a folder; what was at `target` is in the temporary folder then."""
    while True:
        try:
            return _exchange(made, target) if target.is_dir() else os.rename(made, target)
        except OSError as error:  # another process has just published there, or is about to
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            made.lstat()


def _check_kind(folder: bool, target: Path) -> None:
    if not folder and target.is_dir():
        raise ArtifactError(
            f"{target} is a folder, and a file would take its place; name another file"
        )
    if folder and target.is_dir() and not target.is_symlink():
        _check_ours(target)  # again, as hours may have passed
    elif folder and (target.is_symlink() or target.exists() and not target.is_dir()):
        kind = "a link" if target.is_symlink() else "a file"
        raise ArtifactError(
            f"{target} is {kind}, and a folder would take its place; move it away first"
        )


def _check_ours(folder: Path) -> None:
    """Raises ArtifactError if the pipeline did not write the folder and all that is in it."""
    if not any(folder.iterdir()):
        return
    if not (folder / NAME).is_file():
        raise ArtifactError(
            f"{folder} holds files that the pipeline did not write; move it away or name another"
        )
    if others := foreign(contents_of(folder)):
        raise ArtifactError(
            f"{folder / others[0]} is not of the pipeline and would be lost; move it away first"
        )


# Temporary folders: each is locked by its process, and the kernel unlocks it however that ends.


def _temporary(target: Path) -> tuple[Path, int]:
    """A new folder beside `target`, and the open file that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # a sweep took it before it was locked
        if _lock(lock) is not False and folder.exists():
            return folder, lock
        os.close(lock)


def _sweep(target: Path) -> None:
    """Removes temporary folders that belong to no process any more.

    Where a system cannot exchange two folders, a kill between two renames leaves the old target in
    such a folder; it is put back.
    """
    for folder in target.parent.iterdir():
        if not folder.name.startswith(_prefix(target)):
            continue
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if _lock(lock):
                    if (old := folder / _old(target)).exists() and not os.path.lexists(target):
                        os.replace(old, target)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _prefix(target: Path) -> str:
    return f".{target.name}.mufin-"  # "mufin", so that no folder of a user's looks like it


def _old(target: Path) -> str:
    return f"{target.name}.old"


def _lock(folder: int) -> bool | None:
    """Whether this process now holds the lock; None where the file system has no locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _exchange(made: Path, target: Path) -> None:
    """Exchanges two folders, in one step where the system can: `target` is never missing."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        rename = None
    paths = _AT_FDCWD, os.fsencode(made), _AT_FDCWD, os.fsencode(target)
    if rename is not None and rename(*paths, _RENAME_EXCHANGE) == 0:
        return
    old = made.parent / _old(target)
    os.replace(target, old)
    try:
        os.replace(made, target)
    except BaseException:
        os.replace(old, target)
        raise


# To the disk


def _sync_all(path: Path) -> None:
    """Writes a file, or all files and folders below a folder, to the disk: the inner ones first."""
    for at, _, names in os.walk(path, topdown=False):
        for name in names:
            if not os.path.islink(Path(at, name)):
                sync(Path(at, name))
        sync(Path(at))
    if not path.is_dir():
        sync(path)


def sync(path: Path) -> None:
    """Writes a file, or the names in a folder, to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
