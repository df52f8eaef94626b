"""Stages and `mufin predict` on a cluster of two workers, one of which is killed."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mufin.cli import app
from mufin.cluster import embedding as cluster_embedding
from mufin.cluster import fetching
from mufin.cluster.engine import Engine, connected
from mufin.code import ROOT
from mufin.nn import embedding, picture_parts, text_parts
from tests.support.fake_products import picture
from tests.support.projects import changed
from tests.support.ray_cluster import TwoWorkers, tells, two_workers
from tests.support.s3_server import s3_serving
from tests.support.servers import Server, serving
from tests.support.stages import FINISHED, in_files, inside, made, run_stages, stage

ACTIVATIONS = {"encoder.image.trainable_blocks": 1, "encoder.text.trainable_layers": 1}
FILES = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[TwoWorkers]:
    """Some tests kill one of its workers, and start another."""
    with two_workers(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def killing(cluster: TwoWorkers, under_way: str) -> list[int]:
    """The number of the worker that is killed in the middle of what follows, once that is done."""
    killed: list[int] = []
    arguments = cluster, killed, under_way
    threading.Thread(target=kill_in_the_middle, args=arguments, daemon=True).start()
    return killed


def kill_in_the_middle(cluster: TwoWorkers, killed: list[int], under_way: str) -> None:
    """Kills the first worker that has a part under way after another part is done.

    Such a worker has files of this pattern in its temporary folder.
    """
    while not list(cluster.store.glob("runs/*/part-*.json")):
        time.sleep(0.01)
    while not killed:
        for number, folder in enumerate(cluster.temporary):
            if any(folder.glob(under_way)):
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


def test_a_worker_has_a_gpu_of_its_own(cluster, tmp_path, monkeypatch):
    """The machine has none; Ray and the engine go by what it says."""
    monkeypatch.delenv("MUFIN_DEVICE", raising=False)
    monkeypatch.setenv("MUFIN_PRECISION", "bf16")
    with cluster.with_gpus(cores=4, gpus=2), connected(cluster.address) as engine:
        assert engine == Engine(2, 2, True)  # the workers without a GPU wait
        settings = {"folder": str(tmp_path), "count": 2}
        told = list(engine.each(tells, settings, [{"number": n} for n in range(12)]))
    expected = {"MUFIN_DEVICE": "cuda", "MUFIN_WORKERS": "2", "MUFIN_PRECISION": "bf16"}
    assert all(expected.items() <= said.items() for said in told) and len(told) == 12
    pairs = {(said["process"], said["CUDA_VISIBLE_DEVICES"]) for said in told}
    assert sorted(gpu for _, gpu in pairs) == ["0", "1"]


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


def test_a_cluster_predicts_the_local_bytes_with_a_store_of_objects(
    cluster, finished, tmp_path, monkeypatch
):
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
    with s3_serving() as server:
        cluster.use(monkeypatch, server.uri("bucket/folder"))
        there = predicted(finished)
    assert Path("out.parquet").read_bytes() == local
    assert pq.read_table("out.parquet").to_pylist()[40]["labels"]
    said = [line for line in there.splitlines() if not line.startswith("predict: ")]
    assert said == here.splitlines() and "skipped: in/p.jsonl line 42: a picture" in there
    objects = [name.removeprefix("bucket/folder/") for name in server.objects]
    assert any(fnmatch(name, "models/*.json") for name in objects)
    assert not any(fnmatch(name, "runs/*/?*") for name in objects)


def embedded(finished: Path, home: Path) -> dict[str, bytes]:
    """What retrieve and index make of the networks of `finished`, in the folder `home`."""
    for name in ("data/curated", "data/precomputed", "models/pretrain", "models/finetune"):
        shutil.copytree(finished / name, home / name)
    with inside(home, **FINISHED):
        for name in ("retrieve", "index"):
            stage(name).main(home)
    made = {}
    for name in ("data/embeddings", "data/shortlists", "models/index"):
        made |= {f"{name}/{path}": value for path, value in contents(home / name).items()}
    return made


def test_a_cluster_that_loses_a_worker_embeds_the_local_bytes(
    cluster, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(embedding, "BATCH", 8)
    monkeypatch.setattr(cluster_embedding, "MOST", 2)
    local = embedded(finished, tmp_path / "local")
    cluster.use(monkeypatch)
    killed = killing(cluster, "part-*")
    assert embedded(finished, tmp_path / "remote") == local
    cluster.replace(*killed)  # exactly one
    assert not list(cluster.store.glob("runs/*/*"))


def test_a_cluster_that_loses_a_worker_gives_the_local_bytes(cluster, tmp_path, monkeypatch):
    source, home = tmp_path / "source", tmp_path / "home"
    source.mkdir()
    with inside(source):
        run_stages(source, "download", "curate")
    in_files(source, home, FILES)
    local = made(home, "local", **ACTIVATIONS)
    cluster.use(monkeypatch)
    files = len(list(cluster.store.glob("files/*")))
    monkeypatch.setattr(text_parts, "PART", 2**10)  # tokens, of some 2,000
    for module in (picture_parts, text_parts):
        monkeypatch.setattr(module, "frozen_inputs", None)  # nothing is encoded in this process
    killed = killing(cluster, "*/part-*.parquet")
    remote = made(home, "remote", **ACTIVATIONS)
    assert len(killed) == 1
    assert contents(local) == contents(remote)
    assert (remote / "text_inputs.npy").exists()
    assert len(list(remote.glob("image_inputs-*.npy"))) == FILES
    assert not list(cluster.store.glob("runs/*/*"))
    assert len(list(cluster.store.glob("files/*"))) == files + FILES
