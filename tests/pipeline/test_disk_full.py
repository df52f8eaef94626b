"""Stages on a disk that fills up, and beside a second process in the same scratch folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mufin import runtime
from mufin.retrieval.hnsw import _check_whole
from mufin.training import loop
from pipeline import precompute, pretrain
from tests.support.projects import ROOT, ended, environment
from tests.support.stages import inside, run_stages

NO_SPACE = "No space left on device"


def test_a_graph_cut_short_is_an_error(tmp_path):
    (tmp_path / "graph").write_bytes(b"0" * 100)
    _check_whole(tmp_path / "graph", 100)
    with pytest.raises(OSError, match="101 requested and 100 written") as error:
        _check_whole(tmp_path / "graph", 101)
    assert "as where no space" in runtime.refused(error.value)


# Every writer, in a process whose files may not grow past a megabyte, and on a full disk

CHILD = """
import contextlib, io, json, os, resource, sys
from pathlib import Path
import numpy as np, torch
from mufin import runtime
from mufin.artifacts.arrays import ShardWriter
from mufin.artifacts.contents import seal
from mufin.artifacts.embeddings import PretrainEmbeddings, write_embeddings
from mufin.artifacts.files import write_csv, write_json
from mufin.artifacts.publication import publish
from mufin.artifacts.models import write_members
from mufin.artifacts.tables import write_table
from mufin.nn.text_parts import FrozenPart, TokenisedTexts, make_text_inputs
from mufin.nn.weights import weights_of
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.hnsw import HnswNeighbours
from mufin.training.checkpoints import save_checkpoint
from mufin.training.optimisers import Optimisers, Rates
from tests.support.bags import tiny_mufin

os.environ["MUFIN_DEVICE"] = "cpu"
sys.argv = ["stage"]
numbers = np.random.default_rng(0).random(500_000)
vectors = numbers.reshape(-1, 10).astype(np.float32)
offsets = np.arange(len(vectors) + 1)
embeddings = PretrainEmbeddings(vectors, offsets, vectors, vectors, vectors, vectors, vectors)
words = list(map(str, numbers))
model = tiny_mufin(600)
optimisers = Optimisers(model, Rates(1, 1, 1, 1, 1, 1), 0.0, with_cross_attention=False)
rows = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
graph = HnswNeighbours(LabelRows(rows, np.arange(4000), 4000), m=16, ef_construction=20, ef=20)


class Frozen:
    kind = "activations"

    def frozen(self, tokens, lengths):
        return torch.ones(*tokens.shape, 64)


def text(folder):
    tokens, lengths = np.ones((2000, 16), np.int32), np.arange(2000) % 17
    frozen = FrozenPart(Frozen(), 16, torch.device("cpu"), torch.float32)
    make_text_inputs(TokenisedTexts(tokens, lengths), folder, frozen)


def pictures(folder):
    shards = ShardWriter(folder, "pixels")
    for start in range(0, 4000, 100):
        shards.add(np.zeros((100, 32, 32, 1), np.uint8))
    shards.close()


def in_folder(write):
    def main(target):
        with publish(target) as folder:
            folder.mkdir()
            write(folder)
    return main


WRITERS = {
    "model": lambda target: write_members([({}, weights_of(model))], target),
    "embeddings": lambda target: write_embeddings(embeddings, target / "a.safetensors"),
    "array": in_folder(lambda folder: np.save(folder / "a.npy", numbers)),
    "text": in_folder(text),
    "pictures": in_folder(pictures),
    "graph": in_folder(lambda folder: graph.save(folder / "neighbours")),
    "table": lambda target: write_table(
        {"url": words, "key": words[::-1], "reason": words}, "image_log", target / "t.parquet"
    ),
    "csv": lambda target: write_csv(["number"], zip(words), target / "a.csv"),
    "json": lambda target: write_json({"a": numbers.tolist()}, target / "a.json"),
    "checkpoint": lambda target: save_checkpoint(
        target / "checkpoint.safetensors", optimisers, {}, {}
    ),
}
for place, limit in json.loads(os.environ["PLACES"]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))          # Python ignores SIGXFSZ
    os.chdir(place)
    for name, write in WRITERS.items():
        target = Path("data") / name
        target.mkdir(parents=True)
        (target / "old").write_text("old")
        seal(target)
        said, code = io.StringIO(), 0
        with contextlib.redirect_stderr(said):
            try:
                runtime.run(lambda: write(target))
            except SystemExit as end:
                code = end.code
        left = sorted(str(p) for p in Path("data").rglob("*") if p.is_file())
        print(json.dumps([place, name, code, said.getvalue(), left]), flush=True)
        for kept in ("old", "contents.json"):
            (target / kept).unlink()
"""
WRITERS = [
    "model",
    "embeddings",
    "array",
    "text",
    "pictures",
    "graph",
    "table",
    "csv",
    "json",
    "checkpoint",
]


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Path | None]:
    """A file system of `size` bytes of its own; None where this user may not mount one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    with disk(folder, size) as place:
        yield place or pytest.skip("no right to mount a small file system (root has it)")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[tuple[str, str], list]:
    """{("limit" or "disk", writer): [exit code, stderr, files left]}, from one child process."""
    folder = tmp_path_factory.mktemp("writers")
    (folder / "limit").mkdir()
    with disk(folder / "disk", 2**20) as place:
        places = [[str(folder / "limit"), 2**20]] + ([[str(place), -1]] if place else [])
        done = subprocess.run(
            [sys.executable, "-c", CHILD],
            capture_output=True,
            text=True,
            timeout=240,
            env=environment(PYTHONPATH=str(ROOT), PLACES=json.dumps(places)),
        )
    said = done.stdout[-1000:], done.stderr[-3000:]
    assert done.returncode == 0, (done.returncode, *said)  # -7 is SIGBUS
    return {
        (Path(place).name, name): found
        for place, name, *found in map(json.loads, done.stdout.splitlines())
    }


@pytest.mark.parametrize("place", ["limit", "disk"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_on_a_full_disk_leaves_the_old(outcomes, place, name):
    if place == "disk" and (place, name) not in outcomes:
        pytest.skip("no right to mount a small file system (root has it)")
    code, said, left = outcomes[place, name]
    assert code == 1 and said.count("\n") == 1 and "Traceback" not in said
    reasons = rf"({NO_SPACE}|File too large|\d+ requested and)"
    assert re.match(rf"error: data/{name}\S* cannot be written: {reasons}", said)
    assert left == [f"data/{name}/contents.json", f"data/{name}/old"]


# Stages

SMALL = {
    "download.sample.products": 120,
    "encoder.modalities": ["text"],
    "encoder.text.trainable_layers": 1,
    "encoder.text.max_tokens": 64,
    "pretrain.epochs": 12,
    "pretrain.batch_size": 32,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A small catalog of titles, precomputed by half of a text encoder."""
    folder = tmp_path_factory.mktemp("project")
    # At the profile's rate, the vectors of so few products become all the same: a warning says so
    with inside(folder, **SMALL | {"pretrain.lr": 1e-4}):
        run_stages(folder, "download", "precompute")
    return folder


@pytest.fixture
def checkpoints(monkeypatch) -> None:
    """One thread, and a checkpoint per step."""
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    monkeypatch.setenv("MUFIN_CHECKPOINT_SECONDS", "0")


def home_of(project: Path, folder: Path) -> Path:
    """The folder, with the settings and the data of `project`."""
    folder.mkdir()
    shutil.copy(project / "params.yaml", folder)
    (folder / "data").symlink_to(project / "data")
    return folder


def test_activations_that_do_not_fit_are_one_sentence(
    project, checkpoints, tmp_path, monkeypatch, capsys
):
    whole, home = project / "data/precomputed", tmp_path / "home"
    activations = (whole / "text_inputs.npy").stat().st_size
    size = sum(p.stat().st_size + 4096 for p in whole.rglob("*") if p.is_file()) - activations // 2
    home.mkdir()
    shutil.copy(project / "params.yaml", home)
    with small_disk(home / "data", size) as place:
        for part in ("raw", "curated"):
            (place / part).symlink_to(project / "data" / part)
        said = ended(lambda: precompute.main(home), monkeypatch, capsys)
        assert f"{place}/precomputed cannot be written: {NO_SPACE}; free" in said
        assert sorted(p.name for p in place.iterdir()) == ["curated", "raw"]
        assert not (home / "metrics").exists()


def test_training_resumes_once_a_full_scratch_has_room(
    project, checkpoints, tmp_path, monkeypatch, capsys
):
    sizes, save = [], loop.save_checkpoint

    def measured(path: Path, *rest) -> None:
        save(path, *rest)
        sizes.append(path.stat().st_size)

    monkeypatch.setattr(loop, "save_checkpoint", measured)
    monkeypatch.setenv("MUFIN_SCRATCH", str(tmp_path / "scratch"))
    unbroken, broken = (home_of(project, tmp_path / name) for name in ("unbroken", "broken"))
    pretrain.main(unbroken)
    room = int(1.6 * max(sizes))  # for one checkpoint, not for two
    with small_disk(tmp_path / "small", room) as place:
        monkeypatch.setenv("MUFIN_SCRATCH", str(place))
        said, before = ended(lambda: pretrain.main(broken), monkeypatch, capsys), len(sizes)
        path = rf"{place}/pretrain/\w+/checkpoint.safetensors"
        assert re.match(rf"error: {path} cannot be written: {NO_SPACE}; ", said)
        assert len(list(place.rglob("checkpoint.safetensors"))) == 1
        assert not list(place.rglob("*.part")) and not (broken / "models").exists()
        subprocess.run(["mount", "-o", f"remount,size={10 * max(sizes)}", str(place)], check=True)
        pretrain.main(broken)
        assert not list(place.rglob("*.safetensors"))
        assert len(sizes) - before < before  # not from the start
    for name in ("models/pretrain/member-0/model.safetensors", "metrics/pretrain.csv"):
        assert (broken / name).read_bytes() == (unbroken / name).read_bytes()


# A second process


def test_a_stage_already_running_names_the_other_process(
    project, checkpoints, tmp_path, monkeypatch, capsys
):
    scratch, home = tmp_path / "scratch", home_of(project, tmp_path / "home")
    words = [sys.executable, "-m", "pipeline.pretrain", "--home", str(home)]
    more = {"MUFIN_SCRATCH": str(scratch), "MUFIN_CHECKPOINT_SECONDS": "0"}
    first = subprocess.Popen(
        words, env=environment(PYTHONPATH=str(ROOT), **more), stderr=subprocess.DEVNULL
    )
    monkeypatch.setenv("MUFIN_SCRATCH", str(scratch))
    try:
        until(lambda: list(scratch.rglob("checkpoint.safetensors")), first)
        first.send_signal(signal.SIGSTOP)  # it cannot finish meanwhile
        checkpoint = next(scratch.rglob("checkpoint.safetensors"))
        before = checkpoint.read_bytes()
        said = ended(lambda: pretrain.main(home), monkeypatch, capsys)
        assert f"another process (pid {first.pid} on " in said
        assert f"is running this stage in {checkpoint.parent}; " in said
        assert f"end it with `kill {first.pid}`" in said
        assert checkpoint.read_bytes() == before
    finally:
        first.kill()
        first.wait()
    pretrain.main(home)
    assert (home / "models/pretrain/member-0/model.safetensors").exists()
    assert list(scratch.glob("pretrain/*")) == []


def until(true: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait until `true()`, while the process runs."""
    end = time.monotonic() + 120
    while not true():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
