"""A training step of Module I where titles and images meet late, early or both ways.

python -m benchmarks.fusion --out benchmarks/results/fusion.json   (after `dvc repro precompute`)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.timing import interleaved, spread, tell
from benchmarks.training_step import one_step
from mufin import devices
from mufin.artifacts.curated import read_curated
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import new_member
from mufin.params import load_params
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, Rates
from mufin.training.pretraining import Pretraining
from pipeline.pretrain import _architecture


def main(
    home: Path = Path("."),
    repeats: int = 30,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Steps of the settings in `home`/params.yaml, in turns: batch, loss, gradients, update."""
    params, precomputed = load_params(home / "params.yaml"), home / "data/precomputed"
    if not {"text", "image"} <= set(there := params.encoder.modalities):
        raise SystemExit(
            f"encoder.modalities is {list(there)}, and what is compared needs text and image; set "
            "it to [text, image] and run `dvc repro precompute` first"
        )
    data, s, device = read_curated(home / "data/curated"), params.pretrain, devices.device()
    store = DescriptorStore(precomputed, list(params.encoder.modalities), device)

    def step_of(fusion: str, folder: Path) -> Callable[[], None]:
        machine = Machine(device, devices.precision(), folder, 1e9)
        architecture = replace(
            _architecture(params), fusion=fusion, fused_images=params.encoder.fused_images
        )
        network = new_member(architecture, Precomputed(precomputed), params.seed).network
        network.to(device).train()
        job = Pretraining(network, store, data.train, data.labels, s, params.seed, machine)
        rates = Rates(encoder=s.lr, new=s.lr, gates=s.lr, lexical=s.lr, attention=s.lr, free=s.lr)
        optimisers = Optimisers(network, rates, s.weight_decay, with_cross_attention=False)
        return one_step(job, optimisers, device)

    with tempfile.TemporaryDirectory() as folder:
        ways = {fusion: step_of(fusion, Path(folder)) for fusion in ("late", "early", "both")}
        seconds = interleaved(ways, repeats)
    tell(
        f"one step of Module I, {s.batch_size} labels, last layers of E_T that train: "
        f"{params.encoder.text.trainable_layers}, {torch.get_num_threads()} threads, {device}",
        {name: spread(times) for name, times in seconds.items()},
        out,
    )


if __name__ == "__main__":
    typer.run(main)
