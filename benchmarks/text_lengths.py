"""A training step of E_T over the titles of a batch: in groups of their length, and padded to one.

python -m benchmarks.text_lengths --titles 384 --out benchmarks/results/text_lengths.json

E_T is a DistilBERT with random weights; its inputs are tokens or, with --layers 1, the stored
activations that enter its last layer. Lengths are drawn as in `benchmarks.on_gpu.catalog`, or read
from a file of one length per line. With --pictures 3, E_T also reads each title with up to three
pictures as tokens (early fusion); the numbers of pictures are drawn as there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from benchmarks.on_gpu.catalog import MOST_TOKENS, image_counts, title_lengths
from benchmarks.timing import interleaved, spread, tell
from mufin import devices
from mufin.corpus.descriptors import DescriptorBatch, DescriptorStore
from mufin.corpus.title_groups import by_length
from mufin.nn.early_fusion import EarlyFusion
from mufin.nn.text_encoder import TextEncoder, create_text_encoder
from mufin.nn.titles import encoded_titles, fused_titles

VOCABULARY, WIDTH = 30_522, 768


def main(
    titles: int = 384,
    layers: int = 6,
    depth: int = 6,
    repeats: int = 3,
    lengths: Annotated[Path | None, typer.Option(help="a length per line")] = None,
    pictures: Annotated[int, typer.Option(help="of a product that E_T reads; 0: none")] = 0,
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

    def run(encode: Callable[[], Tensor]) -> None:
        with torch.autocast(device.type, precision, precision != torch.float32):
            rows = encode()
        rows.float().square().sum().backward()

    ways = _late(encoder, batch)
    if pictures:
        ways |= _early(encoder, batch, pictures)
    calls = {name: partial(run, encode) for name, (encode, _, _) in ways.items()}
    rows = {
        name: spread(seconds)
        | {"tokens": ways[name][1], "per_token_of_titles": ways[name][1] / ways[name][2]}
        for name, seconds in interleaved(calls, repeats).items()
    }
    assert batch.text_lengths is not None
    ratio = rows["padded to the longest"]["ms_median"] / rows["in groups"]["ms_median"]
    tell(
        f"{titles} titles of {float(batch.text_lengths.float().mean()):.1f} tokens, "
        f"{layers} of {depth} layers, {device}; "
        f"{len(batch.text_groups)} groups are {ratio:.2f} times as fast",
        rows,
        out,
    )


# Encodes; then the tokens that it computes, and those that the titles have, pictures included
Way = tuple[Callable[[], Tensor], float, float]


def _late(encoder: TextEncoder, batch: DescriptorBatch) -> dict[str, Way]:
    """E_T over titles."""
    text, lengths, groups = batch.text, batch.text_lengths, batch.text_groups
    assert text is not None and lengths is not None
    needed, most = float(lengths.sum()), len(lengths) * int(lengths.max())
    computed = sum(count * longest for count, longest in groups)
    return {
        "in groups": (lambda: encoded_titles(encoder, text, lengths, groups), computed, needed),
        "padded to the longest": (lambda: encoded_titles(encoder, text, lengths, ()), most, needed),
    }


def _early(encoder: TextEncoder, batch: DescriptorBatch, most: int) -> dict[str, Way]:
    """E_T over titles and up to `most` pictures."""
    text, lengths = batch.text, batch.text_lengths
    assert text is not None and lengths is not None
    device, n = text.device, len(lengths)
    fusion = EarlyFusion(nn.Identity(), encoder.token_width, most, False).to(device)
    counts = torch.from_numpy(image_counts(n, np.random.default_rng(2))).clamp_max(most)
    seen = (torch.arange(most) < counts.unsqueeze(1)).to(device)
    pictures = torch.randn(n, most, encoder.token_width, device=device)
    sizes = fusion.sizes(lengths, seen)
    read, given = partial(fusion, encoder), (text, lengths, pictures, seen)
    computed = sum(count * longest for count, longest in by_length(sizes.cpu().numpy())[1])
    padded, needed = float(n * (int(lengths.max()) + most)), float(sizes.sum())
    return {
        "in groups, with pictures": (lambda: fused_titles(read, *given, sizes), computed, needed),
        "padded, with pictures": (lambda: read(*given), padded, needed),
    }


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
