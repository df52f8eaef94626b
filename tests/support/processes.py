"""Scripts of tests in several processes that torchrun starts, or in this one."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.projects import ROOT


def in_processes(count: int, script: Path, folder: Path) -> None:
    """Runs a script, which sets one thread, with `folder` as its argument; it must end well.

    One process is this one: to start another takes seconds.
    """
    if count == 1:
        return _here(script, folder)
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    done = subprocess.run(
        [*command, "--standalone", str(script), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _here(script: Path, folder: Path) -> None:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), str(folder)])
        runpy.run_path(str(script))
    torch.set_num_threads(threads)
