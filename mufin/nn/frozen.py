"""Outputs of the frozen part of an encoder, which the stage precompute stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mufin.nn.encoder import Kind


class HasFrozen(Protocol):
    """An encoder, or what runs its frozen part in its place."""

    kind: Kind

    @property
    def frozen(self) -> Callable[..., Tensor]:
        """What precompute stores of pixels, or of tokens and their lengths."""


@torch.inference_mode()
def frozen_inputs(
    encoder: HasFrozen, inputs: tuple[Tensor, ...], device: torch.device, precision: torch.dtype
) -> np.ndarray:
    """The output of the encoder's frozen part: float32 descriptors or float16 activations.

    `inputs` are the arguments of `encoder.frozen`: pixels, or tokens and their lengths.
    """
    with torch.autocast(device.type, precision, precision != torch.float32):
        out = encoder.frozen(*(t.to(device) for t in inputs))
    dtype = torch.float32 if encoder.kind == "descriptors" else torch.float16
    return out.float().to(dtype).cpu().numpy()  # converted on the device: less to transfer
