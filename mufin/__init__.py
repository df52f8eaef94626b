"""The library: everything that the stage scripts, the study and the command line share."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mufin.serving.recommender import Recommender as Recommender

_LATER = {
    "Recommender": "mufin.serving.recommender"
}  # imported when asked for: torch takes seconds


def __getattr__(name: str) -> object:
    # Not by an import statement: each stage runs this file, and would depend on all of serving
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'mufin' has no attribute {name!r}")
