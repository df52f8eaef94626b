"""How the tests of forms read files, and what they expect of every form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.forms import FORMS
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.errors import MufinError, sentence


def products(source: str, *files: Path, notes: Notes | None = None, **how) -> list[Product]:
    """The products of the files."""
    notes = notes or Notes()
    return list(FORMS[source].products(list(files), notes, **({"encoding": None} | how)))


def interactions(source: str, *files: Path, notes: Notes | None = None, **how) -> list[tuple]:
    """The interactions of the files."""
    notes, read = notes or Notes(), FORMS[source].interactions
    assert read is not None
    return list(read(list(files), notes, **({"encoding": None} | how)))


def refusal(function, *args, **how) -> str:
    """The sentence with which reading ends; it fits in an error text."""
    with pytest.raises(MufinError) as error:
        function(*args, **how)
    text = str(error.value)
    short = re.sub(r"\S*/pytest-of-\S*/", "", text)  # a test's folder has a long path
    assert sentence(short) == short, f"{len(short)} characters: {short}"
    return text


def tolerant(share: float) -> tuple[Notes, BadRows]:
    """Notes, and bad rows that are dropped up to a share."""
    notes = Notes()
    return notes, BadRows(notes, share)
