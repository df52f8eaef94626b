"""Stages of the pipeline on a small sample, run in this process, and what they leave."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.pixels import decode
from mufin.nn.assembly import new_member
from mufin.nn.mufin import Mufin
from mufin.params import Params
from tests.support.artifacts import sealed
from tests.support.projects import PUBLISHED, ROOT, changed

STAGES = (
    "download",
    "curate",
    "precompute",
    "pretrain",
    "retrieve",
    "transfer",
    "finetune",
    "index",
    "folds",
    "evaluate",
)
SIZE, TOKENS = 32, 16
SMALL = PUBLISHED | {
    "download.sample.products": 200,
    "encoder.modalities": ["text", "image", "lexical"],
    "encoder.dim": 16,
    "encoder.image.size": SIZE,
    "encoder.text.max_tokens": TOKENS,
    "encoder.image.options": {
        "img_size": SIZE,
        "patch_size": 16,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
    },
    "encoder.text.options": {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
}
QUICK = {
    "pretrain.epochs": 2,
    "pretrain.batch_size": 32,
    "finetune.epochs": 2,
    "finetune.batch_size": 32,
    "finetune.train_encoders": True,
}
FINISHED = QUICK | {  # the settings of the fixture `finished`
    "members": 2,
    "index.title_ridge": 1.0,
    "index.voters": 5,
    "evaluate.mix": "chosen",
    "evaluate.ridge_weights": [0.0, 0.5],
    "evaluate.vote_weights": [0.0, 0.25],
    "evaluate.frequency_weights": [0.0, 0.05],
}


@contextlib.contextmanager
def inside(folder: Path, workers: int = 1, **changes) -> Iterator[Path]:
    """In `folder`, whose params.yaml holds the small settings with the changes (dotted names)."""
    (folder / "params.yaml").write_text(changed(ROOT / "params.yaml", SMALL | changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MUFIN_DEVICE", "cpu")
        patch.setenv("MUFIN_WORKERS", str(workers))
        patch.setenv("MUFIN_SCRATCH", str(folder / "scratch"))
        yield folder


def stage(name: str) -> ModuleType:
    """The script of a stage: its `main(home)` runs it."""
    return importlib.import_module(f"pipeline.{name}")


def run_stages(home: Path, first: str = "download", last: str = "evaluate") -> None:
    """Run the stages from `first` to `last` in the folder `home`."""
    for name in STAGES[STAGES.index(first) : STAGES.index(last) + 1]:
        stage(name).main(home)


def beside(folder: Path, name: str) -> Path:
    """The folder `<folder>/<name>`, with links to data/raw and data/curated of `folder`."""
    home = folder / name
    (home / "data").mkdir(parents=True, exist_ok=True)
    for part in ("raw", "curated"):
        link = home / "data" / part
        if not link.exists():
            link.symlink_to((folder / "data" / part).resolve())
    return home


def made(folder: Path, name: str, workers: int = 1, **changes) -> Path:
    """data/precomputed as the stage makes it of the folder's data, in `beside(folder, name)`."""
    with inside(beside(folder, name), workers, **changes) as home:
        stage("precompute").main(home)
    return home / "data/precomputed"


def in_files(source: Path, home: Path, count: int) -> Path:
    """The data of `source` in `home`, with its pictures in `count` files."""
    shutil.copytree(source / "data", home / "data")
    store = home / "data/raw/images"
    table = pa.concat_tables(pq.read_table(path) for path in sorted(store.iterdir()))
    size = -(-len(table) // count)
    for number in range(count):
        part = table.slice(number * size, size)
        pq.write_table(part, store / f"part-{number:05d}.parquet")
    sealed(home / "data/raw")
    return home


def new_network(params: Params, precomputed: Path, seed: int) -> Mufin:
    """The network that the stage pretrain starts from."""
    architecture = stage("pretrain")._architecture(params)
    return new_member(architecture, Precomputed(precomputed), seed).network


def products(folder: Path) -> pa.Table:
    return pq.read_table(folder / "data/curated/products.parquet")


def write_products(folder: Path, titles: list, images: list) -> None:
    """Give the products of the folder other titles and pictures."""
    table = products(folder)
    for name, column in (("title", titles), ("images", images)):
        at = table.schema.get_field_index(name)
        kind = table.schema.field(name).type
        table = table.set_column(at, table.schema.field(name), pa.array(column, kind))
    pq.write_table(table, folder / "data/curated/products.parquet")
    sealed(folder / "data/curated")


def pictures_of(folder: Path) -> dict[str, bytes]:
    """{key: bytes} of the folder's image store."""
    table = pa.concat_tables(
        pq.read_table(path) for path in sorted((folder / "data/raw/images").glob("part-*.parquet"))
    )
    return dict(zip(table["key"].to_pylist(), table["bytes"].to_pylist()))


def pixels_of(folder: Path, size: int) -> np.ndarray:
    """(n, size, size, 3) uint8 of the pictures that products have, in the order of the store.

    Without those that cannot be decoded.
    """
    used = {key for keys in products(folder)["images"].to_pylist() for key in keys}
    found = [decode(c, size) for key, c in pictures_of(folder).items() if key in used]
    return np.stack([pixels for pixels in found if not isinstance(pixels, str)])
