"""`mufin serve` and `mufin demo`: a model behind HTTP, until a signal ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mufin.commands.console import check_folder, say
from mufin.errors import MufinError

EXTRA = "pip install -e '.[serve]'"


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
        run(lambda at: Service.load(at, kept), str(folder), settings, StoreKeeper(kept), say)


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
