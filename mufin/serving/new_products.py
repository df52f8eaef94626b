"""Products that are not in the catalog: their titles and pictures as inputs of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mufin import devices
from mufin.artifacts.contents import seal
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.decoding import decode_each
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.tokens import Tokenizer, load_tokenizer, terms_of, tokenise
from mufin.errors import MufinError
from mufin.nn.encoder import Encoder
from mufin.nn.frozen import frozen_inputs
from mufin.nn.given_vectors import GivenVectors
from mufin.nn.vision_language import load_encoder
from mufin.params import EncoderParams
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True)
class NewProductEncoders:
    """The encoders that the stage precompute saved; None for a modality that is not in use."""

    image: Encoder | None
    text: Encoder | None
    tokenizer: Tokenizer | None
    terms: dict[str, int] | None  # the id of each lexical term


def load_encoders(
    precomputed: Precomputed, modalities: Sequence[str], device: torch.device
) -> NewProductEncoders:
    """The encoders in `data/precomputed`; raises ArtifactError if one is missing."""
    image = (
        load_encoder(precomputed.stored_encoder("image")).to(device)
        if "image" in modalities
        else None
    )
    text, tokenizer, terms = None, None, None
    if "text" in modalities:
        text = load_encoder(precomputed.stored_encoder("text")).to(device)
        tokenizer = load_tokenizer(str(precomputed.stored_encoder("text")))
    if "lexical" in modalities:
        terms = {term: i for i, term in enumerate(precomputed.lexical_terms())}
    return NewProductEncoders(image, text, tokenizer, terms)


def new_product_store(
    titles: list[str],
    pictures: list[list[bytes]],
    encoders: NewProductEncoders,
    settings: EncoderParams,
    folder: Path,
) -> DescriptorStore:
    """A store of these products, written to `folder`; raises MufinError for a broken picture.

    `titles` holds '' for products without one, `pictures` the encoded pictures of each product.
    """
    out, image, text = Precomputed(folder), None, None
    if encoders.image is not None:
        if isinstance(encoders.image, GivenVectors):
            image = {"shards": _no_pictures(pictures, encoders.image, out)}
        else:
            image = {"shards": _pictures(pictures, encoders.image, settings.image.size, out)}
    if encoders.text is not None:
        text = {"array": _titles(titles, encoders, settings.text.max_tokens, out)}
    if (ids := encoders.terms) is not None:
        terms = [terms_of(title, settings.lexical.ngrams) for title in titles]
        rows = [[ids[t] for t in of_title if t in ids] for of_title in terms]
        out.write_lexical(list(ids), Lists.of_rows(rows, np.int32))
    out.write_manifest(len(titles), list(settings.modalities), image, text)
    seal(folder)
    return DescriptorStore(folder, list(settings.modalities))


def _no_pictures(pictures: list[list[bytes]], encoder: GivenVectors, out: Precomputed) -> list[str]:
    """Writes the inputs of an E_V that cannot encode pictures; returns the names of the arrays."""
    if any(pictures):
        raise MufinError(
            "E_V is not available: the vectors of images were given (download.image_vectors), so "
            "a new image cannot be encoded; ask by title alone"
        )
    empty = Lists(np.zeros(len(pictures) + 1, np.int64), np.zeros(0, np.int64))
    out.write_image_rows(empty)
    writer = out.image_input_writer()
    writer.add(np.zeros((1, encoder.width), np.float32))  # so that the array has a shape
    return writer.close()


def _pictures(
    pictures: list[list[bytes]], encoder: Encoder, size: int, out: Precomputed
) -> list[str]:
    """Writes the inputs of E_V; returns the names of their arrays."""
    decoded = decode_each((content for product in pictures for content in product), size)
    if broken := [reason for reason in decoded if isinstance(reason, str)]:
        raise MufinError(f"a picture cannot be read ({broken[0]}); give another one or none")
    # Without pictures one blank image is encoded, so that the arrays have a shape.
    pixels = np.stack(decoded) if decoded else np.zeros((1, size, size, 3), np.uint8)
    counts = [len(product) for product in pictures]
    owners = np.repeat(np.arange(len(pictures)), counts)
    out.write_image_rows(Lists.of_pairs(owners, np.arange(len(decoded)), len(pictures)))
    if encoder.kind == "inputs":
        writer = out.pixel_writer()
        writer.add(pixels)
    else:
        writer = out.image_input_writer()
        writer.add(_frozen(encoder, torch.from_numpy(pixels)))
    return writer.close()


def _titles(
    titles: list[str], encoders: NewProductEncoders, max_tokens: int, out: Precomputed
) -> str:
    """Writes the inputs of E_T; returns the name of their array."""
    assert encoders.text is not None and encoders.tokenizer is not None
    tokens, lengths = tokenise(encoders.tokenizer, titles, max_tokens)
    out.write_tokens(tokens, lengths)
    if encoders.text.kind == "inputs":
        return "tokens.npy"
    counts = torch.from_numpy(np.maximum(lengths, 1).astype(np.int64))
    out.write_text_inputs(_frozen(encoders.text, torch.from_numpy(tokens), counts))
    return "text_inputs.npy"


def _frozen(encoder: Encoder, *inputs: torch.Tensor) -> np.ndarray:
    return frozen_inputs(encoder, inputs, devices.device(), devices.precision())
