"""Outputs of encoders that do not train any more, computed once for all training steps."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch

from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import IMAGE, TEXT
from mufin.nn.encoder import Encoder
from mufin.nn.mufin import Mufin
from mufin.nn.stored import StoredDescriptors
from mufin.progress import progress

FUSED = ((TEXT, IMAGE), (TEXT,), (IMAGE,))  # what E_T may see in held outputs of early fusion


@contextlib.contextmanager
def encoders_held(
    model: Mufin,
    store: DescriptorStore,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 512,
) -> Iterator[DescriptorStore]:
    """Yields a copy of `store` that holds the outputs of E_V and E_T instead of their inputs.

    In the block, these encoders of `model` return their inputs, and early fusion does not train.
    Lexical vectors still train.
    """
    names = [name for name in ("text", "image") if name in model.encoders]
    held = {name: cast(Encoder, model.encoders[name]) for name in names}
    encoded = copy.copy(store)
    model.eval()
    if model.fuses:
        keeps = model.fusion is not None and model.fusion.pictures_in_bags
        encoded.hold_fused(fused_outputs(model, store, device, precision), keeps)
    for name, encoder in held.items():
        # Fused outputs hold the first texts, and these are all where products have only one.
        fused = model.fuses and name == "text" and not store.has_several_texts
        if encoder.kind != "descriptors" and not fused:  # else they are outputs already
            encoded.hold(name, encoder_outputs(encoder, store, name, device, precision, batch_size))
        model.encoders[name] = StoredDescriptors(encoder.width, encoder.reads_pictures)
    if model.fusion is not None:
        model.fusion.requires_grad_(False)
    try:
        yield encoded
    finally:
        for name, encoder in held.items():
            model.encoders[name] = encoder
        if model.fusion is not None:
            model.fusion.requires_grad_(True)


@torch.inference_mode()
def encoder_outputs(
    encoder: Encoder,
    store: DescriptorStore,
    name: str,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 512,
) -> np.ndarray:
    """The descriptors of all texts (`name` text) or all pictures (image), (rows, width) float32.

    Rows without a text get zeros. Texts of similar length share a batch.
    """
    count = store.num_texts if name == "text" else store.num_images
    out = np.zeros((count, encoder.width), np.float32)
    rows = np.arange(count)
    if name == "text":
        rows = np.argsort(store.lengths, kind="stable")
        rows = rows[store.lengths[rows] > 0]
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
) -> np.ndarray:
    """The descriptors of an E_T that fuses title and pictures, (P, V, width) float32.

    V is 3, the sets of `FUSED`, if modality dropout can take a modality away before early fusion.
    Otherwise it is 1, both modalities. Products without title and picture get zeros.
    """
    # VisualBERT was always trained on held outputs of both modalities, as in docs/compare.md.
    several = model.fusion is not None and model.modality_dropout > 0
    sets = FUSED if several else FUSED[:1]
    width = cast(Encoder, model.encoders["text"]).width
    out = np.zeros((store.num_products, len(sets), width), np.float32)
    starts = range(0, store.num_products, batch_size)
    for start in progress(starts, "encode titles with pictures", f"batches of {batch_size}"):
        products = np.arange(start, min(start + batch_size, store.num_products))
        batch = store.batch(products).to(device)
        for place, kinds in enumerate(sets):
            seen = torch.isin(batch.modality, torch.tensor(kinds, device=device))
            some = seen.any(-1).nonzero().squeeze(1)
            if not len(some):
                continue
            modality = batch.modality.masked_fill(~seen, -1)
            with torch.autocast(device.type, precision, precision != torch.float32):
                rows = model.fused(batch, modality, some)
            out[start + some.cpu().numpy(), place] = rows.float().cpu().numpy()
    return out
