"""What E_T reads of the texts, made on a cluster in parts: whole batches, as on one machine."""

from __future__ import annotations

import hashlib
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from mufin import devices
from mufin.cluster.arrays import Arrays, fetch_arrays, make_arrays
from mufin.cluster.engine import connected, digest_of_code
from mufin.cluster.settings import Cluster
from mufin.cluster.store import Store, files_below
from mufin.corpus.ragged_tokens import RaggedTokens
from mufin.nn.picture_parts import BATCH
from mufin.nn.text_parts import FrozenPart, TextInputs, TokenisedTexts
from mufin.nn.vision_language import load_encoder
from mufin.progress import progress

TRANSFERS = 8  # files sent at the same time


def make_text_inputs_on(
    cluster: Cluster, texts: TokenisedTexts, folder: Path, encoder: Path
) -> None:
    """Writes in `folder` what `make_text_inputs` would, made by the machines of `cluster`.

    `encoder` is the folder of E_T. Parts that an earlier try has left in the store are taken from
    there. Raises MufinError if the cluster or its store fails.
    """
    with connected(cluster.address) as engine:
        size = BATCH[engine.device]
        out = TextInputs(texts, folder, size)
        parts = _send_encoder(encoder, cluster.store, engine.device)
        items = _send_tokens(out, parts)
        answers = engine.each(MakesTextParts, {"parts": parts, "size": size}, items)
        for item in progress(answers, "frozen text", "parts of the texts", len(items)):
            _write(fetch_arrays(parts, item["part"]), range(*item["texts"]), out)
        out.close()
    parts.remove()


class MakesTextParts:
    """Makes parts on a machine of the cluster, with the encoder loaded once."""

    def __init__(self, parts: Store, size: int):
        self.parts, device = parts, devices.device()
        with tempfile.TemporaryDirectory() as folder:
            parts.get_folder("encoder", Path(folder))
            encoder = load_encoder(Path(folder)).to(device)
        self.frozen = FrozenPart(encoder, size, device, devices.precision())

    def __call__(self, item: dict) -> dict:
        """The part `item["part"]` is in the store; it may be there already."""
        make_arrays(self.parts, item["part"], lambda: self._made(item["tokens"]))
        return item

    def _made(self, digest: str) -> Arrays:
        """An array per batch: each is as wide as its longest text."""
        batches = self.frozen.each(_fetch_tokens(self.parts, digest))
        return {f"{number:08d}": values for number, values in enumerate(batches)}


def _send_encoder(encoder: Path, store: Store, device: str) -> Store:
    """The folder of the parts, with E_T; it is named by all that decides a part but its tokens."""
    files = files_below(encoder)
    decides = [files, digest_of_code(), str(devices.precision())]
    mark = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    parts = store.within(f"runs/{mark}-text-{device}")
    parts.put_folder(encoder, "encoder", files)
    return parts


def _send_tokens(out: TextInputs, parts: Store) -> list[dict]:
    """Sends the tokens of the parts that are missing; an item for each, named by its tokens."""

    def send(part: range) -> str:
        rows = out.rows(part)
        arrays = {"tokens": out.texts.flat(rows), "lengths": out.texts.lengths[rows]}
        with tempfile.TemporaryDirectory() as scratch:
            save_file(arrays, path := Path(scratch, "tokens.safetensors"))
            return parts.put(path)

    count = len(out.missing)
    with ThreadPoolExecutor(TRANSFERS) as threads:
        sent = progress(threads.map(send, out.missing), "send", "files", count)
        return [
            {"part": f"part-{digest}", "tokens": digest, "texts": [p.start, p.stop, p.step]}
            for p, digest in zip(out.missing, sent)
        ]


def _fetch_tokens(parts: Store, digest: str) -> TokenisedTexts:
    with tempfile.TemporaryDirectory() as scratch:
        parts.get(digest, path := Path(scratch, "tokens.safetensors"))
        arrays = load_file(path)
    lengths: np.ndarray = arrays["lengths"]
    return TokenisedTexts(RaggedTokens(arrays["tokens"], lengths), lengths)


def _write(arrays: Arrays, part: range, out: TextInputs) -> None:
    for start, name in zip(part, sorted(arrays), strict=True):
        out.write(start, arrays[name])
    out.finish(part)
