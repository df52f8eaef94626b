"""What a machine does to a run: no space left, in every way a library says so; a second process in the same scratch folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from mufin import runtime
from mufin.artifacts import curated as inputs
from mufin.artifacts.files import publish
from mufin.retrieval.hnsw import _check_whole
from mufin.training import loop
from pipeline import curate, download, precompute, pretrain
from tests.test_precompute import inside

ROOT = Path(__file__).parents[2]
NO_SPACE = "No space left on device"

# Whatever class it comes in: errors that are raised

ERRORS = {
    "plain": OSError(errno.ENOSPC, NO_SPACE),
    "named": OSError(errno.ENOSPC, NO_SPACE, "data/raw/part"),
    "quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "limit": OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
    "numpy": OSError("375000 requested and 131056 written"),
    "arrow": OSError(errno.ENOSPC, f"Error writing bytes to file. Detail: [errno 28] {NO_SPACE}"),
    "safetensors": SafetensorError(f"Error while serializing: I/O error: {NO_SPACE} (os error 28)"),
    "safetensors, quota": SafetensorError(
        "Error while serializing: I/O error: Disk quota exceeded (os error 122)"
    ),
    "tokenizers": Exception(f"{NO_SPACE} (os error 28)"),
}


def ends(main, monkeypatch, capsys) -> str:
    """What a stage that ends with 1 says, in its one line."""
    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit) as end:
        runtime.run(main)
    said = capsys.readouterr().err
    assert end.value.code == 1 and said.count("\n") == 1 and said.startswith("error: ")
    return said


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """`run` sets their number for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUFIN_SCRATCH", raising=False)
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/old").write_text("old")
    return tmp_path


@pytest.mark.parametrize("kind", ERRORS)
def test_a_full_disk_is_one_sentence_that_names_the_folder_and_the_remedy(
    workplace, kind, monkeypatch, capsys
):
    def main():
        with publish(Path("data/raw")) as folder:
            folder.mkdir()
            raise ERRORS[kind]

    said = ends(main, monkeypatch, capsys)
    assert re.match(r"error: data/raw cannot be written: ", said)
    assert (
        f"free or choose another place: {workplace}/data/raw has " in said
        and "MUFIN_SCRATCH moves" in said
    )
    assert {"quota": "quota", "limit": "File too large", "numpy": "131056 written"}.get(
        kind.split(", ")[-1], NO_SPACE
    ) in said
    assert [p.name for p in (workplace / "data").iterdir()] == ["raw"] and Path(
        "data/raw/old"
    ).read_text() == "old"


def test_a_full_disk_under_another_error_is_found_and_other_errors_pass(
    workplace, monkeypatch, capsys
):
    def main():
        try:
            raise ERRORS["safetensors"]
        except SafetensorError as error:
            raise RuntimeError("the writer broke") from error

    assert NO_SPACE in ends(main, monkeypatch, capsys)
    for error in (
        ValueError("3 requested and 2 written"),
        OSError("odd"),
        FileNotFoundError(2, "No such file", "x"),
        SafetensorError("Error while deserializing header: invalid header"),
    ):
        assert runtime.refused(error) is None

        def broken(error=error):
            raise error

        with pytest.raises(type(error)):
            runtime.run(broken)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_may_not_be_opened_is_named_with_the_reason(workplace, number, monkeypatch, capsys):
    def main():
        raise OSError(number, os.strerror(number), "catalog.jsonl")

    assert f"catalog.jsonl cannot be opened or written: {os.strerror(number)}; give" in ends(
        main, monkeypatch, capsys
    )


def test_a_graph_that_was_cut_short_is_not_taken_for_whole(tmp_path):
    (tmp_path / "graph").write_bytes(b"0" * 100)
    _check_whole(tmp_path / "graph", 100)
    with pytest.raises(OSError, match="101 requested and 100 written") as error:
        _check_whole(tmp_path / "graph", 101)
    assert "as where no space" in runtime.refused(error.value)


# Real limits: every writer of the pipeline, in a process whose files may not grow past a megabyte, and on a full disk

CHILD = """
import contextlib, io, json, os, resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa, torch
import safetensors.numpy
from pipeline import precompute, runtime
from pipeline.ann import LabelRows
from pipeline.ann.hnsw import HnswNeighbours
from pipeline.artifacts import publish, write_json, write_table
from pipeline.model_files import save_members
from pipeline.training.checkpoints import save_checkpoint
from pipeline.training.optimisers import Optimisers, Rates
from tests.support.bags import tiny_mufin

os.environ["MUFIN_DEVICE"] = "cpu"
sys.argv = ["stage"]
numbers = np.random.default_rng(0).random(500_000)
model = tiny_mufin(600)
model.facts = {}
optimisers = Optimisers(model, Rates(1, 1, 1, 1, 1, 1), 0.0, with_cross_attention=False)
rows = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
graph = HnswNeighbours(LabelRows(rows, np.arange(4000), 4000), m=16, ef_construction=20, ef=20)


class Frozen:
    kind = "activations"

    def frozen(self, tokens, lengths):
        return torch.ones(*tokens.shape, 64)


def text(folder):
    precompute._text_inputs(Frozen(), np.ones((2000, 16), np.int32), np.arange(2000) % 17, np.arange(9), folder)


def pictures(folder):
    shards = precompute._ShardWriter(folder, "pixels")
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
    "model": lambda target: save_members([model], target),
    "embeddings": in_folder(lambda folder: safetensors.numpy.save_file({"a": numbers}, folder / "a.safetensors")),
    "array": in_folder(lambda folder: np.save(folder / "a.npy", numbers)),
    "text": in_folder(text),
    "pictures": in_folder(pictures),
    "graph": in_folder(lambda folder: graph.save(folder / "neighbours")),
    "table": lambda target: write_table({"key": list(map(str, numbers)), "bytes": [b.tobytes() for b in numbers]},
                                        "raw_image", target / "t.parquet"),
    "json": lambda target: write_json({"a": numbers.tolist()}, target / "a.json"),
    "checkpoint": lambda target: save_checkpoint(target / "checkpoint.safetensors", optimisers, {}, {}),
}
for place, limit in json.loads(os.environ["PLACES"]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))          # Python ignores SIGXFSZ
    os.chdir(place)
    for name, write in WRITERS.items():
        target = Path("data") / name
        target.mkdir(parents=True)
        (target / "old").write_text("old")
        said, code = io.StringIO(), 0
        with contextlib.redirect_stderr(said):
            try:
                runtime.run(lambda: write(target))
            except SystemExit as end:
                code = end.code
        left = sorted(str(p) for p in Path("data").rglob("*") if p.is_file())
        print(json.dumps([place, name, code, said.getvalue(), left]), flush=True)
        (target / "old").unlink()
"""
WRITERS = [
    "model",
    "embeddings",
    "array",
    "text",
    "pictures",
    "graph",
    "table",
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
    """{("limit" or "disk", writer): exit code, what it said, the files there then}, from one child process."""
    folder = tmp_path_factory.mktemp("writers")
    (folder / "limit").mkdir()
    with disk(folder / "disk", 2**20) as place:
        places = [[str(folder / "limit"), 2**20]] + ([[str(place), -1]] if place else [])
        done = subprocess.run(
            [sys.executable, "-c", CHILD],
            capture_output=True,
            text=True,
            timeout=240,
            env=environment(PLACES=json.dumps(places)),
        )
    assert done.returncode == 0, (
        done.returncode,
        done.stdout[-1000:],
        done.stderr[-3000:],
    )  # -7 is SIGBUS
    return {
        (Path(place).name, name): found
        for place, name, *found in map(json.loads, done.stdout.splitlines())
    }


@pytest.mark.parametrize("place", ["limit", "disk"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_on_a_full_disk_is_one_sentence_with_exit_code_1_and_leaves_what_was_there(
    outcomes, place, name
):
    if place == "disk" and (place, name) not in outcomes:
        pytest.skip("no right to mount a small file system (root has it)")
    code, said, left = outcomes[place, name]
    assert code == 1 and said.count("\n") == 1 and "Traceback" not in said
    assert re.match(
        rf"error: data/{name}\S* cannot be written: (No space left|File too large|\d+ requested and)",
        said,
    )
    assert left == [f"data/{name}/old"]


# Stages


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A small catalog of titles, precomputed as what half of a text encoder gives."""
    folder = tmp_path_factory.mktemp("project")
    with inside(folder, **SMALL):
        download.main()
        curate.main()
        precompute.main()
    return folder


SMALL = {
    "download.sample.products": 120,
    "encoder.modalities": ["text"],
    "encoder.text.trainable_layers": 1,
    "encoder.text.max_tokens": 64,
    "pretrain.epochs": 12,
    "pretrain.batch_size": 32,
}


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MUFIN_DEVICE": "cpu",
        "MUFIN_WORKERS": "1",
        "OMP_NUM_THREADS": "1",
        "MUFIN_CHECKPOINT_SECONDS": "0",
        **more,
    }


@pytest.fixture
def there(project, monkeypatch) -> Path:
    """In the project's folder, with a checkpoint a step."""
    with inside(project, **SMALL):
        monkeypatch.setenv("MUFIN_CHECKPOINT_SECONDS", "0")
        yield project


def test_precompute_on_a_disk_that_the_activations_do_not_fit_is_one_sentence(
    there, project, tmp_path, monkeypatch, capsys
):
    whole = project / "data/precomputed"
    activations = (whole / "text_inputs.npy").stat().st_size
    size = sum(p.stat().st_size + 4096 for p in whole.rglob("*") if p.is_file()) - activations // 2
    with small_disk(tmp_path / "small", size) as place:
        said = ends(
            lambda: precompute.main(out=place / "precomputed", metrics=tmp_path / "m.json"),
            monkeypatch,
            capsys,
        )
        assert f"{place}/precomputed cannot be written: {NO_SPACE}; free or" in said
        assert not list(place.iterdir()) and not (tmp_path / "m.json").exists()


def test_a_training_stage_whose_scratch_is_full_goes_on_from_its_last_checkpoint_when_there_is_room(
    there, tmp_path, monkeypatch, capsys
):
    model, sizes, save = "member-0/model.safetensors", [], loop.save_checkpoint
    monkeypatch.setattr(
        loop,
        "save_checkpoint",
        lambda path, *a: (save(path, *a), sizes.append(path.stat().st_size)),
    )
    torch.set_num_threads(1)
    pretrain.main(model=tmp_path / "unbroken")
    with small_disk(
        tmp_path / "small", int(1.6 * max(sizes))
    ) as place:  # for one checkpoint, not for two
        monkeypatch.setenv("MUFIN_SCRATCH", str(place))
        said, before = (
            ends(lambda: pretrain.main(model=tmp_path / "broken"), monkeypatch, capsys),
            len(sizes),
        )
        assert re.match(
            rf"error: {place}/pretrain/\w+/checkpoint.safetensors cannot be written: {NO_SPACE}; ",
            said,
        )
        assert len(list(place.rglob("checkpoint.safetensors"))) == 1 and not list(
            place.rglob("*.part")
        )
        assert not (tmp_path / "broken").exists()
        subprocess.run(["mount", "-o", f"remount,size={10 * max(sizes)}", str(place)], check=True)
        pretrain.main(model=tmp_path / "broken")
        assert (
            not list(place.rglob("*.safetensors")) and len(sizes) - before < before
        )  # not from the start
    assert (tmp_path / f"broken/{model}").read_bytes() == (
        tmp_path / f"unbroken/{model}"
    ).read_bytes()


# A second process


def test_a_stage_that_another_process_runs_ends_in_one_sentence_and_can_run_when_that_is_killed(
    there, tmp_path, monkeypatch, capsys
):
    scratch, words = (
        tmp_path / "scratch",
        [sys.executable, "-m", "pipeline.pretrain", "--model", str(tmp_path / "model")],
    )
    first = subprocess.Popen(
        words, env=environment(MUFIN_SCRATCH=str(scratch)), stderr=subprocess.DEVNULL
    )
    monkeypatch.setattr(inputs, "code", lambda: [])
    monkeypatch.setattr(
        inputs, "fingerprint", lambda *_: next(scratch.glob("pretrain/*")).name
    )  # it names our __main__
    monkeypatch.setenv("MUFIN_SCRATCH", str(scratch))
    try:
        until(lambda: list(scratch.rglob("checkpoint.safetensors")), first)
        first.send_signal(signal.SIGSTOP)  # it cannot finish meanwhile
        checkpoint = next(scratch.rglob("checkpoint.safetensors"))
        before, said = checkpoint.read_bytes(), ends(pretrain.main, monkeypatch, capsys)
        assert re.match(
            rf"error: another process \(pid {first.pid} on \S+\) is running this stage in {checkpoint.parent}; "
            "wait for it or stop it$",
            said,
        )
        assert checkpoint.read_bytes() == before
    finally:
        first.kill()
        first.wait()
    pretrain.main(model=tmp_path / "model")
    assert (tmp_path / "model/member-0/model.safetensors").exists() and list(
        scratch.glob("pretrain/*")
    ) == []


def until(true, process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while not true():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


HOLD = """
from pipeline import runtime
def main():
    print(runtime.scratch("pretrain", "abc"), flush=True)
    input()
runtime.run(main)
"""


def test_one_process_of_several_that_torchrun_started_holds_the_scratch_folder_for_all(tmp_path):
    def holder(rank: int) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", HOLD],
            cwd=tmp_path,
            env=environment(RANK=str(rank), MUFIN_SCRATCH="s"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    first = holder(0)
    try:
        assert first.stdout.readline() == "s/pretrain/abc\n"
        second, other = holder(1), holder(0)
        assert second.stdout.readline() == "s/pretrain/abc\n"
        assert f"pid {first.pid} on" in other.communicate(timeout=120)[1] and other.returncode == 1
        assert second.communicate("\n", timeout=120)[1] == "" and second.returncode == 0
    finally:
        first.kill()
        first.wait()


def test_a_process_may_open_its_scratch_folder_again_and_nothing_is_left_of_a_discarded_one(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MUFIN_SCRATCH", str(tmp_path))
    for _ in range(2):
        for _ in range(2):
            folder = runtime.scratch("pretrain", "abc")
            (folder / "deep").mkdir(exist_ok=True)
            (folder / "deep/checkpoint").write_text("state")
        runtime.discard(folder)
        assert list((tmp_path / "pretrain").iterdir()) == []


def test_a_lock_whose_file_was_removed_before_it_was_taken_is_taken_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_SCRATCH", str(tmp_path))
    flock, opened = runtime.fcntl.flock, []

    def removed_at_first(file, how):
        opened.append(file)
        if len(opened) == 1:
            (tmp_path / "pretrain/abc/running").unlink()
        flock(file, how)

    monkeypatch.setattr(runtime.fcntl, "flock", removed_at_first)
    folder = runtime.scratch("pretrain", "abc")
    assert len(opened) == 2 and os.path.samestat(os.stat(folder / "running"), os.fstat(opened[1]))
    runtime.discard(folder)


# What a run costs


def test_peak_memory_counts_the_processes_that_the_stage_started(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "LOOK_SECONDS", 0.05)
    grow = "b = bytearray(400 * 2**20); print('full', flush=True); input()"
    with runtime.measured(tmp_path / "m.json"):
        child = subprocess.Popen(
            [sys.executable, "-c", grow], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "full\n"
        now, end = runtime._family_memory(), time.monotonic() + 0.5
        while time.monotonic() < end:
            np.ones(1000).sum()
        child.communicate("\n")
    peak = json.loads((tmp_path / "m.json").read_text())["peak_memory_mb"]
    assert now > 400 and peak >= 0.99 * now


def test_items_a_second_are_those_of_this_process_and_0_where_it_did_none(tmp_path):
    for items in (0, 500):
        with runtime.measured(tmp_path / "m.json") as report:
            report["items"] = items
            time.sleep(0.02)
        told = json.loads((tmp_path / "m.json").read_text())
        assert "items" not in told and (told["items_per_second"] > 0) == bool(items)
