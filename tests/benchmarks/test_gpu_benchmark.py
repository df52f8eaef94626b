"""benchmarks.gpu: every part runs on a CPU, none can stop another, the floors are right."""

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
from mufin import devices
from mufin.corpus.descriptors import DescriptorStore
from mufin.params import load_params
from mufin.profiles import read_profile
from tests.support.projects import ROOT
from tests.support.stages import inside, run_stages

ABSENT = ("dvc", "polars", "hnswlib", "ruamel", "sklearn")  # on the machine with the GPU
SECTIONS = {  # part: words that its figures must have
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
    "all-labels": ["eta in bf16: one step", "eta in fp32: one step", "bf16: peak GPU memory"],
    "compiled": ["eager: one step", "compiled: one step", "compiled against eager: loss"],
    "processes": ["two processes: one step"],
    "sample": ["precompute", "pretrain", "retrieve", "transfer", "finetune"],
}
NEEDS_GPU = ("peak GPU memory", "the GPU waits", "two processes: one step")


def blocked(folder: Path) -> dict[str, str]:
    """An environment in which the packages that the GPU machine lacks cannot be imported."""
    for name in ABSENT:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name} here')\n")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """Output and JSON of the tiny run as a user starts it, without what the GPU machine lacks."""
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


def test_every_part_has_its_figures_without_a_gpu(rehearsal):
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
    assert told["Module I, compiled against eager: loss"]["value"] < 0.1
    assert 0 < told["Module I, bf16 against fp32: loss"]["value"] < 5
    assert told["Module I, held in GPU memory: one step"]["floor"] > 0


def test_the_table_has_all_figures_the_json_the_machine(rehearsal):
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


def test_the_fork_server_has_not_started_cuda():
    """CUDA cannot be used in a fork of a process in which it has started."""
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


# Parts for `run_part`: at module level, so that they can be sent to another process


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
def test_a_part_that_fails_keeps_its_rows(part, failure, tmp_path):
    done = run_part("x", part, (), 60, tmp_path / "log")
    assert done.failure == failure
    assert [row["figure"] for row in done.rows] == ["before"]


def test_a_late_part_is_stopped_with_its_children(tmp_path):
    run_part("x", ends_well, (), 60, tmp_path / "log")  # the server has imported what it needs
    start = time.monotonic()
    done = run_part("x", tells_and_hangs, (str(tmp_path / "pid"),), 5, tmp_path / "log")
    assert done.failure == "stopped at its limit of 5 s" and len(done.rows) == 1
    assert time.monotonic() - start < 60
    child = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{child}/stat")
    gone = not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    assert gone


def test_a_part_that_exits_fails_with_its_exit_code(tmp_path):
    assert run_part("x", exits, (), 60, tmp_path / "log").failure == "ended with exit code 3"


def test_a_part_that_ends_well_has_no_failure(tmp_path):
    done = run_part("x", ends_well, (), 60, tmp_path / "log")
    assert done.failure is None and done.rows == [
        {"figure": "only", "value": 2.0, "unit": "ms", "floor": 1.0, "aim": 3.0, "note": "why"}
    ]


def test_half_a_written_line_is_left_out(tmp_path):
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


def test_an_unknown_part_is_refused_with_all_names(capsys):
    code, words = ended(capsys, tiny=True, only=["modul-one"])
    assert code == 1
    assert words == f"error: --only modul-one is no part; the parts are {', '.join(PARTS)}\n"


def test_missing_packages_are_named(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "NEEDED", ("torch", "no_such_package"))
    code, words = ended(capsys, tiny=True)
    assert code == 1 and "has no no_such_package; run `make setup`" in words


def test_parts_without_time_are_named_and_not_started(tmp_path):
    gpu.main(minutes=0.01, tiny=True, out=tmp_path / "gpu.json")
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {part["failure"] for part in report["parts"].values()} == {
        "not started: no time was left"
    }


def test_a_failed_part_makes_the_exit_code_one(capsys, tmp_path, monkeypatch):
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


def test_image_flop_is_what_torch_counts():
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


def test_a_broken_profiler_gives_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.profiler, "profile", BrokenProfiler)
    busy = floors.Busy(torch.device("cpu"), tmp_path)
    busy.start()
    busy.stop()
    assert busy.share is None and busy.reason == "RuntimeError: CUPTI is not there"


# Full float32, where a row says so


@pytest.fixture
def at(tmp_path, monkeypatch) -> training.Place:
    """A place whose device allows TF32 at each call, as `devices.device` does on a GPU."""
    before = torch.get_float32_matmul_precision()

    def device() -> torch.device:
        torch.set_float32_matmul_precision("high")
        return torch.device("cpu")

    monkeypatch.setattr(devices, "device", device)
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


def test_exact_search_is_timed_in_full_float32(at, monkeypatch):
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


def test_an_epoch_of_module_one_has_its_labels():
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
def test_a_profile_read_by_pyyaml_is_the_profile(name):
    assert catalog.profile(name) == read_profile(name)


def test_the_invented_catalog_is_read_as_it_was_written(tmp_path):
    sizes = replace(catalog.TINY, held_images=9000)  # two mentions of a file of 4,000 rows
    catalog.write_descriptors(sizes, catalog.network(sizes), tmp_path / "p", sizes.held_images)
    store = DescriptorStore(tmp_path / "p", ["text", "image"])
    assert store.num_products == sizes.products and store.num_images == 2 * catalog.ROWS
    batch = store.batch(np.arange(sizes.products))
    assert batch.text_lengths.float().mean() == pytest.approx(20.4, abs=1.0)
    assert len(batch.images) / sizes.products == pytest.approx(4.91, abs=0.3)
    assert torch.equal(store.image_rows(np.array([3])), store.image_rows(np.array([4003])))
    before = (tmp_path / "p/manifest.json").stat().st_mtime_ns
    catalog.write_descriptors(sizes, catalog.network(sizes), tmp_path / "p", sizes.held_images)
    assert (tmp_path / "p/manifest.json").stat().st_mtime_ns == before  # written once


def test_the_curated_sample_is_what_curate_writes(tmp_path):
    with inside(tmp_path):
        run_stages(tmp_path, "download", "curate")
        write_curated(load_params(), tmp_path / "data/raw", tmp_path / "curated")
    for name in ("products", "labels", "train", "valid", "test"):
        ours, theirs = (
            pq.read_table(folder / f"{name}.parquet")
            for folder in (tmp_path / "curated", tmp_path / "data/curated")
        )
        assert ours.equals(theirs), name
