"""Everything that later stages would otherwise compute again and again, once: pixels, tokens, what is frozen.

python -m pipeline.precompute
"""

from __future__ import annotations

import errno
import multiprocessing
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Iterator

import numpy as np
import pyarrow.parquet as pq
import torch

from pipeline import runtime
from pipeline.artifacts import publish, read_labels, read_split, read_table, write_json
from pipeline.corpus.pixels import decode_all
from pipeline.corpus.tokens import learn_wordpiece, lexical_terms, load_tokenizer, save_tokenizer, tokenise
from pipeline.errors import MufinError
from pipeline.nn.encoders import create_image_encoder, create_text_encoder, save_encoder
from pipeline.nn.vision_language import (
    Encoder,
    create_clip_image_encoder,
    create_clip_text_encoder,
    create_visualbert_encoder,
)
from pipeline.params import Params, TextEncoder, load_params
from pipeline.progress import progress
from pipeline.ragged import Lists

MANY = 20_000           # pictures from which processes decode
SHARD_BYTES = 2**32     # of the image arrays; a few large files
BATCH = {"cuda": 256, "cpu": 16}    # pictures or titles a pass of a frozen part; on a CPU what fits its cache is faster


def main(
    raw: Path = Path("data/raw"),
    curated: Path = Path("data/curated"),
    out: Path = Path("data/precomputed"),
    metrics: Path = Path("metrics/precompute.json"),
):
    """Decode pictures, tokenise titles, run the frozen parts of the encoders, learn the lexical terms."""
    params = load_params()
    products = read_table(curated / "products.parquet", "products")
    train = read_split(curated / "train.parquet").product
    known = np.union1d(train, read_labels(curated / "labels.parquet"))      # what training may look at
    torch.manual_seed(params.seed)
    with runtime.measured(metrics) as report, publish(out) as folder:
        folder.mkdir()
        manifest: dict = {"products": len(products), "modalities": []}
        if "image" in params.encoder.modalities:
            manifest["image"] = _images(params, products["images"], raw, known, folder)
        if {"text", "lexical"} & set(params.encoder.modalities):
            titles = products["title"].to_pylist()
            manifest["text"] = _titles(params, titles, known, folder)
        manifest["modalities"] = [m for m, key in (("text", "text"), ("lexical", "text"), ("image", "image"))
                                  if key in manifest and (m != "text" or manifest["text"]["array"])]
        write_json(manifest, folder / "manifest.json")
        report |= {"items": manifest.get("image", {}).get("count", len(products)), **manifest}
        report.get("image", {}).pop("shards", None)


def _images(params: Params, column, raw: Path, known: np.ndarray, folder: Path) -> dict:
    """Pixels of the distinct pictures in use and, where part of E_V is frozen, what it gives; facts for the manifest."""
    lists = Lists.of_column(column)
    keys, inverse = np.unique(np.asarray(lists.values, dtype=object).astype(str), return_inverse=True)
    s = params.encoder.image
    create = create_clip_image_encoder if s.kind == "clip" else create_image_encoder
    encoder = create(s.name, s.weights, s.options, s.size, s.trainable_blocks)
    save_encoder(encoder, folder / "encoders/image")
    encoder.to(runtime.device())
    row_of, drops, shards, kept = np.full(len(keys), -1, np.int64), {}, _ShardWriter(folder, "pixels"), 0
    activations = _ShardWriter(folder, "image_inputs")
    for batch in _batches(_decoded(raw, keys, s.size, drops), _batch_size()):
        pixels = np.stack([p for _, p in batch])
        shards.add(pixels)
        if encoder.kind != "inputs":
            activations.add(frozen_inputs(encoder, torch.from_numpy(pixels)))
        row_of[np.searchsorted(keys, [k for k, _ in batch])] = np.arange(kept, kept + len(batch))
        kept += len(batch)
    if not kept:
        raise MufinError(f"none of the {len(keys)} pictures could be decoded ({drops or 'there are none'}); set "
                         "encoder.modalities to [text], or mend download")
    rows = row_of[inverse] if len(keys) else np.zeros(0, np.int64)
    counts = np.bincount(lists.rows()[rows >= 0], minlength=len(lists))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    np.save(folder / "image_offsets.npy", offsets)
    np.save(folder / "image_rows.npy", rows[rows >= 0].astype(np.int32))
    pixel_files, input_files = shards.close(), activations.close()
    if encoder.kind == "descriptors":
        used = np.unique(rows[rows >= 0][Lists(offsets, rows[rows >= 0]).positions(known)[0]])
        _statistics(np.concatenate([np.load(folder / f) for f in input_files])[used], folder, "image")
    return {"count": kept, "dropped": drops, "kind": encoder.kind, "shards": input_files or pixel_files}


def _decoded(raw: Path, keys: np.ndarray, size: int, drops: dict[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    """(key, pixels) of the wanted pictures in the order of the store, decoded by a pool; drops are counted by reason."""
    wanted, seen = set(keys.tolist()), 0
    workers = runtime.workers()
    with _pool(workers, len(keys)) as pool:
        for result in progress(_mapped(pool, _stored(raw, wanted), size, workers), "decode"):
            for key, pixels in result:
                seen += 1
                if isinstance(pixels, str):
                    drops[pixels] = drops.get(pixels, 0) + 1
                else:
                    yield key, pixels
    if seen < len(wanted):
        drops["not in the image store"] = len(wanted) - seen


def _pool(workers: int, pictures: int) -> Executor:
    """Threads, which Pillow's decoders let run side by side; for many pictures processes, which start in seconds but share
    no interpreter. Never by fork: this process has threads, and maybe a GPU."""
    if pictures > MANY and workers > 1:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))
    return ThreadPoolExecutor(workers)


def _mapped(pool: Executor, chunks, size: int, workers: int):
    """Results in order with a bounded number of chunks under way: the store need not fit in memory."""
    waiting: list = []
    for chunk in chunks:
        waiting.append(pool.submit(decode_all, chunk, size))
        if len(waiting) > 2 * workers:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _stored(raw: Path, wanted: set[str], chunk: int = 64) -> Iterator[list[tuple[str, bytes]]]:
    """The wanted pictures of the image store, (key, bytes), `chunk` at a time, each key once."""
    done: set[str] = set()
    for path in sorted((raw / "images").glob("part-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(chunk):
            found = [(k, b) for k, b in zip(batch["key"].to_pylist(), batch["bytes"].to_pylist())
                     if k in wanted and k not in done]
            done.update(k for k, _ in found)
            if found:
                yield found


def _batch_size() -> int:
    return BATCH.get(runtime.device().type, 16)


def _batches(items: Iterator, size: int) -> Iterator[list]:
    batch: list = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class _ShardWriter:
    """Arrays of equal shape appended to `<name>-<number>.npy` files of at most `SHARD_BYTES`, in bounded memory."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name, self.files, self.file, self.rows, self.like = folder, name, [], None, 0, None

    def add(self, rows: np.ndarray) -> None:
        if self.file is not None and self.file.tell() + rows.nbytes > SHARD_BYTES:
            self._finish()
        if self.file is None:
            self.files.append(f"{self.name}-{len(self.files):05d}.npy")
            self.file, self.rows, self.like = open(self.folder / self.files[-1], "wb"), 0, rows
            self._header(0)
        self.file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def _header(self, rows: int) -> None:
        """The .npy header for `rows` rows, padded to one length so that it can be written again at the end."""
        text = repr({"descr": np.lib.format.dtype_to_descr(self.like.dtype), "fortran_order": False,
                     "shape": (rows, *self.like.shape[1:])})
        self.file.write(b"\x93NUMPY\x01\x00" + (246).to_bytes(2, "little") + text.ljust(245).encode() + b"\n")

    def _finish(self) -> None:
        self.file.seek(0)
        self._header(self.rows)
        _close(self.file)
        self.file = None

    def close(self) -> list[str]:
        if self.file is not None:
            self._finish()
        return self.files


class _RowFile:
    """A `.npy` array of zeros whose rows are then written in any order, in bounded memory.

    By plain writes: on a full disk these raise OSError, where a write through a memory map kills the process (SIGBUS).
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]):
        empty = np.lib.format.open_memmap(path, "w+", dtype, shape)         # the header and the length, no more
        self.dtype, self.start, self.row_bytes = empty.dtype, empty.offset, empty.nbytes // shape[0]
        self.file = open(path, "r+b")
        _take_space(self.file.fileno(), self.start + empty.nbytes)

    def write(self, row: int, values: np.ndarray) -> None:
        """The first numbers of a row; what they do not reach stays zero."""
        self.file.seek(self.start + row * self.row_bytes)
        self.file.write(np.ascontiguousarray(values, self.dtype).data)

    def close(self) -> None:
        _close(self.file)


def _take_space(file: int, size: int) -> None:
    """Make the file system set `size` bytes aside now: better here than after hours of encoding. Not all can."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


def _close(file: BinaryIO) -> None:
    """Close after all is on the disk: some file systems say only then that they are full."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


@torch.inference_mode()
def frozen_inputs(encoder: Encoder, *inputs: torch.Tensor) -> np.ndarray:
    """What the frozen part gives: descriptors as float32, activations as float16."""
    device, precision = runtime.device(), runtime.precision()
    with torch.autocast(device.type, precision, precision != torch.float32):
        out = encoder.frozen(*(t.to(device) for t in inputs))
    dtype = torch.float32 if encoder.kind == "descriptors" else torch.float16
    return out.float().to(dtype).cpu().numpy()      # made small before it leaves the device


def _titles(params: Params, titles: list[str], known: np.ndarray, folder: Path) -> dict:
    """Tokens, frozen text activations and lexical terms; facts for the manifest."""
    s, lexical = params.encoder.text, params.encoder.lexical
    terms, rows = lexical_terms(titles, known, lexical.ngrams, lexical.min_count, lexical.max_terms)
    np.save(folder / "lexical_offsets.npy", rows.offsets)
    np.save(folder / "lexical_ids.npy", rows.values.astype(np.int32))
    write_json(terms, folder / "lexical_terms.json")
    facts = {"titles": sum(bool(t) for t in titles), "terms": len(terms), "array": None}
    if "text" not in params.encoder.modalities:
        return facts
    if not any(titles[p] for p in known):
        raise MufinError("no train product has a title; take text out of encoder.modalities, or look at "
                         "download.columns.title")
    # VisualBERT's weights on the hub come without their vocabulary, which is BERT's
    own = s.kind != "visualbert" or Path(s.name).is_dir()
    tokenizer = (learn_wordpiece([titles[p] for p in known], s.vocabulary, s.max_tokens) if s.weights == "random"
                 else load_tokenizer(s.name if own else "google-bert/bert-base-uncased"))
    encoder = _text_encoder(s, tokenizer, folder)
    save_encoder(encoder, folder / "encoders/text")
    save_tokenizer(tokenizer, folder / "encoders/text")
    tokens, lengths = tokenise(tokenizer, titles, s.max_tokens)
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "token_lengths.npy", lengths)
    if encoder.kind != "inputs":
        _text_inputs(encoder.to(runtime.device()), tokens, lengths, known, folder)
    return facts | {"kind": encoder.kind, "vocabulary": len(tokenizer), "mean_tokens": round(float(
        lengths[lengths > 0].mean()), 2), "array": "tokens.npy" if encoder.kind == "inputs" else "text_inputs.npy"}


def _text_encoder(s: TextEncoder, tokenizer, folder: Path) -> Encoder:
    """E_T of the kind asked for; VisualBERT is made for the picture features that are in `folder` already."""
    vocabulary = len(tokenizer) if s.weights == "random" else None
    if s.kind == "auto":
        return create_text_encoder(s.name, s.weights, s.options, s.trainable_layers, vocabulary)
    asked = s.name, s.weights, s.options, s.trainable_layers, s.max_tokens
    if s.kind == "clip":
        return create_clip_text_encoder(*asked, vocabulary)
    width = len(np.load(folder / "image_mean.npy"))
    return create_visualbert_encoder(*asked, width, tokenizer("")["input_ids"], vocabulary)


def _text_inputs(encoder: Encoder, tokens: np.ndarray, lengths: np.ndarray, known: np.ndarray, folder: Path) -> None:
    """(P, H) descriptors or (P, T, H) activations, made in buckets of like lengths."""
    order, target, size = np.argsort(lengths, kind="stable"), None, _batch_size()
    for start in progress(range(0, len(order), size), "frozen text"):
        rows = order[start:start + size]
        longest = max(int(lengths[rows].max()), 1)
        out = frozen_inputs(encoder, torch.from_numpy(tokens[rows, :longest]),
                      torch.from_numpy(np.maximum(lengths[rows], 1).astype(np.int64)))
        if target is None:
            shape = (len(tokens), *((tokens.shape[1], out.shape[-1]) if out.ndim == 3 else out.shape[1:]))
            target = _RowFile(folder / "text_inputs.npy", out.dtype, shape)
        for row, values in zip(rows, out):
            target.write(row, values)
    target.close()
    if encoder.kind == "descriptors":
        every = np.load(folder / "text_inputs.npy", mmap_mode="r")
        _statistics(every[known][lengths[known] > 0], folder, "text")


def _statistics(descriptors: np.ndarray, folder: Path, name: str) -> None:
    """Mean and standard deviation a feature over the train products, for `encoder.standardise`."""
    np.save(folder / f"{name}_mean.npy", descriptors.mean(0).astype(np.float32))
    np.save(folder / f"{name}_std.npy", descriptors.std(0).astype(np.float32))


if __name__ == "__main__":
    runtime.run(main)
