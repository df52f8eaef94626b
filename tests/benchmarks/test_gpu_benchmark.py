"""benchmarks.gpu: every part runs on a CPU, none can take another down, the floors are right."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from benchmarks.on_gpu import catalog, floors, prediction, running, training
from benchmarks.on_gpu.parts import PARTS
from benchmarks.on_gpu.running import Row, run_part
from benchmarks.on_gpu.sample_run import write_curated
from mufin import runtime
from mufin.params import load_params
from tests.support.projects import ROOT

ABSENT = ("dvc", "polars", "hnswlib", "ruamel", "sklearn")  # on the machine with the GPU
SECTIONS = {  # part: words of figures that it must tell of
    "ceilings": ["bf16", "float32", "device memory", "pinned"],
    "equality": ["passed", "failed", "skipped"],
    "precision": [
        "Module I, bf16 against fp32: loss",
        "Module IV, bf16 against fp32: learnt",
        "Module I, bf16: tensors with NaN",
        "Module IV, deterministic fp32 twice",
        "time with deterministic algorithms, fp32",
    ],
    "module-one": [
        "held in GPU memory: one step",
        "streamed from host memory: an epoch of",
        "200 epochs",
        "images",
        "utilisation",
        "peak GPU memory",
        "the GPU waits",
        "one checkpoint",
        "refresh",
        "with cuDNN",
        "without cuDNN",
    ],
    "module-four": [
        "by rows (SparseAdam): steps",
        "dense (fused AdamW): steps",
        "an epoch of",
        "peak GPU memory",
    ],
    "retrieval": ["top 100 labels", "scaled to", "brute force", "peak GPU memory"],
    "prediction": ["descriptors known", "stored activations", "from pixels"],
    "sample": ["precompute", "pretrain", "retrieve", "transfer", "finetune"],
}
NEEDS_GPU = ("peak GPU memory", "the GPU waits")


def blocked(folder: Path) -> dict[str, str]:
    """An environment in which the packages that the GPU machine lacks cannot be imported."""
    for name in ABSENT:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name} here')\n")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """The tiny run as a user starts it, without what the GPU machine lacks: output and JSON."""
    folder = tmp_path_factory.mktemp("rehearsal")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(folder / "gpu.json")],
        cwd=ROOT,
        env=blocked(folder),
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, json.loads((folder / "gpu.json").read_text())


def test_every_part_tells_its_figures_without_a_gpu(rehearsal):
    _, report = rehearsal
    assert list(report["parts"]) == list(PARTS) == list(SECTIONS)
    for name, part in report["parts"].items():
        assert part["failure"] is None, (name, part["failure"])
        for words in SECTIONS[name]:
            rows = [row for row in part["rows"] if words in row["figure"]]
            assert rows, (name, words)
            for row in rows:
                gpu_alone = any(figure in row["figure"] for figure in NEEDS_GPU)
                assert row["value"] is None if gpu_alone else math.isfinite(row["value"]), row


def test_the_rehearsal_finds_no_wrong_result(rehearsal):
    _, report = rehearsal
    told = {row["figure"]: row for part in report["parts"].values() for row in part["rows"]}
    wrong = {figure: row for figure, row in told.items() if row["aim"] == 0 and row["value"] != 0}
    assert not wrong
    assert told["exact retrieval: labels that brute force finds too"]["value"] == 100
    assert 0 < told["Module I, bf16 against fp32: loss"]["value"] < 5
    assert told["Module I, held in GPU memory: one step"]["floor"] > 0


def test_the_table_has_a_line_per_figure_and_the_json_names_the_machine(rehearsal):
    output, report = rehearsal
    lines = output.splitlines()
    for part in report["parts"].values():
        assert any(line.startswith(part["title"]) for line in lines)
        for row in part["rows"]:
            assert any(line.startswith(row["figure"]) and row["unit"] in line for line in lines)
    assert set(report["machine"]) >= {"card", "driver", "torch", "cpu", "cores", "python"}
    assert report["machine"]["torch"] == torch.__version__ and report["commit"]


def test_the_script_imports_nothing_that_the_gpu_machine_lacks(tmp_path):
    words = "import benchmarks.gpu, benchmarks.on_gpu.parts, tests.conftest, tests.test_cuda"
    done = subprocess.run(
        [sys.executable, "-c", words],
        cwd=ROOT,
        env=blocked(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_parts_are_forked_from_has_not_asked_for_a_gpu():
    """CUDA cannot be used in a fork of a process that has asked the driver for a GPU."""
    code = (
        "import os, sys; os.environ['PYTORCH_NVML_BASED_CUDA_CHECK'] = '1'\n"
        "import torch, benchmarks.on_gpu.parts\n"
        "def bad():\n"
        "    child = os.fork()\n"
        "    if not child: os._exit(torch.cuda._is_in_bad_fork())\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "print(bad())\n"
        "try: torch._C._cuda_getDeviceCount()\n"
        "except RuntimeError: pass\n"
        "print(bad())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split() == ["0", "1"], done.stderr  # 1: the check itself can fail


# Parts of its own for `run_part`: module level, so that they can be sent to another process


def tells_and_raises(tell):
    tell(Row(figure="before", value=1.0, unit="s"))
    raise ValueError("a sentence\nof two lines")


def tells_and_crashes(tell):
    tell(Row(figure="before", value=1.0, unit="s"))
    os.kill(os.getpid(), signal.SIGSEGV)


def tells_and_hangs(path, tell):
    tell(Row(figure="before", value=1.0, unit="s"))
    child = subprocess.Popen(["sleep", "600"])
    Path(path).write_text(str(child.pid))
    time.sleep(600)


def exits(tell):
    os._exit(3)


def ends_well(tell):
    tell(Row(figure="only", value=2.0, unit="ms", floor=1.0, aim=3.0, note="why"))


@pytest.mark.parametrize(
    "part, failure",
    [
        (tells_and_raises, "ValueError: a sentence of two lines"),
        (tells_and_crashes, "ended by SIGSEGV"),
    ],
)
def test_a_part_that_fails_keeps_what_it_told_and_says_why(part, failure, tmp_path):
    done = run_part("x", part, (), 60, tmp_path / "log")
    assert done.failure == failure
    assert [row["figure"] for row in done.rows] == ["before"]


def test_a_part_is_stopped_at_its_limit_with_all_that_it_started(tmp_path):
    start = time.monotonic()
    done = run_part("x", tells_and_hangs, (str(tmp_path / "pid"),), 5, tmp_path / "log")
    assert done.failure == "stopped at its limit of 5 s" and len(done.rows) == 1
    assert time.monotonic() - start < 60
    child = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{child}/stat")
    gone = not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    assert gone


def test_a_part_that_just_ends_is_a_failure_by_its_exit_code(tmp_path):
    assert run_part("x", exits, (), 60, tmp_path / "log").failure == "ended with exit code 3"


def test_a_part_that_ends_well_has_its_rows_and_no_failure(tmp_path):
    done = run_part("x", ends_well, (), 60, tmp_path / "log")
    assert done.failure is None and done.rows == [
        {"figure": "only", "value": 2.0, "unit": "ms", "floor": 1.0, "aim": 3.0, "note": "why"}
    ]


def test_half_a_line_of_a_killed_part_is_left_out(tmp_path):
    (tmp_path / "log").write_text('{"figure": "whole"}\n{"figure": "ha')
    assert running._read(tmp_path / "log") == [{"figure": "whole"}]


def ended(capsys, **arguments) -> tuple[int, str]:
    """Exit code and stderr of a run in this process."""
    with pytest.raises(SystemExit) as end:
        gpu.main(**arguments)
    return end.value.code, capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_one_sentence_says_what_to_do(capsys):
    assert ended(capsys) == (
        1,
        "error: torch sees no CUDA device on this machine; run on one that "
        "has a GPU, or rehearse on the CPU with --tiny\n",
    )


def test_an_unknown_part_is_refused_with_the_names_of_all(capsys):
    code, words = ended(capsys, tiny=True, only=["modul-one"])
    assert code == 1
    assert words == f"error: --only modul-one is no part; the parts are {', '.join(PARTS)}\n"


def test_missing_packages_are_named(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "NEEDED", ("torch", "no_such_package"))
    code, words = ended(capsys, tiny=True)
    assert code == 1 and "has no no_such_package; run `make setup`" in words


def test_parts_that_no_time_is_left_for_are_named_and_not_begun(tmp_path):
    gpu.main(minutes=0.01, tiny=True, out=tmp_path / "gpu.json")
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {part["failure"] for part in report["parts"].values()} == {"not begun: no time was left"}


def test_a_part_that_fails_makes_the_exit_code_one_and_is_in_the_json(
    capsys, tmp_path, monkeypatch
):
    broken = replace(catalog.TINY, text={"name": "no-such-model", "options": {}})
    monkeypatch.setattr(catalog, "TINY", broken)
    code, _ = ended(capsys, tiny=True, only=["retrieval", "prediction"], out=tmp_path / "gpu.json")
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert code == 1
    assert parts["prediction"]["failure"].startswith(
        "MufinError: encoder.text.name is 'no-such-model'"
    )
    assert not parts["prediction"]["late"]
    assert parts["retrieval"]["failure"] is None and parts["retrieval"]["rows"]


# Floors


def counted(function) -> float:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize("tokens", [3, 20, 32])
def test_text_flop_is_what_torch_counts_without_padding(tokens):
    model = catalog.network(catalog.TINY).eval()
    titles, lengths = torch.ones(4, tokens, dtype=torch.int32), torch.full((4,), tokens)
    expected = counted(lambda: model.encoders["text"](titles, lengths))
    assert catalog.text_work(model).flop(np.full(4, float(tokens))) == expected


def test_image_flop_is_what_torch_counts_of_the_class_token_block():
    model = catalog.network(catalog.TINY).eval()
    work = catalog.image_work(model)
    images = torch.randn(6, work.tokens, work.width)
    assert work.flop(6) == counted(lambda: model.encoders["image"](images))


def test_flop_of_the_papers_encoders_are_the_known_ones():
    """2.74 GFLOP for DistilBERT at 32 tokens, 0.130 for the class token's block of ViT-B/32."""
    assert floors.TextWork(6, 768, 3072).flop(np.array([32.0])) == pytest.approx(2.74e9, rel=0.01)
    assert floors.ImageWork(50, 768, 3072).flop(1) == pytest.approx(0.130e9, rel=0.01)


def event(start: float, length: float, category: str = "kernel") -> dict:
    return {"ph": "X", "cat": category, "ts": start, "dur": length}


def test_busy_time_counts_overlapping_kernels_once():
    events = [
        event(0, 10),
        event(5, 10),
        event(30, 5, "gpu_memcpy"),
        event(31, 1, "gpu_memset"),
        event(0, 1000, "cuda_runtime"),
        {"ph": "M", "name": "process_name"},
    ]
    assert floors.busy_seconds({"traceEvents": events}) == pytest.approx(20e-6)


def test_busy_time_of_a_trace_without_kernels_is_none():
    assert floors.busy_seconds({"traceEvents": [event(0, 5, "cpu_op")]}) is None


class BrokenProfiler:
    def __init__(self, **_):
        raise RuntimeError("CUPTI is not there")


def test_a_profiler_that_fails_gives_its_reason_and_no_share(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.profiler, "profile", BrokenProfiler)
    busy = floors.Busy(torch.device("cpu"), tmp_path)
    busy.start()
    busy.stop()
    assert busy.share is None and busy.reason == "RuntimeError: CUPTI is not there"


# Full float32, where a row says so


@pytest.fixture
def at(tmp_path, monkeypatch) -> training.Place:
    """A place whose device allows TF32 whenever it is asked for, as `runtime.device` does on a GPU."""
    before = torch.get_float32_matmul_precision()

    def device() -> torch.device:
        torch.set_float32_matmul_precision("high")
        return torch.device("cpu")

    monkeypatch.setattr(runtime, "device", device)
    yield training.Place(catalog.TINY, True, tmp_path, None)
    torch.set_float32_matmul_precision(before)


def test_bf16_is_compared_with_full_float32(at, monkeypatch):
    seen = []

    def noted(function):
        def call(*arguments):
            seen.append(torch.get_float32_matmul_precision())
            return function(*arguments)

        return call

    for name in ("train", "embed"):
        monkeypatch.setattr(training, name, noted(getattr(training, name)))
    training.precision(at, lambda row: None)
    assert len(seen) == 10 * 3 and set(seen) == {"highest"}  # ten runs: before, training, after


def test_the_steps_of_exact_search_are_timed_in_full_float32(at, monkeypatch):
    seen, timed = [], prediction.interleaved
    monkeypatch.setattr(
        prediction,
        "interleaved",
        lambda *a: (seen.append(torch.get_float32_matmul_precision()), timed(*a))[1],
    )
    prediction.retrieval(at, lambda row: None)
    assert seen == ["highest"] and torch.get_float32_matmul_precision() == "high"


# The invented catalog


def test_titles_and_bags_have_the_data_sets_mean_lengths():
    rng = np.random.default_rng(0)
    titles, images = catalog.title_lengths(200_000, rng), catalog.image_counts(200_000, rng)
    assert (
        titles.mean() == pytest.approx(20.41, abs=0.2) and titles.min() >= 3 and titles.max() == 32
    )
    assert images.mean() == pytest.approx(4.91, abs=0.05) and images.max() <= 15


def test_an_epoch_of_module_one_has_the_labels_asked_for():
    truth = catalog.truth_by_label(catalog.TINY, 48)
    by_label = truth.transpose(catalog.TINY.labels)
    counts = np.diff(by_label.offsets)
    assert len(truth) == catalog.TINY.datapoints
    assert (counts[:48] > 0).all() and not counts[48:].any()
    assert counts[:48].mean() == pytest.approx(15.7, rel=0.1)


def test_random_lists_have_distinct_values_in_range():
    lists = catalog.random_lists(50, 10, 40, 3)
    assert len(lists) == 50 and lists.values.min() >= 0 and lists.values.max() < 40
    assert all(len(set(lists[i])) == len(lists[i]) > 0 for i in range(50))


@pytest.mark.parametrize("name", [p.stem for p in (ROOT / "params").glob("*.yaml")])
def test_a_profile_read_by_way_of_json_is_the_profile(name, tmp_path):
    assert catalog.profile(name, tmp_path) == load_params(ROOT / f"params/{name}.yaml")


def test_the_curated_sample_is_what_curate_writes(project, tmp_path):
    params = load_params(project / "params.yaml")
    write_curated(params, project / "data/raw", tmp_path / "curated")
    for name in ("products", "labels", "train", "valid", "test"):
        ours, theirs = (
            pq.read_table(folder / f"{name}.parquet")
            for folder in (tmp_path / "curated", project / "data/curated")
        )
        assert ours.equals(theirs), name
