"""The trained recommender in one object: labels for products of the catalog, and for products that it has never seen."""

from __future__ import annotations

import difflib
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pipeline import runtime
from pipeline.artifacts import read_json, read_table, write_json
from pipeline.corpus.descriptors import DescriptorStore
from pipeline.corpus.pixels import decode
from pipeline.corpus.tokens import load_tokenizer, terms_of, tokenise
from pipeline.errors import MufinError
from pipeline.inputs import open_store
from pipeline.model_files import load_members
from pipeline.nn.encoders import ImageEncoder, TextEncoder
from pipeline.nn.vision_language import ClipImageEncoder, ClipTextEncoder, VisualBertEncoder, load_encoder
from pipeline.params import Encoder, Params
from pipeline.precompute import frozen_inputs
from pipeline.ragged import Lists
from pipeline.ranking import Mix, rank
from pipeline.recommender import classifier_scores, embed_members, joint_vectors, label_sides
from pipeline.served import load_index

CHUNK = 4096        # products scored at once


class Recommender:
    """What `dvc repro` made, loaded once; `recommend` and `recommend_new` answer with uids, titles and scores.

    `mix` is that of `evaluate.mix`, read from `metrics/evaluate.json` where it was chosen on valid.
    """

    def __init__(self, params: Params, home: Path = Path(".")):
        data, self.params, self.device = home / "data", params, runtime.device()
        self.precomputed = data / "precomputed"
        products = read_table(data / "curated/products.parquet", "products")
        self.uids, self.titles = products["uid"].to_pylist(), products["title"].to_pylist()
        self.row_of = {uid: row for row, uid in enumerate(self.uids)}
        self.index = load_index(home / "models/index", self.device)
        self.members = load_members(home / "models/finetune", self.precomputed)
        self.store = open_store(self.precomputed, params)
        self.sides = label_sides(self.members, self.index.labels, self.device)
        self.mix = _mix(params, home / "metrics/evaluate.json")

    @cached_property
    def encoders(self) -> Encoders:
        """Loaded by the first question about a product that the catalog has not."""
        return load_encoders(self.precomputed, self.params.encoder.modalities, self.device)

    def recommend(self, uids: list[str], k: int = 10) -> list[list[dict]]:
        """The k best labels of each product of the catalog, never the product itself; MufinError for an unknown uid."""
        if unknown := [u for u in uids if u not in self.row_of]:
            near = difflib.get_close_matches(unknown[0], self.uids, 1)
            raise MufinError(f"{unknown[0]} is not a product of the catalog" + (f"; did you mean {near[0]}?" if near else ""))
        rows = np.array([self.row_of[u] for u in uids], np.int64)
        parts = [self._best(self.store, part, [self.titles[r] for r in part], k, own=part)
                 for part in np.array_split(rows, -(-len(rows) // CHUNK))] if len(rows) else []
        return [answer for part in parts for answer in part]

    def recommend_new(self, titles: list[str], pictures: list[list[bytes]], k: int = 10) -> list[list[dict]]:
        """The k best labels of products by title ('' for none) and picture bytes alone; MufinError for a broken picture."""
        with tempfile.TemporaryDirectory() as folder:
            store = newcomers(titles, pictures, self.encoders, self.params.encoder, Path(folder))
            return self._best(store, np.arange(len(titles)), titles, k)

    def _best(self, store: DescriptorStore, rows: np.ndarray, titles: list[str], k: int,
              own: np.ndarray | None = None) -> list[list[dict]]:
        e, served = self.params.evaluate, self.index
        datapoints = embed_members(self.members, store, rows, self.device, runtime.precision())
        wide = len(served.products) if e.candidates == "all" else max(e.shortlist, k + 1)
        found, similarity = served.neighbours.search(joint_vectors(datapoints), min(wide, len(served.products)))
        if own is not None:
            found = np.where(served.products[np.maximum(found, 0)] == own[:, None], -1, found)
        scores = classifier_scores(self.sides, datapoints, found, self.device)
        ridge = None
        if served.ridge is not None and self.mix.ridge_weight:
            ridge = self.mix.ridge_weight * np.take_along_axis(served.ridge.scores(titles), np.maximum(found, 0), 1)
        term = (self.mix.frequency_weight * np.log1p(served.frequency)).astype(np.float32)
        labels, scores = rank(found, scores, similarity, self.mix.beta, None, term, width=k, ridge_term=ridge)
        return [[self._label(label, score) for label, score in zip(*pair) if label >= 0] for pair in zip(labels, scores)]

    def _label(self, label: int, score: float) -> dict:
        product = self.index.products[label]
        return {"uid": self.uids[product], "title": self.titles[product], "score": round(float(score), 4)}


def _mix(params: Params, metrics: Path) -> Mix:
    """The mix that `evaluate.mix` asks for."""
    if params.evaluate.mix == "fixed":
        return Mix(params.evaluate.beta)
    chosen = read_json(metrics)["chosen"]
    return Mix(chosen["beta"], chosen["frequency_weight"], chosen["ridge_weight"])


@dataclass(frozen=True, slots=True)
class Encoders:
    """What `precompute` kept of the encoders; None for a modality that is not asked for."""

    image: ImageEncoder | ClipImageEncoder | None
    text: TextEncoder | ClipTextEncoder | VisualBertEncoder | None
    tokenizer: object | None
    terms: dict[str, int] | None        # lexical id of each term


def load_encoders(precomputed: Path, modalities: list[str], device: torch.device) -> Encoders:
    """The encoders of `data/precomputed`; ArtifactError where they are missing."""
    home, has_text = precomputed / "encoders", "text" in modalities
    terms = {t: i for i, t in enumerate(read_json(precomputed / "lexical_terms.json"))} if "lexical" in modalities else None
    return Encoders(load_encoder(home / "image").to(device) if "image" in modalities else None,
                    load_encoder(home / "text").to(device) if has_text else None,
                    load_tokenizer(str(home / "text")) if has_text else None, terms)


def newcomers(titles: list[str], pictures: list[list[bytes]], encoders: Encoders, settings: Encoder,
              folder: Path) -> DescriptorStore:
    """A store of products outside the catalog, made in `folder`."""
    manifest: dict = {"products": len(titles), "modalities": list(settings.modalities)}
    if encoders.image is not None:
        manifest["image"] = {"shards": _pictures(pictures, encoders.image, settings.image.size, folder)}
    if encoders.text is not None:
        manifest["text"] = {"array": _titles(titles, encoders, settings.text.max_tokens, folder)}
    if encoders.terms is not None:
        ids = encoders.terms
        rows = [[ids[t] for t in terms_of(title, settings.lexical.ngrams) if t in ids] for title in titles]
        lists = Lists.of_rows(rows, np.int32)
        np.save(folder / "lexical_offsets.npy", lists.offsets)
        np.save(folder / "lexical_ids.npy", lists.values)
    write_json(manifest, folder / "manifest.json")
    return DescriptorStore(folder, list(settings.modalities))


def _pictures(pictures: list[list[bytes]], encoder: ImageEncoder | ClipImageEncoder, size: int, folder: Path) -> list[str]:
    """Decodes and encodes what is frozen; file names of the image arrays."""
    decoded = [decode(content, size) for product in pictures for content in product]
    if broken := [reason for reason in decoded if isinstance(reason, str)]:
        raise MufinError(f"a picture gives no image ({broken[0]}); give another or none")
    pixels = np.stack(decoded) if decoded else np.zeros((1, size, size, 3), np.uint8)       # 1: encoders need a batch
    inputs = pixels if encoder.kind == "inputs" else frozen_inputs(encoder, torch.from_numpy(pixels))
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "image_offsets.npy", np.cumsum([0, *map(len, pictures)]).astype(np.int64))
    np.save(folder / "image_rows.npy", np.arange(len(decoded), dtype=np.int32))
    return ["inputs.npy"]


def _titles(titles: list[str], encoders: Encoders, max_tokens: int, folder: Path) -> str:
    """Tokenises and encodes what is frozen; the file name of the text array."""
    inputs, lengths = tokenise(encoders.tokenizer, titles, max_tokens)
    np.save(folder / "token_lengths.npy", lengths)
    if encoders.text.kind != "inputs":
        inputs = frozen_inputs(encoders.text, torch.from_numpy(inputs),
                               torch.from_numpy(np.maximum(lengths, 1).astype(np.int64)))
    np.save(folder / "texts.npy", inputs)
    return "texts.npy"
