"""Settings and fixtures of every test."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.projects import made_once, project

__all__ = ["project"]  # a fixture of the whole run

# A shell that is not interactive starts background jobs with Ctrl-C ignored. The processes that
# tests start would inherit that, but not a handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

with contextlib.suppress(ImportError):  # a machine with a GPU may lack it
    from hypothesis import settings

    settings.register_profile("suite", deadline=None)  # other work on the machine fails no test
    settings.load_profile("suite")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a small run of all stages; tests read it and leave it as it is."""
    from tests.support.stages import FINISHED, inside, run_stages  # here: it imports torch

    def make(home: Path) -> None:
        with inside(home, **FINISHED):
            run_stages(home)

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Restores environment and folder after each test: nested patches may undo in another order."""
    environment, folder = dict(os.environ), os.getcwd()
    yield
    os.chdir(folder)
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
