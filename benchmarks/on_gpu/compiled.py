"""Whether torch.compile pays in Module I: steps as they are, and with compiled encoders and A_S.

The product does not compile: a step has another number of titles and pictures each time, and no GPU
has shown yet that what is compiled once for all sizes is faster than the fused kernels of torch.
"""

from __future__ import annotations

import torch

from benchmarks.on_gpu import catalog
from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place, Tell, peak_memory, pretraining
from mufin import devices
from mufin.nn.mufin import Mufin
from mufin.training.loop import train


def compile_parts(model: Mufin, tiny: bool) -> None:
    """Compiles encoders and A_S for any number of rows; names of weights stay.

    A rehearsal traces A_S alone: the encoders and a C++ compiler take minutes on a CPU.
    """
    parts = [model.self_attention] if tiny else [*model.encoders.values(), model.self_attention]
    for part in parts:
        part.compile(dynamic=True, backend="aot_eager" if tiny else "inductor")


def compiled(at: Place, tell: Tell) -> None:
    """Two epochs of Module I each; the first has the compilation in it."""
    device, losses = devices.device(), []
    for way in ("eager", "compiled"):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        # The same weights, and no dropout, whose random numbers a compiler draws in another order
        model = catalog.network(at.sizes, dropout=False).to(device)
        store = at.store(model, at.sizes.held_images)
        if way == "compiled":
            compile_parts(model, at.tiny)
        with at.machine(device, devices.precision()) as where:
            job, optimisers = pretraining(at, model, store, at.sizes.steps, 2, where)
            first, second = train(job, optimisers, 0, 1000, where)
        title = f"Module I, {way}"
        millis = 1000 * second["seconds"] / job.steps
        tell(Row(figure=f"{title}: one step", value=millis, unit="ms"))
        tell(Row(figure=f"{title}: first epoch", value=first["seconds"], unit="s"))
        tell(peak_memory(title))
        losses.append(second["loss"])
        del model, store, job, optimisers
    apart = 100 * abs(losses[1] - losses[0]) / abs(losses[0])
    tell(Row(figure="Module I, compiled against eager: loss", value=apart, unit="% of eager's"))
