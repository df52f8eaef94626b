"""Shares of the work of a stage, and rows that all its processes get."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from pytest import MonkeyPatch

from mufin import process_group
from mufin.code import ROOT


@given(st.integers(0, 100), st.integers(1, 12), st.integers(1, 7))
def test_shares_cover_everything_once_and_cut_no_group(count, together, world):
    with MonkeyPatch.context() as patch:
        patch.setattr(process_group, "world", lambda: world)
        parts = [process_group.share_of(r, count, together) for r in range(world)]
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    assert all(part.start % together == 0 or part.start >= count for part in parts)
    groups = [-(-len(range(count)[part]) // together) for part in parts]
    assert max(groups) - min(groups) <= 1


SCRIPT = """
import numpy as np, torch
from mufin import process_group
cpu = torch.device("cpu")
process_group.start(cpu)
process_group.SENT = 7  # bytes: many blocks
rng = np.random.default_rng(0)
for dtype in (np.float32, np.int64, np.int8, np.bool_):
    for count, shape in ((11, (3,)), (2, (5,)), (1, ()), (0, (4,))):
        every = (rng.normal(size=(count, *shape)) * 9).astype(dtype)
        mine = every[process_group.share(count, 2)]
        found = process_group.gather(mine, cpu)
        assert found.dtype == every.dtype and found.shape == every.shape
        assert found.tobytes() == every.tobytes()
    own = np.zeros((7, 2), np.float32)
    own[process_group.rank() :: 3] = process_group.rank() + 1
    every = [[n % 3 + 1] * 2 for n in range(7)]
    assert process_group.total(own, cpu).tolist() == every
    found = process_group.in_shares(7, lambda rows: (np.array(every)[rows],), cpu, 2)
    assert found[0].tolist() == every
process_group.barrier()
process_group.leave()
"""


def test_three_processes_get_the_rows_of_all(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=3", "--standalone"]
        + [str(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
