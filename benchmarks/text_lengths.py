"""A training step of E_T over the titles of a batch: in groups of their length, and padded to one.

python -m benchmarks.text_lengths --titles 384 --out benchmarks/results/text_lengths.json

E_T is a DistilBERT with random weights; its inputs are tokens or, with --layers 1, the stored
activations that enter its last layer. Lengths are drawn as in `benchmarks.on_gpu.catalog`, or read
from a file of one length per line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.on_gpu.catalog import MOST_TOKENS, title_lengths
from benchmarks.timing import interleaved, spread, tell
from mufin import devices
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.text_encoder import TextEncoder, create_text_encoder
from mufin.nn.titles import encoded_titles

VOCABULARY, WIDTH = 30_522, 768


def main(
    titles: int = 384,
    layers: int = 6,
    depth: int = 6,
    repeats: int = 3,
    lengths: Annotated[Path | None, typer.Option(help="a length per line")] = None,
    out: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Milliseconds of forward and backward; the last `layers` of `depth` train."""
    device, precision = devices.device(), devices.precision()
    torch.manual_seed(0)
    options = {"n_layers": depth, "dim": WIDTH, "hidden_dim": 4 * WIDTH}
    trainable = "all" if layers == depth else layers
    encoder = create_text_encoder("distilbert", "random", options, trainable, VOCABULARY)
    batch = _store(encoder, _lengths(lengths, titles)).batch(np.arange(titles)).to(device)
    encoder.to(device).train()

    def step(groups: tuple[tuple[int, int], ...]) -> None:
        assert batch.text is not None and batch.text_lengths is not None
        with torch.autocast(device.type, precision, precision != torch.float32):
            rows = encoded_titles(encoder, batch.text, batch.text_lengths, groups)
        rows.float().square().sum().backward()

    seconds = interleaved(
        {"in groups": lambda: step(batch.text_groups), "padded to the longest": lambda: step(())},
        repeats,
    )
    assert batch.text_lengths is not None
    tokens = float(batch.text_lengths.sum())
    padded = {
        "in groups": float(sum(count * longest for count, longest in batch.text_groups)),
        "padded to the longest": float(titles * int(batch.text_lengths.max())),
    }
    rows = {
        name: spread(s) | {"tokens": padded[name], "per_token_of_titles": padded[name] / tokens}
        for name, s in seconds.items()
    }
    ratio = rows["padded to the longest"]["ms_median"] / rows["in groups"]["ms_median"]
    tell(
        f"{titles} titles of {tokens / titles:.1f} tokens, {layers} of {depth} layers, {device}; "
        f"{len(batch.text_groups)} groups are {ratio:.2f} times as fast",
        rows,
        out,
    )


def _lengths(path: Path | None, titles: int) -> np.ndarray:
    """(titles,) int32, at most `MOST_TOKENS` each."""
    rng = np.random.default_rng(0)
    if path is None:
        return title_lengths(titles, rng)
    every = np.loadtxt(path, np.int32, ndmin=1)
    return np.clip(rng.choice(every, titles), 1, MOST_TOKENS).astype(np.int32)


def _store(encoder: TextEncoder, lengths: np.ndarray) -> DescriptorStore:
    """Titles of random tokens, or of random activations where the first layers are frozen."""
    rng, shape = np.random.default_rng(1), (len(lengths), int(lengths.max()))
    if encoder.kind == "inputs":
        inputs = rng.integers(1, VOCABULARY, shape, np.int32)
    else:
        inputs = rng.standard_normal((*shape, encoder.width), np.float32).astype(np.float16)
    return DescriptorStore.of_arrays(len(lengths), text=(inputs, lengths))


if __name__ == "__main__":
    typer.run(main)
