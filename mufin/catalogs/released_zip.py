"""The folder of a released data set: as it is, or unpacked from a zip, which may be at a URL."""

from __future__ import annotations

import html
import re
import shutil
import zipfile
from pathlib import Path
from urllib.parse import urlencode

from mufin.artifacts.publication import sync
from mufin.catalogs.locations import looked_for, path_of
from mufin.corpus.fetch import DISK_ERRORS, Fetcher, is_url
from mufin.errors import MufinError
from mufin.progress import progress

DRIVE_ID = "1bV5d_SOw6pNXWrQecihcSc2xkqUcXMFO"  # of MM-AmazonTitles-300K on Google Drive
DRIVE = "https://drive.usercontent.google.com/download"
UNPACKED = 2**40  # bytes that a zip may unpack to
PACKED = 100  # a zip of more than MUCH bytes may unpack to so many times its size
MUCH = 2**30


def open_source(location: str | list[str] | None, scratch: Path, fetcher: Fetcher) -> Path:
    """The unpacked folder of `download.location`; None is the released zip.

    A location is a folder, a zip, a URL or a Google Drive id. Raises MufinError if it is none of
    them or cannot be fetched or unpacked.
    """
    if isinstance(location, list):
        raise MufinError(
            f"download.location is a list of {len(location)} items; "
            "the released data set is one zip or one folder"
        )
    where = location or DRIVE_ID
    url = where
    if not is_url(where):
        path = path_of(where)
        if path.is_dir():
            return path
        if path.is_file():
            return _unpack(path, scratch / "unpacked")
        if not re.fullmatch(r"[\w-]{25,}", where):  # does not look like an id either
            raise MufinError(
                f"download.location is {where}, which does not exist; "
                f"give the zip, its folder, a URL or an id{looked_for(path)}"
            )
        url = f"{DRIVE}?{urlencode({'id': where, 'export': 'download', 'confirm': 't'})}"
    archive = fetcher.save(url, scratch / "source.zip", lambda page: _confirmed(page, where))
    return _unpack(archive, scratch / "unpacked")


def _confirmed(page: str, where: str) -> str:
    """The URL of the form on the page that Google Drive shows before a large file."""
    inputs = re.findall(r'name="(\w+)" value="([^"]*)"', page)
    fields = {name: html.unescape(value) for name, value in inputs}
    if "id" not in fields:
        raise MufinError(
            f"{where} gave a page instead of a zip; "
            "fetch the zip by hand and set download.location to it"
        )
    return f"{DRIVE}?{urlencode(fields)}"


def _unpack(path: Path, folder: Path) -> Path:
    """`folder`, with the zip's files in it; skipped if it has the files of the same zip already.

    Raises MufinError for a broken zip and for one that must not or cannot be unpacked.
    """
    status, mark = path.stat(), folder / ".whole"
    version = f"{status.st_size} {status.st_mtime_ns}"
    if mark.exists() and mark.read_text() == version:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_members(path, infos, folder)
            for info in progress(infos, "unpack", "files"):
                sync(Path(archive.extract(info, folder)))
    except MufinError:
        raise
    except (RuntimeError, NotImplementedError) as error:  # a password, an unknown compression
        raise MufinError(
            f"{path} cannot be unpacked ({error}); "
            "unpack it yourself and set download.location to the folder"
        ) from None
    except Exception as error:  # zipfile raises anything on broken headers
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        if isinstance(error, OSError) and error.errno:
            raise MufinError(
                f"{path} contains paths that cannot be created ({error.strerror}); "
                "it is not the data set: set download.location to another zip"
            ) from None
        raise MufinError(f"{path} is not a complete zip; delete it and fetch it again") from None
    mark.write_text(version)
    sync(folder)
    return folder


def _check_members(path: Path, infos: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raises MufinError for a zip that would fill the disk or write outside `folder`."""
    size = sum(info.file_size for info in infos)
    if size > UNPACKED or size > max(PACKED * path.stat().st_size, MUCH):
        raise MufinError(
            f"{path} would unpack to {size >> 20} MB; "
            "it is not the data set: set download.location to another zip"
        )
    for info in infos:
        target = (folder / info.filename).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise MufinError(
                f"{path} holds {info.filename!r}, a path that leaves its folder; "
                "it is not the data set: set download.location to another zip"
            )
