"""docs/first-recommender.md: its commands run as they are printed, with small networks."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mufin.code import ROOT
from tests.support.projects import changed
from tests.support.stages import SMALL

PAGE = ROOT / "docs/first-recommender.md"
SET_UP = ("make setup", ". .venv/bin/activate")  # the test runs in what these make


# What learns quickly, in place of the settings that `mufin inspect` takes over from the sample
QUICK = {name: value for name, value in SMALL.items() if name.startswith("encoder.")} | {
    "pretrain.epochs": 2,
    "finetune.epochs": 2,
}


def commands() -> tuple[str, str]:
    """Those before the training, which make params.yaml, and the others."""
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line not in SET_UP]
    training = lines.index("dvc repro")
    return script(lines[:training]), script(lines[training:])


def script(lines: list[str]) -> str:
    return "\n".join(["set -euxo pipefail", *lines, "wait"])


def port_is_free() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", 8000)) != 0


@pytest.mark.skipif(not port_is_free(), reason="port 8000, which the page uses, is taken")
def test_the_page_runs_as_it_is_printed(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone),
        "MUFIN_DEVICE": "cpu",
        "DVC_NO_ANALYTICS": "1",
    }
    settings = clone / "params.yaml"
    for part in commands():
        done = subprocess.run(
            ["bash", "-c", part], cwd=clone, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        settings.write_text(changed(settings, QUICK))
    assert '"new-1"' in done.stdout  # the product that was put
    assert len(re.findall(r'"answers"', done.stdout)) == 2
    assert "small blue mug" in done.stdout
