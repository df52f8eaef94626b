"""Computes once what later stages need often: pixels, tokens, outputs of frozen encoder parts.

python -m pipeline.precompute
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mufin import devices, runtime
from mufin.artifacts.contents import checked
from mufin.artifacts.curated import read_labels, read_split
from mufin.artifacts.files import link_file
from mufin.artifacts.precomputed import RAGGED_TOKENS, TEXT_INPUTS, Precomputed
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import read_table
from mufin.artifacts.texts import further_texts
from mufin.cluster.pictures import make_parts_on
from mufin.cluster.settings import cluster
from mufin.cluster.texts import make_text_inputs_on
from mufin.corpus.image_vectors import StoredVectors, moments, rows_of
from mufin.corpus.outcomes import Outcomes
from mufin.corpus.ragged_tokens import RaggedTokens
from mufin.corpus.texts import Texts
from mufin.corpus.tokens import (
    Tokenizer,
    learn_wordpiece,
    lexical_terms,
    load_tokenizer,
    ragged_tokens,
    save_tokenizer,
    tokenise,
)
from mufin.errors import MufinError, shown
from mufin.nn.encoder import Encoder
from mufin.nn.encoder_files import save_encoder
from mufin.nn.given_vectors import given_encoder
from mufin.nn.image_encoder import ImageEncoder, create_image_encoder
from mufin.nn.picture_parts import (
    BATCH,
    CHECKED,
    Parts,
    Reads,
    least_allowed,
    link,
    make_parts,
    parts_of,
)
from mufin.nn.text_encoder import create_text_encoder
from mufin.nn.text_parts import FrozenPart, TokenisedTexts, make_text_inputs
from mufin.nn.vision_language import (
    create_clip_image_encoder,
    create_clip_text_encoder,
    create_visualbert_encoder,
)
from mufin.params import ImageEncoderParams, Params, TextEncoderParams, load_params
from mufin.progress import progress
from mufin.ragged import Lists
from mufin.training.machine import Machine
from mufin.training.self_supervision import self_supervise


def main(home: runtime.Home = Path(".")) -> None:
    """Decode pictures, tokenise titles, run frozen encoder parts, learn the lexical terms."""
    params, curated = load_params(home / "params.yaml"), home / "data/curated"
    modalities, raw = params.encoder.modalities, home / "data/raw"
    made_from, known_files = {"data/curated": checked(curated).id}, dict[str, tuple[int, str]]()
    checked(raw)
    products = read_table(curated / "products.parquet", "products")
    # Statistics and vocabularies come from the products known in training only.
    train = read_split(curated / "train.parquet").product
    labels = read_labels(curated / "labels.parquet")
    known = np.union1d(train, labels)
    texts: Texts | None = None
    if {"text", "lexical"} & set(modalities):
        further = further_texts(curated)
        more = None if further is None else further.to_pylist()
        texts = Texts.of(products["title"].to_pylist(), more)
    for what, rows in (("label", labels), ("train datapoint", train)):
        _check_descriptors(what, products["images"].take(rows), texts, rows, modalities)
    torch.manual_seed(params.seed)
    scratch = _scratch(params, home)
    with (
        runtime.measured("precompute", home) as report,
        publish(home / "data/precomputed", made_from, known_files) as folder,
    ):
        folder.mkdir()
        out, image, text, outcomes = Precomputed(folder), None, None, Outcomes()
        if "image" in modalities:
            pictures = Lists.of_column(products["images"])
            if params.encoder.image.kind == "vectors":
                image = _vectors(pictures, raw, known, out)
            else:
                made = _Made(out, scratch, params.seed, known_files, outcomes)
                image = _images(params.encoder.image, pictures, raw / "images", known, made)
        if texts is not None:
            text = _texts(params, texts, known, out, scratch)
        has = {"text": text and text["array"], "lexical": text, "image": image}
        out.write_manifest(len(products), [m for m, there in has.items() if there], image, text)
        report.items = image["count"] if image else len(products)
        report.facts = {"products": len(products)}
        for name, part in (("image", image), ("text", text)):
            if part:
                report.facts[name] = {k: v for k, v in part.items() if k != "shards"}
        if image:
            report.facts["image"] |= _told(outcomes, products)
    runtime.discard(scratch)


def _scratch(params: Params, home: Path) -> Path:
    """The folder of finished parts, which only runs of the same settings and inputs share."""
    inputs = [home / "data/curated", home / "data/raw"]
    of_device = devices.device().type, str(devices.precision())
    e, spread = params.encoder, cluster() is not None
    settings = params.seed, e.modalities, e.image, e.text, of_device, spread
    mark = runtime.fingerprint(settings, inputs, Path(__file__))
    return runtime.scratch("precompute", mark)


@dataclass(frozen=True, slots=True)
class _Made:
    """Where what is made of the pictures goes."""

    out: Precomputed
    scratch: Path  # finished parts
    seed: int
    known_files: dict[str, tuple[int, str]]  # name -> size and SHA-256, of files hashed before
    outcomes: Outcomes

    def link(self, parts: Parts, name: str) -> list[str]:
        """The arrays of the parts are in `out`, as they are; returns their names there."""
        linked = link(parts, name, self.out.folder)
        self.known_files.update(linked)
        return list(linked)


def _check_descriptors(
    what: str,
    images: pa.ChunkedArray,
    texts: Texts | None,
    rows: np.ndarray,
    modalities: Sequence[str],
) -> None:
    """Raises MufinError if none of the products `rows` has what the modalities read.

    Such as labels that are queries, with `encoder.modalities: [image]`. `images` are those of these
    products.
    """
    titled = texts is not None and any(texts.of_products(rows))
    pictures = "image" in modalities and any(pc.list_value_length(images).to_pylist())
    if not titled and not pictures:
        lacks, others = ("title", "image") if "image" not in modalities else ("picture", "text")
        raise MufinError(
            f"no {what} has a {lacks}, but encoder.modalities is {shown(list(modalities))}; add "
            f"{others} to it"
        )


def _images(
    s: ImageEncoderParams, pictures: Lists, store: Path, known: np.ndarray, made: _Made
) -> dict:
    """Writes E_V, pixels or outputs of its frozen part, and statistics; facts for the manifest.

    `pictures` are the keys of the pictures of each product in the image `store`.
    """
    values = np.asarray(pictures.values, dtype=object).astype(str)
    keys, inverse = np.unique(values, return_inverse=True)
    create = create_clip_image_encoder if s.kind == "clip" else create_image_encoder
    encoder = create(s.name, s.weights, s.options, s.size, s.trainable_blocks)
    if s.weights != "random":
        print(encoder.scale.said(), file=sys.stderr, flush=True)
    encoder.to(devices.device())
    # While E_V still learns, nothing of it is frozen
    reads = _reads(s, None if s.self_supervised_epochs or encoder.kind == "inputs" else encoder)
    parts = parts_of(store, keys, made.scratch / "pictures", partial(_make, reads, made.scratch))
    made.outcomes.add(parts.outcomes)
    drops = made.outcomes.dropped
    if not (kept := int((parts.row_of >= 0).sum())):
        raise MufinError(
            f"none of the {len(keys)} pictures could be decoded ({drops or 'there are none'}); set "
            "encoder.modalities to [text], or look at the reasons in data/raw/image_log.parquet"
        )
    rows = parts.row_of[inverse]
    images = Lists(pictures.offsets, rows).only(rows >= 0)
    made.out.write_image_rows(images)
    cosine = parts.cosine
    if s.self_supervised_epochs:
        assert isinstance(encoder, ImageEncoder)
        learnt = images.only(np.isin(images.rows(), known))
        shards, cosine = _self_supervised(encoder, s, parts, learnt, made)
    else:
        shards = made.link(parts, reads.name)
    save_encoder(encoder, made.out.encoder("image"))
    if encoder.kind == "descriptors":
        used = np.unique(images.take(known).values)
        descriptors = np.concatenate([np.load(made.out.folder / name) for name in shards])
        made.out.write_statistics("image", descriptors[used])
    facts = {"count": kept, "dropped": drops, "kind": encoder.kind, "shards": shards}
    if encoder.kind == "activations" and s.activations == "int8":
        facts["least_cosine_of_int8"] = round(cosine, 5)
    return facts | encoder.scale.facts()


def _make(reads: Reads, scratch: Path, wanted: Mapping[Path, set[str]], folder: Path) -> None:
    """Makes the missing parts here, or on the cluster that the environment names."""
    if (machines := cluster()) is None:
        make_parts(wanted, folder, reads, runtime.workers())
    else:
        make_parts_on(machines, wanted, folder, reads, scratch.name)


def _reads(s: ImageEncoderParams, encoder: Encoder | None) -> Reads:
    device, precision = devices.device(), devices.precision()
    return Reads(s.size, _batch_size(), device, precision, encoder, s.activations == "int8")


def _self_supervised(
    encoder: ImageEncoder, s: ImageEncoderParams, pixels: Parts, pictures: Lists, made: _Made
) -> tuple[list[str], float]:
    """Gives E_V its self-supervised start; the names of the arrays that it then reads.

    `pictures` are the rows of the pictures of each product, none of those that are not known in
    training. The second result is the cosine of `Reads.of`.
    """
    if not len(pictures.values):
        raise MufinError(
            "no product of train has a picture that could be decoded, so E_V cannot learn from "
            "them; set encoder.image.self_supervised_epochs to 0"
        )
    scratch = made.scratch / "start"
    scratch.mkdir(exist_ok=True)
    machine = Machine(devices.device(), devices.precision(), scratch, runtime.checkpoint_seconds())
    shards = [np.load(path, mmap_mode="r") for path in pixels.shards]
    epochs, lr = s.self_supervised_epochs, s.self_supervised_lr
    curve = self_supervise(encoder, shards, pictures, epochs, lr, made.seed, machine)
    print(f"E_V: the contrast of pictures has a loss of {curve[-1]['loss']:.3f}", file=sys.stderr)
    if encoder.kind == "inputs":
        return made.link(pixels, "pixels"), 1.0
    file, reads, least = made.out.image_input_writer(), _reads(s, encoder), 1.0
    for shard in shards:
        starts = range(0, len(shard), reads.batch)
        for start in progress(starts, "frozen image", f"batches of {reads.batch}"):
            batch = np.array(shard[start : start + reads.batch])
            inputs, cosine = reads.of(batch, compare=start < CHECKED)
            file.add(inputs)
            least = least_allowed(min(least, cosine))
    return file.close(), least


def _vectors(pictures: Lists, raw: Path, known: np.ndarray, out: Precomputed) -> dict:
    """Writes E_V, the given vectors and their statistics; facts for the manifest.

    `pictures` are the keys of the vectors of each product.
    """
    stored = StoredVectors(raw)
    if not len(stored):
        raise MufinError(
            "encoder.image.kind is vectors, but data/raw has none; set download.image_vectors, or "
            "set the kind to timm or clip"
        )
    rows, inverse = np.unique(rows_of(pictures.values), return_inverse=True)
    encoder, file = given_encoder(stored.width), out.image_input_writer()
    save_encoder(encoder, out.encoder("image"))
    for batch in stored.batches(rows):
        file.add(batch)
    shards = file.close()
    images = Lists(pictures.offsets, inverse)
    out.write_image_rows(images)
    used = rows[np.unique(images.take(known).values)]
    if not len(used):
        raise MufinError(
            "no product of train has an image vector; set encoder.modalities to [text], or look at "
            "download.image_vectors.ids"
        )
    out.write_moments("image", *moments(stored.batches(used), stored.width))
    return {"count": len(rows), "kind": encoder.kind, "shards": shards, "width": stored.width}


def _told(outcomes: Outcomes, products: pa.Table) -> dict:
    """What was done to pictures, and a product for each count, also of those that were dropped."""
    wanted = set(outcomes.examples.values())
    uids: dict[str, str] = {}
    for uid, keys in zip(products["uid"], products["images"]):
        if len(uids) == len(wanted):
            break
        for key in wanted.intersection(keys.as_py()):
            uids.setdefault(key, uid.as_py())
    examples = {what: shown(uids[key]) for what, key in outcomes.examples.items() if key in uids}
    counts = {"noted": outcomes.noted, "examples": examples}
    return {name: of for name, of in counts.items() if of}


def _texts(
    params: Params, texts: Texts, known: np.ndarray, out: Precomputed, scratch: Path
) -> dict:
    """Writes E_T, terms, tokens, outputs of its frozen part, statistics; facts for the manifest."""
    s, lexical = params.encoder.text, params.encoder.lexical
    counts = lexical.ngrams, lexical.min_count, lexical.max_terms
    terms, rows = lexical_terms(texts.titles, known, *counts, texts.further)
    out.write_lexical(terms, rows)
    facts = {"titles": sum(map(bool, texts.titles)), "terms": len(terms), "array": None}
    if "text" not in params.encoder.modalities:
        return facts
    if not any(texts.of_products(known)):
        raise MufinError(
            "no train product has a title; take text out of encoder.modalities, or look at "
            "download.columns.title"
        )
    tokenizer = _tokenizer(s, texts.of_products(known))
    encoder = _text_encoder(s, tokenizer, out)
    save_encoder(encoder, out.encoder("text"))
    save_tokenizer(tokenizer, out.encoder("text"))
    tokens: np.ndarray | RaggedTokens
    if texts.further is None:
        padded, lengths = tokenise(tokenizer, texts.all, s.max_tokens)
        out.write_tokens(padded, lengths)
        tokens = padded
        array = "tokens.npy"
    else:
        flat, lengths = ragged_tokens(tokenizer, texts.all, s.max_tokens)
        out.write_ragged_tokens(flat, lengths, texts.rows)
        array, tokens = RAGGED_TOKENS, RaggedTokens(flat, lengths)
        facts |= {"ragged": True, "texts": len(lengths)}
    if encoder.kind != "inputs":
        _text_inputs(encoder, TokenisedTexts(tokens, lengths), scratch, out.encoder("text"))
        link_file(scratch / TEXT_INPUTS, out.folder / TEXT_INPUTS)
        if encoder.kind == "descriptors":
            descriptors = np.load(out.folder / TEXT_INPUTS, mmap_mode="r")
            of_known = texts.rows.take(known).values
            out.write_statistics("text", descriptors[of_known][lengths[of_known] > 0])
        array = TEXT_INPUTS
    return facts | {
        "kind": encoder.kind,
        "vocabulary": len(tokenizer),
        "mean_tokens": round(float(lengths[lengths > 0].mean()), 2),
        "array": array,
    }


def _tokenizer(s: TextEncoderParams, known_titles: list[str]) -> Tokenizer:
    """The tokenizer of the model, or for random weights one that is learnt from the titles."""
    if s.weights == "random":
        return learn_wordpiece(known_titles, s.vocabulary, s.max_tokens)
    # VisualBERT's weights on the hub come without their vocabulary, which is that of BERT.
    own = s.kind != "visualbert" or Path(s.name).is_dir()
    return load_tokenizer(s.name if own else "google-bert/bert-base-uncased")


def _text_encoder(s: TextEncoderParams, tokenizer: Tokenizer, out: Precomputed) -> Encoder:
    """E_T by `encoder.text.kind`; VisualBERT needs the width of the picture features in `out`."""
    vocabulary = len(tokenizer) if s.weights == "random" else None
    if s.kind == "auto":
        return create_text_encoder(s.name, s.weights, s.options, s.trainable_layers, vocabulary)
    common = s.name, s.weights, s.options, s.trainable_layers, s.max_tokens
    if s.kind == "clip":
        return create_clip_text_encoder(*common, vocabulary)
    width = len(np.load(out.folder / "image_mean.npy"))
    return create_visualbert_encoder(*common, width, tokenizer("")["input_ids"], vocabulary)


def _text_inputs(encoder: Encoder, texts: TokenisedTexts, scratch: Path, saved: Path) -> None:
    """Writes the outputs of the frozen part of E_T, here or on the cluster that is named.

    The cluster is that of the environment; `saved` is the folder of the encoder.
    """
    if (machines := cluster()) is not None:
        make_text_inputs_on(machines, texts, scratch, saved)
    else:
        device, precision = devices.device(), devices.precision()
        frozen = FrozenPart(encoder.to(device), _batch_size(), device, precision)
        make_text_inputs(texts, scratch, frozen)


def _batch_size() -> int:
    return BATCH.get(devices.device().type, 16)


if __name__ == "__main__":
    runtime.run(main)
