"""MUFIN_PROCESSES: stages in several processes, started by the stage itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from mufin import environment, interrupts, processes
from mufin.code import ROOT
from mufin.errors import MufinError
from tests.support.stages import FINISHED, inside, run_stages

WITHOUT_DROPOUT = {  # draws of dropout differ with the number of processes
    "encoder.input_dropout": 0.0,
    "encoder.image_dropout": 0.0,
    "encoder.lexical_dropout": 0.0,
    "encoder.modality_dropout": 0.0,
    "attention.dropout": 0.0,
    "pretrain.epochs": 2,
    "pretrain.batch_size": 32,
    "encoder.modalities": ["lexical"],
}


@pytest.fixture(scope="module")
def curated(tmp_path_factory) -> Path:
    """The folder of a run up to precompute."""
    home = tmp_path_factory.mktemp("processes")
    with inside(home, **WITHOUT_DROPOUT):
        run_stages(home, last="precompute")
    return home


def stage(name: str, home: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"pipeline.{name}", "--home", str(home)],
        env=os.environ
        | {"MUFIN_DEVICE": "cpu", "MUFIN_WORKERS": "2", "MUFIN_SCRATCH": str(home / "scratch")}
        | environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def of_one(curated) -> tuple[dict, np.ndarray]:
    """Weights and curve of a run in one process."""
    return trained(curated, "1")


def trained(home: Path, count: str) -> tuple[dict, np.ndarray]:
    run = stage("pretrain", home, MUFIN_PROCESSES=count)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0 and "Warning" not in said, said
    curve = np.loadtxt(home / "metrics/pretrain.csv", delimiter=",", skiprows=1)
    return load_file(home / "models/pretrain/member-0/model.safetensors"), curve


def assert_close(found: tuple[dict, np.ndarray], wanted: tuple[dict, np.ndarray]) -> None:
    assert np.allclose(found[1], wanted[1], rtol=1e-5)
    for name, weight in wanted[0].items():
        if not name.endswith("key.bias"):  # its true gradient is 0; AdamW blows up the rounding
            assert (found[0][name] - weight).abs().max() <= 2e-4, name


def test_two_processes_have_losses_and_weights_of_one(curated, of_one):
    assert_close(trained(curated, "2"), of_one)


@pytest.mark.parametrize("begun, continued", [("1", "2"), ("2", "1")])
def test_another_number_of_processes_continues_a_run(curated, of_one, begun, continued):
    settings = {"MUFIN_CHECKPOINT_SECONDS": "0", "MUFIN_PROCESSES": begun}
    first = stage("pretrain", curated, **settings)
    scratch = curated / "scratch/pretrain"
    end = time.monotonic() + 120
    while not list(scratch.glob("*/checkpoint.safetensors")):
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    first.send_signal(signal.SIGTERM)  # a launcher ends its processes too
    first.communicate()
    assert list(scratch.glob("*/checkpoint.safetensors"))  # it was not at its end
    assert_close(trained(curated, continued), of_one)


IN_SHARES = """
import sys
from pathlib import Path
from mufin import process_group
from mufin.evaluation import scored
from mufin.nn import embedding
from mufin.ranking import neighbour_votes, scoring
from mufin.retrieval import exact, hnsw, neighbours
from pipeline import evaluate, index, retrieve
# So that each process gets a share of the small run
embedding.BATCH, exact.BUDGET, hnsw.FETCHED, neighbour_votes.BUDGET = 16, 2**14, 2**13, 2**9
scoring.classifier_scores.__defaults__ = (2**20,)
if sys.argv[2] == "hnsw":  # and so that scores are computed in blocks
    scoring.HELD, scored.CELLS, neighbours.AUTO_EXACT = 2**18, 2**10, 100
for stage in (retrieve, index, evaluate):
    stage.main(Path(sys.argv[1]))
    process_group.barrier()  # until the first process has published
"""


@pytest.mark.parametrize("search", ["exact", "hnsw"])
def test_two_processes_embed_search_and_predict_the_same_bytes(finished, tmp_path, search):
    script, found = tmp_path / "script.py", []
    script.write_text(IN_SHARES)
    changes = {"retrieve.search": search, "index.search": search}
    one_thread = {f"{name}.hnsw.threads": 1 for name in ("retrieve", "index")}
    for count in (1, 2):
        home = tmp_path / str(count)
        for inputs in ("data/curated", "data/precomputed", "models/pretrain", "models/finetune"):
            (home / inputs).parent.mkdir(parents=True, exist_ok=True)
            (home / inputs).symlink_to(finished / inputs)
        with inside(home, **FINISHED, **changes, **one_thread):
            launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", "--standalone"]
            command = [sys.executable, *(launcher if count > 1 else [])]
            run = subprocess.run(
                [*command, str(script), str(home), search],
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                timeout=300,
                capture_output=True,
                text=True,
            )
        assert run.returncode == 0, run.stderr
        made = [home / f"data/{name}" for name in ("embeddings", "shortlists", "predictions")]
        made.append(home / "models/index")
        files = [path for folder in made for path in folder.rglob("*") if path.is_file()]
        files += [*(home / "metrics").glob("*.*"), home / "models/mix.json"]
        found.append({str(path.relative_to(home)): path.read_bytes() for path in files})
    one, two = found
    assert [name for name in one if one[name] != two.get(name)] == [] and one.keys() == two.keys()
    assert any(name.endswith("hnsw.bin") for name in one) == (search == "hnsw")
    assert {"metrics/evaluate.json", "metrics/methods.csv", "data/predictions/test.parquet"} < set(
        one
    )


@pytest.mark.parametrize("name", ["retrieve", "index", "evaluate"])
def test_stages_that_embed_run_in_processes_of_their_own(finished, tmp_path, name):
    made = ["data/curated", "data/precomputed", "models/pretrain", "models/finetune"]
    if name == "evaluate":
        made += ["data/embeddings", "models/index"]
    for inputs in made:
        (tmp_path / inputs).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / inputs).symlink_to(finished / inputs)
    (tmp_path / "params.yaml").write_text((finished / "params.yaml").read_text())
    run = stage(name, tmp_path, MUFIN_PROCESSES="2")
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0 and "Warning" not in said, said
    assert (tmp_path / f"metrics/{name}.json").is_file()


def test_what_a_process_says_is_one_sentence(curated, tmp_path):
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "params.yaml").write_text((curated / "params.yaml").read_text())
    run = stage("pretrain", home, MUFIN_PROCESSES="2")
    _, said = run.communicate(timeout=300)
    assert run.returncode == 1
    assert said.startswith("error: ") and said.count("\n") == 1 and "is missing; run `dvc" in said


def test_a_signal_ends_all_processes_in_one_sentence(curated):
    run = stage("pretrain", curated, MUFIN_PROCESSES="2")
    end = time.monotonic() + 120
    while len(children(run.pid)) < 2:
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    below = children(run.pid)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 143
    assert said == "error: pretrain was interrupted (SIGTERM); run the same command to continue\n"
    # The system waits for those whose parent has ended
    while any(Path(f"/proc/{child}").exists() for child in below):
        assert time.monotonic() < end
        time.sleep(0.05)


def children(process: int) -> list[int]:
    """The processes that it has started, and those that are below these."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in path.read_text().split():
            found += [int(child), *children(int(child))]
    return found


def test_a_number_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("MUFIN_PROCESSES", "many")
    with pytest.raises(MufinError, match="MUFIN_PROCESSES is 'many'; set it to a whole number"):
        environment.processes()


def test_processes_of_torchrun_start_no_others(monkeypatch):
    monkeypatch.setenv("MUFIN_PROCESSES", "4")
    assert environment.processes() == 4
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert environment.processes() == 1


@pytest.mark.parametrize(
    "device, said",
    [("cuda", "torch sees 1 GPUs; set it to at most that"), ("cuda:0", "a GPU of its own")],
)
def test_more_processes_than_gpus_are_refused(device, said, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", device)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(MufinError, match=said):
        processes._check_gpus(2)


@pytest.mark.parametrize(
    "rank, launched, speaks",
    [(None, False, True), (None, True, True), ("0", False, True), ("1", False, False)]
    + [("0", True, False), ("1", True, False)],
)
def test_one_process_of_several_writes_the_sentence(rank, launched, speaks, monkeypatch):
    for name, value in (("RANK", rank), (interrupts.LAUNCHED, "1" if launched else None)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert interrupts._speaks() == speaks
