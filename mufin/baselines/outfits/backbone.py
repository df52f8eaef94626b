"""The picture encoder that all rivals share: a small timm model, from random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Architecture:
    """A timm model. The publications use ResNet-18 with weights from ImageNet.

    The default is a ResNet of eight layers for a CPU: the architecture of MUFIN's E_V in
    `params/outfits.yaml`. The rivals train it with all else, as they are published.
    """

    name: str = "test_resnet"
    options: Mapping = field(default_factory=dict)  # further arguments of timm.create_model


class Backbone(nn.Module):
    """Vectors (n, dim) of pictures: the model with a linear layer on its pooled features."""

    def __init__(self, dim: int, architecture: Architecture):
        super().__init__()
        self.net = timm.create_model(
            architecture.name, pretrained=False, num_classes=dim, **architecture.options
        )
        stages = cast("list[dict[str, Any]]", self.net.feature_info)
        self.stage = len(stages) // 2  # whose maps S-VAL reads textures from
        self.maps_width: int = stages[self.stage]["num_chs"]

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8, or (n, 3, S, S) float32 in [0, 1] -> (n, dim)."""
        return self.net(scaled(pixels))

    def with_maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, dim) as `forward`, and the (n, C, h, w) maps of the stage in the middle."""
        middle, head = (
            cast("Callable[..., Any]", getattr(self.net, name))
            for name in ("forward_intermediates", "forward_head")
        )
        last, maps = middle(scaled(pixels), indices=[self.stage])
        return head(last), maps[0]


def as_floats(pixels: Tensor) -> Tensor:
    """(n, S, S, 3) uint8 -> (n, 3, S, S) float32 in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def scaled(pixels: Tensor) -> Tensor:
    """(n, S, S, 3) uint8, or (n, 3, S, S) float32 in [0, 1] -> (n, 3, S, S) in [-1, 1]."""
    return (as_floats(pixels) if pixels.dtype == torch.uint8 else pixels) * 2 - 1
