"""`data/precomputed`: the one place that knows how its arrays are laid out (docs/architecture.md, Files)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mufin.artifacts.arrays import RowFile, ShardWriter
from mufin.artifacts.files import ArtifactError, read_json, write_json
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True)
class Precomputed:
    """The arrays in `folder`. Readers raise ArtifactError where something is missing."""

    folder: Path

    # Writing

    def pixel_writer(self) -> ShardWriter:
        """For (n, S, S, 3) uint8 pixels."""
        return ShardWriter(self.folder, "pixels")

    def image_input_writer(self) -> ShardWriter:
        """For what the frozen part of E_V returns: (n, T, C) activations or (n, C) descriptors."""
        return ShardWriter(self.folder, "image_inputs")

    def text_input_writer(self, dtype: np.dtype, shape: tuple[int, ...]) -> RowFile:
        """For what the frozen part of E_T returns, `shape` (P, T, H) or (P, H)."""
        return RowFile(self.folder / "text_inputs.npy", dtype, shape)

    def write_image_rows(self, images: Lists) -> None:
        """`images` of P products: rows of the image arrays."""
        self._save("image_offsets", images.offsets)
        self._save("image_rows", images.values.astype(np.int32))

    def write_tokens(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """(P, max_tokens) int32, 0-padded, and (P,) int32, 0 for no title."""
        self._save("tokens", tokens)
        self._save("token_lengths", lengths)

    def write_text_inputs(self, inputs: np.ndarray) -> None:
        """All of what the frozen part of E_T returns, at once."""
        self._save("text_inputs", inputs)

    def write_lexical(self, terms: list[str], rows: Lists) -> None:
        """The terms, and the term ids of each of P titles."""
        self._save("lexical_offsets", rows.offsets)
        self._save("lexical_ids", rows.values.astype(np.int32))
        write_json(terms, self.folder / "lexical_terms.json")

    def write_statistics(self, modality: str, descriptors: np.ndarray) -> None:
        """Mean and standard deviation of each feature of `descriptors` (n, width), for `encoder.standardise`."""
        self._save(f"{modality}_mean", descriptors.mean(0).astype(np.float32))
        self._save(f"{modality}_std", descriptors.std(0).astype(np.float32))

    def write_manifest(
        self, products: int, modalities: list[str], image: dict | None, text: dict | None
    ) -> None:
        """Last of all. `image` names its `shards`, `text` its `array` ("tokens.npy" or "text_inputs.npy")."""
        parts = {
            name: part for name, part in (("image", image), ("text", text)) if part is not None
        }
        write_json(
            {"products": products, "modalities": modalities, **parts}, self.folder / "manifest.json"
        )

    # Reading

    def manifest(self) -> dict:
        return read_json(self.folder / "manifest.json")

    def image_rows(self) -> Lists:
        """The images of each product, as rows of the image arrays."""
        return Lists(self._load("image_offsets"), self._load("image_rows"))

    def image_shards(self) -> list[np.ndarray]:
        """What E_V reads, memory-mapped."""
        return [
            np.load(self.folder / name, mmap_mode="r")
            for name in self.manifest()["image"]["shards"]
        ]

    def token_lengths(self) -> np.ndarray:
        """(P,) int64, 0 for no title."""
        return self._load("token_lengths").astype(np.int64)

    def text_inputs(self) -> np.ndarray:
        """What E_T reads, memory-mapped."""
        return np.load(self.folder / self.manifest()["text"]["array"], mmap_mode="r")

    def lexical_rows(self) -> Lists:
        """The term ids of each title."""
        return Lists(self._load("lexical_offsets"), self._load("lexical_ids"))

    def lexical_terms(self) -> list[str]:
        return read_json(self.folder / "lexical_terms.json")

    def statistics(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (width,) each, of the frozen descriptors of the products known in training."""
        return self._load(f"{modality}_mean"), self._load(f"{modality}_std")

    def encoder(self, modality: str) -> Path:
        """The folder of the encoder itself: safetensors, JSON and tokenizer."""
        return self.folder / "encoders" / modality

    def _save(self, name: str, array: np.ndarray) -> None:
        np.save(self.folder / f"{name}.npy", array)

    def _load(self, name: str) -> np.ndarray:
        try:
            return np.load(self.folder / f"{name}.npy")
        except FileNotFoundError:
            raise ArtifactError(
                f"{self.folder}/{name}.npy is missing; run `dvc repro precompute`"
            ) from None
