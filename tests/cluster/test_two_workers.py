"""Stages and `mufin predict` on a cluster of two workers, one of which is killed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mufin.cli import app
from mufin.cluster import fetching
from mufin.code import ROOT
from tests.support.fake_products import picture
from tests.support.projects import changed
from tests.support.ray_cluster import TwoWorkers, two_workers
from tests.support.servers import Server, serving
from tests.support.stages import in_files, inside, made, run_stages, stage

ACTIVATIONS = {"encoder.image.trainable_blocks": 1, "encoder.text.trainable_layers": 1}
FILES = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[TwoWorkers]:
    """The last test kills one of its workers."""
    with two_workers(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


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


def shop_of(folder: Path, urls: list[str]) -> None:
    """A catalog with a product per URL of a picture, and its settings."""
    folder.mkdir()
    products = [
        {"ASIN": f"p{n}", "title": f"thing {n}", "images": [url], "also_buy": [f"p{n - 1}"]}
        for n, url in enumerate(urls)
    ]
    (folder / "catalog.jsonl").write_text("".join(json.dumps(p) + "\n" for p in products))
    settings = {"source": "catalog", "location": "catalog.jsonl", "private_addresses": True}
    settings |= {"retries": 1, "per_host": 4, "max_failed": 0.5}
    dotted = {f"download.{name}": value for name, value in settings.items()}
    (folder / "params.yaml").write_text(changed(ROOT / "params.yaml", dotted))


def test_a_cluster_fetches_the_local_bytes(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "PART", 7)
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    asked, outputs = [], []
    with serving(Server()) as server:
        paths = [*(f"/busy/{n}" for n in range(30)), "/404", "/text", "/busy/3", "/busy/4"]
        for name in ("local", "remote"):
            server.asked.clear()
            shop_of(tmp_path / name, [server.url(path) for path in paths])
            monkeypatch.chdir(tmp_path / name)
            stage("download").main(Path("."))
            outputs.append(contents(tmp_path / name / "data/raw"))
            asked.append(dict(server.asked))
            cluster.use(monkeypatch)
        assert 1 < server.most <= 4  # by both workers together
    assert outputs[0] == outputs[1]
    assert asked[0] == asked[1] == dict.fromkeys(paths, 1)
    assert not list(cluster.store.glob("runs/*/*"))


def predicted(finished: Path) -> str:
    """What `mufin predict` says of in/p.jsonl; it writes out.parquet."""
    words = ["predict", "in/p.jsonl", "out.parquet", "--home", str(finished), "--batch", "7"]
    done = CliRunner().invoke(app, [*words, "--bad-lines", "skip"])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_cluster_predicts_the_bytes_of_one_machine(cluster, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/front.png").write_bytes(picture((200, 30, 30)))
    Path("in/broken.png").write_bytes(b"broken")
    uids = pq.read_table(finished / "data/curated/products.parquet")["uid"].to_pylist()[:40]
    new = {"id": "né", "title": "Mug, small", "images": ["front.png"], "category": ["Home"]}
    lines = [*({"uid": uid} for uid in uids), new, {"id": "x", "images": ["broken.png"]}]
    Path("in/p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    here = predicted(finished)
    local = Path("out.parquet").read_bytes()
    Path("out.parquet").unlink()
    cluster.use(monkeypatch)
    there = predicted(finished)
    assert Path("out.parquet").read_bytes() == local
    assert pq.read_table("out.parquet").to_pylist()[40]["labels"]
    said = [line for line in there.splitlines() if not line.startswith("predict: ")]
    assert said == here.splitlines() and "skipped: in/p.jsonl line 42: a picture" in there
    assert list(cluster.store.glob("models/*.json")) and not list(cluster.store.glob("runs/*/*"))


def test_a_cluster_that_loses_a_worker_gives_the_local_bytes(cluster, tmp_path, monkeypatch):
    source, home = tmp_path / "source", tmp_path / "home"
    source.mkdir()
    with inside(source):
        run_stages(source, "download", "curate")
    in_files(source, home, FILES)
    local = made(home, "local", **ACTIVATIONS)
    cluster.use(monkeypatch)
    before = len(list(cluster.store.glob("files/*")))  # of the tests above
    killed: list[int] = []
    threading.Thread(target=kill_in_the_middle, args=(cluster, killed), daemon=True).start()
    remote = made(home, "remote", **ACTIVATIONS)
    assert len(killed) == 1
    assert contents(local) == contents(remote)
    assert len(list(remote.glob("image_inputs-*.npy"))) == FILES
    assert not list(cluster.store.glob("runs/*/*"))
    assert len(list(cluster.store.glob("files/*"))) == before + FILES
