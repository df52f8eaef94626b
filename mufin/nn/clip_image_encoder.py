"""The image part of CLIP as E_V (MUFIN App. C.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mufin.nn.encoder import Encoder
from mufin.nn.pixel_scale import CLIP_MEAN, CLIP_STD, PixelScale
from mufin.nn.tower_spec import TowerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ClipImageEncoder(Encoder):
    """E_V: the vision tower of CLIP with its projection, (n, projection_dim), not normalised.

    `forward` takes uint8 pixels (n, S, S, 3) or descriptors, by `kind`. S is any size; the position
    embeddings are interpolated to it.
    """

    spec: TowerSpec
    mean: Tensor
    std: Tensor

    def __init__(self, model: PreTrainedModel, spec: TowerSpec):
        super().__init__()
        self.model, self.spec, self.width = model, spec, model.config.projection_dim
        self.kind = "descriptors" if spec.trainable == 0 else "inputs"
        model.requires_grad_(self.kind == "inputs")
        mean, std = spec.mean or CLIP_MEAN, spec.std or CLIP_STD
        self.scale = PixelScale(mean, std, spec.mean_std_from)
        self.scale.register(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of `kind` -> descriptors (n, width)."""
        return inputs.float() if self.kind == "descriptors" else self._embeddings(inputs)

    @torch.no_grad()
    def frozen(self, pixels: Tensor) -> Tensor:
        """The descriptors (n, width) of uint8 pixels (n, S, S, 3), in eval mode."""
        self.eval()
        return self._embeddings(pixels)

    def _embeddings(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return self.model(pixel_values=x, interpolate_pos_encoding=True).image_embeds
