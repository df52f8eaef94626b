"""CLIP's two towers as E_V and E_T, and VisualBERT, which fuses a product's title and pictures early (App. C.1).

The interface is that of `pipeline.nn.encoders`. A tower is frozen whole or trains whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    VisualBertConfig,
    VisualBertModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mufin.errors import MufinError
from mufin.nn.encoders import (
    ImageEncoder,
    Kind,
    TextEncoder,
    Trainable,
    filled,
    load_image_encoder,
    load_into,
    load_text_encoder,
    masked_mean,
    token_mask,
    unavailable,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSpec:
    """All that is needed, beside the weights, to build one of these encoders again without a hub."""

    family: str  # a key of FAMILIES
    config: dict  # of the transformers model
    trainable: Trainable  # 0 or all
    random: bool  # whether the weights were drawn at random
    untitled: list[int] | None = None  # VisualBERT: the tokens of an empty title


class ClipImageEncoder(nn.Module):
    """E_V = CLIP's vision tower with its projection: image embeddings (n, projection_dim), not normalised.

    `forward` takes uint8 pixels (n, S, S, 3) (kind inputs) or the descriptors themselves; S is any size, the position
    embeddings are interpolated to it.
    """

    def __init__(self, model: CLIPVisionModelWithProjection, spec: TowerSpec):
        super().__init__()
        self.model, self.spec, self.width = model, spec, model.config.projection_dim
        self.kind: Kind = "descriptors" if spec.trainable == 0 else "inputs"
        model.requires_grad_(self.kind == "inputs")
        self.register_buffer(
            "mean", torch.tensor(OPENAI_CLIP_MEAN).view(1, 3, 1, 1) * 255, persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(OPENAI_CLIP_STD).view(1, 3, 1, 1) * 255, persistent=False
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.float() if self.kind == "descriptors" else self._embeddings(inputs)

    @torch.no_grad()
    def frozen(self, pixels: Tensor) -> Tensor:
        """The descriptors of uint8 pixels (n, S, S, 3), in eval mode: (n, width)."""
        self.eval()
        return self._embeddings(pixels)

    def _embeddings(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return self.model(pixel_values=x, interpolate_pos_encoding=True).image_embeds


class ClipTextEncoder(nn.Module):
    """E_T = CLIP's text tower with its projection: the end token's embedding (n, projection_dim), not normalised.

    The end token is the last one by length: tokenizers put theirs there, and keep it where they cut a title. CLIP itself
    looks for the token's id, which is another one in a vocabulary learnt here and in the config of older checkpoints.
    `forward` takes int tokens (n, T) (kind inputs) or the descriptors themselves.
    """

    def __init__(self, model: CLIPTextModelWithProjection, spec: TowerSpec):
        super().__init__()
        self.model, self.spec, self.width = model, spec, model.config.projection_dim
        self.kind: Kind = "descriptors" if spec.trainable == 0 else "inputs"
        model.requires_grad_(self.kind == "inputs")

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return inputs.float() if self.kind == "descriptors" else self._embeddings(inputs, lengths)

    @torch.no_grad()
    def frozen(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The descriptors of tokens (n, T), in eval mode: (n, width)."""
        self.eval()
        return self._embeddings(tokens, lengths)

    def _embeddings(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        mask = token_mask(tokens, lengths)
        hidden = self.model.text_model(
            input_ids=tokens.long(), attention_mask=mask
        ).last_hidden_state
        end = hidden[torch.arange(len(hidden), device=hidden.device), lengths.clamp_min(1) - 1]
        return self.model.text_projection(end)


class VisualBertEncoder(nn.Module):
    """E_T that reads a product's pictures beside its title: one vector a product, (n, width) (early fusion, App. C.1).

    The vector is the mean over the tokens of title and pictures, as E_T's is over the title's: the pooled [CLS], which the
    paper may have taken (it does not say), stays nearly the same for all products where weights are random, and then
    learns nothing. Each picture is one visual token, its feature by a frozen E_V. With `trainable` 0 it is never in
    training mode; its inputs are tokens all the same, since what it makes of a title depends on the pictures.
    """

    reads_pictures = True
    kind: Kind = "inputs"

    def __init__(self, model: VisualBertModel, spec: TowerSpec):
        super().__init__()
        self.model, self.spec = model, spec
        self.width, self.picture_width = model.config.hidden_size, model.config.visual_embedding_dim
        model.requires_grad_(spec.trainable == "all")
        self.register_buffer(
            "untitled", torch.tensor(spec.untitled, dtype=torch.int32), persistent=False
        )

    def train(self, mode: bool = True) -> VisualBertEncoder:
        return super().train(mode and self.spec.trainable == "all")

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        pictures: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Tokens (n, T) and their lengths, 0 for no title: [CLS] and [SEP] alone; `pictures` (n, m, picture_width), of
        which `seen` (n, m) bool are there."""
        tokens, lengths = self._with_ends(tokens, lengths)
        visual, mask = {}, token_mask(tokens, lengths)
        if pictures is not None and pictures.shape[1]:
            visual = {"visual_embeds": pictures, "visual_attention_mask": seen.long()}
        hidden = self.model(
            input_ids=tokens.long(), attention_mask=mask, **visual
        ).last_hidden_state
        return masked_mean(hidden, torch.cat([mask, *([seen.long()] if visual else [])], 1))

    def _with_ends(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Where there is no title, the tokens of an empty one."""
        width, bare = max(tokens.shape[1], len(self.untitled)), lengths == 0
        tokens, ends = (
            nn.functional.pad(t, (0, width - t.shape[-1]))
            for t in (tokens, self.untitled.to(tokens.dtype))
        )
        return torch.where(bare.unsqueeze(1), ends, tokens), lengths.masked_fill(
            bare, len(self.untitled)
        )


FAMILIES = {
    "clip image": (ClipImageEncoder, CLIPVisionModelWithProjection, CLIPVisionConfig),
    "clip text": (ClipTextEncoder, CLIPTextModelWithProjection, CLIPTextConfig),
    "visualbert": (VisualBertEncoder, VisualBertModel, VisualBertConfig),
}
Encoder = ImageEncoder | TextEncoder | ClipImageEncoder | ClipTextEncoder | VisualBertEncoder


def create_clip_image_encoder(
    name: str, weights: str, options: dict, size: int, trainable: Trainable
) -> ClipImageEncoder:
    """E_V of the CLIP model `name` (hub or folder), or a fresh one by `options` (of CLIPVisionConfig) with random weights."""
    model = _model("encoder.image", "clip image", name, weights, options, {"image_size": size})
    patch = model.config.patch_size
    if size < patch:
        raise MufinError(
            f"encoder.image.size is {size}, less than one of CLIP's patches of {patch} pixels; set it to a "
            f"multiple of {patch}"
        )
    return _encoder("clip image", model, weights, trainable)


def create_clip_text_encoder(
    name: str,
    weights: str,
    options: dict,
    trainable: Trainable,
    max_tokens: int,
    vocabulary_size: int | None = None,
) -> ClipTextEncoder:
    """E_T of the CLIP model `name`, or a fresh one by `options` (of CLIPTextConfig) with random weights
    (`vocabulary_size` given)."""
    # 0, 2 and 3 are [PAD], [CLS] and [SEP] in vocabularies learnt here
    model = _model(
        "encoder.text",
        "clip text",
        name,
        weights,
        options,
        {"vocab_size": vocabulary_size, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    )
    _check_positions(model, max_tokens)
    return _encoder("clip text", model, weights, trainable)


def create_visualbert_encoder(
    name: str,
    weights: str,
    options: dict,
    trainable: Trainable,
    max_tokens: int,
    picture_width: int,
    untitled: list[int],
    vocabulary_size: int | None = None,
) -> VisualBertEncoder:
    """The VisualBERT `name`, or a fresh one by `options` (of VisualBertConfig) with random weights (`vocabulary_size` given).

    `picture_width`: of E_V's features; `untitled`: the tokens of an empty title.
    """
    model = _model(
        "encoder.text",
        "visualbert",
        name,
        weights,
        options,
        {"vocab_size": vocabulary_size, "pad_token_id": 0, "visual_embedding_dim": picture_width},
    )
    _check_positions(model, max_tokens)
    if (wanted := model.config.visual_embedding_dim) != picture_width:
        raise MufinError(
            f"encoder.image gives {picture_width} numbers a picture and the VisualBERT {name} reads {wanted}; "
            "take an image model of that width (resnet101 has 2048) or another VisualBERT"
        )
    return _encoder("visualbert", model, weights, trainable, untitled=untitled)


def _model(
    section: str, family: str, name: str, weights: str, options: dict, fresh: dict
) -> PreTrainedModel:
    """The transformers model; `fresh` are the defaults of a config for random weights. Raises MufinError."""
    _, architecture, config = FAMILIES[family]
    try:
        if weights == "random":
            return architecture(config(**fresh | options))
        known = AutoConfig.from_pretrained(name)
        if family.split()[0] not in known.model_type.replace("_", ""):
            raise MufinError(
                f"{section}.name is {name!r}, a {known.model_type}, and {section}.kind is {family.split()[0]}; "
                "take a model of that kind, or change the kind"
            )
        # CLIP's config states the width of the projections three times; only the outermost counts
        given = ({"projection_dim": known.projection_dim} if "clip" in family else {}) | options
        if weights == "pretrained":
            return architecture.from_pretrained(
                name, **given
            ).float()  # half precision is for inference
        model = architecture(config.from_pretrained(name, **given))
    except MufinError:
        raise
    except Exception as error:  # hubs, folders and options fail in a dozen classes of their own
        raise MufinError(unavailable(section, name, weights, error)) from None
    load_into(model, weights, f"{section}.weights")
    return model


def _check_positions(model: PreTrainedModel, max_tokens: int) -> None:
    if max_tokens > (most := model.config.max_position_embeddings):
        raise MufinError(
            f"encoder.text.max_tokens is {max_tokens} and the model has positions for {most} tokens; set it to "
            "that at most"
        )


def _encoder(
    family: str,
    model: PreTrainedModel,
    weights: str,
    trainable: Trainable,
    untitled: list[int] | None = None,
):
    spec = TowerSpec(
        family=family,
        trainable=trainable,
        random=weights == "random",
        config=model.config.to_dict(),
        untitled=untitled,
    )
    return FAMILIES[family][0](model.train(), spec)


def load_encoder(folder: Path, seed: int | None = None) -> Encoder:
    """What `save_encoder` wrote, of whatever kind; random weights that train are drawn anew from `seed` where one is given."""
    facts = json.loads((folder / "encoder.json").read_text())
    if "family" not in facts:
        return (
            load_text_encoder(folder, seed)
            if "config" in facts
            else load_image_encoder(folder, seed)
        )
    spec = TowerSpec(**facts)
    if fresh := spec.random and seed is not None:
        torch.manual_seed(seed)
    wrapper, architecture, config = FAMILIES[spec.family]
    return filled(wrapper(architecture(config.from_dict(spec.config)), spec), folder, fresh)
