"""A copy of the project as a repository of its own on a small sample, reproduced once per run."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Public data sets; a test that needs one is skipped where it is missing
REAL_DATA = Path(os.environ.get("MUFIN_REAL_DATA", ROOT.parent / "shared/data"))
LEFT_OUT = ("tests", "benchmarks", "docs", "data", "models", "metrics")  # of a copy
# The modules of the paper, with encoders of a laptop: what the tests run, whatever the sample's
# profile runs.
PUBLISHED = {
    "encoder.modalities": ["text", "image"],
    "encoder.dim": 96,
    "encoder.image_dropout": 0.3,
    "encoder.lexical_dropout": 0.0,
    "encoder.descriptor_norm": False,
    "encoder.modality_dropout": 0.2,
    "encoder.image.name": "vit_tiny_patch16_224",
    "encoder.image.options": {
        "img_size": 48,
        "patch_size": 16,
        "embed_dim": 384,
        "depth": 1,
        "num_heads": 6,
    },
    "encoder.image.self_supervised_epochs": 0,
    "encoder.lexical.ngrams": 2,
    "attention.a_s": "attention",
    "attention.pool": "sum",
    "pretrain.temperature": 0.15,
    "pretrain.epochs": 50,
    "pretrain.lr": 0.002,
    "pretrain.lexical_lr_factor": 10.0,
    "pretrain.lexical_weight_decay": 0.0,
    "transfer.a_c": "attention",
    "transfer.classifier": "mufin",
    "finetune.loss": "hinge",
    "finetune.candidates": "shortlist",
    "finetune.temperature": 0.05,
    "finetune.batch_size": 200,
    "finetune.epochs": 20,
    "finetune.lr": 0.0005,
    "finetune.free_lr_factor": 10.0,
    "finetune.free_update": "rows",
    "finetune.lexical_lr_factor": 10.0,
    "finetune.lexical_weight_decay": 0.0,
    "evaluate.mix": "fixed",
    "evaluate.candidates": "shortlist",
    "evaluate.frequency_weights": [0.0],
}
SMALL = PUBLISHED | {
    "download.sample.products": 240,
    "encoder.dim": 32,
    "encoder.image.options": {
        "img_size": 48,
        "patch_size": 16,
        "embed_dim": 48,
        "depth": 1,
        "num_heads": 2,
    },
    "encoder.text.options": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "members": 1,
    "encoder.modalities": ["text", "image", "lexical"],
    "index.title_ridge": 1.0,
    "evaluate.mix": "chosen",
    "evaluate.ridge_weights": [0.0, 0.5],
    "evaluate.frequency_weights": [0.0, 0.05],
    "pretrain.epochs": 4,
    "pretrain.batch_size": 32,
    "finetune.epochs": 3,
    "finetune.batch_size": 32,
}


def changed(params: Path, settings: dict[str, object]) -> str:
    """`params` (a params.yaml) with `settings` (dotted names) in place; KeyError for a new name."""
    from ruamel.yaml import YAML  # here: a machine with a GPU may lack it, and needs conftest.py

    yaml, text = YAML(), io.StringIO()
    content = yaml.load(params.read_text())
    for name, value in settings.items():
        *sections, key = name.split(".")
        section = content
        for part in sections:
            section = section[part]
        if key not in section:
            raise KeyError(f"{name} is not in {params}")
        section[key] = value
    yaml.dump(content, text)
    return text.getvalue()


WITHOUT_PANDAS = ROOT / "tests/support/without_pandas"


def environment(**changes: str) -> dict[str, str]:
    """Of a process that runs the project: one thread, on a CPU, without settings of the user.

    It has no pandas, as an installation without the test packages.
    """
    more = changes.pop("PYTHONPATH", "")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(filter(None, [more, str(WITHOUT_PANDAS)])),
        "MUFIN_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "MUFIN_WORKERS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_NO_ANALYTICS": "1",
        **changes,
    }


def ended(main: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    """The one line on stderr of a stage that ends with exit code 1."""
    from mufin import runtime  # here: a machine with a GPU may lack its imports

    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit) as end:
        runtime.run(main)
    said = capsys.readouterr().err
    assert end.value.code == 1 and said.count("\n") == 1 and said.startswith("error: "), said
    return said


def run(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess:
    """A finished command in `folder`; `changes` are environment variables."""
    return subprocess.run(
        words,
        cwd=folder,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=600,
    )


def small(folder: Path, **more) -> None:
    """Write the small settings as the folder's params.yaml."""
    (folder / "params.yaml").write_text(changed(ROOT / "params.yaml", SMALL | more))


def copied(folder: Path) -> None:
    """The project's files in `folder`, without tests, docs and what a run wrote."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in set(listed.stdout.split("\0")) - {"", "dvc.lock", "params.yaml"}:
        kept = name.endswith(".gitkeep") or name.split("/")[0] not in LEFT_OUT
        if kept and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, once per run: pytest's other processes wait for it."""
    several = "PYTEST_XDIST_WORKER" in os.environ
    base = factory.getbasetemp().parent if several else factory.getbasetemp()
    folder, whole = base / f"shared-{name}", base / f"shared-{name}.whole"
    with open(base / f"shared-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A copy of the project as a repository of its own, reproduced once.

    Each of pytest's processes has a copy, as tests change it for a while.
    """
    folder = tmp_path_factory.mktemp("project") / "project"
    shutil.copytree(made_once(tmp_path_factory, "project", reproduced), folder, symlinks=True)
    return folder


def reproduced(folder: Path) -> None:
    """Fill an empty folder with the project, and reproduce it there."""
    copied(folder)
    small(folder)
    (folder / ".venv").symlink_to(sys.prefix)
    for words in (
        ["git", "init", "-q"],
        ["git", "config", "user.email", "t@example.org"],
        ["git", "config", "user.name", "t"],
    ):
        assert run(folder, *words).returncode == 0
    with open(folder / ".git/info/exclude", "a") as file:
        file.write(".venv\n")  # .gitignore names the folder alone, and this is a link
    commit(folder, "start")
    done = run(folder, "make", "-o", ".venv/ready", "repro", PATH="/usr/local/bin:/usr/bin:/bin")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    commit(folder, "reproduced")


def commit(folder: Path, message: str) -> None:
    """Commit all that git does not ignore."""
    for words in (["git", "add", "-A"], ["git", "commit", "-qm", message]):
        done = run(folder, *words)
        assert done.returncode == 0, done.stdout + done.stderr
