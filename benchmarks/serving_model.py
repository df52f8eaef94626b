"""A model folder with any number of labels: a small run of the pipeline, its labels multiplied.

The stages run once, on a tiny sample, with encoders of the shapes of ViT-B/32 and DistilBERT whose
weights are random and frozen. Then the labels are replaced by `labels` random ones, written by the
library's own writers. Only sizes matter for speed, so vectors are random numbers from a seed: of a
label around a centre of its own, the centres in clusters.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mufin.artifacts.attributes import NAME, UID, read_attributes
from mufin.artifacts.contents import contents_of, seal
from mufin.artifacts.curated import Split, read_split, write_split
from mufin.artifacts.files import read_json, write_json
from mufin.artifacts.models import read_members, write_members
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table, write_table
from mufin.corpus.modality import IMAGE, TEXT
from mufin.nn.assembly import load_members
from mufin.nn.embedding import Embedded, unit_rows
from mufin.profiles import read_profile
from mufin.ragged import Lists, offsets_of
from mufin.ranking.label_index import LabelIndex, label_rows, save_index
from mufin.ranking.mix import Mix
from mufin.ranking.mix_file import save_mix
from mufin.retrieval.hnsw import HnswNeighbours

STAGES = (
    "download",
    "curate",
    "precompute",
    "pretrain",
    "retrieve",
    "transfer",
    "finetune",
    "index",
    "evaluate",
)
SETTINGS: dict[str, object] = {
    "download.source": "sample",
    "download.sample.products": 100,
    "encoder.image.name": "vit_base_patch32_224",
    "encoder.image.weights": "random",
    "encoder.image.options": {},
    "encoder.image.trainable_blocks": 0,
    "encoder.text.name": "distilbert",
    "encoder.text.weights": "random",
    "encoder.text.options": {"vocab_size": 30_522},
    "encoder.text.max_tokens": 32,
    "encoder.text.trainable_layers": 0,
    "pretrain.epochs": 1,
    "pretrain.batch_size": 32,
    "retrieve.model": "finetune",
    "finetune.epochs": 1,
    "finetune.train_encoders": False,
    "evaluate.frequency_weights": [0.02],
}
PROFILE = "mm-amazontitles-300k"
OTHERS = 1000  # products that are no labels
PAIRS = 8  # labels per train datapoint
BLOCK = 20_000  # labels drawn at once
# Lengths of the deviations of a label from its cluster, and of a row from its label
OF_LABEL, OF_ROW = 0.7, 0.5


def build(folder: Path, labels: int, rows: int, threads: int, seed: int = 0) -> None:
    """A model of `labels` labels with `rows` descriptors each in `folder`, unless it is there."""
    wanted = {"labels": labels, "rows": rows, "settings": SETTINGS, "seed": seed}
    done = folder / "built.json"
    if done.exists() and read_json(done) == json.loads(json.dumps(wanted)):
        return
    small = folder.with_name(folder.name + "-small")
    _run_stages(small)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(small, folder, ignore=shutil.ignore_patterns("scratch"))
    _multiply(folder, labels, rows, threads, np.random.default_rng(seed))
    write_json(wanted, done)


def _run_stages(home: Path) -> None:
    """The pipeline on the tiny sample, unless it ran there already with these settings."""
    settings = asdict(read_profile(PROFILE))
    for name, value in SETTINGS.items():
        *sections, key = name.split(".")
        section = settings
        for part in sections:
            section = section[part]
        section[key] = value
    params = home / "params.yaml"
    text = json.dumps(settings)
    if (home / "models/mix.json").exists() and params.read_text() == text:
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    params.write_text(text)
    os.environ["MUFIN_SCRATCH"] = str(home / "scratch")
    for name in STAGES:
        importlib.import_module(f"pipeline.{name}").main(home)


def _multiply(home: Path, labels: int, rows: int, threads: int, rng: np.random.Generator) -> None:
    """Replaces products, labels, classifiers and index of a finished run by `labels` labels."""
    _products(home / "data/curated", labels, rows - 1, rng)
    _precomputed(home / "data/precomputed", labels, rows - 1, rng)
    _sealed(home, "data/curated")
    _sealed(home, "data/precomputed", "data/curated")
    bags, mu = _bags(labels, rows, rng)
    _networks(home / "models/finetune", home / "data/precomputed", labels, rng)
    _index(home, bags, mu, threads, rng)


def _products(folder: Path, labels: int, images: int, rng: np.random.Generator) -> None:
    """Products, of which the first are the labels, and a train datapoint for each."""
    old, attributes = read_table(folder / "products.parquet", "products"), read_attributes(folder)
    keys = np.array(old["images"].combine_chunks().flatten().to_pylist())
    titles = old["title"].to_pylist()
    count = labels + OTHERS
    pictures = keys[rng.integers(len(keys), size=(count, images))]
    columns = {
        "uid": [f"B{number:09d}" for number in range(count)],
        "title": [f"{titles[n % len(titles)]} {n}" for n in range(count)],
        "images": Lists.of_rows(list(pictures), object).to_arrow(pa.string()),
        "category": [["Home", f"Shelf {n % 50}"] for n in range(count)],
    }
    write_table(columns, "products", folder / "products.parquet")
    drawn = attributes.take(pa.array(rng.integers(len(attributes), size=count)))
    pq.write_table(drawn.set_column(0, UID, pa.array(columns["uid"])), folder / NAME)
    every = np.arange(labels)
    write_table({"product": every.astype(np.int32)}, "labels", folder / "labels.parquet")
    pairs = rng.integers(labels, size=(labels, PAIRS))
    old_split = read_split(folder / "train.parquet")
    none = Lists(np.zeros(labels + 1, np.int64), old_split.excluded.values[:0])
    truth = Lists(offsets_of(np.full(labels, PAIRS)), pairs.ravel())
    write_split(Split(every, truth, none), folder / "train.parquet")


def _precomputed(folder: Path, labels: int, images: int, rng: np.random.Generator) -> None:
    """Descriptors of all products; those of labels are zeros, as the index has their bags."""
    stored, count = Precomputed(folder), labels + OTHERS
    pictures = sum(len(shard) for shard in stored.image_shards())
    manifest, old = stored.manifest(), np.array(stored.text_inputs())
    stored.write_image_rows(
        Lists(offsets_of(np.full(count, images)), rng.integers(pictures, size=count * images))
    )
    path = folder / manifest["text"]["array"]
    path.unlink()
    new = np.lib.format.open_memmap(path, "w+", old.dtype, (count, *old.shape[1:]))
    new[labels:] = old[rng.integers(len(old), size=OTHERS)]
    new.flush()
    lengths = rng.integers(8, 32, size=count).astype(np.int32)
    np.save(folder / "token_lengths.npy", lengths)
    if (folder / "tokens.npy").exists():
        np.save(folder / "tokens.npy", np.ones((count, 32), np.int32))
    stored.write_manifest(count, manifest["modalities"], manifest["image"], manifest["text"])


def _bags(labels: int, rows: int, rng: np.random.Generator) -> tuple[Embedded, np.ndarray]:
    """The bags and vectors of all labels, with rows as long as after A_S, and the centroids."""
    dim = int(read_profile(PROFILE).encoder.dim)
    clusters = _unit(rng, labels // 50 + 1, dim)
    bags = np.empty((labels * rows, dim), np.float32)
    vectors, mu = np.empty((labels, dim), np.float32), np.empty((labels, dim), np.float32)
    for start in range(0, labels, BLOCK):
        count = min(BLOCK, labels - start)
        centre = unit_rows(
            clusters[rng.integers(len(clusters), size=count)] + OF_LABEL * _unit(rng, count, dim)
        )
        own = unit_rows(np.repeat(centre, rows, 0) + OF_ROW * _unit(rng, count * rows, dim))
        bags[start * rows : (start + count) * rows] = own * np.sqrt(dim, dtype=np.float32)
        vectors[start : start + count] = unit_rows(own.reshape(count, rows, dim).sum(1))
        mu[start : start + count] = centre + OF_ROW * _unit(rng, count, dim)
    modality = np.tile(np.array([TEXT] + [IMAGE] * (rows - 1), np.int8), labels)
    return Embedded(bags, modality, offsets_of(np.full(labels, rows)), vectors), mu


def _unit(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return unit_rows(rng.standard_normal((count, dim), np.float32))


def _networks(folder: Path, precomputed: Path, labels: int, rng: np.random.Generator) -> None:
    """Gives the network a free vector and a weight for each label."""
    made = []
    for facts, weights in read_members(folder):
        dim = weights["classifiers.free.weight"].shape[1]
        free = rng.standard_normal((labels, dim), np.float32)
        weights |= {
            "classifiers.free.weight": torch.from_numpy(free),
            "classifiers.mix.weight": torch.zeros(labels, 1),
        }
        made.append((facts | {"num_labels": labels}, weights))
    write_members(made, folder, {"data/precomputed": contents_of(precomputed).id})


def _index(
    home: Path, bags: Embedded, mu: np.ndarray, threads: int, rng: np.random.Generator
) -> None:
    count, settings = len(bags.vectors), read_profile(PROFILE).index.hnsw
    network = load_members(home / "models/finetune", Precomputed(home / "data/precomputed"), False)
    with torch.inference_mode():
        w = network[0].network.classifier(torch.arange(count), torch.from_numpy(bags.vectors))
    rows = label_rows("bag", [bags], mu)
    index = LabelIndex(
        labels=[bags],
        classifiers=[w.numpy()],
        centroids=mu,
        products=np.arange(count),
        frequency=rng.geometric(0.1, size=count).astype(np.int64),
        neighbours=HnswNeighbours(
            rows, settings.m, settings.ef_construction, settings.ef, 0, threads
        ),
        ridge=None,
    )
    made_from = {name: contents_of(home / name).id for name in ("models/finetune", "data/curated")}
    save_index(index, home / "models/index", made_from)
    save_mix(Mix(beta=0.7, frequency_weight=0.02), home / "models/mix.json", home / "models/index")


def _sealed(home: Path, name: str, *sources: str) -> None:
    """Writes contents.json anew; the folder was made from what is in `sources` now."""
    made_from = contents_of(home / name).made_from
    made_from |= {source: contents_of(home / source).id for source in sources}
    seal(home / name, made_from)
