"""A step of Module I at full width, from pixels and from stored activations of E_V's frozen trunk.

python -m benchmarks.training_step --out benchmarks/results/training_step.json

E_V is ViT-B/32 at 224 pixels, of which the last block trains, E_T is DistilBERT, of which all
trains; weights are random. From pixels, the frozen trunk runs in every step.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from benchmarks.on_gpu import catalog
from benchmarks.on_gpu.catalog import Sizes
from benchmarks.on_gpu.training import Place, pretraining
from benchmarks.timing import interleaved, tell
from mufin import devices
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.frozen import frozen_inputs, to_int8
from mufin.nn.image_encoder import ImageEncoder
from mufin.nn.mufin import Mufin
from mufin.ragged import Lists, offsets_of
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers
from mufin.training.pretraining import Pretraining


class FromPixels(nn.Module):
    """E_V as it would be without precompute: uint8 pixels (n, S, S, 3) -> descriptors."""

    kind = "inputs"

    def __init__(self, encoder: ImageEncoder):
        super().__init__()
        self.encoder, self.width = encoder, encoder.width

    def forward(self, pixels: Tensor) -> Tensor:
        activations = self.encoder.frozen(pixels)
        self.encoder.train()  # `frozen` has set it to eval mode
        return self.encoder(activations)


def main(
    labels: Annotated[int, typer.Option(help="per step, each with two positives")] = 4,
    repeats: int = 5,
    tiny: Annotated[bool, typer.Option("--tiny", help="small networks, for a test")] = False,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Seconds per step of each way, and how much faster than from pixels it is."""
    many = max(40 * labels, 60)
    size = {"products": 2 * many, "labels": many, "datapoints": many, "batch": labels}
    sizes = replace(catalog.TINY if tiny else catalog.FULL, **size)
    start = catalog.network(sizes)
    pixels = _pixels(sizes)
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            name: _step(sizes, model, store, Path(folder))
            for name, (model, store) in _ways(sizes, start, pixels).items()
        }
        seconds = {n: statistics.median(s) for n, s in interleaved(ways, repeats).items()}
    tell(
        f"one step of Module I, {labels} labels with 2 positives each, "
        f"{torch.get_num_threads()} threads, {devices.device()}",
        {n: {"seconds": s, "ratio": seconds["from pixels"] / s} for n, s in seconds.items()},
        out,
    )


def _ways(
    sizes: Sizes, start: Mufin, pixels: np.ndarray
) -> dict[str, tuple[Mufin, DescriptorStore]]:
    encoder = start.encoders["image"]
    batches = np.array_split(pixels, -(-len(pixels) // 16))
    parts = [
        frozen_inputs(encoder, (torch.from_numpy(part),), torch.device("cpu"), torch.float32)
        for part in batches
    ]
    activations = np.concatenate(parts)
    live = copy.deepcopy(start)
    live.encoders["image"] = FromPixels(live.encoders["image"])
    return {
        "from pixels": (live, _store(sizes, pixels)),
        "from activations, float16": (copy.deepcopy(start), _store(sizes, activations)),
        "from activations, int8": (copy.deepcopy(start), _store(sizes, to_int8(activations))),
    }


def _pixels(sizes: Sizes) -> np.ndarray:
    side = sizes.image["size"]
    return np.random.default_rng(0).integers(0, 256, (64, side, side, 3), dtype=np.uint8)


def _store(sizes: Sizes, images: np.ndarray) -> DescriptorStore:
    """Products with the numbers of pictures and tokens of MM-AmazonTitles-300K."""
    rng, n = np.random.default_rng(1), sizes.products
    counts = catalog.image_counts(n, rng)
    rows = Lists(offsets_of(counts), rng.integers(len(images), size=int(counts.sum())))
    lengths = catalog.title_lengths(n, rng)
    tokens = rng.integers(1, sizes.vocabulary, (n, catalog.MOST_TOKENS), dtype=np.int32)
    tokens[np.arange(catalog.MOST_TOKENS) >= lengths[:, None]] = 0
    return DescriptorStore.of_arrays(
        n, text=(tokens, lengths.astype(np.int64)), images=(rows, images)
    )


def _step(sizes: Sizes, model: Mufin, store: DescriptorStore, folder: Path) -> Callable[[], None]:
    """A step with the settings of the profile `paper`."""
    device = devices.device()
    place = Place(sizes, True, folder, None)
    machine = Machine(device, devices.precision(), folder, 1e9)
    steps = max(sizes.labels // sizes.batch, 1)
    job, optimisers = pretraining(place, model.to(device).train(), store, steps, 1, machine)
    return one_step(job, optimisers, device)


def one_step(job: Pretraining, optimisers: Optimisers, device: torch.device) -> Callable[[], None]:
    """Batch, loss, gradients and update of the next step, again and again."""
    job.begin_epoch(0)
    plan, rng = itertools.cycle(job.plan(0)), np.random.default_rng(0)

    def step() -> None:
        loss = job.loss(job.prepare(next(plan), rng).to(device))
        loss.backward()
        optimisers.step(1.0)

    return step


if __name__ == "__main__":
    typer.run(main)
