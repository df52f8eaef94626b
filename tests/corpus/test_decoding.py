"""Pictures of the image store decoded by threads and by processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mufin.corpus import decoding
from mufin.corpus.decoding import decoded
from mufin.corpus.image_store import ImageWriter
from mufin.corpus.pixels import decode
from tests.support.servers import jpeg

SIZE = 16
BROKEN = {b"no picture": "not a picture", jpeg(side=200)[:900]: "corrupt or truncated"}


@pytest.fixture
def store(tmp_path) -> tuple[Path, dict[str, bytes]]:
    """150 pictures and two that are broken, with their keys."""
    writer = ImageWriter(tmp_path)
    contents = {writer.add(content): content for content in [*map(jpeg, range(150)), *BROKEN]}
    writer.close()
    return tmp_path, contents


@pytest.mark.parametrize("workers, many", [(1, 20_000), (3, 20_000), (2, 10)])
def test_threads_and_processes_decode_as_a_loop(store, monkeypatch, workers, many):
    monkeypatch.setattr(decoding, "MANY", many)
    folder, contents = store
    keys, drops = np.array([*contents, "f" * 32]), {}
    found = list(decoded(folder, keys, SIZE, workers, drops))
    expected = [(k, decode(c, SIZE)) for k, c in contents.items() if c not in BROKEN]
    assert [key for key, _ in found] == [key for key, _ in expected]
    assert all(np.array_equal(ours, slow) for (_, ours), (_, slow) in zip(found, expected))
    assert drops == dict.fromkeys(BROKEN.values(), 1) | {"not in the image store": 1}


def test_only_the_pictures_asked_for_are_decoded(store, monkeypatch):
    folder, contents = store
    asked = list(contents)[3:90:7]
    monkeypatch.setattr(decoding, "CHUNK", 4)
    drops: dict[str, int] = {}
    assert [key for key, _ in decoded(folder, np.array(asked), SIZE, 1, drops)] == asked
    assert drops == {}
