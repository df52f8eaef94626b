"""E_V and E_T: any timm image model and any AutoModel text model, split into a frozen part and a part that trains.

What the frozen part gives is computed once (`frozen`, by precompute); `forward` goes on from there. So `forward` takes
what precompute stored: pixels or tokens where nothing is frozen, activations where a part is, descriptors where all is.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from mufin.errors import MufinError

Kind = Literal["inputs", "activations", "descriptors"]  # what `forward` takes
Trainable = int | Literal["all"]
PROBE = (
    torch.arange(4)[None],
    torch.tensor([3]),
)  # a title of three tokens and a pad, and its length


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """All that is needed, beside the weights, to build an image encoder again without a hub."""

    name: str  # of a timm architecture
    size: int  # pixels per side
    options: dict  # to timm.create_model
    trainable: Trainable  # blocks
    mean: list[float]  # of each channel, in [0, 1]
    std: list[float]
    random: bool  # whether the weights were drawn at random


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """All that is needed, beside the weights, to build a text encoder again without a hub."""

    config: dict  # of the whole transformers model, before layers were cut off
    trainable: Trainable  # layers
    random: bool


def _kind(trainable: Trainable, depth: int) -> Kind:
    if trainable == 0:
        return "descriptors"
    return "inputs" if trainable == "all" or trainable >= depth else "activations"


class ImageEncoder(nn.Module):
    """E_V (Sec. 3): descriptors (n, width); for a ViT with a class token, that token after the final norm.

    `forward` takes uint8 pixels (n, S, S, 3) (kind inputs), trunk activations (n, T, C) (kind activations) or the
    descriptors themselves. If one block trains and the class token is the descriptor, only that token asks in it: K and V
    need all tokens, Q, O and the MLP one (the same result, a fraction of the work).
    """

    def __init__(self, model: nn.Module, width: int, spec: ImageSpec):
        super().__init__()
        self.model, self.width, self.spec = model, width, spec
        trainable, self.freeze_norms = spec.trainable, not spec.random
        vit = isinstance(model, VisionTransformer)
        if not vit and trainable not in (0, "all"):
            raise MufinError(
                f"encoder.image.trainable_blocks is {trainable} and {type(model).__name__} has no blocks to "
                "count; set it to 0 or all, or take a ViT"
            )
        depth = len(model.blocks) if vit else 1
        self.kind: Kind = _kind(trainable, depth)
        self.first = (
            0
            if self.kind == "inputs"
            else depth - trainable
            if self.kind == "activations"
            else depth
        )
        self.register_buffer(
            "mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False
        )
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)
        if self.kind != "inputs":
            model.requires_grad_(False)
            for block in list(model.blocks)[self.first :] if vit else []:
                block.requires_grad_(True)
            if self.kind == "activations":
                model.norm.requires_grad_(True)

    def train(self, mode: bool = True) -> ImageEncoder:
        """Batch norms of pretrained weights keep their statistics: the batches here are bags, not ImageNet."""
        super().train(mode)
        if self.freeze_norms:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        if self.kind == "descriptors":
            return inputs.float()
        if self.kind == "inputs":
            return self.model(self._normalised(inputs))
        return self._tail(inputs)

    @torch.no_grad()
    def frozen(self, pixels: Tensor) -> Tensor:
        """What the frozen part gives for uint8 pixels (n, S, S, 3), in eval mode: (n, T, C) or (n, width)."""
        self.eval()
        x = self._normalised(pixels)
        return self.model(x) if self.kind == "descriptors" else self._trunk(x)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def _trunk(self, x: Tensor) -> Tensor:
        m = self.model
        x = m.norm_pre(m.patch_drop(m._pos_embed(m.patch_embed(x))))
        for block in m.blocks[: self.first]:
            x = block(x)
        return x

    def _tail(self, x: Tensor) -> Tensor:
        m = self.model
        x = x.to(m.norm.weight.dtype if hasattr(m.norm, "weight") else torch.float32)
        blocks = list(m.blocks)[self.first :]
        alone = (
            m.global_pool == "token"
            and m.attn_pool is None
            and _plain(blocks[-1])
            and _reads_one_token(m)
        )
        for block in blocks[:-1] if alone else blocks:
            x = block(x)
        if alone:
            x = _class_token_block(blocks[-1], x)
        return m.forward_head(m.norm(x), pre_logits=True)


def _plain(block: nn.Module) -> bool:
    """Whether `_class_token_block` knows this block: timm's own, without a gate."""
    return type(block) is Block and getattr(block.attn, "gate", None) is None


def _reads_one_token(model: VisionTransformer) -> bool:
    """Whether the head is the ViT's own: a distilled DeiT's reads a second token."""
    return type(model).forward_head is VisionTransformer.forward_head


def _class_token_block(block: Block, x: Tensor) -> Tensor:
    """The block's output at the class token alone, (n, T, C) -> (n, 1, C): all tokens answer, one asks."""
    a, n, tokens = block.attn, len(x), x.shape[1]
    h, split = block.norm1(x), a.num_heads * a.head_dim
    bias_q, bias_kv = (
        (None, None) if a.qkv.bias is None else (a.qkv.bias[:split], a.qkv.bias[split:])
    )
    q = (
        F.linear(h[:, :1], a.qkv.weight[:split], bias_q)
        .view(n, 1, a.num_heads, a.head_dim)
        .transpose(1, 2)
    )
    kv = F.linear(h, a.qkv.weight[split:], bias_kv).view(n, tokens, 2, a.num_heads, a.head_dim)
    k, v = kv.permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        a.q_norm(q), a.k_norm(k), v, dropout_p=a.attn_drop.p if a.training else 0.0
    )
    out = a.proj_drop(a.proj(a.norm(out.transpose(1, 2).reshape(n, 1, split))))
    y = x[:, :1] + block.drop_path1(block.ls1(out))
    return y + block.drop_path2(block.ls2(block.mlp(block.norm2(y))))


class TextEncoder(nn.Module):
    """E_T (Sec. 3): masked mean over tokens, (n, width).

    `forward` takes int tokens (n, T) (kind inputs), hidden states (n, T, H) (kind activations) or descriptors (n, H).
    Of an encoder-decoder it is the encoder, of a CLIP the text model.
    """

    def __init__(self, model: nn.Module, spec: TextSpec):
        super().__init__()
        self.spec, trainable = spec, spec.trainable
        model = _reader(model).float()  # weights stored in half precision are for inference
        model.config.use_cache = (
            False  # nothing is generated; a cache counts layers, and the tail has fewer
        )
        layers = nn.ModuleList() if trainable in (0, "all") else _layers(model, trainable)
        self.kind = _kind(trainable, len(layers))
        self.first = len(layers) - trainable if self.kind == "activations" else 0
        whole = _asked(model)
        self.width = whole.shape[1]
        if self.kind == "activations":
            # The tail is the same model with the hidden states in the embeddings' place and the last layers alone;
            # the trunk keeps one layer more than it uses: hidden states are read before a final norm, if there is one.
            self.tail = copy.deepcopy(model)
            _set_layers(self.tail, _layers(self.tail, trainable)[self.first :])
            self.tail.embeddings = _Given()
            _set_layers(model, layers[: self.first + 1])
        self.model = model
        if self.kind != "inputs":
            model.requires_grad_(False)
        if self.kind == "activations" and not self._adds_up_to(whole):
            raise MufinError(_uncut(self.tail, trainable))

    @torch.no_grad()
    def _adds_up_to(self, whole: Tensor) -> bool:
        """Whether trunk and tail give what the whole model gave: not where more than the hidden states goes between layers
        (T5's position bias, BART's positions)."""
        training = self.model.training
        try:
            parts = self(self.frozen(*PROBE), PROBE[1])
        except (
            Exception
        ):  # the tail of an architecture that BERT's surgery does not suit fails anywhere
            return False
        self.train(training)
        return torch.allclose(parts, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        if self.kind == "descriptors":
            return inputs.float()
        mask = token_mask(inputs, lengths)
        if self.kind == "inputs":
            hidden = self.model(input_ids=inputs.long(), attention_mask=mask).last_hidden_state
        else:
            dtype = next(self.tail.parameters()).dtype
            hidden = self.tail(
                inputs_embeds=inputs.to(dtype), attention_mask=mask
            ).last_hidden_state
        return masked_mean(hidden, mask)

    @torch.no_grad()
    def frozen(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """What the frozen part gives for tokens (n, T), in eval mode: (n, T, H) or (n, H)."""
        self.eval()
        mask = token_mask(tokens, lengths)
        out = self.model(input_ids=tokens.long(), attention_mask=mask, output_hidden_states=True)
        if self.kind == "descriptors":
            return masked_mean(out.last_hidden_state, mask)
        return out.hidden_states[self.first]


@torch.no_grad()
def _asked(model: nn.Module) -> Tensor:
    """What the model gives for `PROBE`, (1, width), in eval mode; raises MufinError where it reads no titles."""
    training, mask = model.training, token_mask(*PROBE)
    try:
        whole = masked_mean(
            model.eval()(input_ids=PROBE[0], attention_mask=mask).last_hidden_state, mask
        )
    except Exception as error:  # an architecture for other inputs fails anywhere
        raise MufinError(
            f"encoder.text.name gives a {type(model).__name__}, which cannot be run on tokens and a mask "
            f"({_reason(error)}); change encoder.text.options, or take another model"
        ) from None
    model.train(training)
    return whole


def _reader(model: nn.Module) -> nn.Module:
    """The part of the model that reads titles."""
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return getattr(model, "text_model", model)


class _Given(nn.Module):
    """Stands where the embeddings were: passes on the hidden states that it is given."""

    def forward(self, *args, inputs_embeds: Tensor | None = None, **_) -> Tensor:
        return (
            inputs_embeds
            if inputs_embeds is not None
            else next(a for a in args if a is not None and a.dim() == 3)
        )


def token_mask(inputs: Tensor, lengths: Tensor) -> Tensor:
    """(n, T) of 1 where a token is and 0 where there is a pad."""
    return (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]).long()


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def _holder(model: nn.Module) -> tuple[nn.Module, str] | None:
    """Who holds the layers and under which name: as in BERT, DistilBERT, SqueezeBERT, ModernBERT."""
    for owner, name in (
        ("encoder", "layer"),
        ("transformer", "layer"),
        ("encoder", "layers"),
        ("", "layers"),
    ):
        parent = getattr(model, owner, None) if owner else model
        if isinstance(getattr(parent, name, None), nn.ModuleList):
            return parent, name
    return None


def _layers(model: nn.Module, trainable: int) -> nn.ModuleList:
    if _holder(model) is None:
        raise MufinError(_uncut(model, trainable))
    parent, name = _holder(model)
    return getattr(parent, name)


def _set_layers(model: nn.Module, layers: nn.ModuleList) -> None:
    parent, name = _holder(model)
    setattr(parent, name, layers)
    if hasattr(model.config, "num_hidden_layers"):
        model.config.num_hidden_layers = len(layers)


def _uncut(model: nn.Module, trainable: int) -> str:
    return (
        f"encoder.text.trainable_layers is {trainable}, and {type(model).__name__} cannot be cut between two layers as "
        "BERT can; set it to 0 or all, or take another model"
    )


def create_image_encoder(
    name: str, weights: str, options: dict, size: int, trainable: Trainable
) -> ImageEncoder:
    """E_V by timm name, `local-dir:<folder>` or folder; raises MufinError where it is not to be had."""
    source = f"local-dir:{name}" if Path(name).is_dir() else name
    model, given, width = _image_model(source, weights, options, size)
    config = timm.data.resolve_data_config({}, model=model)
    spec = ImageSpec(
        name=(model.pretrained_cfg or {}).get("architecture") or name,
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
    """A timm model without its head, the options it was made with, and the width of what it gives for pictures of `size`.

    Models that must know the size (`img_size`; position embeddings are interpolated) are told; those that refuse, or
    whose weights then do not fit, are tried without. Raises MufinError where neither gives a vector.
    """
    state = torch.get_rng_state()
    for told in (size, None):  # None: timm's word for not given
        torch.set_rng_state(state)
        model, given = None, {"img_size": told, **options}
        try:
            model = timm.create_model(
                source, pretrained=weights == "pretrained", num_classes=0, **given
            )
            if weights not in ("pretrained", "random"):
                load_into(model, weights, "encoder.image.weights")
            return model, given, _vector_width(model, size)
        except (
            Exception
        ) as failed:  # hubs, folders and options fail in a dozen classes of their own
            error = failed
        if isinstance(error, OSError):  # no hub or no file: as well without the size
            break
    if isinstance(error, MufinError):
        raise error
    if model is None:
        raise MufinError(unavailable("encoder.image", source, weights, error))
    own = given["img_size"] or model.pretrained_cfg["input_size"][-1]
    raise MufinError(
        f"encoder.image.size is {size}, for which {source} gives no vectors ({_reason(error)}); its own size "
        f"is {own}: set encoder.image.size to that, or take another model"
    )


@torch.no_grad()
def _vector_width(model: nn.Module, size: int) -> int:
    """By asking: `num_features` is the width of another layer in MobileNetV3, LCNet, VGG and more."""
    out = model.eval()(torch.zeros(1, 3, size, size))
    model.train()
    if out.dim() != 2:
        raise MufinError(
            f"encoder.image.options make {type(model).__name__} give {tuple(out.shape)} for one picture, where a "
            "vector is wanted; leave global_pool as it is"
        )
    return out.shape[1]


def _model_args(source: str) -> dict:
    """The architecture's own arguments that a local folder brings along, its head's aside."""
    config = Path(source.removeprefix("local-dir:")) / "config.json"
    args = (
        json.loads(config.read_text()).get("model_args", {})
        if source.startswith("local-dir:")
        else {}
    )
    return {name: value for name, value in args.items() if name != "num_classes"}


def create_text_encoder(
    name: str, weights: str, options: dict, trainable: Trainable, vocabulary_size: int | None = None
) -> TextEncoder:
    """E_T by AutoModel name or folder, or a fresh model of type `name` with random weights (`vocabulary_size` given)."""
    try:
        if weights == "random":
            # 0 is [PAD] in vocabularies learnt here; RoBERTa and others would take their 1, [UNK], for it
            config = AutoConfig.for_model(
                name, **{"vocab_size": vocabulary_size, "pad_token_id": 0, **options}
            )
            model = AutoModel.from_config(config)
        else:
            model = AutoModel.from_pretrained(name, **options)
    except Exception as error:  # as for pictures
        raise MufinError(unavailable("encoder.text", name, weights, error)) from None
    if weights not in ("pretrained", "random"):
        load_into(model, weights, "encoder.text.weights")
    config = model.config.to_dict()  # before TextEncoder cuts layers off
    return TextEncoder(
        model, TextSpec(config=config, trainable=trainable, random=weights == "random")
    )


def _reason(error: Exception) -> str:
    """In one line; an assertion may say nothing but its name."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def unavailable(section: str, name: str, weights: str, error: Exception) -> str:
    return (
        f"{section}.name is {name!r} with weights {weights!r} and cannot be had ({_reason(error)}); "
        "without a network name a local folder, or set the weights to random or to a checkpoint file"
    )


def load_into(model: nn.Module, path: str, setting: str) -> None:
    """A checkpoint file into `model`, position embeddings interpolated as timm does; only heads may be missing on either
    side."""
    if not Path(path).is_file():
        raise MufinError(
            f"{setting} is {path!r}; it must be pretrained, random or the path of a checkpoint file"
        )
    fitted = getattr(
        sys.modules[type(model).__module__], "checkpoint_filter_fn", lambda state, _: state
    )
    try:
        state = (
            load_file(path)
            if path.endswith(".safetensors")
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        missing = model.load_state_dict(fitted(state, model), strict=False).missing_keys
    except Exception as error:  # other formats and other models fail in classes of their own
        raise MufinError(
            f"{setting} is {path!r}, which does not fit ({_reason(error)}); is it of another model?"
        ) from None
    if missing:
        raise MufinError(
            f"{setting} is {path!r}, which lacks {len(missing)} weights ({missing[0]}, ...); is it of "
            "another model?"
        )


def save_encoder(encoder: ImageEncoder | TextEncoder, folder: Path) -> None:
    """Weights and all that is needed to build the encoder again without a hub, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.json").write_text(json.dumps(asdict(encoder.spec), indent=2, default=str))
    save_file(
        {n: t.contiguous().clone() for n, t in encoder.state_dict().items()},
        folder / "weights.safetensors",
    )


def load_image_encoder(folder: Path, seed: int | None = None) -> ImageEncoder:
    """What `save_encoder` wrote; random weights that train are drawn anew from `seed` where one is given."""
    spec = ImageSpec(**json.loads((folder / "encoder.json").read_text()))
    if fresh := spec.random and seed is not None:
        torch.manual_seed(seed)
    model, _, width = _image_model(spec.name, "random", spec.options, spec.size)
    return filled(ImageEncoder(model, width, spec), folder, fresh)


def load_text_encoder(folder: Path, seed: int | None = None) -> TextEncoder:
    """What `save_encoder` wrote; random weights that train are drawn anew from `seed` where one is given."""
    spec = TextSpec(**json.loads((folder / "encoder.json").read_text()))
    if fresh := spec.random and seed is not None:
        torch.manual_seed(seed)
    given = {key: value for key, value in spec.config.items() if key != "model_type"}
    model = AutoModel.from_config(AutoConfig.for_model(spec.config["model_type"], **given))
    return filled(TextEncoder(model, spec), folder, fresh)


def filled(encoder: nn.Module, folder: Path, fresh: bool) -> nn.Module:
    """The saved weights in `encoder`; with `fresh` those of the frozen part alone, which made the stored activations."""
    state = load_file(folder / "weights.safetensors")
    trained = {n for n, p in encoder.named_parameters() if p.requires_grad} if fresh else set()
    encoder.load_state_dict(
        {n: w for n, w in state.items() if n not in trained}
        | {n: w for n, w in encoder.state_dict().items() if n in trained}
    )
    return encoder
