"""Products that are not in the catalog: their titles and pictures as the networks read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mufin import devices
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.pixels import decode
from mufin.corpus.tokens import Tokenizer, load_tokenizer, terms_of, tokenise
from mufin.errors import MufinError
from mufin.nn.frozen import frozen_inputs
from mufin.nn.vision_language import Encoder, load_encoder
from mufin.params import EncoderParams
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True)
class NewProductEncoders:
    """What the stage precompute kept of the encoders; None for a modality that is not in use."""

    image: Encoder | None
    text: Encoder | None
    tokenizer: Tokenizer | None
    terms: dict[str, int] | None  # lexical id of each term


def load_encoders(
    precomputed: Precomputed, modalities: list[str], device: torch.device
) -> NewProductEncoders:
    """The encoders of `data/precomputed`; ArtifactError where they are missing."""
    image = load_encoder(precomputed.encoder("image")).to(device) if "image" in modalities else None
    text = load_encoder(precomputed.encoder("text")).to(device) if "text" in modalities else None
    tokenizer = load_tokenizer(str(precomputed.encoder("text"))) if "text" in modalities else None
    terms = (
        {term: i for i, term in enumerate(precomputed.lexical_terms())}
        if "lexical" in modalities
        else None
    )
    return NewProductEncoders(image, text, tokenizer, terms)


def new_product_store(
    titles: list[str],
    pictures: list[list[bytes]],
    encoders: NewProductEncoders,
    settings: EncoderParams,
    folder: Path,
) -> DescriptorStore:
    """A store of these products, made in `folder`; MufinError for a broken picture."""
    out, image, text = Precomputed(folder), None, None
    if encoders.image is not None:
        image = {"shards": _pictures(pictures, encoders.image, settings.image.size, out)}
    if encoders.text is not None:
        text = {"array": _titles(titles, encoders, settings.text.max_tokens, out)}
    if (ids := encoders.terms) is not None:
        rows = [
            [ids[t] for t in terms_of(title, settings.lexical.ngrams) if t in ids]
            for title in titles
        ]
        out.write_lexical(list(ids), Lists.of_rows(rows, np.int32))
    out.write_manifest(len(titles), list(settings.modalities), image, text)
    return DescriptorStore(folder, list(settings.modalities))


def _pictures(
    pictures: list[list[bytes]], encoder: Encoder, size: int, out: Precomputed
) -> list[str]:
    """Decodes the pictures and encodes what is frozen; the names of the image arrays."""
    decoded = [decode(content, size) for product in pictures for content in product]
    if broken := [reason for reason in decoded if isinstance(reason, str)]:
        raise MufinError(f"a picture cannot be read ({broken[0]}); give another one or none")
    pixels = (
        np.stack(decoded) if decoded else np.zeros((1, size, size, 3), np.uint8)
    )  # 1: encoders need a batch
    out.write_image_rows(Lists.of_pairs(_owners(pictures), np.arange(len(decoded)), len(pictures)))
    writer = out.pixel_writer() if encoder.kind == "inputs" else out.image_input_writer()
    writer.add(pixels if encoder.kind == "inputs" else _frozen(encoder, torch.from_numpy(pixels)))
    return writer.close()


def _owners(pictures: list[list[bytes]]) -> np.ndarray:
    """(n,) int64: the product of each picture."""
    return np.repeat(np.arange(len(pictures)), [len(product) for product in pictures])


def _titles(
    titles: list[str], encoders: NewProductEncoders, max_tokens: int, out: Precomputed
) -> str:
    """Tokenises the titles and encodes what is frozen; the name of the text array."""
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
