"""What E_V reads of the pictures, made on a cluster: a part per file of the image store."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mufin import devices, runtime
from mufin.artifacts.contents import contents_of
from mufin.artifacts.publication import publish
from mufin.cluster.engine import connected
from mufin.cluster.settings import Cluster
from mufin.cluster.store import Files, Store
from mufin.nn.encoder_files import save_encoder
from mufin.nn.picture_parts import BATCH, Reads, make_parts
from mufin.nn.vision_language import load_encoder
from mufin.progress import progress

TRANSFERS = 8  # files sent at the same time


def make_parts_on(
    cluster: Cluster, wanted: Mapping[Path, set[str]], folder: Path, reads: Reads, run: str
) -> None:
    """Publishes in `folder` what `make_parts` would, made by the machines of `cluster`.

    `run` names what decides the parts. Parts that an earlier try has left in the store are taken
    from there. Raises as `make_parts`, and MufinError if the cluster or its store fails.
    """
    missing = {path: keys for path, keys in wanted.items() if not (folder / path.stem).exists()}
    if not missing:
        return
    with connected(cluster.address) as engine:
        parts = cluster.store.within(f"runs/{run}-{engine.device}")
        settings = {
            "store": cluster.store,
            "parts": parts,
            "encoder": _send_encoder(reads, parts),
            "size": reads.size,
            "int8": reads.int8,
        }
        items = _send_pictures(missing, cluster.store)
        answers = engine.each(MakesParts, settings, items)
        for answer in progress(answers, "pictures", "files of the store", len(items)):
            _fetch(parts, answer["part"], folder / answer["part"])
    parts.remove()


class MakesParts:
    """Makes parts on a machine of the cluster, with the encoder loaded once."""

    def __init__(self, store: Store, parts: Store, encoder: str | None, size: int, int8: bool):
        self.store, self.parts = store, parts
        device, loaded = devices.device(), None
        if encoder is not None:
            with tempfile.TemporaryDirectory() as folder:
                parts.get_folder(encoder, Path(folder))
                loaded = load_encoder(Path(folder)).to(device)
        self.reads = Reads(size, BATCH[device.type], device, devices.precision(), loaded, int8)

    def __call__(self, item: dict) -> dict:
        """The part of the file `item["part"]` is in the store; it may be there already."""
        name = item["part"]
        if not self.parts.has_folder(name):
            with tempfile.TemporaryDirectory() as scratch:
                file, made = Path(scratch, f"{name}.parquet"), Path(scratch, "parts")
                self.store.get(item["file"], file)
                make_parts({file: set(item["keys"])}, made, self.reads, runtime.workers())
                self.parts.put_folder(made / name, name)
        return {"part": name}


def _send_encoder(reads: Reads, parts: Store) -> str | None:
    if reads.encoder is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(reads.encoder, Path(folder))
        parts.put_folder(Path(folder), "encoder")
    return "encoder"


def _send_pictures(missing: Mapping[Path, set[str]], store: Store) -> list[dict]:
    """Sends files of an image store, unless they are there; an item for each."""

    def send(path: Path) -> str:
        files = contents_of(path.parents[1]).files  # knows the hash
        return store.put(path, files[path.relative_to(path.parents[1]).as_posix()][1])

    with ThreadPoolExecutor(TRANSFERS) as threads:
        sent = threads.map(send, missing)
        return [
            {"part": path.stem, "file": digest, "keys": sorted(missing[path])}
            for path, digest in zip(missing, progress(sent, "send", "files", len(missing)))
        ]


def _fetch(parts: Store, name: str, target: Path) -> None:
    known: Files = {}
    with publish(target, None, known) as folder:
        folder.mkdir()
        known.update(parts.get_folder(name, folder))
