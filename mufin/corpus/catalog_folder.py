"""Pictures in the folder of a catalog, which no path may leave."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mufin.corpus.reasons import TOO_LARGE, Refused

MARK = "/./"  # in `<folder>/./<path>`: separates the folder from the path in it


class CatalogFolder:
    """Reads the files that a catalog names by a path or a file: URL.

    The paths are relative to `root`; without `root`, paths are refused. If `marked`, a path begins
    with its own folder under `root`, up to `MARK`, and must stay in it.
    """

    def __init__(self, root: Path | None, marked: bool = False):
        self.root, self.marked = root.resolve() if root else None, marked

    def read(self, reference: str, max_bytes: int) -> bytes:
        """The bytes of the file; raises Refused."""
        root, path = self._place(reference)
        scheme = urlsplit(path).scheme.lower()
        if scheme not in ("", "file"):
            raise Refused(f"scheme {scheme[:20]} is not fetched")
        if root is None:
            raise Refused("path where a URL is needed")
        return _content(root, url2pathname(urlsplit(path).path) if scheme else path, max_bytes)

    def _place(self, reference: str) -> tuple[Path | None, str]:
        """The folder that a path must not leave, None if there is none, and the path in it."""
        folder, mark, path = reference.partition(MARK)
        if not self.marked or self.root is None:
            return self.root, reference
        return (self.root / folder, path) if mark else (None, reference)


def _content(root: Path, local: str, max_bytes: int) -> bytes:
    try:
        path = (root / local).resolve()  # follows symbolic links and .. before the check
    except RuntimeError:  # before Python 3.13: links in a circle
        raise Refused("no such file") from None
    if not path.is_relative_to(root):
        raise Refused("path outside the catalog's folder")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
            raise Refused("no such file")
        if status.st_size > max_bytes:
            raise Refused(TOO_LARGE)
        return path.read_bytes()
    except (OSError, ValueError):
        raise Refused("no such file") from None
