"""The towers of CLIP as E_V and E_T, and VisualBERT for early fusion (MUFIN App. C.1).

They have the interface of `mufin.nn.encoders.Encoder`, and are frozen or train as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
    VisualBertConfig,
    VisualBertModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mufin.artifacts.files import read_json
from mufin.errors import MufinError
from mufin.nn.encoders import (
    Encoder,
    EncoderSpec,
    Kind,
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
class TowerSpec(EncoderSpec):
    """What is needed, besides the weights, to build one of these encoders again."""

    family: str  # a key of FAMILIES
    config: dict  # of the transformers model
    untitled: list[int] | None = None  # VisualBERT: the tokens of an empty title


class ClipImageEncoder(Encoder):
    """E_V: the vision tower of CLIP with its projection, (n, projection_dim), not normalised.

    `forward` takes uint8 pixels (n, S, S, 3) or descriptors, by `kind`. S is any size; the position
    embeddings are interpolated to it.
    """

    spec: TowerSpec
    mean: Tensor
    std: Tensor

    def __init__(self, model: PreTrainedModel, spec: TowerSpec):
        super().__init__()
        self.model, self.spec, self.width = model, spec, model.config.projection_dim
        self.kind = "descriptors" if spec.trainable == 0 else "inputs"
        model.requires_grad_(self.kind == "inputs")
        mean, std = (
            torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        )
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of `kind` -> descriptors (n, width)."""
        return inputs.float() if self.kind == "descriptors" else self._embeddings(inputs)

    @torch.no_grad()
    def frozen(self, pixels: Tensor) -> Tensor:
        """The descriptors (n, width) of uint8 pixels (n, S, S, 3), in eval mode."""
        self.eval()
        return self._embeddings(pixels)

    def _embeddings(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return self.model(pixel_values=x, interpolate_pos_encoding=True).image_embeds


class ClipTextEncoder(Encoder):
    """E_T: the text tower of CLIP with its projection, (n, projection_dim), not normalised.

    `forward` takes int tokens (n, T) or descriptors, by `kind`. The descriptor is the embedding of
    the last token by length, which is the end token: tokenizers append it and keep it when they cut
    a title. CLIP's own model finds the end token by its id, but the id differs in vocabularies
    learnt here and in the config of older checkpoints.
    """

    spec: TowerSpec

    def __init__(self, model: PreTrainedModel, spec: TowerSpec):
        super().__init__()
        self.spec, self.width = spec, model.config.projection_dim
        assert isinstance(model, CLIPTextModelWithProjection)
        self.model = model
        self.kind = "descriptors" if spec.trainable == 0 else "inputs"
        model.requires_grad_(self.kind == "inputs")

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Inputs of `kind` and the (n,) number of tokens of each title -> (n, width)."""
        return inputs.float() if self.kind == "descriptors" else self._embeddings(inputs, lengths)

    @torch.no_grad()
    def frozen(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The descriptors (n, width) of tokens (n, T), in eval mode."""
        self.eval()
        return self._embeddings(tokens, lengths)

    def _embeddings(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        mask = token_mask(tokens, lengths)
        out = self.model.text_model(input_ids=tokens.long(), attention_mask=mask)
        hidden = out.last_hidden_state
        end = hidden[torch.arange(len(hidden), device=hidden.device), lengths.clamp_min(1) - 1]
        return self.model.text_projection(end)


class VisualBertEncoder(Encoder):
    """E_T that reads the pictures of a product with its title (early fusion, MUFIN App. C.1).

    It returns one vector per product, (n, width): the mean over the tokens of title and pictures.
    The paper does not say which vector it uses. With random weights the pooled [CLS] stays nearly
    the same for all products and learns nothing. Each picture is one visual token, its feature from
    a frozen E_V. With `trainable` 0 the model is never in training mode, but its inputs are still
    tokens, because its output for a title depends on the pictures.
    """

    spec: TowerSpec
    untitled: Tensor
    reads_pictures = True
    kind: Kind = "inputs"

    def __init__(self, model: PreTrainedModel, spec: TowerSpec):
        super().__init__()
        self.model, self.spec = model, spec
        self.width, self.picture_width = model.config.hidden_size, model.config.visual_embedding_dim
        model.requires_grad_(spec.trainable == "all")
        untitled = torch.tensor(spec.untitled, dtype=torch.int32)
        self.register_buffer("untitled", untitled, persistent=False)

    def train(self, mode: bool = True) -> VisualBertEncoder:
        return super().train(mode and self.spec.trainable == "all")

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        pictures: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Titles and picture features -> (n, width).

        `tokens` (n, T) int and `lengths` (n,): a product without a title has length 0 and is read
        as an empty title. `pictures` (n, m, picture_width) float, and `seen` (n, m) bool: which of
        them exist.
        """
        tokens, lengths = self._titled(tokens, lengths)
        mask = token_mask(tokens, lengths)
        visual: dict[str, Tensor] = {}
        if pictures is not None and seen is not None and pictures.shape[1]:
            visual = {"visual_embeds": pictures, "visual_attention_mask": seen.long()}
        out = self.model(input_ids=tokens.long(), attention_mask=mask, **visual)
        if visual:
            mask = torch.cat([mask, visual["visual_attention_mask"]], 1)
        return masked_mean(out.last_hidden_state, mask)

    def _titled(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Replaces missing titles by the tokens of an empty one."""
        width, missing = max(tokens.shape[1], len(self.untitled)), lengths == 0
        untitled = self.untitled.to(tokens.dtype)
        tokens, untitled = (
            nn.functional.pad(t, (0, width - t.shape[-1])) for t in (tokens, untitled)
        )
        tokens = torch.where(missing.unsqueeze(1), untitled, tokens)
        return tokens, lengths.masked_fill(missing, len(self.untitled))


class Family(NamedTuple):
    """The encoder here, and the model and config of transformers that it wraps."""

    encoder: type[ClipImageEncoder | ClipTextEncoder | VisualBertEncoder]
    model: type[PreTrainedModel]
    config: type[PretrainedConfig]


FAMILIES = {
    "clip image": Family(ClipImageEncoder, CLIPVisionModelWithProjection, CLIPVisionConfig),
    "clip text": Family(ClipTextEncoder, CLIPTextModelWithProjection, CLIPTextConfig),
    "visualbert": Family(VisualBertEncoder, VisualBertModel, VisualBertConfig),
}


def create_clip_image_encoder(
    name: str, weights: str, options: dict, size: int, trainable: Trainable
) -> ClipImageEncoder:
    """E_V of the CLIP model `name` (hub or folder).

    With random `weights` it is a new model with `options` of CLIPVisionConfig. Raises MufinError if
    the model cannot be loaded.
    """
    model = _model("encoder.image", "clip image", name, weights, options, {"image_size": size})
    patch = model.config.patch_size
    if size < patch:
        raise MufinError(
            f"encoder.image.size is {size}, less than the {patch} pixels of a patch of this CLIP; "
            f"set it to a multiple of {patch}"
        )
    return ClipImageEncoder(model.train(), _spec("clip image", model, weights, trainable))


def create_clip_text_encoder(
    name: str,
    weights: str,
    options: dict,
    trainable: Trainable,
    max_tokens: int,
    vocabulary_size: int | None = None,
) -> ClipTextEncoder:
    """E_T of the CLIP model `name` (hub or folder).

    With random `weights` it is a new model with `options` of CLIPTextConfig and `vocabulary_size`
    tokens. Raises MufinError if the model cannot be loaded or cannot read `max_tokens`.
    """
    fresh = {  # 0, 2 and 3 are [PAD], [CLS] and [SEP] in vocabularies learnt here
        "vocab_size": vocabulary_size,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    model = _model("encoder.text", "clip text", name, weights, options, fresh)
    _check_positions(model, max_tokens)
    return ClipTextEncoder(model.train(), _spec("clip text", model, weights, trainable))


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
    """The VisualBERT `name` (hub or folder).

    With random `weights` it is a new model with `options` of VisualBertConfig and `vocabulary_size`
    tokens. `picture_width` is the width of the features of E_V, `untitled` the tokens of an empty
    title. Raises MufinError if the model cannot be loaded, cannot read `max_tokens` or reads
    features of another width.
    """
    fresh = {
        "vocab_size": vocabulary_size,
        "pad_token_id": 0,
        "visual_embedding_dim": picture_width,
    }
    model = _model("encoder.text", "visualbert", name, weights, options, fresh)
    _check_positions(model, max_tokens)
    if (wanted := model.config.visual_embedding_dim) != picture_width:
        raise MufinError(
            f"encoder.image gives {picture_width} numbers per picture and the VisualBERT {name} "
            f"reads {wanted}; use an image model of that width (resnet101 has 2048) or another "
            "VisualBERT"
        )
    spec = _spec("visualbert", model, weights, trainable, untitled)
    return VisualBertEncoder(model.train(), spec)


def _model(
    section: str, family: str, name: str, weights: str, options: dict, fresh: dict
) -> PreTrainedModel:
    """The transformers model; `fresh` are defaults of a config for random weights.

    Raises MufinError that names `section` of the settings.
    """
    architecture, config = FAMILIES[family].model, FAMILIES[family].config
    try:
        if weights == "random":
            return architecture(config(**fresh | options))
        known = AutoConfig.from_pretrained(name)
        _check_kind(section, family.split()[0], name, known.model_type)
        # The config of CLIP states the projection width three times; only the outermost is right.
        projection = {"projection_dim": known.projection_dim} if "clip" in family else {}
        given = projection | options
        if weights == "pretrained":
            # float32, because weights stored in half precision are for inference
            return architecture.from_pretrained(name, **given).float()
        model = architecture(config.from_pretrained(name, **given))
    except MufinError:
        raise
    except Exception as error:  # hubs, folders and options raise a dozen different classes
        raise MufinError(unavailable(section, name, weights, error)) from None
    load_into(model, weights, f"{section}.weights")
    return model


def _check_kind(section: str, kind: str, name: str, model_type: str) -> None:
    if kind not in model_type.replace("_", ""):
        raise MufinError(
            f"{section}.name is {name!r}, a {model_type}, and {section}.kind is {kind}; use a "
            "model of that kind, or change the kind"
        )


def _check_positions(model: PreTrainedModel, max_tokens: int) -> None:
    if max_tokens > (most := model.config.max_position_embeddings):
        raise MufinError(
            f"encoder.text.max_tokens is {max_tokens} and the model has positions for {most} "
            f"tokens; set it to {most} or less"
        )


def _spec(
    family: str,
    model: PreTrainedModel,
    weights: str,
    trainable: Trainable,
    untitled: list[int] | None = None,
) -> TowerSpec:
    return TowerSpec(
        family=family,
        trainable=trainable,
        random=weights == "random",
        config=model.config.to_dict(),
        untitled=untitled,
    )


def load_encoder(folder: Path, seed: int | None = None) -> Encoder:
    """The encoder of any kind that `save_encoder` wrote; raises ArtifactError if it is missing.

    With `seed`, random weights that train are drawn again from it.
    """
    facts = read_json(folder / "encoder.json")
    if "family" not in facts:
        load = load_text_encoder if "config" in facts else load_image_encoder
        return load(folder, seed)
    spec = TowerSpec(**facts)
    if fresh := spec.random and seed is not None:
        torch.manual_seed(seed)
    family = FAMILIES[spec.family]
    model = family.model(family.config.from_dict(spec.config))
    return filled(family.encoder(model, spec), folder, fresh)
