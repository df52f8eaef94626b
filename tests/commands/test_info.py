"""`mufin info`: what a run is, what is missing of it, and what is damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from mufin.artifacts.contents import contents_of
from mufin.artifacts.precomputed import Precomputed
from mufin.cli import app
from mufin.commands.weight_headers import parameters_of
from mufin.errors import ArtifactError
from mufin.nn.assembly import load_members
from tests.support.projects import ROOT


def info(home: Path) -> dict:
    done = CliRunner().invoke(app, ["info", str(home), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(home: Path) -> str:
    done = CliRunner().invoke(app, ["info", str(home)])
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the run, to damage."""
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("scratch"))
    return tmp_path / "run"


def test_the_figures_are_those_of_the_files(finished):
    said = info(finished)
    for name in ("products", "labels", "train", "valid", "test"):
        assert said["data"][name] == len(pq.read_table(finished / f"data/curated/{name}.parquet"))
    assert said["data"]["source"] == "sample" and said["data"]["pictures"] > 100
    assert said["metrics"] == json.loads((finished / "metrics/evaluate.json").read_text())
    mix = json.loads((finished / "models/mix.json").read_text())
    assert said["mix"] == {n: v for n, v in mix.items() if n not in ("sha256", "made_from")}
    assert said["ids"]["models/index"] == contents_of(finished / "models/index").id
    index = contents_of(finished / "models/index")
    assert said["made_from"]["models/index"] == index.made_from
    assert said["disk"]["models/index"] == sum(n for n, _ in index.files.values())
    assert said["settings"]["members"] == said["networks"]["members"] == 2
    assert said["networks"]["modalities"] == ["text", "image", "lexical"]
    assert said["missing"] == []


def test_parameters_are_counted_as_torch_does(finished):
    folder = finished / "models/finetune"
    member = load_members(folder, Precomputed(finished / "data/precomputed"))[0]
    expected = sum(p.numel() for p in member.network.parameters())
    assert info(finished)["networks"]["parameters per member"] == expected
    counts = parameters_of(finished / "models/finetune/member-0/model.safetensors")
    own = load_file(finished / "models/finetune/member-0/model.safetensors")
    lexical = sum(t.numel() for n, t in own.items() if n.startswith("encoders.lexical"))
    assert counts["encoders.lexical"] == lexical


def test_the_text_names_all_sections(finished):
    done = CliRunner().invoke(app, ["info", str(finished)])
    for heading in ("folder:", "made: 20", "data:", "networks:", "mix:", "metrics:", "ids:"):
        assert f"\n{heading}" in f"\n{done.stdout}"
    assert "missing:" not in done.stdout


def test_it_imports_no_torch(finished):
    script = (
        "import sys; from mufin.cli import app\n"
        f"app(['info', {str(finished)!r}], standalone_mode=False)\n"
        "print([n for n in ('torch', 'transformers', 'polars') if n in sys.modules])"
    )
    words = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.stdout.endswith("\n[]\n"), done.stderr


@pytest.mark.parametrize(
    "name", ["models/mix.json", "metrics", "data/raw", "models", "params.yaml"]
)
def test_a_partial_folder_says_what_is_missing(copied, name):
    path = copied / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = info(copied)
    missing = {"metrics": "metrics/evaluate.json", "models": "models/index"}.get(name, name)
    assert missing in said["missing"] and "data/curated" not in said["missing"]
    assert said["data"]["products"] > 100
    done = CliRunner().invoke(app, ["info", str(copied)])
    assert done.exit_code == 0 and f"{missing}" in done.stdout.partition("missing: ")[2]


def test_settings_alone_are_a_partial_folder(copied):
    for name in ("data", "models", "metrics"):
        shutil.rmtree(copied / name)
    assert info(copied)["data"] == {"source": "sample"}


DAMAGE = {
    "models/mix.json": "models/mix.json is not JSON",
    "models/index/contents.json": "models/index/contents.json is damaged",
    "models/finetune/member-0/model.json": "model.json is damaged",
    "models/finetune/member-0/model.safetensors": "model.safetensors is damaged",
    "data/curated/products.parquet": "products.parquet is damaged",
    "data/raw/source.json": "source.json is damaged",
    "metrics/evaluate.json": "metrics/evaluate.json is not JSON",
    "params.yaml": "params.yaml",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_one_sentence(copied, name):
    (copied / name).write_bytes(b"\x00{damaged")
    assert DAMAGE[name] in refused(copied)


@pytest.mark.parametrize("content", ["[]", "7", '{"test": 3}', "null"])
def test_metrics_of_another_form_are_one_sentence(copied, content):
    (copied / "metrics/evaluate.json").write_text(content)
    assert "evaluate.json has no metrics" in refused(copied)


def test_a_file_is_missing_of_an_artifact(copied):
    (copied / "models/finetune/member-1/model.safetensors").unlink()
    assert "model.safetensors is missing" in refused(copied)


def test_a_folder_without_a_run_is_refused(tmp_path):
    assert "has no params.yaml, and nothing in data/" in refused(tmp_path)
    assert "is not a folder" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        (2**60).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (24).to_bytes(8, "little") + b'{"a": {"shape": ["x"]}} ',
    ],
)
def test_no_header_of_weights_reads_far(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="its header cannot be read"):
        parameters_of(tmp_path / "model.safetensors")
