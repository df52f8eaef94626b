"""The project as a repository of its own on a small sample, reproduced once for all tests that need it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compare.variant import changed

ROOT = Path(__file__).parents[2]
SMALL = {
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
    "members": 2,
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


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": "",
        "MUFIN_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "MUFIN_WORKERS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_NO_ANALYTICS": "1",
    }


def run(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        words, cwd=folder, env=environment() | changes, capture_output=True, text=True, timeout=600
    )


def small(folder: Path, **more) -> None:
    """Write the small settings as the folder's params.yaml."""
    (folder / "params.yaml").write_text(changed(ROOT / "params.yaml", SMALL | more))


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A copy of the project as a repository of its own, reproduced once."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(
        ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("dvc.yaml", "Makefile", ".dvcignore", ".gitignore", "params"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    small(folder)
    for words in (
        ["git", "init", "-q"],
        ["git", "config", "user.email", "t@example.org"],
        ["git", "config", "user.name", "t"],
        ["git", "add", "-A"],
        ["git", "commit", "-qm", "start"],
    ):
        assert run(folder, *words).returncode == 0
    done = run(
        folder,
        "make",
        "-o",
        f"{sys.prefix}/ready",
        f"VENV={sys.prefix}",
        "repro",
        PATH="/usr/local/bin:/usr/bin:/bin",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced")
    return folder
