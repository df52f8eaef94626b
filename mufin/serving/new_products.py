"""Products that are not in the catalog: their texts and pictures as inputs of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from mufin import runtime
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.decoding import decode_each
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.image_store import key_of
from mufin.corpus.texts import Texts
from mufin.corpus.tokens import load_tokenizer, terms_of, tokenise
from mufin.nn.encoder import Encoder
from mufin.nn.frozen import frozen_inputs
from mufin.nn.given_vectors import GivenVectors
from mufin.nn.vision_language import load_encoder
from mufin.params import EncoderParams
from mufin.ragged import Lists
from mufin.serving.kept_texts import kept_texts
from mufin.serving.onnx_encoders import OnnxEncoder, fast_encoder
from mufin.serving.query import NewProduct, QueryError
from mufin.serving.remembered import Remembered

KEPT = 2**28  # bytes of the inputs of E_V that are kept, by the content of their picture
TOGETHER = 64  # pictures in a pass of the frozen part of E_V


class NewProducts:
    """Makes stores of new products, by the encoders that the stage precompute saved.

    With `fast`, on a CPU, their frozen parts run in ONNX Runtime; see `onnx_encoders`. A product
    has at most `most_texts` texts, its title included; None: any number. Raises ArtifactError if an
    encoder is missing.
    """

    def __init__(
        self,
        precomputed: Precomputed,
        settings: EncoderParams,
        device: torch.device,
        precision: torch.dtype,
        fast: bool = False,
        most_texts: int | None = None,
    ):
        self.settings, self.device, self.precision = settings, device, precision
        self.most_texts = most_texts
        self.fast = fast and device.type == "cpu" and precision == torch.float32
        names = settings.modalities
        self.image: Encoder | OnnxEncoder | None = None
        self.text: Encoder | OnnxEncoder | None = None
        self.tokenizer, self.terms = None, None
        if "image" in names:
            self.image = self._encoder(precomputed, "image", self._probe_pictures())
        if "text" in names:
            self.tokenizer = load_tokenizer(str(precomputed.stored_encoder("text")))
            self.text = self._encoder(precomputed, "text", self._probe_titles())
        if "lexical" in names:
            self.terms = {term: i for i, term in enumerate(precomputed.lexical_terms())}
        self.kept: Remembered[np.ndarray] = Remembered(KEPT, lambda row: row.nbytes)

    def _encoder(
        self, precomputed: Precomputed, name: str, probes: list[tuple[torch.Tensor, ...]]
    ) -> Encoder | OnnxEncoder:
        if self.fast:
            return fast_encoder(precomputed, name, probes)
        return load_encoder(precomputed.stored_encoder(name)).to(self.device)

    def _probe_pictures(self) -> list[tuple[torch.Tensor, ...]]:
        """Pixels on which an exported E_V is compared."""
        size, rng = self.settings.image.size, np.random.default_rng(0)
        shapes = [(n, size, size, 3) for n in (2, 1, 3)]
        return [(torch.from_numpy(rng.integers(0, 256, shape, np.uint8)),) for shape in shapes]

    def _probe_titles(self) -> list[tuple[torch.Tensor, ...]]:
        """Tokens and lengths on which an exported E_T is compared."""
        return [
            tuple(map(torch.from_numpy, self._tokens(titles)))
            for titles in (["a red mug", "mug", "a blue mug of 2 l with a lid"], ["mug " * 300])
        ]

    def check(self, product: NewProduct) -> None:
        """Raises QueryError for a picture that cannot be read; what was read is kept."""
        if self.image is not None:
            self._picture_rows(product.pictures)

    def store(self, products: Sequence[NewProduct]) -> DescriptorStore:
        """A store of these products, row for row; raises QueryError for a broken picture."""
        texts = self._texts(products)
        text: tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, Lists] | None = None
        if self.text is not None:
            inputs = self._inputs_of(texts.all)
            text = inputs if texts.further is None else (*inputs, texts.rows)
        lexical = None if self.terms is None else self._words(texts)
        images = None if self.image is None else self._pictures([p.pictures for p in products])
        return DescriptorStore.of_arrays(len(products), text=text, lexical=lexical, images=images)

    def _texts(self, products: Sequence[NewProduct]) -> Texts:
        """The texts of new products; further ones, if there are any, as in curate."""
        titles = [product.title for product in products]
        if not any(product.texts for product in products):
            return Texts.of(titles, None)
        further = [list(kept_texts(p.title, p.texts, self.most_texts)) for p in products]
        return Texts.of(titles, further)

    def _words(self, texts: Texts) -> Lists:
        """(n,) rows: the ids of the lexical terms of each product."""
        ids, ngrams = self.terms, self.settings.lexical.ngrams
        assert ids is not None
        further = texts.further or [[]] * len(texts.titles)
        rows = [
            [ids[t] for t in terms_of(title, ngrams, more) if t in ids]
            for title, more in zip(texts.titles, further)
        ]
        return Lists.of_rows(rows, np.int32)

    def _inputs_of(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The inputs of E_T for these texts, and their lengths."""
        assert self.text is not None
        tokens, lengths = self._tokens(texts)
        if self.text.kind == "inputs":
            return tokens, lengths
        counts = torch.from_numpy(np.maximum(lengths, 1))
        return self._frozen(self.text, torch.from_numpy(tokens), counts), lengths

    def _tokens(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of texts (n, T), T those of the longest, and their lengths (n,) int64.

        Padding after the longest would cost time, and no token looks at it.
        """
        assert self.tokenizer is not None
        tokens, lengths = tokenise(self.tokenizer, texts, self.settings.text.max_tokens)
        longest = max(int(lengths.max(initial=0)), 1)
        return np.ascontiguousarray(tokens[:, :longest]), lengths.astype(np.int64)

    def _pictures(self, pictures: list[tuple[bytes, ...]]) -> tuple[Lists, np.ndarray]:
        """The rows of each product, and the inputs of E_V."""
        rows = self._picture_rows([content for product in pictures for content in product])
        counts = [len(product) for product in pictures]
        owners = np.repeat(np.arange(len(pictures)), counts)
        lists = Lists.of_pairs(owners, np.arange(len(rows)), len(pictures))
        return lists, np.stack(rows) if rows else self._no_picture

    def _picture_rows(self, contents: Sequence[bytes]) -> list[np.ndarray]:
        """The input of E_V of each picture."""

        def make(positions: list[int]) -> list[np.ndarray]:
            return list(self._read([contents[i] for i in positions]))

        return self.kept.all([key_of(content) for content in contents], make)

    def _read(self, contents: list[bytes]) -> np.ndarray:
        """(n, ...) inputs of E_V of these pictures; raises QueryError for one that is broken."""
        assert self.image is not None
        if isinstance(self.image, GivenVectors):
            raise QueryError(
                "images",
                "E_V is not available: the vectors of images were given (download.image_vectors), "
                "so a new image cannot be encoded; ask by title alone",
            )
        return self._inputs(read_pixels(contents, self.settings.image.size))

    def _inputs(self, pixels: np.ndarray) -> np.ndarray:
        assert self.image is not None
        if self.image.kind == "inputs":
            return pixels
        parts = [
            self._frozen(self.image, torch.from_numpy(pixels[start : start + TOGETHER]))
            for start in range(0, len(pixels), TOGETHER)
        ]
        return np.concatenate(parts)

    @cached_property
    def _no_picture(self) -> np.ndarray:
        """(0, ...): the inputs of no picture, of the shape and type of those of a picture."""
        if isinstance(self.image, GivenVectors):
            return np.zeros((0, self.image.width), np.float32)
        size = self.settings.image.size
        return self._inputs(np.zeros((1, size, size, 3), np.uint8))[:0]

    def _frozen(self, encoder: Encoder | OnnxEncoder, *inputs: torch.Tensor) -> np.ndarray:
        return frozen_inputs(encoder, inputs, self.device, self.precision)


def read_pixels(contents: Sequence[bytes], size: int) -> np.ndarray:
    """(n, size, size, 3) uint8 of n pictures; raises QueryError for one that cannot be read."""
    decoded = decode_each(contents, size, runtime.workers())
    if broken := [reason for reason in decoded if isinstance(reason, str)]:
        text = f"a picture cannot be read ({broken[0]}); give another one or none"
        raise QueryError("images", text)
    return np.stack(decoded)
