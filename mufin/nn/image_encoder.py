"""The image encoder E_V: any timm model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mufin.artifacts.files import read_json
from mufin.corpus.model_hub import LOCAL, loaded
from mufin.errors import MufinError, shown
from mufin.nn.encoder import Encoder, EncoderSpec, Trainable, divided
from mufin.nn.encoder_files import filled, loading
from mufin.nn.frozen import as_floats
from mufin.nn.pixel_scale import (
    PixelScale,
    check_architecture,
    scale_beside,
    scale_of,
    split_options,
)
from mufin.nn.pretrained import load_into, reason, unavailable

if TYPE_CHECKING:
    from timm.models.vision_transformer import Attention, Block, VisionTransformer

LARGEST = 10_000  # pixels per side of a saved encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec(EncoderSpec):
    """The spec of an `ImageEncoder`."""

    name: str  # of a timm architecture
    size: int  # pixels per side
    options: dict  # arguments of timm.create_model
    mean: list[float]  # of each channel, in [0, 1]
    std: list[float]
    mean_std_from: str = ""  # where they come from; '' in folders of older versions


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
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        self.model, self.width, self.spec = model, width, spec
        depth = len(model.blocks) if isinstance(model, VisionTransformer) else None
        if depth is None and spec.trainable not in (0, "all"):
            raise MufinError(
                f"encoder.image.trainable_blocks is {spec.trainable} and {type(model).__name__} "
                "has no blocks to count; set it to 0 or all, or use a ViT"
            )
        self.kind, self.first = divided(spec.trainable, depth or 1)
        self.scale = PixelScale(spec.mean, spec.std, spec.mean_std_from)
        self.scale.register(self)
        if self.kind != "inputs":
            model.requires_grad_(False)
        if self.kind == "activations":
            for block in self._vit.blocks[self.first :]:
                block.requires_grad_(True)
            self._vit.norm.requires_grad_(True)

    @property
    def _vit(self) -> VisionTransformer:
        return cast("VisionTransformer", self.model)

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

    def of_pictures(self, pictures: Tensor) -> Tensor:
        """Descriptors (n, width) by all blocks, also frozen ones, of (n, 3, S, S) from 0 to 1."""
        return self.model((255 * pictures - self.mean) / self.std)

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
        x = as_floats(x, torch.float32 if weight is None else weight.dtype)
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
    from timm.models.vision_transformer import Attention, Block

    if type(block) is not Block or type(block.attn) is not Attention:
        return False
    return getattr(block.attn, "gate", None) is None


def _reads_one_token(model: VisionTransformer) -> bool:
    """Whether the head is the ViT's own. The head of a distilled DeiT reads a second token."""
    from timm.models.vision_transformer import VisionTransformer

    return type(model).forward_head is VisionTransformer.forward_head


def _class_token_block(block: Block, x: Tensor) -> Tensor:
    """The output of a block at the class token only, (n, T, C) -> (n, 1, C)."""
    a, n, tokens = cast("Attention", block.attn), x.shape[0], x.shape[1]
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

    `weights` is pretrained, random or the path of a checkpoint. `options` are arguments of
    timm.create_model, and may have the `mean` and `std` of the pixels. Raises MufinError if the
    model cannot be loaded or does not return one vector per picture of `size` pixels per side.
    """
    source = f"{LOCAL}{name}" if Path(name).is_dir() else name
    options, wanted = split_options(options)
    made = _image_model(source, weights, options, size)
    scale = wanted or _scale(made, weights)
    spec = ImageSpec(
        name=_architecture(made.model) or name,
        size=size,
        options={**_model_args(source), **made.options},
        trainable=trainable,
        mean=scale.mean,
        std=scale.std,
        mean_std_from=scale.origin,
        random=weights == "random",
    )
    return ImageEncoder(made.model, made.width, spec)


class _Made(NamedTuple):
    """A timm model without its head."""

    model: nn.Module
    options: dict  # that it was made with
    width: int  # of its output
    args: dict  # of the training that wrote its checkpoint file, if known


def _scale(made: _Made, weights: str) -> PixelScale:
    """Mean and std of a model: as its checkpoint file says, or the folder of it, else timm."""
    import timm

    config = timm.data.resolve_data_config({}, model=made.model)
    origin = f"of the timm model {_architecture(made.model)}"
    if weights in ("pretrained", "random"):
        return PixelScale(list(config["mean"]), list(config["std"]), origin)
    if said := scale_of(made.args, "from the args in the checkpoint") or scale_beside(
        Path(weights)
    ):
        return said
    origin = f"the defaults {origin}: no file beside the checkpoint has others"
    return PixelScale(list(config["mean"]), list(config["std"]), origin)


def _image_model(source: str, weights: str, options: dict, size: int) -> _Made:
    """A timm model without its head.

    Some models must know the size (`img_size`), others refuse this option, and for others the
    weights then do not fit. So the size is given first, then not. Raises MufinError if neither way
    makes a model that returns a vector per picture.
    """
    import timm

    error: Exception
    state = torch.get_rng_state()
    for img_size in (size, None):  # timm ignores options that are None
        torch.set_rng_state(state)  # both tries draw the same random weights
        model, given = None, {"img_size": img_size, **options}
        try:
            pretrained = weights == "pretrained"
            create = partial(
                timm.create_model, source, pretrained=pretrained, num_classes=0, **given
            )
            model = loaded(source, create) if pretrained else create()
            args = {}
            if weights not in ("pretrained", "random"):
                check_architecture(Path(weights), _architecture(model))
                args = load_into(model, weights, "encoder.image.weights")
            return _Made(model, given, _output_width(model, size), args)
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
        f"encoder.image.size is {size}, for which {source} returns no vectors ({reason(error)}); "
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


def _architecture(model: nn.Module) -> str:
    return _timm_config(model).get("architecture") or ""


def _model_args(source: str) -> dict:
    """The arguments that a local folder gives to its architecture, without those of the head."""
    if not source.startswith(LOCAL):
        return {}
    config = Path(source.removeprefix(LOCAL)) / "config.json"
    args = json.loads(config.read_text()).get("model_args", {})
    return {name: value for name, value in args.items() if name != "num_classes"}


def load_image_encoder(folder: Path, seed: int | None = None) -> ImageEncoder:
    """The image encoder that `save_encoder` wrote; raises ArtifactError if missing or broken.

    With `seed`, random weights that train are drawn again from it.
    """
    import timm

    with loading(folder):
        spec = ImageSpec(**read_json(folder / "encoder.json"))
        if not timm.is_model(spec.name):  # any other name would be looked up in a hub or a folder
            raise MufinError(f"{shown(spec.name)} is not a timm model")
        if type(spec.size) is not int or not 1 <= spec.size <= LARGEST:
            raise MufinError(f"{shown(spec.size)} is not a picture size")
        if fresh := spec.random and seed is not None:
            torch.manual_seed(seed)
        made = _image_model(spec.name, "random", spec.options, spec.size)
        return filled(ImageEncoder(made.model, made.width, spec), folder, fresh)
