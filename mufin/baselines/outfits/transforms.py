"""Random changes of pictures that self-supervised rivals learn from."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = 0.2  # probability that a changed colour is none


def crops(pictures: Tensor, size: int) -> Tensor:
    """(n, 3, size, size): a random square of each of (n, 3, S, S), near the middle.

    The corners of a picture are often empty, so the outer eighths are left out.
    """
    side = pictures.shape[2]
    room, edge = side - size, side // 8
    edge = min(edge, room // 2)
    starts = torch.randint(edge, room - edge + 1, (2, len(pictures)))
    along = torch.arange(size)
    rows, columns = starts[0][:, None] + along, starts[1][:, None] + along  # (n, size) each
    n = torch.arange(len(pictures))[:, None, None]
    return pictures.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def moved(pictures: Tensor) -> Tensor:
    """(n, 3, S, S) in [0, 1], each turned, scaled, mirrored and shifted, on white: other shape."""
    n = len(pictures)
    angle = (torch.rand(n) * 2 - 1) * math.pi / 8
    scale = 0.8 + 0.4 * torch.rand(n)
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    shift = (torch.rand(2, n) * 2 - 1) * 0.15
    first = torch.stack([flip * scale * angle.cos(), -scale * angle.sin(), shift[0]], 1)
    second = torch.stack([flip * scale * angle.sin(), scale * angle.cos(), shift[1]], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures - 1, grid, align_corners=False) + 1  # outside is white


def recoloured(pictures: Tensor) -> Tensor:
    """(n, 3, S, S) in [0, 1], each with other brightness, saturation and hue, or in grey."""
    n = len(pictures)
    grey = pictures.mean(1, keepdim=True)
    gains = 0.4 + 0.8 * torch.rand(n, 3, 1, 1)
    order = torch.rand(n, 3).argsort(1)  # of the channels
    turned = pictures.gather(1, order[:, :, None, None].expand_as(pictures))
    coloured = (grey + (turned - grey) * (0.5 + torch.rand(n, 1, 1, 1))) * gains
    flat = torch.rand(n, 1, 1, 1) < GREY
    return torch.where(flat, grey.expand_as(pictures), coloured).clamp(0, 1)
