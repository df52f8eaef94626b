"""What every test may count on."""

from __future__ import annotations

import os
from typing import Iterator

import pytest

from tests.support.projects import project

__all__ = ["project"]  # a fixture of the whole run


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Environment and folder after each test as before it: patches in patches do not always undo in their own order."""
    environment, folder = dict(os.environ), os.getcwd()
    yield
    os.chdir(folder)
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
