"""Parts of pictures, made as on a machine of a cluster; `test_two_workers.py` has one."""

from __future__ import annotations

import pytest

from mufin.cluster.pictures import MakesParts
from mufin.cluster.store import Store
from mufin.corpus.image_store import ImageWriter
from mufin.errors import MufinError
from tests.support.fake_products import picture


def test_a_part_that_is_in_the_store_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    writer = ImageWriter(tmp_path / "images")
    key = writer.add(picture((200, 30, 30)))
    writer.close()
    (tmp_path / "store").mkdir()
    store = Store((tmp_path / "store").as_uri())
    item = {"part": "part-00000", "file": store.put(tmp_path / "images/part-00000.parquet")}
    work = MakesParts(store, store.within("runs/one"), None, 32, False)
    assert work(item | {"keys": [key]}) == {"part": "part-00000"}
    (tmp_path / "store/files" / item["file"]).unlink()
    assert work(item | {"keys": [key]}) == {"part": "part-00000"}
    with pytest.raises(MufinError, match="MUFIN_RAY_STORE .* fails"):
        MakesParts(store, store.within("runs/two"), None, 32, False)(item | {"keys": [key]})
