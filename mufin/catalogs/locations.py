"""The files that `download.location` names, and how the images that they name are referred to."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from mufin.corpus.catalog_folder import MARK
from mufin.corpus.fetch import is_url
from mufin.errors import MufinError


@dataclass(frozen=True, slots=True)
class File:
    """A file of the source."""

    path: Path
    url: str = ""  # where it was fetched from; '' for a local file


class Folders:
    """Turns the image names in the files of a catalog into references for `Fetcher`.

    An image path is relative to the folder, or to the URL, of the file that names it. If all files
    are in one folder, `root`, the reference is the path as written. Otherwise (`marked`) the
    reference is `<folder>/./<path as written>`, with the folder relative to `root`, the closest
    common parent. From the mark `/./`, `Fetcher` knows which folder the path must not leave.
    """

    def __init__(self, files: list[File]):
        self.of = {file: file.path.resolve().parent for file in files if not file.url}
        self.root = Path(os.path.commonpath(self.of.values())) if self.of else None
        self.marked = len(set(self.of.values())) > 1 or len(self.of) < len(files)

    def reference(self, image: str, file: File) -> str:
        """The reference of an image that `file` names as `image`."""
        if is_url(image):
            return image
        if file.url:
            try:
                return urljoin(file.url, image)
            except ValueError:  # not a URL: the fetch gives the reason
                return image
        if not self.marked or self.root is None:
            return image
        return f"{self.of[file].relative_to(self.root).as_posix()}{MARK}{image}"


def path_of(text: str) -> Path:
    """The path that `text` names, with `~` resolved, whether it exists or not.

    Raises MufinError if the text cannot be a path.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
        return path
    # Too long, no permission to look, or the home folder of an unknown user.
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise MufinError(
            f"download.location names {text[:200]}, which cannot be opened ({why}); "
            "give a file, a folder, a glob or a URL"
        ) from None


def files_of(location: str | list[str], fetched: Callable[[str], Path]) -> list[File]:
    """The files that `download.location` names, in order, each once.

    An item is a path, a folder, a glob or a URL; `fetched` downloads a URL and returns the path.
    Raises MufinError for an item that names no file.
    """
    found: dict[object, File] = {}
    for item in [location] if isinstance(location, str) else location:
        if is_url(item):
            files = [File(fetched(item), item)]
        else:
            files = [File(path) for path in _paths(item)]
        for file in files:
            found.setdefault(file.url or file.path.resolve(), file)
    return list(found.values())


def _paths(text: str) -> list[Path]:
    """The files of a path, a folder or a glob, sorted; raises MufinError if there are none."""
    path = path_of(text)
    if path.is_dir():
        if files := sorted(p for p in path.glob("meta_*.json*") if p.is_file()):
            return files
        raise MufinError(
            f"download.location names {text}, a folder without meta_*.json* files; "
            f"name the files themselves, such as {path / '*.jsonl'}"
        )
    if path.is_file():
        return [path]
    files = [p for p in map(Path, sorted(glob.glob(str(path)))) if p.is_file()]
    if not files:
        raise MufinError(
            f"download.location names {text}, which does not exist; "
            f"give a file, a folder, a glob or a URL{looked_for(path)}"
        )
    return files


def looked_for(path: Path) -> str:
    """The end of an error text about a missing path: the folder that a relative path starts from.

    DVC runs some experiments in another folder, without the files that neither git nor DVC tracks.
    """
    if path.is_absolute():
        return ""
    return (
        f"; it was looked for in {Path.cwd()}: `dvc exp run --queue` and `dvc exp run --temp` run "
        "in a folder of their own that holds only tracked files, so give an absolute path, or "
        "track the file with `git add` or `dvc add`"
    )


def name_of(url: str) -> str:
    """A safe local name for the file at a URL: at most 100 letters, digits, `.`, `-` and `_`.

    The extension is kept, because it decides how the file is read.
    """
    last = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^\w.-]", "_", last, flags=re.ASCII)[-100:].lstrip(".") or "file"
