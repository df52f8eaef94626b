"""What every stage needs of the machine: error sentences, a locked scratch folder, and costs."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from mufin import runtime
from mufin.artifacts.files import read_json
from mufin.artifacts.publication import publish
from tests.support.projects import ROOT, ended, environment

NO_SPACE = "No space left on device"

# Errors of a full disk, in the classes in which libraries raise them
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


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUFIN_SCRATCH", raising=False)
    with publish(Path("data/raw")) as folder:
        folder.mkdir()
        (folder / "old").write_text("old")
    return tmp_path


@pytest.mark.parametrize("kind", ERRORS)
def test_a_full_disk_names_the_folder_and_the_remedy(workplace, kind, monkeypatch, capsys):
    def main():
        with publish(Path("data/raw")) as folder:
            folder.mkdir()
            raise ERRORS[kind]

    said = ended(main, monkeypatch, capsys)
    assert re.match(r"error: data/raw cannot be written: ", said)
    disk = next(p for p in workplace.parents if os.path.ismount(p))
    assert f"free space or choose another place: {disk} has " in said
    assert "MUFIN_SCRATCH moves" in said and len(said) <= len("error: \n") + 300
    reasons = {"quota": "quota", "limit": "File too large", "numpy": "131056 written"}
    assert reasons.get(kind.split(", ")[-1], NO_SPACE) in said
    assert [p.name for p in (workplace / "data").iterdir()] == ["raw"]
    assert Path("data/raw/old").read_text() == "old"


def test_a_full_disk_is_found_below_another_error(workplace, monkeypatch, capsys):
    def main():
        try:
            raise ERRORS["safetensors"]
        except SafetensorError as error:
            raise RuntimeError("the writer broke") from error

    assert NO_SPACE in ended(main, monkeypatch, capsys)
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
def test_a_file_without_permission_is_named_with_the_reason(workplace, number, monkeypatch, capsys):
    def main():
        raise OSError(number, os.strerror(number), "catalog.jsonl")

    said = ended(main, monkeypatch, capsys)
    assert f"catalog.jsonl cannot be opened or written: {os.strerror(number)}; change its" in said


def test_an_operation_without_a_deterministic_form_is_one_sentence(workplace, monkeypatch, capsys):
    def main():
        raise RuntimeError(
            "adaptive_max_pool2d_backward_cuda does not have a deterministic implementation, but "
            "you set 'torch.use_deterministic_algorithms(True)'. You can turn off ..."
        )

    assert ended(main, monkeypatch, capsys) == (
        "error: adaptive_max_pool2d_backward_cuda has no deterministic algorithm on this device; "
        "set MUFIN_DETERMINISTIC=0, and two runs may differ\n"
    )


# Settings of the machine

NO_NUMBERS = ("", " ", "-1", "abc", "1.5.2", "nan", "inf", "1e999", "+-1", "\u0665", "1_0", "1\n")
NO_WHOLE = (*NO_NUMBERS, "0", "1.5", " 2", "2 ", "+2", "\u00b2", "1025", "99999999999", "9" * 5000)


@pytest.mark.parametrize("value", NO_WHOLE)
def test_a_bad_number_of_workers_is_one_sentence(monkeypatch, capsys, value):
    monkeypatch.setenv("MUFIN_WORKERS", value)
    said = ended(runtime.workers, monkeypatch, capsys)
    assert "; set it to a whole number from 1 to 1024, or unset it" in said and len(said) < 300


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_bad_time_between_checkpoints_is_one_sentence(monkeypatch, capsys, value):
    monkeypatch.setenv("MUFIN_CHECKPOINT_SECONDS", value)
    said = ended(runtime.checkpoint_seconds, monkeypatch, capsys)
    assert said.startswith("error: MUFIN_CHECKPOINT_SECONDS is '") and len(said) < 300
    assert said.endswith("; set it to seconds, at least 0, or unset it\n")


def test_good_numbers_are_read(monkeypatch):
    for value, seconds in (("0", 0.0), ("0.5", 0.5), (".5", 0.5), ("1e3", 1000.0), ("60", 60.0)):
        monkeypatch.setenv("MUFIN_CHECKPOINT_SECONDS", value)
        assert runtime.checkpoint_seconds() == seconds
    for value in ("1", "007", "1024"):
        monkeypatch.setenv("MUFIN_WORKERS", value)
        assert runtime.workers() == int(value)
    monkeypatch.delenv("MUFIN_CHECKPOINT_SECONDS")
    monkeypatch.delenv("MUFIN_WORKERS")
    assert runtime.checkpoint_seconds() == 60
    assert runtime.workers() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("value", ["", "file", "file/below", "x" * 300, "/proc/none"])
def test_a_scratch_folder_that_cannot_be_is_one_sentence(workplace, monkeypatch, capsys, value):
    (workplace / "file").write_text("")
    monkeypatch.setenv("MUFIN_SCRATCH", value)
    said = ended(lambda: runtime.scratch("pretrain", "abc"), monkeypatch, capsys)
    assert "MUFIN_SCRATCH" in said and len(said) < 300
    assert sorted(os.listdir()) == ["data", "file"]


@pytest.mark.parametrize("value", ["", "first", "-1", "1" * 12])
def test_a_rank_that_is_no_number_is_one_sentence(workplace, monkeypatch, capsys, value):
    monkeypatch.setenv("RANK", value)
    said = ended(lambda: runtime.scratch("pretrain", "abc"), monkeypatch, capsys)
    assert f"RANK is {value!r}; set it to a whole number from 0 to" in said


# Scratch folders

HOLD = """
from mufin import runtime
def main():
    print(runtime.scratch("pretrain", "abc"), flush=True)
    input()
runtime.run(main)
"""


def test_the_first_rank_holds_the_scratch_folder_for_all(tmp_path):
    def holder(rank: int) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", HOLD],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(ROOT), RANK=str(rank), MUFIN_SCRATCH="s"),
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


def test_a_discarded_scratch_folder_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_SCRATCH", str(tmp_path))
    for _ in range(2):
        for _ in range(2):
            folder = runtime.scratch("pretrain", "abc")
            (folder / "deep").mkdir(exist_ok=True)
            (folder / "deep/checkpoint").write_text("state")
        runtime.discard(folder)
        assert list((tmp_path / "pretrain").iterdir()) == []


def test_a_lock_file_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
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


def test_peak_memory_includes_the_processes_of_the_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "LOOK_SECONDS", 0.05)
    grow = "b = bytearray(400 * 2**20); print('full', flush=True); input()"
    with runtime.measured("grow", tmp_path):
        child = subprocess.Popen(
            [sys.executable, "-c", grow], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "full\n"
        now, end = runtime._family_memory(), time.monotonic() + 0.5
        while time.monotonic() < end:
            np.ones(1000).sum()
        child.communicate("\n")
    peak = read_json(tmp_path / "metrics/runtime/grow.json")["peak_memory_mb"]
    assert now > 400 and peak >= 0.99 * now


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_not_that_of_the_starting_process(tmp_path):
    filled = np.ones(2**26)  # 512 MB
    script = "from mufin import runtime\nfrom pathlib import Path\n" + (
        "with runtime.measured('small', Path()): pass"
    )
    root = str(Path(__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        check=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert read_json(tmp_path / "metrics/runtime/small.json")["peak_memory_mb"] < 300
    assert filled.sum() > 0


def test_throughput_counts_the_items_of_this_process(tmp_path):
    for items in (0, 500):
        with runtime.measured("work", tmp_path) as report:
            report.items = items
            time.sleep(0.02)
        costs = read_json(tmp_path / "metrics/runtime/work.json")
        assert costs["items"] == items and (costs["items_per_second"] > 0) == bool(items)


def test_facts_and_costs_are_written_apart(tmp_path):
    with runtime.measured("work", tmp_path) as report:
        report.facts = {"loss": 0.5}
        report.costs["milliseconds_per_datapoint"] = 1.25
    assert read_json(tmp_path / "metrics/work.json") == {"loss": 0.5}
    costs = read_json(tmp_path / "metrics/runtime/work.json")
    assert costs["milliseconds_per_datapoint"] == 1.25
    assert {"seconds", "peak_memory_mb", "device"} < set(costs) and "items" not in costs
    assert costs["seconds"] >= 0 and costs["peak_memory_mb"] > 1


def test_a_stage_that_fails_writes_no_metrics(tmp_path):
    with pytest.raises(ValueError), runtime.measured("work", tmp_path) as report:
        report.facts = {"loss": 0.5}
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_rank_writes_metrics(tmp_path, monkeypatch):
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        with runtime.measured("work", tmp_path) as report:
            report.facts = {"rank": int(rank)}
        assert (tmp_path / "metrics").exists() == (rank == "0")
    assert read_json(tmp_path / "metrics/work.json") == {"rank": 0}


def test_memory_of_children_is_0_without_psutil(monkeypatch):
    assert runtime._family_memory() > 0
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert runtime._family_memory() == 0


def test_all_threads_are_those_of_the_workers(monkeypatch):
    monkeypatch.setenv("MUFIN_WORKERS", "3")
    assert [runtime.threads(wanted) for wanted in ("all", 1, 8)] == [3, 1, 8]
