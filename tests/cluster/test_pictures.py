"""The stage precompute on a cluster of two workers, one of which is killed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mufin.cluster.pictures import MakesParts
from mufin.cluster.store import Store
from mufin.corpus.image_store import ImageWriter
from mufin.errors import MufinError
from tests.support.fake_products import picture
from tests.support.ray_cluster import TwoWorkers, two_workers
from tests.support.stages import in_files, inside, made, run_stages

ACTIVATIONS = {"encoder.image.trainable_blocks": 1, "encoder.text.trainable_layers": 1}
FILES = 8


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def kill_in_the_middle(cluster: TwoWorkers, killed: list[int]) -> None:
    """Kills the first worker that has a part under way after another part is done."""
    while not list(cluster.store.glob("runs/*/part-*.json")):
        time.sleep(0.01)
    while not killed:
        for number, folder in enumerate(cluster.temporary):
            if any(folder.glob("*/part-*.parquet")):
                cluster.kill(number)
                killed.append(number)
                return
        time.sleep(0.001)


def test_a_cluster_that_loses_a_worker_gives_the_local_bytes(tmp_path, monkeypatch):
    with two_workers(tmp_path) as cluster:
        source, home = tmp_path / "source", tmp_path / "home"
        source.mkdir()
        with inside(source):
            run_stages(source, "download", "curate")
        in_files(source, home, FILES)
        local = made(home, "local", **ACTIVATIONS)
        cluster.use(monkeypatch)
        killed: list[int] = []
        threading.Thread(target=kill_in_the_middle, args=(cluster, killed), daemon=True).start()
        remote = made(home, "remote", **ACTIVATIONS)
        assert len(killed) == 1
    assert contents(local) == contents(remote)
    assert len(list(remote.glob("image_inputs-*.npy"))) == FILES
    assert not list(cluster.store.glob("runs/*/*"))
    assert len(list(cluster.store.glob("files/*"))) == FILES


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
