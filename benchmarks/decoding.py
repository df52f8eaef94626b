"""JPEGs to pixels per second on one core, beside plain Pillow: open, convert, fit, paste on white.

python -m benchmarks.decoding --out benchmarks/results/decoding.json

Ours reads pictures of strangers: it also checks the format, the memory, EXIF and the profile. The
difference is in levels of 255, over all pixels and pictures.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Callable

import numpy as np
import typer
from PIL import Image, ImageOps

from benchmarks.timing import interleaved, tell
from mufin.corpus.pixels import decode


def main(
    sides: Annotated[list[int], typer.Option("--side")] = [500, 1500, 3000],  # noqa: B006
    targets: Annotated[list[int], typer.Option("--target")] = [128, 224],  # noqa: B006
    pictures: int = 4,
    repeats: int = 5,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Pictures per second of each way, for JPEGs of each longer side and each target."""
    rows: dict[str, dict[str, float]] = {}
    for side in sides:
        contents = [jpeg(side, seed) for seed in range(pictures)]
        for target in targets:
            rows[f"{side} px to {target}"] = compared(contents, target, repeats)
    tell("JPEGs decoded per second on one core, ours beside plain Pillow", rows, out)


def compared(contents: list[bytes], target: int, repeats: int) -> dict[str, float]:
    """Pictures per second of both ways, their ratio, and the difference of their pixels."""
    ours, theirs = (_all(way, contents, target) for way in (decode, plain))
    difference = np.abs(np.stack(ours).astype(int) - np.stack(theirs).astype(int))
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: _all(decode, contents, target),
        "plain": lambda: _all(plain, contents, target),
    }
    seconds = {
        name: statistics.median(values) for name, values in interleaved(ways, repeats).items()
    }
    return {
        "ours_per_s": len(contents) / seconds["ours"],
        "plain_per_s": len(contents) / seconds["plain"],
        "ratio": seconds["plain"] / seconds["ours"],
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
    }


def _all(way: Callable, contents: Iterable[bytes], target: int) -> list[np.ndarray]:
    return [way(content, target) for content in contents]


def plain(content: bytes, size: int) -> np.ndarray:
    """(size, size, 3) uint8 by Pillow alone."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    small = ImageOps.contain(image, (size, size), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), "white")
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return np.asarray(square)


def jpeg(side: int, seed: int) -> bytes:
    """A JPEG of side x 3/4 side pixels with shapes of all sizes, as photos have."""
    rng = np.random.default_rng(seed)
    height = side * 3 // 4
    total = np.zeros((height, side, 3))
    for cells in (4, 16, 64, 256):
        coarse = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8))
        fine = coarse.resize((side, height), Image.Resampling.BICUBIC)
        total += np.asarray(fine) / cells**0.5
    total *= 255 / total.max()
    file = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    typer.run(main)
