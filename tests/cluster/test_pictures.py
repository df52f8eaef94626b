"""The stage precompute on a cluster of two workers, one of which is killed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

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
