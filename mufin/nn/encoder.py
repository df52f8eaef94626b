"""What all encoders have in common: their interface, their spec, and how they are divided.

The first part of an encoder can be frozen. The stage precompute runs this part once (`frozen`) and
stores its outputs, and `forward` goes on from there. So the inputs of `forward` depend on how much
is frozen (`kind`): pixels or tokens if nothing is, activations if the first layers are, descriptors
if everything is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mufin.errors import MufinError, shown

Kind = Literal["inputs", "activations", "descriptors"]  # what `forward` takes
Trainable = int | Literal["all"]  # blocks or layers that train, counted from the last


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """What is needed, besides the weights, to build an encoder again without a model hub."""

    trainable: Trainable
    random: bool  # whether the weights were drawn at random

    def __post_init__(self) -> None:
        if self.trainable != "all" and (type(self.trainable) is not int or self.trainable < 0):
            raise MufinError(f"trainable is {shown(self.trainable)}; it must be all or at least 0")


class Encoder(nn.Module):
    """What all encoders have in common: inputs of `kind` -> descriptors (n, width)."""

    spec: EncoderSpec
    kind: Kind
    width: int
    reads_pictures = False  # whether a text encoder also reads the pictures (early fusion)
    frozen: Callable[..., Tensor]  # what precompute stores; absent if kind is always inputs


def divided(trainable: Trainable, depth: int) -> tuple[Kind, int]:
    """The kind of an encoder with `depth` layers, and how many of them are frozen."""
    if trainable == 0:
        return "descriptors", depth
    if trainable == "all" or trainable >= depth:
        return "inputs", 0
    return "activations", depth - trainable
