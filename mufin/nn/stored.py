"""In place of an encoder whose outputs are stored: it returns its inputs."""

from __future__ import annotations

from torch import Tensor

from mufin.artifacts.files import read_json
from mufin.artifacts.precomputed import Precomputed
from mufin.nn.encoder import Encoder, Kind
from mufin.nn.encoder_files import loading


class StoredDescriptors(Encoder):
    """Replaces an encoder whose outputs (n, width) are the inputs: a batch holds them already."""

    kind: Kind = "descriptors"

    def __init__(self, width: int, reads_pictures: bool = False):
        super().__init__()
        self.width, self.reads_pictures = width, reads_pictures

    def forward(self, outputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(n, width) -> (n, width) float32."""
        return outputs.float()


def stored_descriptors(precomputed: Precomputed, modality: str) -> StoredDescriptors | None:
    """In place of the encoder of `modality` in `precomputed`; None if a part of it trains.

    To build a frozen encoder takes seconds, most of them for timm's imports. Raises ArtifactError
    if its files are not as they were written.
    """
    folder = precomputed.stored_encoder(modality)
    with loading(folder):
        facts = read_json(folder / "encoder.json")
        # The output of a VisualBERT depends on the pictures, so it is never stored.
        if facts["trainable"] != 0 or facts.get("family") == "visualbert":
            return None
    return StoredDescriptors(len(precomputed.statistics(modality)[0]))
