"""Steps of Module I in one process and in two, one GPU each, with the same batch in all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.on_gpu import catalog
from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place, Tell, pretraining
from mufin import devices, process_group
from mufin.training.loop import train

ROOT = Path(__file__).resolve().parents[2]


def processes(at: Place, tell: Tell) -> None:
    """Needs two GPUs; elsewhere a row says that there are none."""
    if torch.cuda.device_count() < 2:
        note = f"{torch.cuda.device_count()} GPUs"
        tell(Row(figure="Module I, two processes: one step", value=None, unit="ms", note=note))
        return
    seconds = measured(at)
    for count, name in ((1, "one process"), (2, "two processes")):
        tell(Row(figure=f"Module I, {name}: one step", value=1000 * seconds[count], unit="ms"))
    ratio = seconds[1] / seconds[2]
    tell(Row(figure="Module I, two processes: steps", value=ratio, unit="x one process", aim=2.0))


def measured(at: Place) -> dict[int, float]:
    """{processes: seconds per step}, each from a run of torch's launcher."""
    sizes, folder = at.sizes, at.folder / f"precomputed-{at.sizes.held_images}"
    catalog.write_descriptors(sizes, catalog.network(sizes), folder, sizes.held_images)
    found = {}
    for count in (1, 2):
        out = at.folder / f"processes-{count}.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        words = ["-m", __name__, str(at.folder), str(out), "tiny" if at.tiny else "full"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *launcher, *words]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=sys.stderr)
        found[count] = json.loads(out.read_text())
    return found


def main(folder: Path, out: Path, tiny: bool) -> None:
    """One process of a run; the first writes the seconds per step of the second epoch."""
    device = devices.device()
    process_group.start(device)
    at = Place(catalog.TINY if tiny else catalog.FULL, tiny, folder, None)
    model = catalog.network(at.sizes).to(device)
    store = at.store(model, at.sizes.held_images)
    with at.machine(device, devices.precision()) as where:
        job, optimisers = pretraining(at, model, store, at.sizes.steps, 2, where)
        row = train(job, optimisers, 0, 1000, where)[-1]
    if process_group.rank() == 0:
        out.write_text(json.dumps(row["seconds"] / job.steps))
    process_group.barrier()
    process_group.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "tiny")
