"""The picture encoder that all rivals share: a narrow ResNet of timm, from random weights."""

from __future__ import annotations

from typing import cast

import timm
import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn

MAPS = 2  # the stage whose maps S-VAL reads textures from


class Backbone(nn.Module):
    """Vectors (n, dim) of pictures, by an 18-layer ResNet with `width` channels in its first stage.

    The publications use ResNet-18 (a width of 64) with weights from ImageNet, on pictures of 112 or
    224 pixels. Here the weights start at random, and three convolutions of 3 pixels take the place
    of the first of 7, which sees too little in pictures of 32 to 64 pixels.
    """

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.net = cast(
            ResNet,
            timm.create_model(
                "resnet18",
                pretrained=False,
                num_classes=dim,
                channels=(width, 2 * width, 4 * width, 8 * width),
                stem_type="deep",
                stem_width=max(1, width // 2),
            ),
        )
        self.maps_width = 2 * width

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8, or (n, 3, S, S) float32 in [0, 1] -> (n, dim)."""
        return self.net(scaled(pixels))

    def with_maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, dim) as `forward`, and the (n, 2 width, h, w) maps of the second stage."""
        last, maps = self.net.forward_intermediates(scaled(pixels), indices=[MAPS])
        return self.net.forward_head(last), maps[0]


def as_floats(pixels: Tensor) -> Tensor:
    """(n, S, S, 3) uint8 -> (n, 3, S, S) float32 in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def scaled(pixels: Tensor) -> Tensor:
    """(n, S, S, 3) uint8, or (n, 3, S, S) float32 in [0, 1] -> (n, 3, S, S) in [-1, 1]."""
    return (as_floats(pixels) if pixels.dtype == torch.uint8 else pixels) * 2 - 1
