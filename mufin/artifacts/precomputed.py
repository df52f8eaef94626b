"""`data/precomputed`: the only module that knows how its arrays are named and laid out.

docs/architecture.md, Artifacts, lists the files. E_V is the image encoder and E_T the text encoder;
their frozen parts run once, in the stage precompute. P counts the products.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mufin.artifacts.arrays import RowFile, ShardWriter
from mufin.artifacts.contents import check, checked
from mufin.artifacts.files import artifact_json, write_json
from mufin.errors import ArtifactError, shown
from mufin.ragged import Lists, offsets_of

TEXT_INPUTS, RAGGED_TOKENS = "text_inputs.npy", "ragged_tokens.npy"


@dataclass(frozen=True, slots=True)
class Precomputed:
    """Reads and writes the arrays in `folder`.

    Readers need the `contents.json` of a published folder, and raise ArtifactError if a file is not
    as it says.
    """

    folder: Path

    # Writing

    def pixel_writer(self) -> ShardWriter:
        """A writer for (n, S, S, 3) uint8 pixels."""
        return ShardWriter(self.folder, "pixels")

    def image_input_writer(self) -> ShardWriter:
        """A writer for the outputs of the frozen part of E_V.

        These are (n, T, C) activations, or (n, C) descriptors if all of E_V is frozen.
        """
        return ShardWriter(self.folder, "image_inputs")

    def text_input_writer(
        self, dtype: np.dtype, shape: tuple[int, ...], resume: bool = False
    ) -> RowFile:
        """A writer for the outputs of the frozen part of E_T, row by row.

        `shape` is (R, T, H) for activations of R texts, or (R, H) for descriptors. With `resume`,
        the rows of a file that is there stay.
        """
        return RowFile(self.folder / TEXT_INPUTS, dtype, shape, resume)

    def write_image_rows(self, images: Lists) -> None:
        """Writes the images of each of P products, as row numbers of the image arrays."""
        self._save("image_offsets", images.offsets)
        self._save("image_rows", images.values.astype(np.int32))

    def write_tokens(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Writes (P, max_tokens) int32 tokens, 0-padded, and (P,) int32 lengths, 0 = no title."""
        self._save("tokens", tokens)
        self._save("token_lengths", lengths)

    def write_ragged_tokens(self, tokens: np.ndarray, lengths: np.ndarray, texts: Lists) -> None:
        """Writes the tokens of R texts, where products can have several.

        `tokens` (sum of lengths,) int32 are those of all texts in turn, `lengths` (R,) int32 are
        all > 0, and `texts` has the R texts of each of P products, as row numbers.
        """
        self._save("ragged_tokens", tokens)
        self._save("token_lengths", lengths)
        self._save("text_offsets", texts.offsets)

    def write_lexical(self, terms: list[str], rows: Lists) -> None:
        """Writes the terms (title words) and the term ids of each of P titles."""
        self._save("lexical_offsets", rows.offsets)
        self._save("lexical_ids", rows.values.astype(np.int32))
        write_json(terms, self.folder / "lexical_terms.json")

    def write_statistics(self, modality: str, descriptors: np.ndarray) -> None:
        """Writes mean and standard deviation per feature, for `encoder.standardise`.

        `descriptors` (n, width) are those of the products known in training.
        """
        self.write_moments(modality, descriptors.mean(0), descriptors.std(0))

    def write_moments(self, modality: str, mean: np.ndarray, std: np.ndarray) -> None:
        """Writes these statistics, (width,) each, where the descriptors do not fit in memory."""
        self._save(f"{modality}_mean", mean.astype(np.float32))
        self._save(f"{modality}_std", std.astype(np.float32))

    def write_manifest(
        self, products: int, modalities: list[str], image: dict | None, text: dict | None
    ) -> None:
        """Writes what the folder holds; the last file to be written.

        `image` must hold `shards`, the names of the image arrays, and `text` must hold `array`,
        which is "tokens.npy", "ragged_tokens.npy" or "text_inputs.npy". Where products can have
        several texts, `text` holds `ragged`, true.
        """
        manifest: dict = {"products": products, "modalities": modalities}
        if image is not None:
            manifest["image"] = image
        if text is not None:
            manifest["text"] = text
        write_json(manifest, self.folder / "manifest.json")

    # Reading

    def manifest(self) -> dict:
        """What the folder holds; also sees that all files are there, with their sizes."""
        checked(self.folder)
        return self._manifest()

    def _manifest(self) -> dict:
        """What the folder holds, where its large files may be on another machine."""
        check(self.folder / "manifest.json")
        manifest = artifact_json(self.folder / "manifest.json")
        if not isinstance(manifest, dict) or not {"products", "modalities"} <= manifest.keys():
            raise ArtifactError(
                f"{self.folder / 'manifest.json'} does not say what the folder holds; "
                "run `dvc repro precompute`"
            )
        return manifest

    def image_rows(self) -> Lists:
        """The images of each product, as row numbers of the image arrays."""
        return Lists(self._load("image_offsets"), self._load("image_rows"))

    def image_shards(self) -> list[np.ndarray]:
        """The inputs of E_V, memory-mapped."""
        return [self._mapped(name) for name in self.manifest()["image"]["shards"]]

    def token_lengths(self) -> np.ndarray:
        """(R,) int64 tokens of each row of the text arrays, 0 = no text."""
        return self._load("token_lengths").astype(np.int64)

    def text_rows(self) -> Lists:
        """The texts of each product, as row numbers of the text arrays."""
        if not self._manifest()["text"].get("ragged"):
            return one_each(self.token_lengths())
        offsets = self._load("text_offsets")
        return Lists(offsets, np.arange(offsets[-1]))

    def has_ragged_tokens(self) -> bool:
        """Whether the inputs of E_T are tokens in one flat array, without padding."""
        return self._manifest()["text"]["array"] == RAGGED_TOKENS

    def text_inputs(self) -> np.ndarray:
        """The inputs of E_T, memory-mapped: (R, ...), or (sum of lengths,) if ragged."""
        return self._mapped(self.manifest()["text"]["array"])

    def lexical_rows(self) -> Lists:
        """The term ids of each title."""
        return Lists(self._load("lexical_offsets"), self._load("lexical_ids"))

    def lexical_terms(self) -> list[str]:
        return artifact_json(self.folder / "lexical_terms.json")

    def statistics(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """(width,) mean and (width,) standard deviation of the frozen descriptors.

        They are those of the products known in training: the train datapoints and the labels.
        """
        return self._load(f"{modality}_mean"), self._load(f"{modality}_std")

    def encoder(self, modality: str) -> Path:
        """The folder of an encoder itself: safetensors, JSON and tokenizer."""
        return self.folder / "encoders" / modality

    def stored_encoder(self, modality: str) -> Path:
        """The same, for reading: all of its files are as they were written."""
        folder = self.encoder(modality)
        if not folder.is_dir():
            raise ArtifactError(f"{folder} is missing; run `dvc repro precompute`")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                check(path)
        return folder

    def _save(self, name: str, array: np.ndarray) -> None:
        np.save(self.folder / f"{name}.npy", array)

    def _load(self, name: str) -> np.ndarray:
        return _read(self.folder / f"{name}.npy", None)

    def _mapped(self, file: str) -> np.ndarray:
        return _read(self.folder / file, "r")


def one_each(lengths: np.ndarray) -> Lists:
    """(P,) rows of the text arrays where row p is the one text of product p, if its length is > 0.

    `lengths` (P,) are in tokens.
    """
    return Lists(offsets_of(lengths > 0), np.flatnonzero(lengths > 0))


def _read(path: Path, mmap_mode: Literal["r"] | None) -> np.ndarray:
    check(path, mapped=mmap_mode is not None)
    try:
        return np.load(path, mmap_mode=mmap_mode)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({shown(str(error))}); run `dvc repro precompute`"
        ) from None
