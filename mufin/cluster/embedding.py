"""Bags and vectors of many products, embedded by the machines of a cluster in parts.

A part has whole batches, the same as on one machine, and so the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mufin import devices, process_group
from mufin.artifacts.contents import NAME, contents_of, hash_of
from mufin.artifacts.precomputed import Precomputed
from mufin.cluster.arrays import Arrays, fetch_arrays, make_arrays
from mufin.cluster.encoder_inputs import Inputs, PartReader, send_inputs
from mufin.cluster.engine import Engine, connected, digest_of_code
from mufin.cluster.settings import Cluster, cluster
from mufin.cluster.store import Files, Store
from mufin.nn import embedding
from mufin.nn.assembly import load_members
from mufin.nn.embedding import Embedded, embed, joint_vectors
from mufin.progress import progress
from mufin.ragged import offsets_of

PART = 2**28  # bytes of inputs in a part, if one batch has not more
MOST = 64  # batches of a part
PRECOMPUTED = "data/precomputed"


@dataclass(frozen=True, slots=True)
class Asked:
    """Products, and the networks that embed them."""

    models: str  # their folder in that of the run, such as models/pretrain
    products: np.ndarray  # (n,) row numbers in data/precomputed
    modalities: frozenset[int] | None = None  # codes of those that are used; None: all


def embedding_cluster() -> Cluster | None:
    """The cluster of the environment, for a stage that runs in one process; else None.

    Several processes (MUFIN_PROCESSES) embed a share each.
    """
    return cluster() if process_group.world() == 1 else None


def embed_on(
    cluster: Cluster,
    home: Path,
    modalities: list[str],
    bags: Mapping[str, Asked],
    vectors: Mapping[str, Asked],
) -> tuple[dict[str, list[Embedded]], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """By name, what `embed_members` gives for `bags`, and `embed_vectors` for `vectors`.

    `home` is the folder of the run, whose networks and `data/precomputed` are read; no name is in
    both. Parts that an earlier try has left in the store are taken from there. Raises MufinError if
    the cluster or its store fails.
    """
    asked = {**bags, **vectors}
    with connected(cluster.address) as engine:
        inputs = send_inputs(home / PRECOMPUTED, modalities, cluster.store)
        parts = _send_run(cluster.store, home, asked, inputs, engine)
        settings = {
            "store": cluster.store,
            "parts": parts,
            "inputs": inputs,
            "asked": {n: (a.models, a.modalities, n in bags) for n, a in asked.items()},
            "batch": embedding.BATCH,
        }
        size = part_size(inputs.per_product)
        items = [item for name, a in asked.items() for item in _items(name, len(a.products), size)]
        found: dict[str, dict[int, Arrays]] = {name: {} for name in asked}
        answers = engine.each(EmbedsParts, settings, items)
        for item in progress(answers, "embed", f"parts of {size} products", len(items)):
            found[item["asked"]][item["start"]] = fetch_arrays(parts, item["part"])
    parts.remove()
    return (
        {name: _joined_bags(found.pop(name)) for name in bags},
        {name: _joined_vectors(found.pop(name)) for name in vectors},
    )


def part_size(per_product: float) -> int:
    """The products of a part, in whole batches; each has `per_product` bytes of inputs."""
    batches = int(PART / max(per_product * embedding.BATCH, 1))
    return embedding.BATCH * min(max(batches, 1), MOST)


class EmbedsParts:
    """Embeds parts on a machine of the cluster, with the networks loaded once."""

    def __init__(
        self, store: Store, parts: Store, inputs: Inputs, asked: dict[str, tuple], batch: int
    ):
        self.parts, self.asked, self.batch = parts, asked, batch
        self.device, self.precision = devices.device(), devices.precision()
        with tempfile.TemporaryDirectory() as scratch:
            parts.get_folder("run", folder := Path(scratch))
            precomputed = Precomputed(folder / PRECOMPUTED)
            self.reader = PartReader(store, inputs, precomputed)
            self.products = {name: np.load(folder / f"{name}.npy") for name in asked}
            self.networks = {
                models: [
                    member.network.to(self.device)
                    for member in load_members(folder / models, precomputed, whole=False)
                ]
                for models in {models for models, _, _ in asked.values()}
            }

    def __call__(self, item: dict) -> dict:
        """The part `item["part"]` is in the store; it may be there already."""
        make_arrays(self.parts, item["part"], lambda: self._embedded(item))
        return item

    def _embedded(self, item: dict) -> Arrays:
        models, modalities, with_bags = self.asked[item["asked"]]
        store = self.reader.read(self.products[item["asked"]][item["start"] : item["stop"]])
        every, at = np.arange(store.num_products), (self.device, self.precision, self.batch)
        members = [embed(net, store, every, *at, modalities) for net in self.networks[models]]
        if not with_bags:
            return {"vectors": joint_vectors(members), "there": members[0].sizes > 0}
        return {
            f"{number}.{field}": getattr(member, field)
            for number, member in enumerate(members)
            for field in ("rows", "modality", "sizes", "vectors")
        }


def _send_run(
    store: Store, home: Path, asked: Mapping[str, Asked], inputs: Inputs, engine: Engine
) -> Store:
    """The folder of the parts, with the networks, the products and what is small of the inputs.

    It is named by all that decides the parts.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("data", "models"):
            (folder / name).symlink_to((home / name).resolve())
        for name, a in asked.items():
            np.save(folder / f"{name}.npy", a.products)
        files: Files = {
            path.name: (path.stat().st_size, hash_of(path)) for path in folder.glob("*.npy")
        }
        for name in (PRECOMPUTED, *sorted({a.models for a in asked.values()})):
            known = contents_of(folder / name).files  # large files are not hashed again
            files |= {f"{name}/{n}": said for n, said in known.items()}
            said = folder / name / NAME
            files[f"{name}/{NAME}"] = (said.stat().st_size, hash_of(said))
        files = {n: said for n, said in files.items() if said[1] not in inputs.digests}
        order = [(n, a.models, sorted(a.modalities or ())) for n, a in asked.items()]
        decides = [files, order, sorted(inputs.digests), inputs.modalities, embedding.BATCH]
        decides += [digest_of_code(), str(devices.precision())]
        mark = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        parts = store.within(f"runs/{mark}-embed-{engine.device}")
        parts.put_folder(folder, "run", files)
    return parts


def _items(name: str, count: int, size: int) -> Iterator[dict]:
    """An item per part; one without products tells the shapes."""
    for start in range(0, max(count, 1), size):
        part = f"part-{name}-{start:011d}"
        yield {"part": part, "asked": name, "start": start, "stop": min(start + size, count)}


def _joined_bags(parts: dict[int, Arrays]) -> list[Embedded]:
    """The products of all parts as each member embeds them."""
    arrays = _joined(parts)
    return [
        Embedded(
            arrays[f"{number}.rows"],
            arrays[f"{number}.modality"],
            offsets_of(arrays[f"{number}.sizes"]),
            arrays[f"{number}.vectors"],
        )
        for number in range(sum(name.endswith(".vectors") for name in arrays))
    ]


def _joined_vectors(parts: dict[int, Arrays]) -> tuple[np.ndarray, np.ndarray]:
    arrays = _joined(parts)
    return arrays["vectors"], arrays["there"]


def _joined(parts: dict[int, Arrays]) -> Arrays:
    """The parts after one another, by where they start; each is freed when it is copied."""
    ordered = [parts.pop(start) for start in sorted(parts)]
    return {name: np.concatenate([p.pop(name) for p in ordered]) for name in list(ordered[0])}
