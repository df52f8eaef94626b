"""The towers of CLIP as E_V and E_T, and VisualBERT for early fusion (MUFIN App. C.1).

They have the interface of `mufin.nn.encoder.Encoder`, and are frozen or train as a whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from mufin.artifacts.files import read_json
from mufin.corpus.model_hub import loaded
from mufin.errors import MufinError
from mufin.nn.clip_image_encoder import ClipImageEncoder
from mufin.nn.clip_text_encoder import ClipTextEncoder
from mufin.nn.encoder import Encoder, Trainable
from mufin.nn.encoder_files import filled, loading
from mufin.nn.given_vectors import is_given, load_given
from mufin.nn.image_encoder import load_image_encoder
from mufin.nn.pixel_scale import (
    CLIP_MEAN,
    CLIP_STD,
    PixelScale,
    scale_beside,
    scale_of,
    split_options,
)
from mufin.nn.pretrained import load_into, unavailable
from mufin.nn.text_encoder import load_text_encoder
from mufin.nn.tower_spec import TowerSpec
from mufin.nn.visualbert_encoder import VisualBertEncoder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class Family(NamedTuple):
    """The encoder here, and the model and config of transformers that it wraps."""

    encoder: type[ClipImageEncoder | ClipTextEncoder | VisualBertEncoder]
    model: type[PreTrainedModel]
    config: type[PretrainedConfig]


def _family(name: str) -> Family:
    """The family `name` of a `TowerSpec`; raises KeyError for another name.

    transformers imports the code of a model where its class is first named, in seconds.
    """
    import transformers as t

    if name == "clip image":
        return Family(ClipImageEncoder, t.CLIPVisionModelWithProjection, t.CLIPVisionConfig)
    if name == "clip text":
        return Family(ClipTextEncoder, t.CLIPTextModelWithProjection, t.CLIPTextConfig)
    if name == "visualbert":
        return Family(VisualBertEncoder, t.VisualBertModel, t.VisualBertConfig)
    raise KeyError(name)


def create_clip_image_encoder(
    name: str, weights: str, options: dict, size: int, trainable: Trainable
) -> ClipImageEncoder:
    """E_V of the CLIP model `name` (hub or folder).

    With random `weights` it is a new model with `options` of CLIPVisionConfig. Raises MufinError if
    the model cannot be loaded.
    """
    options, wanted = split_options(options)
    model, args = _model(
        "encoder.image", "clip image", name, weights, options, {"image_size": size}
    )
    patch = model.config.patch_size
    if size < patch:
        raise MufinError(
            f"encoder.image.size is {size}, less than the {patch} pixels of a patch of this CLIP; "
            f"set it to a multiple of {patch}"
        )
    scale = wanted or _scale(name, weights, args)
    spec = replace(
        _spec("clip image", model, weights, trainable),
        mean=scale.mean,
        std=scale.std,
        mean_std_from=scale.origin,
    )
    return ClipImageEncoder(model.train(), spec)


def _scale(name: str, weights: str, args: dict) -> PixelScale:
    """Mean and std of the image part: of its checkpoint file, else of `name`, else OpenAI's."""
    openai = list(CLIP_MEAN), list(CLIP_STD)
    if weights == "random":
        return PixelScale(*openai, "of OpenAI's CLIP")
    from transformers import CLIPImageProcessor

    beside = ""
    if weights != "pretrained":
        if said := scale_of(args, "from the args in the checkpoint") or scale_beside(Path(weights)):
            return said
        beside = ": no file beside the checkpoint has others"
    try:
        content, _ = loaded(name, lambda: CLIPImageProcessor.get_image_processor_dict(name))
    except Exception:  # hubs and folders without this file raise a dozen different classes
        content = {}
    origin = f"from preprocessor_config.json of the model{beside}"
    return scale_of(content, origin) or PixelScale(
        *openai, f"the defaults of OpenAI's CLIP: the model has no preprocessor_config.json{beside}"
    )


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
    model, _ = _model("encoder.text", "clip text", name, weights, options, fresh)
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
    model, _ = _model("encoder.text", "visualbert", name, weights, options, fresh)
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
) -> tuple[PreTrainedModel, dict]:
    """The transformers model, and what `load_into` returned.

    `fresh` are defaults of a config for random weights. Raises MufinError that names `section` of
    the settings.
    """
    from transformers import AutoConfig

    _, architecture, config = _family(family)
    try:
        if weights == "random":
            return architecture(config(**fresh | options)), {}
        known = loaded(name, lambda: AutoConfig.from_pretrained(name))
        _check_kind(section, family.split()[0], name, known.model_type)
        # The config of CLIP states the projection width three times; only the outermost is right.
        projection = {"projection_dim": known.projection_dim} if "clip" in family else {}
        given = projection | options
        if weights == "pretrained":
            # float32, because weights stored in half precision are for inference
            model = loaded(name, lambda: architecture.from_pretrained(name, **given))
            return model.float(), {}
        model = architecture(loaded(name, lambda: config.from_pretrained(name, **given)))
    except MufinError:
        raise
    except Exception as error:  # hubs, folders and options raise a dozen different classes
        raise MufinError(unavailable(section, name, weights, error)) from None
    return model, load_into(model, weights, f"{section}.weights")


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
    with loading(folder):
        facts = read_json(folder / "encoder.json")
        if is_given(facts):
            return load_given(facts)
        if "family" not in facts:
            load = load_text_encoder if "config" in facts else load_image_encoder
            return load(folder, seed)
        spec = TowerSpec(**facts)
        if fresh := spec.random and seed is not None:
            torch.manual_seed(seed)
        family = _family(spec.family)
        model = family.model(family.config.from_dict(spec.config))
        return filled(family.encoder(model, spec), folder, fresh)
