"""Outputs of encoders that do not train any more, computed once for all training steps."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch

from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.encoder import Encoder
from mufin.nn.mufin import Mufin
from mufin.nn.stored import StoredDescriptors
from mufin.progress import progress


@contextlib.contextmanager
def encoders_held(
    model: Mufin,
    store: DescriptorStore,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 512,
) -> Iterator[DescriptorStore]:
    """Yields a copy of `store` that holds the outputs of E_V and E_T instead of their inputs.

    In the block, these encoders of `model` return their inputs. Lexical vectors still train.
    """
    names = [name for name in ("text", "image") if name in model.encoders]
    held = {name: cast(Encoder, model.encoders[name]) for name in names}
    encoded = copy.copy(store)
    model.eval()
    for name, encoder in held.items():
        if model.fuses:
            encoded.hold_fused(*fused_outputs(model, store, device, precision))
        elif encoder.kind != "descriptors":  # those are outputs already, in files
            encoded.hold(name, encoder_outputs(encoder, store, name, device, precision, batch_size))
        model.encoders[name] = StoredDescriptors(encoder.width)
    try:
        yield encoded
    finally:
        for name, encoder in held.items():
            model.encoders[name] = encoder


@torch.inference_mode()
def encoder_outputs(
    encoder: Encoder,
    store: DescriptorStore,
    name: str,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 512,
) -> np.ndarray:
    """The descriptors of all titles (`name` text) or all pictures (image), (rows, width) float32.

    Products without a title get zeros.
    """
    count = store.num_products if name == "text" else store.num_images
    out = np.zeros((count, encoder.width), np.float32)
    rows = np.flatnonzero(store.lengths > 0) if name == "text" else np.arange(count)
    starts = range(0, len(rows), batch_size)
    for start in progress(starts, f"encode {name}", f"batches of {batch_size}"):
        part = rows[start : start + batch_size]
        inputs = store.text_rows(part) if name == "text" else (store.image_rows(part),)
        on_device = [t.to(device) for t in inputs]
        with torch.autocast(device.type, precision, precision != torch.float32):
            out[part] = encoder(*on_device).float().cpu().numpy()
    return out


@torch.inference_mode()
def fused_outputs(
    model: Mufin,
    store: DescriptorStore,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 128,
) -> tuple[np.ndarray, np.ndarray]:
    """The descriptors of an E_T that fuses title and pictures, (P, width) float32.

    The second result, (P,) bool, says which products have a title or a picture.
    """
    width = cast(Encoder, model.encoders["text"]).width
    out = np.zeros((store.num_products, width), np.float32)
    there = np.zeros(store.num_products, bool)
    starts = range(0, store.num_products, batch_size)
    for start in progress(starts, "encode titles with pictures", f"batches of {batch_size}"):
        batch = store.batch(np.arange(start, min(start + batch_size, store.num_products)))
        some = (batch.modality >= 0).any(-1).nonzero().squeeze(1)
        if not len(some):
            continue
        batch, rows = batch.to(device), start + some.numpy()
        with torch.autocast(device.type, precision, precision != torch.float32):
            out[rows] = model.fused(batch, batch.modality, some.to(device)).float().cpu().numpy()
        there[rows] = True
    return out, there
