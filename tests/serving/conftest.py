"""One browser for all tests of a process, and a cache folder that is none of the user's."""

from __future__ import annotations

import os

import pytest

from tests.support.browsers import chromium


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; playwright has one per process."""
    with chromium() as one:
        yield one


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory):
    """Exported encoders go to a folder of this run, which servers that tests start share."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
