"""The text encoder E_T: any AutoModel of transformers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mufin.artifacts.files import read_json
from mufin.corpus.model_hub import loaded
from mufin.errors import MufinError
from mufin.nn.encoder import Encoder, EncoderSpec, Trainable, divided
from mufin.nn.encoder_files import filled, loading
from mufin.nn.pretrained import load_into, reason, unavailable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE = (torch.arange(4)[None], torch.tensor([3]))  # a title of three tokens and a pad, its length


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec(EncoderSpec):
    """The spec of a `TextEncoder`."""

    config: dict  # of the whole transformers model, before layers were removed


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
        whole_or_none = trainable in (0, "all")
        layers = nn.ModuleList() if whole_or_none else _layers(model, trainable)
        self.kind, self.first = divided(trainable, len(layers))
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
        if self.kind == "activations":
            return self.read(self.token_states(inputs), lengths)
        mask = token_mask(inputs, lengths)
        out = self.model(input_ids=inputs.long(), attention_mask=mask)
        return masked_mean(out.last_hidden_state, mask)

    @property
    def token_width(self) -> int:
        """The width of `token_states`. The embeddings of ELECTRA are narrower than its layers."""
        if self.kind == "inputs":
            return cast(nn.Embedding, self.model.get_input_embeddings()).embedding_dim
        return self.width

    def token_states(self, inputs: Tensor) -> Tensor:
        """What `read` goes on from, (n, T, token_width), for inputs of `kind`.

        These are the embeddings of tokens, without positions, or the stored hidden states.
        """
        if self.kind == "inputs":
            return self.model.get_input_embeddings()(inputs.long())
        return inputs.to(next(self.tail.parameters()).dtype)  # stored as float16

    def read(self, states: Tensor, lengths: Tensor) -> Tensor:
        """States (n, T, token_width), and how many each title has (n,) -> (n, width)."""
        mask = token_mask(states, lengths)
        model = self.model if self.kind == "inputs" else self.tail
        out = model(inputs_embeds=states, attention_mask=mask)
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
            f"a mask ({reason(error)}); change encoder.text.options, or use another model"
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
    from transformers import AutoConfig, AutoModel

    try:
        if weights == "random":
            # [PAD] is 0 in vocabularies learnt here, while RoBERTa and others expect it at 1.
            fresh = {"vocab_size": vocabulary_size, "pad_token_id": 0, **options}
            model = AutoModel.from_config(AutoConfig.for_model(name, **fresh))
        else:
            model = loaded(name, lambda: AutoModel.from_pretrained(name, **options))
    except Exception as error:  # hubs, folders and options raise a dozen different classes
        raise MufinError(unavailable("encoder.text", name, weights, error)) from None
    if weights not in ("pretrained", "random"):
        load_into(model, weights, "encoder.text.weights")
    config = model.config.to_dict()  # before TextEncoder removes layers
    spec = TextSpec(config=config, trainable=trainable, random=weights == "random")
    return TextEncoder(model, spec)


def load_text_encoder(folder: Path, seed: int | None = None) -> TextEncoder:
    """The text encoder that `save_encoder` wrote; raises ArtifactError if it is missing or broken.

    With `seed`, random weights that train are drawn again from it.
    """
    from transformers import AutoConfig, AutoModel

    with loading(folder):
        spec = TextSpec(**read_json(folder / "encoder.json"))
        if fresh := spec.random and seed is not None:
            torch.manual_seed(seed)
        given = {key: value for key, value in spec.config.items() if key != "model_type"}
        model = AutoModel.from_config(AutoConfig.for_model(spec.config["model_type"], **given))
        return filled(TextEncoder(model, spec), folder, fresh)
