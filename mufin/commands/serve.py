"""`mufin serve` and `mufin demo`: a model behind HTTP, until a signal ends it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mufin.commands.console import check_folder, say
from mufin.errors import MufinError, sentence

if TYPE_CHECKING:
    from mufin.serving.store import ProductStore

EXTRA = "pip install -e '.[serve]'"
FREE = 0.5  # share of the store's file that may hold nothing before it is written anew


def serve(folder: Path, host: str, port: int, store: Path) -> None:
    """Serves the model in `folder`; changes of the catalog are kept in `store`.

    Raises MufinError if the server cannot start.
    """
    with _packages():
        from mufin.serving.web.auth import key_of_environment
        from mufin.serving.web.limits import Settings
        from mufin.serving.web.serve import serve as run
    from mufin.serving.service import Service, StoreKeeper
    from mufin.serving.store import ProductStore

    check_folder(folder, "the one that holds params.yaml, data/ and models/")
    settings = Settings(host=host, port=port, key=key_of_environment())
    with ProductStore(store) as kept:
        _compact(kept)
        run(lambda at: Service.load(at, kept), str(folder), settings, StoreKeeper(kept), say)


def _compact(store: ProductStore) -> None:
    """Gives free space of the store back to the disk, if there is much; if it cannot, says why."""
    if store.free_share() <= FREE:
        return
    try:
        store.compact()
    except MufinError as error:  # such as a full disk; the store serves as it is
        print(f"warning: {sentence(str(error))}", file=sys.stderr, flush=True)


def demo(folder: Path, port: int) -> None:
    """Serves the model in `folder` on loopback; changes of the catalog end with the process."""
    with _packages():
        from mufin.serving.web.limits import Settings
        from mufin.serving.web.serve import serve as run
    from mufin.serving.service import Service

    check_folder(folder, "the one that holds params.yaml, data/ and models/")

    def told(line: str) -> None:
        say(f"{line}\nOpen {line.split()[-1]}/ in a browser; Ctrl-C ends the server.")

    run(Service.load, str(folder), Settings(port=port), say=told)


@contextlib.contextmanager
def _packages() -> Iterator[None]:
    """A block with imports of the server; a missing package is a sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MufinError(f"the server needs the package {error.name}; {EXTRA}") from None
