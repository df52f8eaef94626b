"""The cost of E_V and E_T, from the configuration of the models that the settings name."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mufin.nn.encoder import Kind, divided
from mufin.nn.frozen import SCALE_BYTES
from mufin.nn.image_encoder import create_image_encoder
from mufin.nn.vision_language import create_clip_image_encoder
from mufin.params import EncoderParams, ImageEncoderParams, Params, TextEncoderParams
from mufin.planning.networks import META, Cost, EncoderCost, counts_of, measured

GIVEN_WIDTH = 512  # of vectors in place of images, assumed
# Tokens that are computed per token of a title: a group of titles is padded to its longest
# (`corpus.title_groups`). `python -m benchmarks.text_lengths` prints it for a batch.
PADDED = 1.1
MARKS = 2  # [CLS] and [SEP], which the mean length of titles leaves out
FLOAT, HALF, INT = 4, 2, 4  # bytes


def image_cost(s: ImageEncoderParams) -> EncoderCost:
    """E_V per picture (MUFIN Sec. 3; `nn.image_encoder`, `nn.clip_image_encoder`)."""
    if s.kind == "vectors":
        width, assumed = GIVEN_WIDTH, f"image vectors have {GIVEN_WIDTH} numbers"
        return EncoderCost("descriptors", width, 0.0, Cost(), FLOAT * width, 0, 0, assumed)
    options, assumed = dict(s.options), ""
    with META:
        if s.kind == "clip":
            config, assumed = _clip_config(s)
            encoder: Any = create_clip_image_encoder(
                s.name, "random", config | options, s.size, s.trainable_blocks
            )
        else:
            encoder = create_image_encoder(s.name, "random", options, s.size, s.trainable_blocks)
    frozen, stored = _frozen_part(encoder, s.size)
    trained = Cost()
    if encoder.kind != "descriptors":
        shape = stored[1:]
        kind = torch.uint8 if encoder.kind == "inputs" else torch.float16
        encoder.train()
        trained = measured(lambda n: encoder(torch.zeros(n, *shape, dtype=kind)))
    per_item = _stored_bytes(encoder.kind, stored[1:], s.activations == "int8")
    return EncoderCost(
        encoder.kind, encoder.width, frozen, trained, per_item, *counts_of(encoder), assumed
    )


def _stored_bytes(kind: Kind, shape: tuple[int, ...], int8: bool) -> float:
    """Bytes of an array of this shape, as precompute stores it of a picture."""
    if kind == "activations" and int8:
        return float(_product(shape[:-1]) * (shape[-1] + SCALE_BYTES))
    return float({"inputs": 1, "activations": HALF, "descriptors": FLOAT}[kind] * _product(shape))


def whole_image_step(s: ImageEncoderParams) -> Cost:
    """All of E_V per picture, forward and backward: the self-supervised start trains all of it."""
    with META:
        encoder = create_image_encoder(s.name, "random", dict(s.options), s.size, "all")
    encoder.train()
    return measured(lambda n: encoder(torch.zeros(n, s.size, s.size, 3, dtype=torch.uint8)))


def _frozen_part(encoder: Any, size: int) -> tuple[float, tuple[int, ...]]:
    """Operations per picture of the frozen part, and the shape of what is stored of a picture."""
    shape = (1, size, size, 3)
    if encoder.kind == "inputs":
        return 0.0, shape
    seen: list[tuple[int, ...]] = []

    def run(n: int) -> torch.Tensor:
        out = encoder.frozen(torch.zeros(n, size, size, 3, dtype=torch.uint8))
        seen.append(tuple(out.shape))
        return out

    return measured(run, parameters=False).forward, seen[-1]


def _clip_config(s: ImageEncoderParams) -> tuple[dict, str]:
    """Settings of the vision part of a CLIP model on this machine, else those of its class."""
    if s.weights == "random":
        return {}, ""
    if (known := _local_config(s.name)) is None:
        return {}, f"encoder.image.name {s.name} is not on this machine: a CLIP ViT-B/32"
    vision = known.vision_config
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = {name: getattr(vision, name) for name in (*names, "patch_size")}
    return config | {"projection_dim": known.projection_dim}, ""


def text_cost(s: TextEncoderParams, extra_tokens: int = 0, mean: float = 0) -> EncoderCost:
    """E_T per title (MUFIN Sec. 3; `nn.text_encoder`).

    Titles have `mean` tokens without [CLS] and [SEP], and are padded to those of similar length; 0:
    all have `encoder.text.max_tokens`. `extra_tokens` are the pictures that E_T reads with early
    fusion, assumed of each title.
    """
    config, assumed = text_config(s)
    with META:
        model: Any = _text_model(config)
    width = int(getattr(config, "hidden_size", 0) or getattr(config, "d_model", 0))
    depth = int(getattr(config, "num_hidden_layers", 1))
    kind, first = divided(s.trainable_layers, depth)
    model.train()
    tokens = s.max_tokens + extra_tokens
    if mean:
        tokens = min(tokens, math.ceil(PADDED * (mean + MARKS + extra_tokens)))

    def run(n: int) -> torch.Tensor:
        return model(input_ids=torch.zeros(n, tokens, dtype=torch.long)).last_hidden_state

    whole = measured(run)
    share = {"inputs": 0.0, "descriptors": 1.0}.get(kind, first / depth)  # that is frozen
    parameters, _ = counts_of(model)
    embeddings = sum(p.numel() for p in model.get_input_embeddings().parameters())
    stored = {
        "inputs": INT * s.max_tokens,
        "activations": HALF * s.max_tokens * width,
        "descriptors": FLOAT * width,
    }[kind]
    return EncoderCost(
        kind,
        width,
        whole.forward * share,
        whole.times(1 - share),
        float(stored),
        parameters,
        round((parameters - embeddings) * (1 - share)) + (embeddings if kind == "inputs" else 0),
        assumed,
    )


def text_config(s: TextEncoderParams) -> tuple[Any, str]:
    """The configuration of the text model, and what was assumed of it, '' if nothing was.

    The model hub is not asked. Where there is no copy on this machine, the type of model that the
    name contains is taken with its usual sizes, else BERT with 12 layers, which few are larger
    than.
    """
    from transformers import AutoConfig, CLIPTextConfig, VisualBertConfig

    own = {"clip": CLIPTextConfig, "visualbert": VisualBertConfig}.get(s.kind)
    if s.weights == "random":
        fresh = {"vocab_size": s.vocabulary, **s.options}
        if own is not None:
            return own(**fresh), ""
        return AutoConfig.for_model(s.name, **fresh), ""
    if (known := _local_config(s.name)) is not None:
        return getattr(known, "text_config", known), ""
    said = f"encoder.text.name {s.name} is not on this machine: the usual sizes of"
    if own is not None:
        return own(), f"{said} {s.kind}"
    kind = _type_in(s.name)
    return AutoConfig.for_model(kind, **s.options), f"{said} {kind}"


def _local_config(name: str) -> Any:
    """The configuration of a model in a folder or in the local copies of the hub, else None."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except Exception:  # a dozen classes, where a file is missing or is of another library
        return None


def _type_in(name: str) -> str:
    """The longest type of model of transformers that a name contains, such as distilbert."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    plain = name.lower().rpartition("/")[2]
    found = [kind for kind in CONFIG_MAPPING_NAMES if kind in plain and len(kind) > 2]
    return max(found, key=len, default="bert")


def _text_model(config: Any) -> nn.Module:
    """The model without weights. Its attention is written out: others look at values of masks."""
    from transformers import AutoModel

    model = AutoModel.from_config(config, attn_implementation="eager")
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return model


def _product(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def extra_tokens(s: EncoderParams) -> int:
    """Pictures that E_T reads as tokens."""
    return s.fused_images if s.fuses_early else 0


def encoder_costs(params: Params, vocabulary: int = 0, tokens: float = 0) -> dict[str, EncoderCost]:
    """{modality: cost} of the encoders in use.

    `vocabulary` is that of an E_T with random weights, `tokens` the mean of titles.
    """
    e, out = params.encoder, {}
    if "image" in e.modalities:
        out["image"] = image_cost(e.image)
    if "text" in e.modalities:
        text = replace(e.text, vocabulary=vocabulary) if vocabulary else e.text
        out["text"] = text_cost(text, extra_tokens(e), tokens)
    return out
