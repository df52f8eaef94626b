"""Two runs of the same settings on one machine leave the same bytes, also with several threads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.attack.killed_stages import hashes
from tests.support.projects import ROOT, environment
from tests.support.stages import FINISHED, inside, run_stages

THREADS = 2
SETTINGS = FINISHED | {
    f"{stage}.{name}": value
    for stage in ("retrieve", "index")
    for name, value in {"search": "hnsw", "hnsw.threads": 1}.items()
}
AGAIN = """
import sys
from pathlib import Path
from tests.support.stages import run_stages
run_stages(Path(sys.argv[1]))
"""


@pytest.fixture
def as_before() -> Iterator[None]:
    """Leaves the number of threads as it was."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_two_runs_with_two_threads_leave_equal_bytes(tmp_path, as_before):
    homes = [tmp_path / name for name in ("one", "other")]
    for home in homes:
        home.mkdir()
    with inside(homes[0], workers=THREADS, **SETTINGS):
        run_stages(homes[0])
        assert torch.get_num_threads() == THREADS
    with inside(homes[1], workers=THREADS, **SETTINGS):
        # A process of its own, in which sets of strings have another order
        more = {"MUFIN_WORKERS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}
        subprocess.run(
            [sys.executable, "-c", AGAIN, str(homes[1])],
            env=environment(PYTHONPATH=str(ROOT), PYTHONHASHSEED="1", **more),
            check=True,
            capture_output=True,
            timeout=300,
        )
    one, other = map(hashes, homes)
    assert one == other and len(one) > 80
    written = {Path(name).name for name in one if name.startswith("metrics/")}
    assert {"finetune.json", "finetune.csv", "evaluate.json", "choices.json"} <= written
