"""What holds on a GPU or with several processes, tested on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from mufin.training import losses
from tests.support.training import machine, pretraining

SCRIPT = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from mufin.nn.weights import weights_of
from mufin.training import distributed
from mufin.training.loop import train
from tests.support.training import finetuning, machine
torch.set_num_threads(1)
distributed.start(torch.device("cpu"))
where = machine(Path(sys.argv[1]) / "scratch", 1e9)
job, optimisers = finetuning(where, 0.3, select="last")
train(job, optimisers, 5, 10, where)
save_file(weights_of(optimisers.model), Path(sys.argv[1]) / f"{distributed.rank()}.safetensors")
distributed.barrier()
"""


def test_processes_keep_one_model_also_with_dropout(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--standalone",
            str(script),
            str(tmp_path),
        ],
        check=True,
        env=environment,
        timeout=240,
        capture_output=True,
    )
    one, other = (load_file(tmp_path / f"{r}.safetensors") for r in (0, 1))
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-6), name


def test_module_one_scores_are_float32_under_bf16(tmp_path, monkeypatch):
    job, _ = pretraining(machine(tmp_path / "a", 1e9))
    seen, triplet = [], losses.triplet
    monkeypatch.setattr(
        losses, "triplet", lambda *a: (seen.extend(t.dtype for t in a[:2]), triplet(*a))[1]
    )
    with torch.autocast("cpu", torch.bfloat16):
        job.loss(job.prepare(job.plan(0)[0], np.random.default_rng(0)))
    assert seen == [torch.float32, torch.float32]
