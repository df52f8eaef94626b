"""Encoders that stay as they are: their outputs computed once, so that a step costs what still trains."""

from __future__ import annotations

import contextlib
import copy
from typing import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.mufin import Mufin
from mufin.nn.vision_language import Encoder
from mufin.progress import progress


class _Passing(nn.Module):
    """Stands for an encoder whose outputs are the inputs."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, outputs: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        return outputs.float()


@contextlib.contextmanager
def encoders_held(
    model: Mufin,
    store: DescriptorStore,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 512,
) -> Iterator[DescriptorStore]:
    """Within, `model` has E_V and E_T replaced by their outputs, and the store given gives these; lexical vectors train on."""
    held = {name: model.encoders[name] for name in ("text", "image") if name in model.encoders}
    encoded = copy.copy(store)
    model.eval()
    for name, encoder in held.items():
        if model.fuses:
            encoded.hold_fused(*fused_outputs(model, store, device, precision))
        else:
            encoded.hold(name, encoder_outputs(encoder, store, name, device, precision, batch_size))
        model.encoders[name] = _Passing(encoder.width)
    try:
        yield encoded
    finally:
        for name, encoder in held.items():
            model.encoders[name] = encoder


@torch.inference_mode()
def encoder_outputs(
    encoder: nn.Module,
    store: DescriptorStore,
    name: str,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 512,
) -> np.ndarray:
    """(rows, width) float32: the encoder's output for every title, or every picture, of the store."""
    count = store.num_products if name == "text" else store.num_images
    out = np.zeros((count, encoder.width), np.float32)
    rows = np.flatnonzero(store.lengths > 0) if name == "text" else np.arange(count)
    for start in progress(
        range(0, len(rows), batch_size), f"encode {name}", f"batches of {batch_size}"
    ):
        part = rows[start : start + batch_size]
        inputs = [
            t.to(device)
            for t in (store.text_rows(part) if name == "text" else (store.image_rows(part),))
        ]
        with torch.autocast(device.type, precision, precision != torch.float32):
            out[part] = encoder(*inputs).float().cpu().numpy()
    return out


@torch.inference_mode()
def fused_outputs(
    model: Mufin,
    store: DescriptorStore,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 128,
) -> tuple[np.ndarray, np.ndarray]:
    """(P, width) float32, what E_T makes of each product's title and pictures together, and (P,) bool, who has either."""
    out = np.zeros((store.num_products, model.encoders["text"].width), np.float32)
    there = np.zeros(store.num_products, bool)
    for start in progress(
        range(0, store.num_products, batch_size),
        "encode titles with pictures",
        f"batches of {batch_size}",
    ):
        batch = store.batch(np.arange(start, min(start + batch_size, store.num_products)))
        some = (batch.modality >= 0).any(-1).nonzero().squeeze(1)
        if not len(some):
            continue
        batch, rows = batch.to(device), start + some.numpy()
        with torch.autocast(device.type, precision, precision != torch.float32):
            out[rows] = model.fused(batch, batch.modality, some.to(device)).float().cpu().numpy()
        there[rows] = True
    return out, there


@torch.inference_mode()
def frozen_inputs(
    encoder: Encoder, inputs: tuple[Tensor, ...], device: torch.device, precision: torch.dtype
) -> np.ndarray:
    """What the frozen part of an encoder returns for `inputs`: descriptors as float32, activations as float16."""
    with torch.autocast(device.type, precision, precision != torch.float32):
        out = encoder.frozen(*(t.to(device) for t in inputs))
    dtype = torch.float32 if encoder.kind == "descriptors" else torch.float16
    return out.float().to(dtype).cpu().numpy()  # made small before it leaves the device
