"""The image encoder E_V (any timm model) and the text encoder E_T (any AutoModel).

The first part of an encoder can be frozen. The stage precompute runs this part once (`frozen`) and
stores its outputs, and `forward` goes on from there. So the inputs of `forward` depend on how much
is frozen (`kind`): pixels or tokens if nothing is, activations if the first layers are, descriptors
if everything is.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard, TypeVar

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from mufin.artifacts.files import read_json
from mufin.errors import MufinError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = Literal["inputs", "activations", "descriptors"]  # what `forward` takes
Trainable = int | Literal["all"]  # blocks or layers that train, counted from the last
AnyEncoder = TypeVar("AnyEncoder", bound="Encoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """What is needed, besides the weights, to build an encoder again without a model hub."""

    trainable: Trainable
    random: bool  # whether the weights were drawn at random


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec(EncoderSpec):
    """The spec of an `ImageEncoder`."""

    name: str  # of a timm architecture
    size: int  # pixels per side
    options: dict  # arguments of timm.create_model
    mean: list[float]  # of each channel, in [0, 1]
    std: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec(EncoderSpec):
    """The spec of a `TextEncoder`."""

    config: dict  # of the whole transformers model, before layers were removed


class Encoder(nn.Module):
    """What all encoders have in common: inputs of `kind` -> descriptors (n, width)."""

    spec: EncoderSpec
    kind: Kind
    width: int
    reads_pictures = False  # whether a text encoder also reads the pictures (early fusion)
    frozen: Callable[..., Tensor]  # what precompute stores; absent if kind is always inputs


def _divided(trainable: Trainable, depth: int) -> tuple[Kind, int]:
    """The kind of an encoder with `depth` layers, and how many of them are frozen."""
    if trainable == 0:
        return "descriptors", depth
    if trainable == "all" or trainable >= depth:
        return "inputs", 0
    return "activations", depth - trainable


# Images


class ImageEncoder(Encoder):
    """E_V (MUFIN Sec. 3): descriptors (n, width) of pictures.

    The descriptor is what the timm model returns without its head: for a ViT with a class token,
    that token after the final norm. `forward` takes uint8 pixels (n, S, S, 3), activations
    (n, T, C) or descriptors (n, width), by `kind`. Only a ViT can be divided between blocks.
    """

    spec: ImageSpec
    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, width: int, spec: ImageSpec):
        super().__init__()
        self.model, self.width, self.spec = model, width, spec
        depth = len(model.blocks) if isinstance(model, VisionTransformer) else None
        if depth is None and spec.trainable not in (0, "all"):
            raise MufinError(
                f"encoder.image.trainable_blocks is {spec.trainable} and {type(model).__name__} "
                "has no blocks to count; set it to 0 or all, or use a ViT"
            )
        self.kind, self.first = _divided(spec.trainable, depth or 1)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (spec.mean, spec.std))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        if self.kind != "inputs":
            model.requires_grad_(False)
        if self.kind == "activations":
            for block in self._vit.blocks[self.first :]:
                block.requires_grad_(True)
            self._vit.norm.requires_grad_(True)

    @property
    def _vit(self) -> VisionTransformer:
        assert isinstance(self.model, VisionTransformer)
        return self.model

    def train(self, mode: bool = True) -> ImageEncoder:
        """Batch norms of pretrained weights keep their statistics.

        The batches here are bags of pictures, whose statistics differ from those of ImageNet.
        """
        super().train(mode)
        if not self.spec.random:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of `kind` -> descriptors (n, width)."""
        if self.kind == "descriptors":
            return inputs.float()
        if self.kind == "inputs":
            return self.model(self._normalised(inputs))
        return self._tail(inputs)

    @torch.no_grad()
    def frozen(self, pixels: Tensor) -> Tensor:
        """The output of the frozen part for uint8 pixels (n, S, S, 3), in eval mode.

        It is (n, T, C) activations, or (n, width) descriptors if all is frozen.
        """
        self.eval()
        x = self._normalised(pixels)
        return self.model(x) if self.kind == "descriptors" else self._trunk(x)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def _trunk(self, x: Tensor) -> Tensor:
        m = self._vit
        x = m.norm_pre(m.patch_drop(m._pos_embed(m.patch_embed(x))))
        for block in m.blocks[: self.first]:
            x = block(x)
        return x

    def _tail(self, x: Tensor) -> Tensor:
        m = self._vit
        weight = getattr(m.norm, "weight", None)
        x = x.to(torch.float32 if weight is None else weight.dtype)  # stored as float16
        *blocks, last = m.blocks[self.first :]
        for block in blocks:
            x = block(x)
        # Only the class token is read from the last block. So there only this token needs Q, O and
        # the MLP, while K and V need all tokens: the same result for a fraction of the work.
        token_only = m.global_pool == "token" and m.attn_pool is None and _reads_one_token(m)
        x = _class_token_block(last, x) if token_only and _is_plain(last) else last(x)
        return m.forward_head(m.norm(x), pre_logits=True)


def _is_plain(block: nn.Module) -> TypeGuard[Block]:
    """Whether `_class_token_block` can compute this block: a Block of timm without a gate."""
    if type(block) is not Block or type(block.attn) is not Attention:
        return False
    return getattr(block.attn, "gate", None) is None


def _reads_one_token(model: VisionTransformer) -> bool:
    """Whether the head is the ViT's own. The head of a distilled DeiT reads a second token."""
    return type(model).forward_head is VisionTransformer.forward_head


def _class_token_block(block: Block, x: Tensor) -> Tensor:
    """The output of a block at the class token only, (n, T, C) -> (n, 1, C)."""
    a, n, tokens = block.attn, len(x), x.shape[1]
    assert isinstance(a, Attention)
    # The weights of Q, K and V are stacked: the first third is Q.
    h, split = block.norm1(x), a.num_heads * a.head_dim
    bias_q = bias_kv = None
    if a.qkv.bias is not None:
        bias_q, bias_kv = a.qkv.bias[:split], a.qkv.bias[split:]
    q = F.linear(h[:, :1], a.qkv.weight[:split], bias_q)  # of the class token only
    q = q.view(n, 1, a.num_heads, a.head_dim).transpose(1, 2)
    kv = F.linear(h, a.qkv.weight[split:], bias_kv).view(n, tokens, 2, a.num_heads, a.head_dim)
    k, v = kv.permute(2, 0, 3, 1, 4)
    dropout = a.attn_drop.p if a.training else 0.0
    out = F.scaled_dot_product_attention(a.q_norm(q), a.k_norm(k), v, dropout_p=dropout)
    out = a.proj_drop(a.proj(a.norm(out.transpose(1, 2).reshape(n, 1, split))))
    y = x[:, :1] + block.drop_path1(block.ls1(out))
    return y + block.drop_path2(block.ls2(block.mlp(block.norm2(y))))


def create_image_encoder(
    name: str, weights: str, options: dict, size: int, trainable: Trainable
) -> ImageEncoder:
    """E_V by timm name, `local-dir:<folder>` or folder.

    `weights` is pretrained, random or the path of a checkpoint. Raises MufinError if the model
    cannot be loaded or does not return one vector per picture of `size` pixels per side.
    """
    source = f"local-dir:{name}" if Path(name).is_dir() else name
    model, given, width = _image_model(source, weights, options, size)
    config = timm.data.resolve_data_config({}, model=model)
    spec = ImageSpec(
        name=_timm_config(model).get("architecture") or name,
        size=size,
        options={**_model_args(source), **given},
        trainable=trainable,
        mean=list(config["mean"]),
        std=list(config["std"]),
        random=weights == "random",
    )
    return ImageEncoder(model, width, spec)


def _image_model(
    source: str, weights: str, options: dict, size: int
) -> tuple[nn.Module, dict, int]:
    """A timm model without its head, the options it was made with, and the width of its output.

    Some models must know the size (`img_size`), others refuse this option, and for others the
    weights then do not fit. So the size is given first, then not. Raises MufinError if neither way
    makes a model that returns a vector per picture.
    """
    error: Exception
    state = torch.get_rng_state()
    for img_size in (size, None):  # timm ignores options that are None
        torch.set_rng_state(state)  # both tries draw the same random weights
        model, given = None, {"img_size": img_size, **options}
        try:
            pretrained = weights == "pretrained"
            model = timm.create_model(source, pretrained=pretrained, num_classes=0, **given)
            if weights not in ("pretrained", "random"):
                load_into(model, weights, "encoder.image.weights")
            return model, given, _output_width(model, size)
        except Exception as failed:  # hubs, folders and options raise a dozen different classes
            error = failed
        if isinstance(error, OSError):  # no hub or no file, which the size does not change
            break
    if isinstance(error, MufinError):
        raise error
    if model is None:
        raise MufinError(unavailable("encoder.image", source, weights, error))
    own = given["img_size"] or _timm_config(model)["input_size"][-1]
    raise MufinError(
        f"encoder.image.size is {size}, for which {source} returns no vectors ({_reason(error)}); "
        f"its own size is {own}: set encoder.image.size to that, or use another model"
    )


@torch.no_grad()
def _output_width(model: nn.Module, size: int) -> int:
    """The width of the output, from a trial run.

    timm's `num_features` is the width of another layer in MobileNetV3, LCNet, VGG and others.
    """
    out = model.eval()(torch.zeros(1, 3, size, size))
    model.train()
    if out.dim() != 2:
        raise MufinError(
            f"encoder.image.options make {type(model).__name__} return shape {tuple(out.shape)} "
            "for one picture instead of a vector; do not set global_pool"
        )
    return out.shape[1]


def _timm_config(model: nn.Module) -> dict:
    return getattr(model, "pretrained_cfg", None) or {}


def _model_args(source: str) -> dict:
    """The arguments that a local folder gives to its architecture, without those of the head."""
    if not source.startswith("local-dir:"):
        return {}
    config = Path(source.removeprefix("local-dir:")) / "config.json"
    args = json.loads(config.read_text()).get("model_args", {})
    return {name: value for name, value in args.items() if name != "num_classes"}


# Texts

PROBE = (torch.arange(4)[None], torch.tensor([3]))  # a title of three tokens and a pad, its length


class TextEncoder(Encoder):
    """E_T (MUFIN Sec. 3): the mean over the tokens of a title, (n, width).

    `forward` takes int tokens (n, T), hidden states (n, T, H) or descriptors (n, H), by `kind`. Of
    an encoder-decoder only the encoder is used, of a CLIP only the text model.
    """

    spec: TextSpec

    def __init__(self, model: PreTrainedModel, spec: TextSpec):
        super().__init__()
        self.spec, trainable = spec, spec.trainable
        model = _text_part(model).float()  # weights in half precision are for inference
        # Nothing is generated. A cache would also count the layers, and the tail has fewer.
        model.config.use_cache = False
        divided = trainable not in (0, "all")
        layers = _layers(model, trainable) if divided else nn.ModuleList()
        self.kind, self.first = _divided(trainable, len(layers))
        whole = _probed(model)
        self.width = whole.shape[1]
        if self.kind == "activations":
            # The tail is the same model with its last layers only, and hidden states instead of
            # embeddings. The trunk keeps one layer more than it uses: its hidden states are read
            # before the final norm that some models have.
            self.tail = copy.deepcopy(model)
            _set_layers(self.tail, _layers(self.tail, trainable)[self.first :])
            self.tail.embeddings = _NoEmbeddings()
            _set_layers(model, layers[: self.first + 1])
        self.model = model
        if self.kind != "inputs":
            model.requires_grad_(False)
        if self.kind == "activations" and not self._equals(whole):
            raise MufinError(_indivisible(self.tail, trainable))

    @torch.no_grad()
    def _equals(self, whole: Tensor) -> bool:
        """Whether trunk and tail together return what the whole model returned for `PROBE`.

        They do not if layers exchange more than hidden states, such as the position bias of T5 or
        the positions of BART.
        """
        training = self.model.training
        try:
            parts = self(self.frozen(*PROBE), PROBE[1])
        except Exception:  # a model that cannot be divided like BERT can raise anything
            return False
        self.train(training)
        return torch.allclose(parts, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Inputs of `kind` and the (n,) number of tokens of each title -> (n, width)."""
        if self.kind == "descriptors":
            return inputs.float()
        mask = token_mask(inputs, lengths)
        if self.kind == "inputs":
            out = self.model(input_ids=inputs.long(), attention_mask=mask)
        else:
            dtype = next(self.tail.parameters()).dtype
            out = self.tail(inputs_embeds=inputs.to(dtype), attention_mask=mask)
        return masked_mean(out.last_hidden_state, mask)

    @torch.no_grad()
    def frozen(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The output of the frozen part for tokens (n, T), in eval mode.

        It is (n, T, H) hidden states, or (n, H) descriptors if all is frozen.
        """
        self.eval()
        mask = token_mask(tokens, lengths)
        out = self.model(input_ids=tokens.long(), attention_mask=mask, output_hidden_states=True)
        if self.kind == "descriptors":
            return masked_mean(out.last_hidden_state, mask)
        return out.hidden_states[self.first]


@torch.no_grad()
def _probed(model: PreTrainedModel) -> Tensor:
    """The output of the model for `PROBE`, (1, width), in eval mode.

    Raises MufinError if the model does not read titles.
    """
    training, mask = model.training, token_mask(*PROBE)
    try:
        out = model.eval()(input_ids=PROBE[0], attention_mask=mask)
        whole = masked_mean(out.last_hidden_state, mask)
    except Exception as error:  # a model for other inputs can raise anything
        raise MufinError(
            f"encoder.text.name gives a {type(model).__name__}, which cannot be run on tokens and "
            f"a mask ({_reason(error)}); change encoder.text.options, or use another model"
        ) from None
    model.train(training)
    return whole


def _text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The part of the model that reads titles."""
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return getattr(model, "text_model", model)


class _NoEmbeddings(nn.Module):
    """Replaces the embeddings of the tail: returns the hidden states that it is given."""

    def forward(self, *args: Tensor, inputs_embeds: Tensor | None = None, **_: object) -> Tensor:
        if inputs_embeds is not None:
            return inputs_embeds
        return next(a for a in args if a is not None and a.dim() == 3)


def token_mask(inputs: Tensor, lengths: Tensor) -> Tensor:
    """(n, T) int64: 1 for tokens, 0 for padding."""
    return (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]).long()


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean of hidden states (n, T, H) over the tokens of `mask` (n, T), (n, H)."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


LAYER_PLACES = (  # (parent, attribute) of the layers in BERT, DistilBERT, SqueezeBERT, ModernBERT
    ("encoder", "layer"),
    ("transformer", "layer"),
    ("encoder", "layers"),
    ("", "layers"),
)


def _layers_place(model: nn.Module) -> tuple[nn.Module, str] | None:
    """The module that holds the layers, and their attribute there; None for other models."""
    for owner, name in LAYER_PLACES:
        parent = getattr(model, owner, None) if owner else model
        if isinstance(parent, nn.Module) and isinstance(getattr(parent, name, None), nn.ModuleList):
            return parent, name
    return None


def _layers(model: nn.Module, trainable: Trainable) -> nn.ModuleList:
    if (place := _layers_place(model)) is None:
        raise MufinError(_indivisible(model, trainable))
    return getattr(*place)


def _set_layers(model: PreTrainedModel, layers: nn.ModuleList) -> None:
    place = _layers_place(model)
    assert place is not None
    setattr(*place, layers)
    if hasattr(model.config, "num_hidden_layers"):
        model.config.num_hidden_layers = len(layers)


def _indivisible(model: nn.Module, trainable: Trainable) -> str:
    return (
        f"encoder.text.trainable_layers is {trainable}, and {type(model).__name__} cannot be "
        "divided between two layers as BERT can; set it to 0 or all, or use another model"
    )


def create_text_encoder(
    name: str, weights: str, options: dict, trainable: Trainable, vocabulary_size: int | None = None
) -> TextEncoder:
    """E_T by AutoModel name or folder, or a model of type `name` with random weights.

    `weights` is pretrained, random or the path of a checkpoint. `vocabulary_size` is for random
    weights. Raises MufinError if the model cannot be loaded or does not read titles.
    """
    try:
        if weights == "random":
            # [PAD] is 0 in vocabularies learnt here, while RoBERTa and others expect it at 1.
            fresh = {"vocab_size": vocabulary_size, "pad_token_id": 0, **options}
            model = AutoModel.from_config(AutoConfig.for_model(name, **fresh))
        else:
            model = AutoModel.from_pretrained(name, **options)
    except Exception as error:  # hubs, folders and options raise a dozen different classes
        raise MufinError(unavailable("encoder.text", name, weights, error)) from None
    if weights not in ("pretrained", "random"):
        load_into(model, weights, "encoder.text.weights")
    config = model.config.to_dict()  # before TextEncoder removes layers
    spec = TextSpec(config=config, trainable=trainable, random=weights == "random")
    return TextEncoder(model, spec)


# Weights and files


def _reason(error: Exception) -> str:
    """The message of `error` in one line, or its class if the message is empty."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def unavailable(section: str, name: str, weights: str, error: Exception) -> str:
    """The sentence for a model that cannot be loaded."""
    return (
        f"{section}.name is {name!r} with weights {weights!r} and cannot be loaded "
        f"({_reason(error)}); without a network name a local folder, or set the weights to random "
        "or to a checkpoint file"
    )


def load_into(model: nn.Module, path: str, setting: str) -> None:
    """Loads a checkpoint file into `model`, with timm's interpolation of position embeddings.

    The file may hold more weights, such as those of a head. `setting` names the path in errors.
    Raises MufinError if the file is missing, does not fit or lacks a weight.
    """
    if not Path(path).is_file():
        raise MufinError(
            f"{setting} is {path!r}; it must be pretrained, random or the path of a checkpoint file"
        )
    module = sys.modules[type(model).__module__]
    fitted = getattr(module, "checkpoint_filter_fn", lambda state, _: state)
    try:
        if path.endswith(".safetensors"):
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        missing = model.load_state_dict(fitted(state, model), strict=False).missing_keys
    except Exception as error:  # other formats and other models raise different classes
        raise MufinError(
            f"{setting} is {path!r}, which does not fit ({_reason(error)}); give a checkpoint of "
            "the same model, or pretrained or random"
        ) from None
    if missing:
        raise MufinError(
            f"{setting} is {path!r}, which lacks {len(missing)} weights ({missing[0]}, ...); give "
            "a checkpoint of the same model, or pretrained or random"
        )


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Writes the weights and the spec of an encoder into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.json").write_text(json.dumps(asdict(encoder.spec), indent=2, default=str))
    weights = {n: t.contiguous().clone() for n, t in encoder.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")


def load_image_encoder(folder: Path, seed: int | None = None) -> ImageEncoder:
    """The image encoder that `save_encoder` wrote; raises ArtifactError if it is missing.

    With `seed`, random weights that train are drawn again from it.
    """
    spec = ImageSpec(**read_json(folder / "encoder.json"))
    if fresh := spec.random and seed is not None:
        torch.manual_seed(seed)
    model, _, width = _image_model(spec.name, "random", spec.options, spec.size)
    return filled(ImageEncoder(model, width, spec), folder, fresh)


def load_text_encoder(folder: Path, seed: int | None = None) -> TextEncoder:
    """The text encoder that `save_encoder` wrote; raises ArtifactError if it is missing.

    With `seed`, random weights that train are drawn again from it.
    """
    spec = TextSpec(**read_json(folder / "encoder.json"))
    if fresh := spec.random and seed is not None:
        torch.manual_seed(seed)
    given = {key: value for key, value in spec.config.items() if key != "model_type"}
    model = AutoModel.from_config(AutoConfig.for_model(spec.config["model_type"], **given))
    return filled(TextEncoder(model, spec), folder, fresh)


def filled(encoder: AnyEncoder, folder: Path, fresh: bool) -> AnyEncoder:
    """`encoder` with the weights saved in `folder`.

    With `fresh` only the frozen part is loaded, because the stored activations depend on it.
    """
    state = load_file(folder / "weights.safetensors")
    trained = {n for n, p in encoder.named_parameters() if p.requires_grad} if fresh else set()
    saved = {n: w for n, w in state.items() if n not in trained}
    drawn = {n: w for n, w in encoder.state_dict().items() if n in trained}
    encoder.load_state_dict(saved | drawn)
    return encoder
